"""Consistency groups through a real mount: the order of writes that wait for each other, kills, and the whole verb."""

from __future__ import annotations

from pathlib import Path

import grouporder
from soaklib.ordered import LOST
from tests.mount.helpers import B, Mounted, noise, read_file, write_direct, write_file


def test_no_group_has_a_write_without_the_one_whose_sync_it_waited_for(tmp_path: Path) -> None:
    counts = grouporder.order(tmp_path, seed=1, groups=30, kills=2)
    assert counts["taken"] >= 30 and counts["kills"] == 2 and counts["writes"]
    assert counts[LOST] == 0


def test_control_single_snapshots_one_after_the_other_have(tmp_path: Path) -> None:
    assert grouporder.order(tmp_path, seed=1, groups=60, single=True)[LOST] > 0


def test_a_group_is_taken_rolled_back_cloned_and_deleted(mounted: Mounted) -> None:
    for disk in ("db", "log"):
        mounted.cli("create", f":{disk}", "1M")
        write_file(mounted.path(disk), noise(disk, B))  # what only the kernel has is in the group
    group = mounted.json("snapshot", ":db", ":log", "--group", "g")
    for disk in ("db", "log"):
        assert read_file(mounted.snapshot_path(disk, "g"))[:B] == noise(disk, B)
        write_direct(mounted.path(disk), 0, noise("later", B))
    mounted.kill()
    mounted.mount()
    assert mounted.json("group", "list", ":")[0]["id"] == group["id"]
    assert "in use" in _rolled_back_while_open(mounted)
    mounted.cli("group", "rollback", ":", "g")
    mounted.cli("group", "clone", ":", "g", "--name", "{}-test")
    for disk in ("db", "log", "db-test", "log-test"):
        assert read_file(mounted.path(disk))[:B] == noise(disk.removesuffix("-test"), B)
    Path(mounted.snapshot_path("log", "g")).unlink()
    assert "its snapshot of log was deleted" in mounted.refuses("group", "clone", ":", "g", "--name", "{}-x")
    mounted.cli("group", "delete", ":", "g")
    assert [found["name"] for found in mounted.json("group", "list", ":")] == ["before-rollback"]


def _rolled_back_while_open(mounted: Mounted) -> str:
    with open(mounted.path("log"), "rb"):
        return mounted.refuses("group", "rollback", ":", "g")
