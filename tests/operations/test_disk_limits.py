"""Limits over the socket and for writers: what is answered and refused, durably; ENOSPC leaves the trash alone."""

from __future__ import annotations

import json
import sys
from errno import EDQUOT, EEXIST, EINVAL, EIO, ENOENT, ENOSPC
from pathlib import Path

import pytest
import trio

from rowfs.base.errors import LimitError, StorageError
from rowfs.base.units import MIB, TIB
from rowfs.service.watching import Watcher
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused
from tests.operations.test_methods import chain, fails
from tests.store.helpers import B


async def test_limits_are_set_shown_taken_away_and_durable(fs: Fs) -> None:
    await chain(fs)
    answer = await fs.ask("limit", disk="vm", snapshots=64, space_bytes=20 * B, reserve_bytes=5 * B)
    assert answer == {"snapshots": 64, "space_bytes": 20 * B, "reserve_bytes": 5 * B, "held_bytes": 4 * B}
    assert await fs.ask("limit", disks=5, provisioned_percent=300) == {
        "snapshots": None,
        "disks": 5,
        "provisioned_percent": 300,
        "on_warning": (),
    }
    found = fs.after_a_crash()
    assert await found.ask("limit", disk="vm") == answer
    assert (await fs.ask("limit", disk="vm", without=["space_bytes"]))["space_bytes"] is None
    assert (await fs.ask("limit", without=["disks"]))["disks"] is None


@pytest.mark.parametrize(
    "params",
    [
        {"disk": "vm", "disks": 3},
        {"space_bytes": 3},
        {"disk": "vm", "snapshots": -1},
        {"disk": "vm", "reserve_bytes": 2, "space_bytes": 1},
        {"provisioned_percent": 0},
        {"without": ["x"]},
    ],
)
async def test_what_is_no_limit_is_refused(fs: Fs, params: dict[str, object]) -> None:
    await chain(fs)
    await fails(fs, EINVAL, "limit", **params)
    await fails(fs, ENOENT, "limit", disk="gone", snapshots=1)


