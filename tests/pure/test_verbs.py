"""Each verb is declared once: command line, socket, documents and man pages agree with the declaration."""

from __future__ import annotations

import ast
import inspect
import re
from errno import errorcode
from typing import Any
from unittest.mock import MagicMock

import click
import pytest

import docs
from rowfs.cli.declared import command, find_command, help_of
from rowfs.cli.main import cli
from rowfs.control.connection import BadParams
from rowfs.control.methods import Methods
from rowfs.control.params import parameters
from rowfs.verbs.declare import JSON, Failure, Family, Input, Kind, Param, Verb, each_verb, flag, wire
from rowfs.verbs.pages import cli_sections, control_rows, man_pages, replaced
from rowfs.verbs.table import COMMANDS, DECLARED, METHODS

VERBS = list(each_verb(DECLARED))
TYPED = [verb for verb in VERBS if verb.place]

GROW = Verb(
    name="pool grow",
    about="Make a pool larger.",
    text="By as much as it takes.",
    examples=("rowfs pool grow /mnt/rowfs 5G",),
    manual="Makes it **larger**, see [CLI.md](CLI.md):\n\n    .hidden\n\n- `a`: one\n  more\n\n"
    "| x | y |\n|---|---|\n| `1` | 2 |",
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT", params=(Param("disk", Kind.NAME),)),
        Input("by", Kind.SIZE_CHANGE, required=False, params=(Param("size_bytes", Kind.SIZE, required=False),)),
        flag("--dry-run", "Only say so.", short="-n", on_socket=True),
        Input("times", Kind.NUMBER, flags=("--times",), help="How often.", least=1, most=3, default="2"),
        Input("tags", Kind.NAMES, flags=("--tag",), many=True),
        wire(Param("disks", Kind.NAMES, required=False), Param("wait_s", Kind.SECONDS, required=False)),
        JSON,
    ),
    method="grow",
    result="what\nthere is",
    errors=(Failure("it `is` full", "EBUSY"), Failure("no such pool", "EINVAL"), Failure("no name")),
    progress="blocks",
    changes=True,
)


# Declarations


def test_names_are_declared_once() -> None:
    assert len({verb.name for verb in VERBS}) == len(VERBS)
    assert len(METHODS) == sum(bool(verb.method) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_declaration_says_all_there_is_to_say(verb: Verb) -> None:
    assert verb.about.endswith(".") and "\n" not in verb.about
    assert bool(verb.method) == bool(verb.result)
    assert all(failure.errno in errorcode.values() for failure in verb.errors if failure.errno)
    assert verb.place or verb.method
    assert all(item.help for item in verb.on_command if item.flags)
    names = [param.name for param in verb.params]
    assert len(set(names)) == len(names)
    assert not verb.params or verb.method


# The command line


@pytest.mark.parametrize("verb", TYPED, ids=lambda verb: verb.name)
def test_what_carries_a_verb_out_takes_what_is_declared(verb: Verb) -> None:
    found = find_command(verb)
    assert found.callback is not None
    parameters = inspect.signature(inspect.unwrap(found.callback)).parameters
    rest = {name for name, item in parameters.items() if item.kind is inspect.Parameter.VAR_KEYWORD}
    taken, declared = set(parameters) - rest - {"ctx"}, {item.name: item for item in verb.on_command}
    assert taken <= declared.keys()
    # What it takes together goes to the socket as it is, under the names that it has there.
    handed_on = [declared[name] for name in declared.keys() - taken]
    assert bool(rest) == bool(handed_on)
    assert all([param.name for param in item.params] == [item.name] for item in handed_on)
    assert found.help == help_of(verb)


@pytest.mark.parametrize("item", COMMANDS.values(), ids=lambda item: item.name)
def test_every_example_is_of_a_verb_that_there_is(item: Verb | Family) -> None:
    assert item.examples
    for line in item.examples:
        for word in re.findall(r"(?:^|[ (])rowfs (\w+)", line):
            assert word in COMMANDS


def test_a_command_is_made_of_its_declaration() -> None:
    found: dict[str, Any] = {}

    @command(GROW)
    def grow(**typed: Any) -> None:
        found.update(typed)

    context = click.Context(grow, info_name="grow")
    assert grow.collect_usage_pieces(context) == ["[OPTIONS]", "MNT", "[[+|-]SIZE]"]
    assert "By as much as it takes.\n\n  Example:\n    rowfs pool grow /mnt/rowfs 5G" in grow.get_help(context)
    assert "-n, --dry-run" in grow.get_help(context)
    for parameter in grow.params:
        if parameter.name == "address":
            parameter.type = click.STRING
    grow.main(["/mnt", "-5G", "-n", "--tag", "a", "--tag", "b"], standalone_mode=False)
    assert found == {
        "address": "/mnt", "by": "-5G", "dry_run": True, "times": 2, "tags": ("a", "b"), "as_json": False
    }  # fmt: skip
    with pytest.raises(click.BadParameter):
        grow.main(["/mnt", "--times", "4"], standalone_mode=False)


def test_the_command_line_has_the_declared_verbs_in_their_order() -> None:
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
    group = find_command(COMMANDS["group"])
    assert isinstance(group, click.Group)
    assert group.list_commands(click.Context(group)) == ["list", "info", "rollback", "clone", "delete"]
    assert group.get_command(click.Context(group), "nothing") is None


# The socket


def test_the_socket_has_the_declared_methods_and_no_others() -> None:
    service: Any = MagicMock()  # whose verbs are named, not used
    assert set(Methods(service, service).table()) == set(METHODS)


def test_parameters_come_in_the_declared_order() -> None:
    asked = {"wait_s": 1.5, "disk": "vm1", "dry_run": True, "size_bytes": 5}
    assert parameters(asked, GROW) == ["vm1", 5, True, None, 1.5]
    assert parameters({"disk": "vm1", "wait_s": 2, "disks": []}, GROW) == ["vm1", None, None, [], 2]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "disk is missing"),
        ({"disk": None}, "disk is missing"),
        ({"disk": "a", "size": 1}, "no parameter size"),
        ({"disk": 1}, "disk has to be a name"),
        ({"disk": "a", "size_bytes": "5G"}, "size_bytes has to be a whole number of bytes"),
        ({"disk": "a", "size_bytes": True}, "size_bytes has to be a whole number of bytes"),
        ({"disk": "a", "size_bytes": 1.5}, "size_bytes has to be a whole number of bytes"),
        ({"disk": "a", "dry_run": 1}, "dry_run has to be true or false"),
        ({"disk": "a", "disks": "b"}, "disks has to be an array of names"),
        ({"disk": "a", "disks": [1]}, "disks has to be an array of names"),
        ({"disk": "a", "wait_s": True}, "wait_s has to be a number of seconds"),
    ],
)
def test_parameters_that_are_not_declared_so_are_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(BadParams, match=says):
        parameters(params, GROW)


