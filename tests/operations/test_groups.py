"""Consistency groups over the socket: what the kernel is asked for, what is refused, and that all of it is durable."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from errno import EBUSY, EEXIST, EINVAL, EIO, ENOENT, EPERM, ETIMEDOUT

import pytest

from rowfs.base.errors import RowfsError
from rowfs.base.inodenumbers import disk_inode
from rowfs.host.holders import FileSystem
from rowfs.service import groups as groups_module
from tests.operations.helpers import Fs, Writes
from tests.operations.test_methods import SNAPSHOT, fails

GROUP = {
    "name",
    "id",
    "created",
    "kind",
    "description",
    "degraded",
    "lost",
    "freed_if_deleted_bytes",
    "members",
}


async def two(fs: Fs) -> None:
    """The disks db and log, and the group g of them."""
    for name in ("db", "log"):
        await fs.disk(name, 2, f"{name}0")
    await fs.ask("group_snapshot", group="g", disks=["db", "log"], description="why")


async def test_a_group_is_flushed_taken_and_durable_with_one_commit(fs: Fs) -> None:
    for name in ("db", "log"):
        await fs.disk(name, 2, f"{name}0")
    await fs.ask("create", disk="other", size_bytes=0)
    writes = Writes(fs)
    group = await fs.ask("group_snapshot", group="g", disks=["db", "log"], description="why")
    assert writes.count == 1
    assert sorted(fs.kernel.asked) == [("flush", "db"), ("flush", "log")]
    assert group.keys() == GROUP
    assert (group["name"], group["degraded"], group["lost"], group["description"]) == ("g", False, [], "why")
    assert [(member["disk"], member["name"]) for member in group["members"]] == [("db", "g"), ("log", "g")]
    assert group["members"][0].keys() == SNAPSHOT | {"disk"}
    assert group["members"][0]["created"] == group["created"]
    assert await fs.after_a_crash().ask("group_list") == [group]


async def test_members_may_have_names_of_their_own(fs: Fs) -> None:
    await two(fs)
    group = await fs.ask("group_snapshot", group="h", disks=["log", "db"], snapshots=["l", "d"])
    assert [(member["disk"], member["name"]) for member in group["members"]] == [("db", "d"), ("log", "l")]
    await fails(fs, EINVAL, "group_snapshot", group="i", disks=["log", "db"], snapshots=["x"])


@pytest.mark.parametrize(
    ("params", "number"),
    [
        ({"group": "g", "disks": ["db"], "snapshots": ["x"]}, EEXIST),
        ({"group": "h", "disks": ["db", "gone"]}, ENOENT),
        ({"group": "h", "disks": ["db", "log"], "snapshots": ["h", "g"]}, EEXIST),
        ({"group": "h", "disks": []}, EINVAL),
        ({"group": "h", "disks": ["db"], "freeze": True}, EINVAL),
    ],
)
async def test_a_group_that_cannot_be_leaves_nothing(fs: Fs, params: dict[str, object], number: int) -> None:
    await two(fs)
    await fails(fs, number, "group_snapshot", **params)
    assert len(fs.pool.catalog.snapshots) == 2


async def test_a_disk_that_is_deleted_while_another_is_flushed_makes_no_half_group(fs: Fs) -> None:
    await two(fs)
    fs.kernel.meanwhile = lambda: fs.unlink("log")
    message = await fails(fs, ENOENT, "group_snapshot", group="h", disks=["db", "log"])
    assert "log was deleted meanwhile" in message
    assert [group["name"] for group in await fs.ask("group_list")] == ["g"]


async def test_what_the_kernel_cannot_hand_over_of_one_disk_is_told_and_leaves_nothing(fs: Fs) -> None:
    await two(fs)

    async def broken() -> None:
        raise RowfsError("what was written to db cannot all be stored", EIO)

    fs.kernel.meanwhile = broken
    assert "cannot all be stored" in await fails(fs, EIO, "group_snapshot", group="h", disks=["db", "log"])
    assert len(fs.pool.catalog.groups) == 1


# Freezing


class FakeFreezes:
    """Freezes nothing, and says which file systems it was asked for."""

    def __init__(self, late: bool = False) -> None:
        self.asked: list[str] = []
        self._late = late

    @asynccontextmanager
    async def frozen(self, systems: Sequence[FileSystem], limit_s: float) -> AsyncIterator[None]:
        """As Freezes.frozen."""
        self.asked += [system.mountpoint for system in systems]
        yield
        if self._late:
            raise RowfsError("was not thawed in time", ETIMEDOUT)


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_mounted_from_the_disks_is_frozen_together(
    fs: Fs, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    await two(fs)
    await fs.ask("create", disk="raw", size_bytes=0)
    names = {disk_inode(disk.inode): name for name, disk in fs.pool.catalog.disks.items()}
    raw = disk_inode(fs.pool.catalog.disks["raw"].inode)
    freezes = FakeFreezes(late)
    fs.service.freezes = freezes  # type: ignore[assignment]
    monkeypatch.setattr(
        groups_module,
        "file_systems",
        lambda own, inode: [] if inode == raw else [FileSystem(f"/mnt/{names[inode]}", inode)],
    )
    asked = {"group": "h", "disks": ["db", "log", "raw"], "freeze": True}
    if late:
        await fails(fs, ETIMEDOUT, "group_snapshot", **asked)
        assert len(fs.pool.catalog.snapshots) == 2 and len(fs.pool.catalog.groups) == 1
    else:
        group = await fs.ask("group_snapshot", **asked)
        assert [member["consistency"] for member in group["members"]] == ["frozen", "frozen", "crash"]
    assert freezes.asked == ["/mnt/db", "/mnt/log"]


# Looking


async def test_a_group_says_what_it_lost_and_what_deleting_it_would_free(fs: Fs) -> None:
    await two(fs)
    for name in ("db", "log"):
        await fs.write(name, 0, "later")
    group = await fs.ask("group_info", group="g")
    assert group["freed_if_deleted_bytes"] == 2 * 4096
    await fs.unlink(".snapshots/log/g")
    group = await fs.ask("group_info", group="g")
    assert (group["degraded"], group["lost"], group["freed_if_deleted_bytes"]) == (True, ["log"], 4096)
    await fs.unlink(".snapshots/db/g")
    await fails(fs, ENOENT, "group_info", group="g")


# Rolling back


async def test_a_rollback_of_all_drops_what_the_kernel_caches_and_is_durable(fs: Fs) -> None:
    await two(fs)
    for name in ("db", "log"):
        await fs.write(name, 0, "later")
    await fs.truncate("log", 3 * 4096)
    fs.kernel.asked.clear()
    assert await fs.ask("group_rollback", group="g") == {"disks": ["db", "log"], "kept": "before-rollback"}
    assert fs.kernel.asked == [("drop", "db"), ("drop", "log"), ("truncate", "log")]
    found = fs.after_a_crash()
    assert await found.holds("db", "db0", "") and await found.holds("log", "log0", "")
    await fs.ask("group_rollback", group="before-rollback", discard=True)
    assert await fs.holds("db", "later", "") and await fs.holds("log", "later", "", "")


async def test_a_rollback_is_refused_whole_while_one_disk_is_open(fs: Fs) -> None:
    await two(fs)
    await fs.write("db", 0, "later")
    handle = await fs.open("log", os.O_RDONLY)
    assert "log is in use" in await fails(fs, EBUSY, "group_rollback", group="g")
    assert await fs.holds("db", "later", "")
    await fs.ask("group_rollback", group="g", force=True)
    assert await fs.holds("db", "db0", "")
    await fs.close(handle)


async def test_a_rollback_of_a_group_that_is_not_whole_is_refused(fs: Fs) -> None:
    await two(fs)
    await fs.unlink("log")
    message = await fails(fs, ENOENT, "group_rollback", group="g")
    assert "the disk log was deleted" in message


# Cloning, deleting


async def test_clones_of_a_group_are_durable_and_belong_to_who_asked(fs: Fs) -> None:
    await two(fs)
    fs.caller.uid = 7
    made = await fs.ask("group_clone", group="g", name="{}-test")
    assert [disk["name"] for disk in made] == ["db-test", "log-test"]
    found = fs.after_a_crash()
    assert await found.holds("log-test", "log0", "")
    assert ((await fs.stat("db-test")).st_uid, (await fs.stat("db-test")).st_mode & 0o777) == (7, 0o644)
    await fails(fs, EEXIST, "group_clone", group="g", name="{}-test")


async def test_deleting_says_what_comes_back_and_does_it(fs: Fs) -> None:
    await two(fs)
    for name in ("db", "log"):
        await fs.write(name, 0, "later")
    answer = await fs.ask("group_delete", group="g", dry_run=True)
    assert answer["freed_bytes"] == 2 * 4096 and len(fs.pool.catalog.snapshots) == 2
    await fs.ask("lock", disk="log", snapshots=["g"])
    await fails(fs, EPERM, "group_delete", group="g", dry_run=True)
    await fs.ask("release", disk="log", snapshots=["g"])
    before = (await fs.ask("info"))["used_bytes"]
    answer = await fs.ask("group_delete", group="g", wait=True)
    assert answer["snapshots"] == [{"disk": "db", "snapshot": "g"}, {"disk": "log", "snapshot": "g"}]
    assert (await fs.ask("info"))["used_bytes"] == before - 2 * 4096
    assert await fs.after_a_crash().ask("group_list") == []


@pytest.mark.parametrize("verb", ["group_info", "group_delete", "group_rollback", "group_clone"])
async def test_who_names_the_id_of_a_group_does_not_meet_its_successor(fs: Fs, verb: str) -> None:
    await two(fs)
    old = (await fs.ask("group_info", group="g"))["id"]
    await fs.ask("group_delete", group="g", id=old)
    await fs.ask("group_snapshot", group="g", disks=["db", "log"])
    more = {"name": "{}-x"} if verb == "group_clone" else {}
    assert "made anew since" in await fails(fs, ENOENT, verb, group="g", id=old, **more)
    assert len(fs.pool.catalog.snapshots) == 2
