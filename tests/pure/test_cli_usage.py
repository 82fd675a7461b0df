"""What `usage` asks for and prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.cli.csvtext import csv_text, safe_cell
from rowfs.rules.usage import KINDS
from tests.pure.test_cli_fakes import Notify, World

GIB = 1 << 30


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def row(name: str, held: int = 0, hours: int = 0, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "count": 1, "snapshots": 2}
    made |= {f"{kind}_bytes": held * (place + 1) for place, kind in enumerate(KINDS)}
    return made | {"byte_seconds": {kind: hours * 3600 * (place + 1) for place, kind in enumerate(KINDS)}} | fields


def answering(world: World, *rows: dict[str, Any], **fields: Any) -> None:
    def answer(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        notify("part", items=list(rows))
        told = {"by": "disk", "since": "2026-11-01T00:00:00.000000Z", "until": "2026-11-02T00:00:00.000000Z"}
        return told | {"total": row("", 3 * GIB, 5 * GIB), "used_bytes": 7, "uncounted": []} | fields

    world.answer(usage=answer)


def test_usage_is_a_table_with_a_total(world: World) -> None:
    answering(world, row("db", GIB), row("web\n", 2 * GIB))
    code, out, _ = world.run("usage", world.mount)
    assert (code, out.splitlines()) == (
        0,
        [
            "NAME   PROVISIONED  MAPPED  SNAPSHOTS  SHARED  TRASH",
            "db            1.0G    2.0G       3.0G    4.0G   5.0G",
            "web\\n         2.0G    4.0G       6.0G    8.0G    10G",
            "total         3.0G    6.0G       9.0G     12G    15G",
        ],
    )
    assert world.asked() == [("usage", {"by": "disk"})]


def test_usage_since_is_gib_x_hours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(world, row("", hours=GIB // 2))
    code, out, _ = world.run("usage", world.mount, "--since", "30d", "--by", "label", "--key", "env", "-l", "env")
    assert code == 0 and out.splitlines()[0].startswith("GiB x hours since 2026-1")
    assert out.splitlines()[1:] == [
        "NAME  PROVISIONED  MAPPED  SNAPSHOTS  SHARED  TRASH",
        "-            0.50    1.00       1.50    2.00   2.50",
    ]
    ((method, params),) = world.asked()
    assert method == "usage" and params.pop("since").startswith("20")
    assert params == {"by": "label", "key": "env", "selector": "env"}


def test_usage_by_policy_counts_snapshots(world: World) -> None:
    answering(world, row("nightly", GIB), row("weekly", GIB))
    assert world.run("usage", world.mount, "--by", "policy")[1].splitlines() == [
        "NAME     COUNT  SNAPSHOTS",
        "nightly      2       3.0G",
        "weekly       2       3.0G",
    ]


def test_usage_as_json_and_what_could_not_be_counted(world: World) -> None:
    answering(world, row("a"), uncounted=["b"])
    code, out, err = world.run("usage", world.mount, "--json")
    assert code == 0 and json.loads(out)["rows"] == [row("a")] and json.loads(out)["used_bytes"] == 7
    assert err.startswith("rowfs: warning: what b holds cannot be counted")


@pytest.mark.parametrize("options", [("--csv", "--json"), ("--by", "size")])
def test_options_of_usage_that_cannot_be(world: World, options: tuple[str, ...]) -> None:
    assert world.run("usage", world.mount, *options)[0] == 2
    assert world.run("usage", world.mount / "vm1")[0] == 2
    assert world.asked() == []


def test_csv_is_safe_whatever_a_disk_is_called(world: World) -> None:
    names = ['a,"b"', "=1+1", "-x", "+x", "\t=x", " =cmd|' /C calc'!A0", "two\nlines", "\udcff", "plain"]
    answering(world, *(row(name, GIB, 2) for name in names))
    code, out, _ = world.run("usage", world.mount, "--csv")
    read = list(csv.reader(io.StringIO(out)))
    assert code == 0 and len(read) == 1 + len(names)
    assert read[0][:4] == ["name", "count", "snapshots", "provisioned_bytes"] and read[0][-1] == "trash_byte_hours"
    assert [line[0] for line in read[1:]] == [
        'a,"b"',
        "'=1+1",
        "'-x",
        "'+x",
        "'\t=x",
        "' =cmd|' /C calc'!A0",
        "two\nlines",
        "\ufffd",  # which is the byte to whoever takes it for text
        "plain",
    ]
    assert {tuple(line[3:]) for line in read[1:]} == {
        tuple(str(GIB * (place + 1)) for place in range(5)) + tuple(str(2 * (place + 1)) for place in range(5))
    }


@settings(deadline=None)
@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=2, max_size=2), max_size=5))
def test_csv_comes_back_cell_by_cell_and_no_cell_begins_a_formula(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(["a", "b"], rows), newline="")))
    assert read[1:] == [[safe_cell(cell) for cell in cells] for cells in rows]
    for cells in read:
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in cells)
