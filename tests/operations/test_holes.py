"""fallocate, lseek and copy_file_range, which the C extension hands on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EFBIG, EINVAL, EIO, ENOSPC, ENXIO, EOPNOTSUPP, EROFS
from functools import partial

import pytest
import trio

from rowfs.base.units import DISK_BYTES_MAX, MIB
from rowfs.service import counting, service
from rowfs.store.diskio import SLICE_PAGES, Extent
from rowfs.store.model import Disk
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused
from tests.store.helpers import B, fill, put

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32


async def test_a_punched_range_reads_zeros_and_its_blocks_come_back(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two", "three", "four")
    handle = await fs.open("vm")
    await fs.extra("fallocate", handle, PUNCH_HOLE | KEEP_SIZE, B, 2 * B)
    assert (await fs.stat("vm")).st_blocks == 2 * B // 512
    await fs.close(handle)
    assert await fs.holds("vm", "one", "", "", "four")
    await fs.reclaimed()
    assert fs.pool.space.allocated_blocks == 3


async def test_a_punch_is_exact_to_the_byte_and_leaves_snapshots_alone(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two", "three", "four")
    await fs.snapshot("vm", "s")
    handle = await fs.open("vm")
    await fs.extra("fallocate", handle, PUNCH_HOLE | KEEP_SIZE, B - 10, 2 * B + 20)
    await fs.close(handle)
    expected = fill("one")[:-10] + bytes(2 * B + 20) + fill("four")[10:]
    assert await fs.bytes("vm") == expected
    assert await fs.holds(".snapshots/vm/s", "one", "two", "three", "four")


async def test_a_punch_past_the_end_changes_nothing(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    handle = await fs.open("vm")
    await fs.extra("fallocate", handle, PUNCH_HOLE | KEEP_SIZE, 5 * B, B)
    await fs.extra("fallocate", handle, PUNCH_HOLE | KEEP_SIZE, B, 100 * B)
    await fs.close(handle)
    assert await fs.holds("vm", "one", "")


@pytest.mark.parametrize(("mode", "size"), [(0, 6 * B), (KEEP_SIZE, 2 * B), (ZERO_RANGE, 6 * B)])
async def test_preallocation_grows_the_disk_unless_told_not_to(fs: Fs, mode: int, size: int) -> None:
    await fs.disk("vm", 2, "one", "two")
    handle = await fs.open("vm")
    await fs.extra("fallocate", handle, mode, 2 * B, 4 * B)
    await fs.close(handle)
    assert (await fs.bytes("vm")) == (fill("one") + fill("two")).ljust(size, b"\0")


@pytest.mark.pool(capacity_bytes=MIB)
async def test_what_fallocate_cannot_do_is_refused(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")
    handle = await fs.open("vm")
    for mode in (COLLAPSE_RANGE, INSERT_RANGE, COLLAPSE_RANGE | KEEP_SIZE):
        with refused(EOPNOTSUPP):
            await fs.extra("fallocate", handle, mode, 0, B)
    with refused(EFBIG):
        await fs.extra("fallocate", handle, 0, DISK_BYTES_MAX, 1)
    with refused(ENOSPC):
        await fs.extra("fallocate", handle, 0, 0, 2 * MIB)
    await fs.close(handle)
    snapshot = await fs.open(".snapshots/vm/s", os.O_RDONLY)
    with refused(EROFS):
        await fs.extra("fallocate", snapshot, PUNCH_HOLE | KEEP_SIZE, 0, B)
    await fs.close(snapshot)
    assert await fs.holds("vm", "one", "two")


async def test_data_and_holes_are_found(fs: Fs) -> None:
    await fs.disk("vm", 1000)
    await fs.write("vm", 2, "three", "four")
    await fs.write("vm", 700, "x")
    await fs.snapshot("vm", "s")
    for path in ("vm", ".snapshots/vm/s"):
        handle = await fs.open(path, os.O_RDONLY)
        for offset, data, hole in (
            (0, 2 * B, 0),
            (2 * B - 1, 2 * B, 2 * B - 1),
            (2 * B, 2 * B, 4 * B),
            (3 * B + 5, 3 * B + 5, 4 * B),
            (4 * B, 700 * B, 4 * B),
            (700 * B, 700 * B, 701 * B),
        ):
            assert await fs.extra("lseek", handle, offset, os.SEEK_DATA) == data
            assert await fs.extra("lseek", handle, offset, os.SEEK_HOLE) == hole
        with refused(ENXIO):
            await fs.extra("lseek", handle, 701 * B, os.SEEK_DATA)
        assert await fs.extra("lseek", handle, 999 * B, os.SEEK_HOLE) == 999 * B
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with refused(ENXIO):
                await fs.extra("lseek", handle, 1000 * B, whence)
        await fs.close(handle)


async def test_no_hole_is_told_of_before_what_the_kernel_holds_of_it_is_here(fs: Fs) -> None:
    await fs.disk("vm", 1000)
    await fs.write("vm", 500, "mapped")
    writer, reader = await fs.open("vm"), await fs.open("vm", os.O_RDONLY)
    fs.writeback.held = [lambda: fs.put(writer, 3, "cached")]
    assert await fs.extra("lseek", reader, 0, os.SEEK_DATA) == 3 * B
    assert fs.writeback.asked == [("vm", 0, 500 * B)]
    fs.writeback.held = [lambda: fs.put(writer, 4, "cached too"), lambda: fs.put(writer, 5, "meanwhile")]
    assert await fs.extra("lseek", reader, 3 * B, os.SEEK_HOLE) == 5 * B  # what came after the question may be missed
    fs.writeback.held = []
    assert await fs.extra("lseek", reader, 3 * B, os.SEEK_HOLE) in (5 * B, 6 * B)
    fs.writeback.held = [lambda: fs.put(writer, 1000, "appended")]
    assert await fs.extra("lseek", reader, 1000 * B, os.SEEK_DATA) == 1000 * B  # the kernel knows of a longer file
    fs.writeback.asked = []
    assert await fs.extra("lseek", reader, 3 * B, os.SEEK_DATA) == 3 * B  # no hole is told of: nothing is asked
    assert fs.writeback.asked == []
    await fs.close(reader)
    await fs.close(writer)


async def test_who_may_not_write_has_nothing_cached(fs: Fs) -> None:
    await fs.disk("vm", 1000)
    await fs.snapshot("vm", "s")
    writer, snapshot = await fs.open("vm"), await fs.open(".snapshots/vm/s", os.O_RDONLY)
    assert await fs.extra("lseek", snapshot, 0, os.SEEK_HOLE) == 0
    await fs.close(writer)
    reader = await fs.open("vm", os.O_RDONLY)
    assert await fs.extra("lseek", reader, 0, os.SEEK_HOLE) == 0
    assert fs.writeback.asked == []
    for handle in (reader, snapshot):
        await fs.close(handle)


async def test_where_it_cannot_be_known_what_the_kernel_holds_all_is_data(fs: Fs) -> None:
    await fs.disk("vm", 10)
    writer = await fs.open("vm")
    fs.writeback.written, fs.writeback.size_bytes = False, 12 * B  # as the kernel has it
    for offset in (0, 5, 11 * B):
        assert await fs.extra("lseek", writer, offset, os.SEEK_DATA) == offset
        assert await fs.extra("lseek", writer, offset, os.SEEK_HOLE) == 12 * B
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with refused(ENXIO):
            await fs.extra("lseek", writer, 12 * B, whence)
    fs.writeback.size_bytes = None
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with refused(EINVAL):  # upon which programs read
            await fs.extra("lseek", writer, 0, whence)
    await fs.close(writer)


async def test_holes_that_are_filled_as_fast_as_they_are_found_are_data(fs: Fs) -> None:
    await fs.disk("vm", 60)
    writer = await fs.open("vm")
    for block in range(9, 60, 10):
        await fs.put(writer, block, "mapped")
    fs.writeback.size_bytes = 60 * B
    fs.writeback.held = [partial(fs.put, writer, start, *["cached"] * 9) for start in range(0, 60, 10)]
    assert await fs.extra("lseek", writer, 0, os.SEEK_HOLE) == 60 * B
    assert len(fs.writeback.asked) == 4
    fs.writeback.held = []
    assert await fs.extra("lseek", writer, 0, os.SEEK_HOLE) == 40 * B
    await fs.close(writer)


async def test_a_disk_that_is_open_for_writing_never_takes_no_blocks(fs: Fs) -> None:
    handle = await fs.create("vm")
    await fs.truncate("vm", 100 * B)
    assert (await fs.stat("vm")).st_blocks == B // 512  # tar -S reads nothing of a file without
    await fs.close(handle)
    entry = await fs.stat("vm")
    assert (entry.st_blocks, entry.attr_timeout) == (0, 0)
    await fs.write("vm", 0, "one")
    assert (await fs.stat("vm")).attr_timeout > 0


async def test_data_up_to_the_end_has_its_hole_there(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.truncate("vm", B + 100)
    handle = await fs.open("vm", os.O_RDONLY)
    assert await fs.extra("lseek", handle, 0, os.SEEK_HOLE) == B + 100
    assert await fs.extra("lseek", handle, B + 99, os.SEEK_DATA) == B + 99
    await fs.close(handle)


@pytest.mark.parametrize("source", ["vm", ".snapshots/vm/s"])
async def test_a_whole_copy_shares_its_blocks_and_lives_apart(fs: Fs, source: str) -> None:
    await fs.disk("vm", 3, "one", "two", "three")
    await fs.snapshot("vm", "s")
    used = fs.pool.space.allocated_blocks
    to, at = await fs.create("copy"), await fs.open(source, os.O_RDONLY)
    assert await fs.extra("copy_file_range", at, 0, to, 0, 1 << 30) == 3 * B
    assert fs.pool.space.allocated_blocks == used
    await fs.close(to)
    await fs.close(at)
    await fs.write("vm", 0, "new")
    await fs.write("copy", 1, "other")
    assert await fs.holds("vm", "new", "two", "three")
    assert await fs.holds("copy", "one", "other", "three")
    assert await fs.holds(".snapshots/vm/s", "one", "two", "three")
    await fs.unlink("vm")
    await fs.unlink(".snapshots/vm/s")
    await fs.reclaimed()
    assert await fs.after_a_crash().holds("copy", "one", "other", "three")
    assert fs.pool.space.allocated_blocks == 4


@pytest.mark.parametrize("source", ["vm", ".snapshots/vm/s"])
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_SYNC])
async def test_a_part_shares_its_blocks_and_lives_apart(fs: Fs, source: str, flags: int) -> None:
    await fs.disk("vm", 3, "one", "two", "three")
    await fs.snapshot("vm", "s")
    await fs.disk("to", 4, "x")
    await fs.reclaimed()
    used = fs.pool.space.allocated_blocks
    to, at = await fs.open("to", flags), await fs.open(source, os.O_RDONLY)
    assert await fs.extra("copy_file_range", at, B, to, 3 * B, 2 * B) == 2 * B
    assert fs.pool.commits.needed is (flags == os.O_RDWR)
    assert (await fs.stat("to")).st_size == 5 * B
    assert await fs.extra("copy_file_range", at, 3 * B, to, 0, B) == 0
    assert fs.pool.space.allocated_blocks == used
    await fs.close(to)
    await fs.close(at)
    await fs.write("vm", 1, "new")
    await fs.write("to", 4, "other")
    assert await fs.holds("vm", "one", "new", "three")
    assert await fs.holds("to", "x", "", "", "two", "other")
    assert await fs.holds(".snapshots/vm/s", "one", "two", "three")
    await fs.unlink("vm")
    await fs.unlink(".snapshots/vm/s")
    await fs.reclaimed()
    assert await fs.after_a_crash().holds("to", "x", "", "", "two", "other")
    assert fs.pool.space.allocated_blocks == 4


async def test_others_are_answered_while_a_long_range_is_shared(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SLICE_S", 0.0)
    pages = 20
    await fs.disk("vm", pages * 512, "one", "two")
    await fs.disk("to", pages * 512, "x")
    await fs.write("vm", pages * 512 - 1, "end")
    to, at = await fs.open("to"), await fs.open("vm", os.O_RDONLY)
    disk, target = fs.pool.catalog.disk("vm"), fs.pool.catalog.disk("to")
    mapped = target.mapped_blocks
    shared: list[int] = []

    async def share() -> None:
        shared.append(await fs.extra("copy_file_range", at, B, to, B, pages * 512 * B))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(share)
        while target.mapped_blocks == mapped:
            await trio.lowlevel.checkpoint()
        assert not shared
        put(fs.pool, disk, pages * 512 - 1, "later")
        put(fs.pool, target, 1, "new")
    assert shared == [(pages * 512 - 1) * B]
    assert bytes(await fs.ops.read(to, 0, 2 * B)) == fill("x") + fill("new")
    assert bytes(await fs.ops.read(to, (pages * 512 - 1) * B, B)) == fill("later")
    await fs.close(to)
    await fs.close(at)


async def test_what_cannot_be_shared_is_left_to_the_caller(fs: Fs) -> None:
    await fs.disk("vm", 3, "one", "two", "three")
    await fs.disk("full", 3, "x")
    await fs.snapshot("vm", "s")
    vm, full, empty = await fs.open("vm"), await fs.open("full"), await fs.create("empty")
    for arguments in (
        (vm, 1, full, 0, B),
        (vm, 0, full, 1, B),
        (vm, 0, full, 0, B - 1),
        (vm, 2 * B, vm, 100, B),
    ):
        with refused(EOPNOTSUPP):
            await fs.extra("copy_file_range", *arguments)
    with refused(EINVAL):
        await fs.extra("copy_file_range", vm, 0, vm, 0, 3 * B)
    with refused(EFBIG):
        await fs.extra("copy_file_range", vm, 0, full, DISK_BYTES_MAX, B)
    snapshot = await fs.open(".snapshots/vm/s", os.O_RDONLY)
    with refused(EROFS):
        await fs.extra("copy_file_range", vm, 0, snapshot, 0, 3 * B)
    for handle in (vm, full, empty, snapshot):
        await fs.close(handle)
    assert await fs.holds("full", "x", "", "")


async def test_a_copy_into_a_deleted_disk_leaves_nothing(fs: Fs) -> None:
    await fs.disk("vm", 3, "one", "two", "three")
    to, at = await fs.create("copy"), await fs.open("vm", os.O_RDONLY)
    await fs.unlink("copy")
    await fs.extra("copy_file_range", at, 0, to, 0, 3 * B)
    await fs.put(to, 0, "new")
    assert bytes(await fs.ops.read(to, 0, 2 * B)) == fill("new") + fill("two")
    await fs.close(to)
    await fs.close(at)
    await fs.reclaimed()
    assert fs.pool.space.allocated_blocks == 4
    assert await fs.holds("vm", "one", "two", "three")


async def test_a_copy_of_a_deleted_disk_outlives_it(fs: Fs) -> None:
    await fs.disk("vm", 3, "one", "two", "three")
    to, at = await fs.create("copy"), await fs.open("vm", os.O_RDONLY)
    await fs.unlink("vm")
    await fs.extra("copy_file_range", at, 0, to, 0, 3 * B)
    await fs.close(at)
    await fs.close(to)
    await fs.reclaimed()
    await fs.disk("other", 3, "x", "y", "z")
    assert await fs.holds("copy", "one", "two", "three")
    assert fs.pool.space.allocated_blocks == 7


@pytest.mark.parametrize(
    ("name", "arguments"), [("fallocate", (0, 0, 1)), ("lseek", (0, os.SEEK_DATA)), ("copy_file_range", (0, 0, 0, 1))]
)
async def test_a_fault_is_eio_and_one_line_in_the_log(fs: Fs, log: Log, name: str, arguments: tuple[int, ...]) -> None:
    with refused(EIO):
        await fs.extra(name, 999, *arguments)
    assert log.take() == f"{name} failed unexpectedly"


async def test_a_request_is_answered_once_even_when_the_mount_ends(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    async with trio.open_nursery() as nursery:
        fs.ops.start_in(nursery)
        for request in range(5):
            fs.ops.fallocate(request, handle, PUNCH_HOLE | KEEP_SIZE, 0, B)
    assert fs.native.answers == dict.fromkeys(range(5), ("error", 0))


async def test_others_work_while_the_end_of_much_data_is_sought(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    page = 512 * B
    await fs.disk("vm", 0)
    await fs.truncate("vm", 1024 * page)
    handle = await fs.open("vm")
    await fs.ops.write(handle, 0, b"x" * page)
    disk, length = fs.pool.catalog.disk("vm"), page
    while length < disk.size_bytes:  # blocks that the disk has many times over: an extent of 2 GiB
        assert max(fs.pool.share(disk, 0, disk, length, length)) == length
        length *= 2
    monkeypatch.setattr(counting, "SLICE_S", 0.0)
    turns = 0
    async with trio.open_nursery() as nursery:

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(others)
        before = turns
        assert await fs.service.seek(disk, 0, os.SEEK_HOLE) == length
        assert turns - before >= 1024 // SLICE_PAGES - 1
        before = turns
        await fs.ask("extents", disk="vm")
        assert fs.caller.items == [(0, length)] and turns - before >= 1024 // SLICE_PAGES - 1
        nursery.cancel_scope.cancel()
    await fs.close(handle)


async def test_a_disk_that_is_rolled_back_while_its_holes_are_sought_is_told_to_be_data(fs: Fs) -> None:
    await fs.disk("vm", 2000)
    await fs.snapshot("vm", "s")
    for page in range(3):
        await fs.write("vm", 512 * page, "data")
    disk, looked = fs.pool.catalog.disk("vm"), fs.pool.io.extents_in_slices

    def rolling_back(target: Disk, start: int) -> Iterator[Extent | None]:
        yield from looked(target, start)
        fs.pool.rollback(disk, disk.chain["s"], discard=True)

    fs.pool.io.extents_in_slices = rolling_back  # type: ignore[method-assign, assignment]
    assert await fs.service.seek(disk, B, os.SEEK_DATA) == 512 * B
    assert await fs.service.seek(disk, 1025 * B, os.SEEK_DATA) == 1025 * B
