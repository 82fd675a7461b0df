"""Listing directories: piece by piece, while others change them, and counted as lookups."""

from __future__ import annotations

from errno import ENOENT

import pyfuse3
import pytest

from tests.operations.helpers import Fs, refused


async def test_a_directory_lists_everything_once_however_small_the_pieces(fs: Fs) -> None:
    names = {f"vm{number}" for number in range(25)}
    for name in names:
        await fs.disk(name)
        await fs.snapshot(name, "s")
    for room in (1, 2, 7, 100):
        assert set(await fs.list("", room)) == names | {".snapshots"}
        assert set(await fs.list(".snapshots", room)) == names


async def test_an_entry_is_its_inode(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    for directory in ("", ".snapshots", ".snapshots/vm"):
        for name, inode in (await fs.list(directory)).items():
            assert inode == await fs.inode(f"{directory}/{name}")


async def test_an_empty_directory_lists_nothing(fs: Fs) -> None:
    await fs.disk("vm")
    assert await fs.list(".snapshots/vm") == {}


@pytest.mark.parametrize("room", [1, 3])
async def test_what_others_change_makes_no_entry_come_twice_or_go_missing(fs: Fs, room: int) -> None:
    for number in range(12):
        await fs.disk(f"vm{number}")
    handle = await fs.ops.opendir(await fs.inode(""), fs.ctx)
    found = await fs.list_some(handle, 0, room)
    for turn in range(40):
        more = await fs.list_some(handle, found[-1][2], room)
        if not more:
            break
        found += more
        if turn < 3:
            await fs.unlink(f"vm{turn}")
            await fs.rename(f"vm{turn + 6}", f"renamed{turn}")
            await fs.disk(f"new{turn}")
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names)
    assert {"vm4", "vm5", "vm9", "vm10", "vm11"} <= set(names)


async def test_each_entry_told_counts_as_a_lookup_and_one_without_room_does_not(fs: Fs) -> None:
    await fs.disk("a")
    await fs.disk("b")
    a, b = await fs.inode("a"), await fs.inode("b")
    await fs.ops.forget([(a, 1 << 40), (b, 1 << 40)])
    handle = await fs.ops.opendir(await fs.inode(""), fs.ctx)
    assert [name for name, _, _ in await fs.list_some(handle, 0, 2)] == [".snapshots", "a"]
    assert (await fs.ops.getattr(a, fs.ctx)).st_ino == a
    with refused(ENOENT):
        await fs.ops.getattr(b, fs.ctx)
    await fs.ops.forget([(a, 1)])
    with refused(ENOENT):
        await fs.ops.getattr(a, fs.ctx)


async def test_a_directory_that_went_meanwhile_ends_the_listing(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    handle = await fs.ops.opendir(await fs.inode(".snapshots/vm"), fs.ctx)
    await fs.unlink("vm")
    await fs.unlink(".snapshots/vm/s")
    with refused(ENOENT):
        await fs.list_some(handle, 0, 10)
    await fs.ops.releasedir(handle)


async def test_syncing_a_directory_makes_its_names_durable(fs: Fs) -> None:
    handle = await fs.ops.opendir(pyfuse3.ROOT_INODE, fs.ctx)
    await fs.create("vm")
    assert fs.pool.commits.needed
    await fs.ops.fsyncdir(handle, False)
    assert not fs.pool.commits.needed
