"""What others do while a request waits: for the kernel's caches, between slices of long work, for a commit."""

from __future__ import annotations

from errno import EEXIST, ENOENT

import pytest
import trio

from rowfs.base.errors import ExistsError, RowfsError
from rowfs.base.units import MIB
from rowfs.service.service import SLICE_PAGES
from tests.operations.helpers import Fs, refused
from tests.store.helpers import B, fill

PAGES = 3 * SLICE_PAGES  # of a disk that is worked on in several slices


async def tall(fs: Fs, *texts: str) -> None:
    """A disk of many pages with a block in each, and a snapshot after each round of writing."""
    await fs.disk("vm", 1)
    await fs.truncate("vm", PAGES * 2 * MIB)
    handle = await fs.open("vm")
    for text in texts:
        for page in range(PAGES):
            await fs.put(handle, page * 512, text)
        await fs.ask("snapshot", disk="vm", snapshot=text)
    await fs.close(handle)


async def test_of_two_snapshots_of_one_name_one_is_taken(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    outcomes: list[str] = []

    async def take() -> None:
        try:
            await fs.ask("snapshot", disk="vm", snapshot="s")
            outcomes.append("taken")
        except ExistsError:
            outcomes.append("exists")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)
    assert sorted(outcomes) == ["exists", "taken"]


async def test_a_disk_deleted_while_its_snapshot_is_asked_for_has_none(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    fs.kernel.meanwhile = lambda: fs.unlink("vm")
    with pytest.raises(RowfsError) as caught:
        await fs.ask("snapshot", disk="vm", snapshot="s")
    assert caught.value.errno == ENOENT
    assert await fs.list(".snapshots") == {}


async def test_a_disk_renamed_while_its_snapshot_is_asked_for_keeps_it(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    fs.kernel.meanwhile = lambda: fs.rename("vm", "web")
    await fs.ask("snapshot", disk="vm", snapshot="s")
    assert await fs.holds(".snapshots/web/s", "one")


async def test_a_name_taken_while_the_kernel_flushes_is_refused_to_touch(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")

    async def faster() -> None:
        await fs.ask("snapshot", disk="vm", snapshot="s")

    fs.kernel.meanwhile = faster
    with refused(EEXIST):
        await fs.snapshot("vm", "s")


async def test_a_snapshot_deleted_while_a_rollback_to_it_waits_is_not_rolled_back_to(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    await fs.write("vm", 0, "two")
    handle = await fs.open("vm")

    async def delete() -> None:
        await fs.unlink(".snapshots/vm/s")
        await fs.reclaimed()
        await fs.disk("other", 1, "other")

    fs.kernel.meanwhile = delete
    with pytest.raises(RowfsError) as caught:
        await fs.ask("rollback", disk="vm", snapshot="s", force=True)
    assert caught.value.errno == ENOENT
    assert bytes(await fs.ops.read(handle, 0, B)) == fill("two")
    await fs.close(handle)


async def test_a_disk_deleted_while_a_rollback_waits_stays_deleted(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    await fs.write("vm", 0, "two")
    handle = await fs.open("vm")
    fs.kernel.meanwhile = lambda: fs.unlink("vm")
    with pytest.raises(RowfsError) as caught:
        await fs.ask("rollback", disk="vm", snapshot="s", force=True)
    assert caught.value.errno == ENOENT
    assert set(await fs.list(".snapshots/vm")) == {"s"}
    await fs.close(handle)
    await fs.reclaimed()


async def test_a_disk_rolled_back_while_it_is_cut_short_has_nothing_past_its_end(fs: Fs) -> None:
    await tall(fs, "old", "new")
    full = PAGES * 2 * MIB
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.truncate, "vm", B)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(lambda: fs.ask("rollback", disk="vm", snapshot="old"))
    disk = fs.pool.catalog.disk("vm")
    whole = disk.size_bytes == full
    assert whole or disk.mapped_blocks <= 1
    await fs.truncate("vm", full)
    handle = await fs.open("vm")
    found = {bytes(await fs.ops.read(handle, page * 2 * MIB, B)) for page in range(1, PAGES)}
    assert found == ({fill("old")} if whole else {bytes(B)})
    await fs.close(handle)


async def test_a_disk_deleted_while_it_is_cut_short_leaves_nothing(fs: Fs) -> None:
    await tall(fs, "old")
    await fs.ask("delete", disk="vm", snapshots=["old"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(truncated_or_gone, fs)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(fs.unlink, "vm")
    await fs.reclaimed()
    assert fs.pool.space.allocated_blocks == 1


async def truncated_or_gone(fs: Fs) -> None:
    try:
        await fs.truncate("vm", B)
    except Exception as error:
        assert getattr(error, "errno", None) == ENOENT


async def test_a_snapshot_deleted_while_it_is_compared_with_changes_no_answer(fs: Fs) -> None:
    await fs.disk("vm", 1)
    await fs.truncate("vm", 4400 * B)
    handle = await fs.open("vm")
    for block in range(0, 4400, 2):
        await fs.put(handle, block, "old")
    await fs.ask("snapshot", disk="vm", snapshot="a")
    for block in range(0, 4400, 4):
        await fs.put(handle, block, "new")
    await fs.close(handle)

    async def delete() -> None:
        await fs.unlink(".snapshots/vm/a")
        await fs.reclaimed()

    fs.caller.meanwhile = delete
    answer = await fs.ask("diff", disk="vm", from_snapshot="a")
    assert answer == {"changed_bytes": 1100 * B}
    assert [offset for offset, _, _ in fs.caller.items] == [block * B for block in range(0, 4400, 4)]


async def test_a_disk_deleted_while_its_extents_are_told_changes_no_answer(fs: Fs) -> None:
    await fs.disk("vm", 1)
    handle = await fs.open("vm")
    for block in range(0, 4400, 2):
        await fs.put(handle, block, "old")
    await fs.close(handle)

    async def delete() -> None:
        await fs.unlink("vm")
        await fs.reclaimed()

    fs.caller.meanwhile = delete
    assert (await fs.ask("extents", disk="vm"))["mapped_bytes"] == 2200 * B
    assert fs.caller.items == [(block * B, B) for block in range(0, 4400, 2)]


async def test_two_deletions_of_the_same_snapshots_get_on_with_each_other(fs: Fs) -> None:
    await tall(fs, "a", "b", "c")
    answers: list[list[str]] = []

    async def delete(spec: str) -> None:
        answers.append((await fs.ask("delete", disk="vm", snapshots=[spec], wait=True))["snapshots"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(delete, "a..b")
        nursery.start_soon(delete, "b..c")
    assert sorted(answers) == [["a", "b"], ["b", "c"]]
    assert await fs.list(".snapshots/vm") == {}


async def test_a_disk_written_while_it_is_listed_and_deleted_from_stays_right(fs: Fs) -> None:
    await tall(fs, "a", "b")
    handle = await fs.open("vm")

    async def write() -> None:
        for page in range(PAGES):
            await fs.put(handle, page * 512 + 1, "more")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(lambda: fs.ask("list"))
        nursery.start_soon(lambda: fs.ask("delete", disk="vm", snapshots=["a"], wait=True))
    for page in range(PAGES):
        assert bytes(await fs.ops.read(handle, page * 2 * MIB, 2 * B)) == fill("b") + fill("more")
    await fs.close(handle)
