"""From declarations to text: sections of docs/CLI.md, rows of docs/CONTROL.md, man pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from textwrap import fill

from rowfs.verbs.declare import ERRNOS, ERRNOS_OF_CHANGES, Declared, Failure, Input, Verb, each_verb

WIDTH = 118
ANY = ERRNOS | ERRNOS_OF_CHANGES
BEGIN, END = "<!-- from rowfs/verbs: make docs -->\n", "<!-- end -->\n"
_CODE = re.compile(r"`([^`]*)`|\*\*([^*]*)\*\*|\[([^\]]*)\]\([^)]*\)")


# docs/


def cli_sections(commands: Iterable[Declared]) -> str:
    """The sections of docs/CLI.md, one a command."""
    return "\n".join(_section(item) for item in commands)


def _section(item: Declared) -> str:
    usage = "\n".join(f"    {line}" for line in item.usage.splitlines())
    told, session = _told(item)
    parts = [f"## {item.name}", usage, told, _errors_line(item), session]
    return "\n\n".join(filter(None, parts)) + "\n"


def _told(item: Declared) -> tuple[str, str]:
    """What the manual tells, and the session that it ends with."""
    told, _, session = item.manual.strip("\n").partition("\n\n    $ ")
    return told, f"    $ {session}" if session else ""


def _failures(item: Declared) -> list[Failure]:
    """What a verb, or the verbs of a family, may refuse, each once."""
    return list(dict.fromkeys(failure for verb in each_verb((item,)) for failure in verb.errors))


def _errors_line(item: Declared) -> str:
    failures = "; ".join(failure.when for failure in _failures(item))
    return fill(f"Errors: {failures}.", WIDTH, break_long_words=False, break_on_hyphens=False) if failures else ""


def control_rows(methods: Iterable[Verb]) -> str:
    """The table of methods in docs/CONTROL.md."""
    head = "| method | params (optional in brackets) | result | errors |\n|---|---|---|---|\n"
    return head + "".join(_row(verb) for verb in methods)


def _row(verb: Verb) -> str:
    params = " ".join(map(str, verb.params))
    shown = f" `{params}` " if params else " "
    result = " ".join(verb.result.split()) + (f". Progress in {verb.progress}" if verb.progress else "")
    errors = " ".join(sorted({failure.errno for failure in verb.errors if failure.errno} - ANY))
    return f"| `{verb.method}` |{shown}| {result} |{f' {errors} ' if errors else ' '}|\n"


def replaced(document: str, text: str) -> str:
    """`document` with `text` between its two marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"the document lacks the marks {BEGIN!r} and {END!r}"
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


# Man pages


def man_pages(commands: Iterable[Declared], version: str) -> dict[str, str]:
    """The man pages, by the names of their files: rowfs.1 with a list of the verbs, and one for each command."""
    listed = list(commands)
    pages = {f"rowfs-{item.name}.1": _page(item, version) for item in listed}
    return {"rowfs.1": _overview(listed, version), **pages}


def _overview(commands: list[Declared], version: str) -> str:
    lines = [*_title("rowfs", "virtual disks as files, with live redirect-on-write snapshots", version)]
    lines += [".SH SYNOPSIS", r"\fBrowfs\fR \fIVERB\fR \fIARGUMENTS\fR", ".SH DESCRIPTION"]
    lines += ["Each verb has a page of its own, as rowfs\\-create(1).", ".SH VERBS"]
    for item in commands:
        lines += [".TP", f"\\fB{_roff(item.name)}\\fR", _roff(item.about)]
    return "\n".join([*lines, *_exit_status()]) + "\n"


def _page(item: Declared, version: str) -> str:
    lines = [*_title(f"rowfs-{item.name}", item.about.rstrip("."), version), ".SH SYNOPSIS", ".nf"]
    lines += [*map(_roff, item.usage.splitlines()), ".fi", ".SH DESCRIPTION", *_paragraphs(item.manual or item.text)]
    options = _options(item)
    if options:
        lines += [".SH OPTIONS", *options]
    if failures := _failures(item):
        lines += [".SH ERRORS", *(line for item in failures for line in (".IP \\(bu 2", _marked(item.when)))]
    if item.examples:
        lines += [".SH EXAMPLES", ".nf", *map(_roff, item.examples), ".fi"]
    return "\n".join([*lines, *_exit_status(), ".SH SEE ALSO", ".BR rowfs (1)"]) + "\n"


def _title(name: str, about: str, version: str) -> Iterator[str]:
    yield f'.TH "{_roff(name.upper())}" 1 "" "rowfs {_roff(version)}" "rowfs"'
    yield ".SH NAME"
    yield f"{_roff(name)} \\- {_roff(about[0].lower() + about[1:])}"


def _exit_status() -> list[str]:
    return [".SH EXIT STATUS", "0 done, 1 failed, 2 wrong usage, 130 interrupted; what differs is said above."]


def _options(item: Declared) -> list[str]:
    """The options of a verb, or of all verbs of a family, each once."""
    found: dict[tuple[str, str], Input] = {}
    for verb in each_verb((item,)):
        found |= {(entry.name, entry.help): entry for entry in verb.on_command if entry.flags}
    return [line for entry in found.values() for line in _option(entry)]


def _option(entry: Input) -> Iterator[str]:
    flags = ", ".join(filter(None, [*entry.flags, entry.off]))
    value = f" \\fI{_roff(entry.placeholder)}\\fR" if entry.placeholder else ""
    yield ".TP"
    yield f"\\fB{_roff(flags)}\\fR{value}"
    yield _roff(entry.help)


def _paragraphs(text: str) -> Iterator[str]:
    """Markdown as it is used in the declarations: paragraphs, lists, tables, indented lines as they are."""
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        if block.startswith(("    ", "\b")):
            yield from (".PP", ".nf", *(_roff(line.removeprefix("    ")) for line in lines if line != "\b"), ".fi")
        elif block.startswith("|"):
            for row in [lines[0], *lines[2:]]:
                first, *rest = (_marked(cell.strip()) for cell in row.strip("|").split(" | "))
                yield from (".TP", first or "\\ ", "; ".join(filter(None, rest)))
        elif block.startswith("- "):
            for entry in re.split(r"\n(?=- )", block):
                yield from (".IP \\(bu 2", _marked(" ".join(entry.removeprefix("- ").split())))
        else:
            yield from (".PP", _marked(" ".join(lines)))


def _marked(text: str) -> str:
    """`text` with what is code or bold in Markdown in bold."""
    parts, end = [], 0
    for match in _CODE.finditer(text):
        parts.append(_roff(text[end : match.start()]))
        parts.append(_roff(match[3]) if match[3] is not None else f"\\fB{_roff(match[1] or match[2] or '')}\\fR")
        end = match.end()
    found = "".join([*parts, _roff(text[end:])])
    return f"\\&{found}" if found.startswith((".", "'")) else found


def _roff(text: str) -> str:
    """`text` without what roff takes for its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
