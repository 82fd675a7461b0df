"""`trash`, `undelete`: what they ask the daemon for and print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pure.test_cli_fakes import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def entry(**fields: Any) -> dict[str, Any]:
    """A trash entry of docs/CONTROL.md."""
    time = "2026-11-20T14:25:01.000000Z"
    made = {"id": 9, "disk": "vm1", "snapshot": "s", "snapshots": [], "size_bytes": 20 << 30, "deleted": time}
    return made | {"until": time, "freed_if_emptied_bytes": 4096} | fields


@pytest.mark.parametrize("words", [("MNT", "--keep", "7d"), ("--keep", "7d", "MNT"), ("trash", "MNT", "--keep=7d")])
def test_the_trash_is_set_with_or_without_a_word_of_its_own(world: World, words: tuple[str, ...]) -> None:
    world.answer(trash={"keep": "7d", "entries": 0})
    code, out, _ = world.run("trash", *(word.replace("MNT", str(world.mount)) for word in words))
    assert (code, out) == (0, "what is deleted stays in the trash for 7d; nothing is in it\n")
    assert world.asked() == [("trash", {"keep": "7d"})]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"keep": None, "entries": 0}, "there is no trash: what is deleted is gone\n"),
        ({"keep": None, "entries": 2}, "there is no trash: what is deleted is gone; 2 entries are in it\n"),
        ({"keep": "1w", "entries": 1}, "what is deleted stays in the trash for 1w; 1 entry is in it\n"),
    ],
)
def test_the_trash_is_shown(world: World, answer: dict[str, Any], said: str) -> None:
    world.answer(trash=answer)
    assert world.run("trash", world.mount)[1] == said
    assert json.loads(world.run("trash", world.mount, "--json")[1]) == answer


def test_trash_list(world: World) -> None:
    world.answer(trash_list=[entry(), entry(id=12, snapshot=None, snapshots=["a", "b"], until=None)])
    code, out, _ = world.run("trash", "list")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["ID", "NAME", "SIZE", "FREES", "DELETED", "UNTIL"]
    assert rows[1][:4] == ["9", "vm1@s", "20G", "4.0K"]
    assert rows[2][:5] == ["12", "vm1", "and", "2", "snapshots"] and rows[2][-1] == "-"


def test_trash_empty(world: World) -> None:
    world.answer(trash_empty={"entries": 1, "freed_bytes": 4096})
    assert world.run("trash", "empty", world.mount, "9", "12")[1] == "2 deleted for good, 8.0K comes back\n"
    assert world.asked() == [("trash_empty", {"id": 9}), ("trash_empty", {"id": 12})]
    assert world.run("trash", "empty", world.mount)[0] == 0
    assert world.asked() == [("trash_empty", {})]


def test_undelete(world: World) -> None:
    world.answer(undelete={"disk": "vm1", "snapshot": "t"})
    code, out, _ = world.run("undelete", world.mount / "vm1@s", "--name", "t", "--id", "9")
    assert (code, out) == (0, f"{world.mount}/vm1@t: is back\n")
    assert world.asked() == [("undelete", {"disk": "vm1", "snapshot": "s", "id": 9, "name": "t"})]
    world.answer(undelete={"disk": "vm1", "snapshot": None})
    assert world.run("undelete", world.mount / "vm1")[1] == f"{world.mount}/vm1: is back\n"


def test_delete_says_where_it_went(world: World) -> None:
    world.answer(delete={"disk": False, "snapshots": ["s"], "freed_bytes": 0, "trash": True})
    assert world.run("delete", world.mount / "vm1@s")[1] == f"{world.mount}/vm1@s: deleted, into the trash\n"
    assert "would go into the trash" in world.run("delete", "--dry-run", world.mount / "vm1@s")[1]