# The documents


def test_the_documents_are_what_the_declarations_say() -> None:
    for path, text in docs.documents().items():
        assert path.read_text() == text, f"{path.name} says something else than rowfs/verbs: run make docs"


def test_documents_are_written_from_declarations() -> None:
    usage = "rowfs pool grow MNT [[+|-]SIZE] [-n] [--times N] [--tag NAMES]... [--json]"
    assert f"## pool grow\n\n    {usage}\n\nMakes it" in cli_sections([GROW])
    params = "disk [size_bytes] [dry_run: bool] [disks: [name…]] [wait_s]"
    row = f"| `grow` | `{params}` | what there is. Progress in blocks | EBUSY |"
    assert row in control_rows([GROW]).splitlines()
    written = replaced("a\n<!-- from rowfs/verbs: make docs -->\nold\n<!-- end -->\nb\n", "new\n")
    assert written == "a\n<!-- from rowfs/verbs: make docs -->\n\nnew\n\n<!-- end -->\nb\n"


def test_man_pages_are_written_from_declarations() -> None:
    page = man_pages([GROW], "1.2")["rowfs-pool grow.1"]
    assert page.startswith(
        '.TH "ROWFS\\-POOL GROW" 1 "" "rowfs 1.2" "rowfs"\n.SH NAME\nrowfs\\-pool grow \\- make a pool'
    )
    assert "Makes it \\fBlarger\\fR, see CLI.md:" in page
    assert ".nf\n\\&.hidden\n.fi" in page
    assert ".IP \\(bu 2\n\\fBa\\fR: one more" in page
    assert ".SH ERRORS\n.IP \\(bu 2\nit \\fBis\\fR full\n.IP" in page
    assert ".TP\n\\fB1\\fR\n2" in page
    assert ".TP\n\\fB\\-n, \\-\\-dry\\-run\\fR\nOnly say so." in page


@pytest.mark.parametrize("item", COMMANDS.values(), ids=lambda item: item.name)
def test_each_command_has_a_man_page_that_is_well_formed(item: Verb | Family) -> None:
    pages = man_pages(COMMANDS.values(), "1")
    page = pages[f"rowfs-{item.name}.1"]
    macros = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert macros <= {".TH", ".SH", ".TP", ".PP", ".IP", ".nf", ".fi", ".BR"}
    assert page.count("\n.nf\n") == page.count("\n.fi\n")
    for verb in each_verb((item,)):
        for entry in verb.on_command:
            assert all(option.replace("-", "\\-") in page for option in entry.flags)
    assert f"\\fB{item.name}\\fR" in pages["rowfs.1"]


def test_the_command_line_asks_for_what_is_declared() -> None:
    asked = 0
    for path in sorted((docs.ROOT / "rowfs/cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "ask" and len(node.args) == 2):
                continue
            names = {keyword.arg for keyword in node.keywords if keyword.arg} - {"on_parts"}
            for method in [word.value for word in ast.walk(node.args[1]) if isinstance(word, ast.Constant)]:
                assert names <= {param.name for param in METHODS[method].params}, f"{path.name}: {method}"
                asked += 1
    assert asked > 15