async def test_verbs_and_plain_tools_are_refused_in_one_line_that_names_the_limit(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("limit", disk="vm", snapshots=4)
    await fs.ask("limit", disks=1)
    assert "its limit is 4: delete some" in await fails(fs, EDQUOT, "snapshot", disk="vm", snapshot="e")
    assert "its limit is 1" in await fails(fs, EDQUOT, "clone", disk="vm", snapshot="a", targets=["c"])
    for path in (".snapshots/vm/e", "other"):
        with refused(EDQUOT):
            await fs.create(path)
    await fs.service.committer.commit()
    await fs.ask("limit", disks=2)
    await fs.ask("events")
    failed = [event for event in fs.caller.items if event["failed"]]
    assert [(event["verb"], event["disk"], event["snapshot"]) for event in failed] == [
        ("snapshot", "vm", "e"),
        ("clone", "vm", "a"),
        ("snapshot", "vm", "e"),
        ("create", "other", None),
    ]


async def test_a_resize_past_what_may_be_provisioned_is_refused_by_name_once(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("limit", provisioned_percent=100)
    said = await fails(fs, EDQUOT, "resize", disk="vm", size_bytes=TIB)
    assert "the pool's limit is 100 %" in said and "rowfs limit MNT --provisioned" in said
    await fs.ask("limit", disks=9)
    await fs.ask("events")
    assert [event["verb"] for event in fs.caller.items if event["failed"]] == ["resize"]


@pytest.mark.pool(capacity_bytes=MIB)
async def test_a_disk_at_its_limit_gets_enospc_and_the_trash_stays(fs: Fs) -> None:
    await fs.ask("trash", keep="7d")
    await fs.disk("old", 10, *(f"old {block}" for block in range(10)))
    await fs.unlink("old")
    await fs.disk("vm", 100)
    await fs.disk("other", 100)
    await fs.ask("limit", disk="vm", space_bytes=30 * B)
    handle = await fs.open("vm")
    await fs.put(handle, 0, *(f"block {block}" for block in range(30)))
    with refused(ENOSPC):
        await fs.put(handle, 30, "x")
    await fs.put(handle, 0, "in place")
    await fs.close(handle)
    await fs.write("other", 0, *(f"block {block}" for block in range(100)))
    assert len(fs.pool.trash) == 1


@pytest.mark.pool(capacity_bytes=MIB)
async def test_of_the_trash_no_more_goes_than_a_writer_beside_a_reservation_needs(fs: Fs) -> None:
    await fs.ask("trash", keep="7d")
    for name in ("old", "young", "youngest"):
        await fs.disk(name, 20, *(f"{name} {block}" for block in range(20)))
        await fs.unlink(name)
    await fs.disk("kept", 100)
    await fs.disk("vm", 200)
    await fs.ask("limit", disk="kept", reserve_bytes=100 * B)
    await fs.write("vm", 0, *(f"block {block}" for block in range(110)))
    assert [entry.name for entry in fs.pool.trash] == ["young", "youngest"]
    await fs.write("kept", 0, *(f"block {block}" for block in range(100)))
    assert [entry.name for entry in fs.pool.trash] == ["young", "youngest"]


async def told(fs: Fs) -> list[str]:
    """What the events say of limits that were come near."""
    fs.pool.catalog.touch_pool()  # a commit takes them along
    await fs.service.committer.commit()
    fs.caller.items.clear()
    await fs.ask("events")
    return [
        event["text"]
        for event in fs.caller.items
        if event["verb"] == "limit" and event["text"] not in ("", "of the pool")
    ]


async def test_who_comes_near_a_limit_is_told_once_on_the_way_up(fs: Fs) -> None:
    await fs.disk("vm", 100, *(f"block {block}" for block in range(80)))
    await fs.ask("limit", disk="vm", space_bytes=100 * B)
    watcher = Watcher(fs.service)
    for _ in range(2):
        await watcher.look()
    assert await told(fs) == [
        "the disk vm has come to 75 % of the 400K that it and its snapshots may hold, or more"
        ": delete snapshots, or raise it"
    ]
    assert (await fs.ask("info"))["warnings"] == []
    await fs.write("vm", 80, *(f"block {block}" for block in range(80, 96)))
    await watcher.look()
    (text,) = (await told(fs))[1:]
    assert "has come to 95 %" in text
    assert (await fs.ask("info"))["warnings"] == [text]
    await fs.truncate("vm", 10 * B)
    await watcher.look()
    await fs.ask("limit", disk="vm", space_bytes=13 * B)
    await watcher.look()
    assert ["has come to 75 %" in text for text in (await told(fs))[2:]] == [True]


async def test_so_is_who_comes_near_a_number_or_what_may_be_provisioned(fs: Fs) -> None:
    await fs.disk("vm", 4)
    await fs.disk("other", 4)
    for name in ("a", "b", "c"):
        await fs.snapshot("vm", name)
    watcher = Watcher(fs.service)
    await watcher.look()
    assert await told(fs) == []
    await fs.ask("limit", disk="vm", snapshots=4)
    await fs.ask("limit", disks=3, snapshots=100)
    await watcher.look()
    near = "the disk vm has come to 75 % of the 4 snapshots that it may have, or more: delete some, or raise it"
    assert await told(fs) == [near]
    await fs.disk("third", 4)
    await watcher.look()
    assert (await told(fs))[1:] == ["the pool has come to 95 % of the 3 disks that it may have, or more"]
    await fs.ask("limit", disks=100, provisioned_percent=1)
    capacity = (await fs.ask("info"))["capacity_bytes"]
    await fs.truncate("other", capacity // 100 * 9 // 10 // B * B)
    await watcher.look()
    (text,) = (await told(fs))[2:]
    assert text.startswith("the pool has come to 85 % of the ") and "of all disks' sizes" in text
    assert (await fs.ask("info"))["warnings"] == [text]


NOTE = """
import json, os, sys
with open(sys.argv[1], "a") as out:
    names = "ROWFS_HOOK", "ROWFS_POOL", "ROWFS_MOUNT", "ROWFS_DISK", "ROWFS_PERCENT", "ROWFS_REASON"
    json.dump({name: os.environ.get(name) for name in names}, out)
"""


async def test_a_hook_is_told_of_all_that_came_near_at_once(fs: Fs, tmp_path: Path, log: Log) -> None:
    program, notes = tmp_path / "hook.py", tmp_path / "notes"
    program.write_text(NOTE)
    await fs.disk("vm", 4)
    for name in ("a", "b", "c"):
        await fs.snapshot("vm", name)
    await fs.ask("limit", disk="vm", snapshots=4)
    await fs.ask("limit", on_warning=[sys.executable, str(program), str(notes)])
    watcher = Watcher(fs.service)
    for _ in range(2):
        await watcher.look()
    found = json.loads(notes.read_text())
    assert found.pop("ROWFS_POOL") == fs.pool.path and found.pop("ROWFS_MOUNT") == fs.service.own.mountpoint
    line = "the disk vm has come to 75 % of the 4 snapshots that it may have, or more: delete some, or raise it"
    assert found == {
        "ROWFS_HOOK": "on-warning",
        "ROWFS_DISK": "vm",
        "ROWFS_PERCENT": "75",
        "ROWFS_REASON": line,
    }
    await fs.ask("limit", disk="vm", snapshots=3)
    await fs.ask("limit", disks=1, on_warning=["/nowhere/hook"])
    await watcher.look()
    assert "/nowhere/hook cannot be run" in log.take()
    assert "the hook for warnings /nowhere/hook cannot be run" in (await told(fs))[-1]
    await fs.ask("limit", without=["on_warning"])
    assert (await fs.ask("limit"))["on_warning"] == ()
    await fails(fs, EINVAL, "limit", on_warning=["relative"])


@pytest.mark.pool(capacity_bytes=MIB)
async def test_that_the_pool_gets_full_is_told(fs: Fs) -> None:
    watcher = Watcher(fs.service)
    await watcher.look()
    assert await told(fs) == []
    await fs.disk("vm", 230, *(f"block {block}" for block in range(230)))
    await watcher.look()
    assert await told(fs) == ["the pool has come to 85 % of what it can hold, or more"]


@pytest.mark.parametrize("what", ["snapshot", "create", "clone"])
async def test_l1_of_several_creates_for_one_place_exactly_one_wins(fs: Fs, what: str) -> None:
    await chain(fs)
    there = len(fs.pool.catalog.disk("vm").chain)
    await fs.ask("limit", disk="vm", snapshots=there + 1)
    await fs.ask("limit", disks=2)
    asked = {
        "snapshot": [{"disk": "vm", "snapshot": f"n{number}"} for number in range(5)],
        "create": [{"disk": f"n{number}", "size_bytes": B} for number in range(5)],
        "clone": [{"disk": "vm", "snapshot": "a", "targets": [f"n{number}"]} for number in range(5)],
    }[what]
    won = []

    async def ask(params: dict[str, object]) -> None:
        try:
            won.append(await fs.ask(what, **params))
        except LimitError as error:
            assert "its limit is" in str(error)

    async with trio.open_nursery() as nursery:
        for params in asked:
            nursery.start_soon(ask, params)
    assert len(won) == 1
    assert len(fs.pool.catalog.disk("vm").chain) == there + (what == "snapshot")
    assert sum(1 for _ in fs.pool.catalog.live()) == 1 + (what != "snapshot")


async def test_l2_what_fails_takes_no_place(fs: Fs) -> None:
    await chain(fs)
    there = len(fs.pool.catalog.disk("vm").chain)
    await fs.ask("limit", disk="vm", snapshots=there + 1)
    await fs.ask("limit", disks=3)

    async def broken() -> None:
        raise StorageError("the kernel could not write back vm")

    fs.kernel.meanwhile = broken
    await fails(fs, EIO, "snapshot", disk="vm", snapshot="n")
    await fails(fs, EEXIST, "clone", disk="vm", snapshot="a", targets=["one", "two", "vm"])
    assert len(await fs.ask("clone", disk="vm", snapshot="a", targets=["one", "two"])) == 2
    await fs.ask("snapshot", disk="vm", snapshot="n")
    await fails(fs, EDQUOT, "snapshot", disk="vm", snapshot="o")


@pytest.mark.pool(capacity_bytes=MIB)
async def test_l3_a_reservation_that_is_taken_back_leaves_the_others(fs: Fs) -> None:
    for name in ("one", "two"):
        await fs.disk(name, 100)
        await fs.ask("limit", disk=name, reserve_bytes=50 * B)
    await fs.disk("vm", 250)
    await fs.ask("limit", disk="one", without=["reserve_bytes"])
    await fs.ask("delete", disk="one")
    handle = await fs.open("vm")
    await fs.put(handle, 0, *(f"block {block}" for block in range(200)))
    with refused(ENOSPC):
        await fs.put(handle, 200, *(f"block {block}" for block in range(30)))
    await fs.close(handle)
    await fs.write("two", 0, *(f"block {block}" for block in range(50)))
