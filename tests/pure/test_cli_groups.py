"""`snapshot --group` and `group`: what they ask the daemon for and print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.base.errors import NotFoundError
from tests.pure.test_cli_fakes import Notify, World, disk, snapshot


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def group(**fields: Any) -> dict[str, Any]:
    """A group object of docs/CONTROL.md."""
    members = [{"disk": name, **snapshot("g")} for name in ("db", "log")]
    made = {"name": "g", "id": 7, "created": "2026-11-20T14:30:00.000000Z", "kind": "user", "description": ""}
    return made | {"degraded": False, "lost": [], "freed_if_deleted_bytes": None, "members": members} | fields


def test_a_group_is_asked_for_with_all_disks_at_once(world: World) -> None:
    world.answer(group_snapshot=group())
    db, log = world.mount / "db", world.mount / "log"
    code, out, _ = world.run("snapshot", db, f"{log}@own", "--group", "g", "--freeze", "--description", "why")
    assert (code, out) == (0, f"{db}@g\n{log}@g\n")
    wanted = {"group": "g", "disks": ["db", "log"], "snapshots": ["g", "own"], "description": "why", "freeze": True}
    assert world.asked() == [("group_snapshot", wanted)]
    assert json.loads(world.run("snapshot", db, log, "--group", "g", "--json")[1]) == group()


def test_list(world: World) -> None:
    world.answer(group_list=[group(), group(name="h", degraded=True, lost=["log"], members=[])])
    code, out, _ = world.run("group", "list", world.mount)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "g", "h"]
    assert "whole  " in out and "db, log" in out and "degraded: without log" in out
    assert json.loads(world.run("group", "list", "--json")[1])[0] == group()


def test_info(world: World) -> None:
    world.answer(group_info=group(freed_if_deleted_bytes=8192, description="why"))
    code, out, _ = world.run("group", "info", world.mount, "g", "--id", "7")
    assert code == 0 and world.asked() == [("group_info", {"group": "g", "id": 7})]
    assert "8.0K" in out and "why" in out and f"{world.mount}/db@g, crash" in out


def test_rollback(world: World) -> None:
    world.answer(group_rollback={"disks": ["db", "log"], "kept": "before-rollback"})
    code, out, _ = world.run("group", "rollback", world.mount, "g", "--force")
    assert (code, out) == (0, "db, log: are as at g: the state before is kept as the group before-rollback\n")
    assert world.asked() == [("group_rollback", {"group": "g", "force": True})]
    world.answer(group_rollback={"disks": ["db"], "kept": None})
    assert world.run("group", "rollback", world.mount, "g", "--discard")[1] == "db: is as at g\n"


def test_clone(world: World) -> None:
    world.answer(group_clone=[disk("db-t"), disk("log-t")])
    code, out, _ = world.run("group", "clone", world.mount, "g", "--name", "{}-t")
    assert (code, out) == (0, f"{world.mount}/db-t\n{world.mount}/log-t\n")
    assert world.asked() == [("group_clone", {"group": "g", "name": "{}-t"})]


@pytest.mark.parametrize(
    ("option", "params", "said"),
    [
        ("--dry-run", {"dry_run": True}, "would be deleted, 8.0K would come back"),
        ("--wait", {"wait": True}, "deleted, 8.0K came back"),
        ("--id=7", {"id": 7}, "deleted, 8.0K comes back"),
    ],
)
def test_delete(world: World, option: str, params: dict[str, Any], said: str) -> None:
    gone = [{"disk": name, "snapshot": "g"} for name in ("db", "log")]
    world.answer(group_delete={"snapshots": gone, "freed_bytes": 8192})
    code, out, _ = world.run("group", "delete", world.mount, "g", option)
    assert (code, out) == (0, f"g, 2 snapshots: {said}\n")
    assert world.asked() == [("group_delete", {"group": "g", **params})]


def test_an_error_is_one_line(world: World) -> None:
    def gone(params: dict[str, Any], notify: Notify) -> None:
        raise NotFoundError("there is no group g")

    world.answer(group_info=gone)
    assert world.run("group", "info", world.mount, "g") == (1, "", "rowfs: there is no group g\n")
