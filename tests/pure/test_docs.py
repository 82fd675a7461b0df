"""The documents are true to the code where that can be seen from their text: links, names, fields, example bytes."""

from __future__ import annotations

import dataclasses
import re
import zlib
from array import array
from pathlib import Path

import numpy as np
import pytest

import demo
from rowfs.base import bitmap, format, pagecode, sharecode
from rowfs.base.format import CHANGE_KEY, CHUNK_KEY, REGION_KEY, Record, pack_label, page_key
from rowfs.base.units import GIB, MIB, PAGE_BLOCKS, BranchId, Epoch, PageIndex
from rowfs.rules import usagecode
from rowfs.rules.times import SECOND_NS
from rowfs.rules.usage import NOTHING, Account, sampled
from rowfs.verbs.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / name).read_text()


def section(document: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    _, _, rest = document.partition(f"# {heading}\n")
    assert rest, f"there is no heading {heading}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def anchors(document: str) -> set[str]:
    """The names by which links reach the headings of a document, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(document)}


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), f"{document.name} links to {link}, which is not there"
        assert not anchor or anchor in anchors(target.read_text()), f"{document.name} links to {link}: no such heading"


def test_each_document_is_in_the_list_of_documents() -> None:
    listed = set(LINK.findall(text("docs/README.md")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


# The code


def test_each_module_is_in_the_architecture_and_no_other() -> None:
    package = ROOT / "rowfs"
    files = [*package.glob("*/*.py"), *package.glob("*/*.c")]
    modules = {str(file.relative_to(package)) for file in files if file.name != "__init__.py"}
    named = set(re.findall(r"`([a-z]+/\w+\.(?:py|c))`", section(text("docs/ARCHITECTURE.md"), "Modules")))
    assert named == modules


# The rules


@pytest.mark.parametrize("document", ["docs/POLICIES.md", "docs/USAGE.md"])
def test_each_rule_names_tests_that_there_are(document: str) -> None:
    paths = [path for level in ("pure", "store", "operations") for path in (ROOT / "tests" / level).glob("test_*.py")]
    tests = "".join(path.read_text() for path in paths)
    for row in re.findall(r"^\| .* \|$", text(document), re.MULTILINE):
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in tests, name


# The format


@pytest.mark.parametrize("table", format.TABLES)
def test_each_sub_database_is_in_the_format(table: str) -> None:
    assert f"\n| `{table}` |" in section(text("docs/FORMAT.md"), "The block map: sub-databases")


@pytest.mark.parametrize("record", Record.__subclasses__(), ids=lambda record: record.__name__)
def test_each_field_of_a_record_is_in_the_format(record: type[Record]) -> None:
    rows = [row for row in section(text("docs/FORMAT.md"), record.__name__).splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {field.name for field in dataclasses.fields(record)}


def test_the_example_bytes_of_the_format_are_what_the_code_writes() -> None:
    shown = "".join(re.findall(r"\b[0-9a-f]{2}\b", text("docs/FORMAT.md")))
    key = page_key(BranchId(1), PageIndex(0), Epoch(2))
    version = array("q", [1, 4, 3, *[0] * (PAGE_BLOCKS - 3)]), bytearray([0, 1, 1, *[0] * (PAGE_BLOCKS - 3)])
    sequence = array("q", range(1, PAGE_BLOCKS + 1)), bytearray([1] * PAGE_BLOCKS)
    bits = bytearray(bitmap.CHUNK_BYTES)
    bitmap.set_range(bits, 0, 4)
    bitmap.set_range(bits, 513, 1)
    stored = bitmap.encode(CHUNK_KEY.pack(0), bits)
    counts = np.zeros(sharecode.REGION_BLOCKS, np.uint16)
    counts[4:8], counts[513] = 1, 3
    shared = sharecode.encode(REGION_KEY.pack(0), counts)
    assert stored is not None and shared is not None
    account = Account(ended=True, name="vm1", labels={"env": "prod"})
    account = sampled(account, 1795194982 * SECOND_NS, (20 * GIB, 44 * MIB, 0, 0, 0))
    account = sampled(account, (1795194982 + 3600) * SECOND_NS, NOTHING)
    for example in (
        pack_label(bytes.fromhex("30cfa9218fb04e7dbd3345615ff914da"))[: format.LABEL.size],
        key,
        CHANGE_KEY.pack(1, 2, 0),
        pagecode.encode(key, *version),
        pagecode.encode(page_key(BranchId(1), PageIndex(0), Epoch(1)), *sequence),
        stored,
        shared,
        zlib.decompress(usagecode.pack(account)[2:]),
    ):
        assert example.hex() in shown, example.hex(" ")
    assert usagecode.pack(account)[:2].hex(" ") == "01 01"


# The command line and the socket


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_verb_is_described(verb: str) -> None:
    assert f"    rowfs {verb}" in section(text("docs/CLI.md"), verb)
    listed = re.search(r"Every verb: `([^`]*)`", text("README.md"))
    assert listed and verb in listed[1].split(), f"README.md does not list {verb}"


# README.md


def test_the_transcript_is_found() -> None:
    commands = [step.command for step in demo.steps(text("README.md"))]
    assert commands[0].startswith("rowfs init ")
    assert commands[-1].startswith("rowfs check ")


@pytest.mark.parametrize(
    ("written", "real", "same"),
    [
        ("vm1   20G     44M", "vm1 20G 46M", True),
        ("vm1   20G     44M", "vm1 20G 57M", False),
        ("vm1   20G     44M", "vm1 21G 44M", False),
        ("2.0M changed", "2048K changed", True),
        ("4.0K", "4096", False),
        ("2026-11-20 14:25:11  disk", "2031-01-02 03:04:05  disk", True),
        ("-r--r--r-- 1 root root 20G Nov 20 14:25 after", "-r--r--r-- 1 root root 20G Jan  2 03:04 after", True),
        ("-r--r--r-- 1 root root 20G Nov 20 14:25 after", "-rw-r--r-- 1 root root 20G Nov 20 14:25 after", False),
        ("daemon  pid 4711, rowfs", "daemon  pid 12, rowfs", True),
        ("a ... c", "a b b c", True),
        ("a.c", "abc", False),
        ("", "x", False),
    ],
)
def test_lines_are_compared(written: str, real: str, same: bool) -> None:
    assert demo.same_line(written, real) is same
