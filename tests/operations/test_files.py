"""Files: reading, writing, truncating, and what may not be done to a snapshot."""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EIO, ENOENT, ENOSPC, EROFS, ESTALE

import pytest

from rowfs.base.errors import CorruptionError, StorageError
from rowfs.base.times import TIME_NS_MAX, TIME_NS_MIN, stamp_ns
from rowfs.base.units import DISK_BYTES_MAX, MIB, TIB
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused, until
from tests.store.helpers import B, fill


async def test_what_was_written_is_read_back(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two")
    assert await fs.holds("vm", "one", "two", "", "")


@pytest.mark.parametrize(("offset", "length"), [(1, 1), (4000, 200), (4095, 4098), (100, 5000), (0, 12288)])
async def test_a_write_changes_its_own_bytes_alone(fs: Fs, offset: int, length: int) -> None:
    await fs.disk("vm", 4, "a", "b", "c", "d")
    await fs.snapshot("vm", "s")
    expected = bytearray(await fs.bytes("vm"))
    handle = await fs.open("vm")
    for data in (os.urandom(length), os.urandom(length)):  # the first redirects, the second is in place
        expected[offset : offset + length] = data
        await fs.ops.write(handle, offset, data)
        assert await fs.bytes("vm") == expected
    await fs.close(handle)
    assert await fs.holds(".snapshots/vm/s", "a", "b", "c", "d")


async def test_a_read_ends_where_the_disk_does(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.truncate("vm", B + 100)
    handle = await fs.open("vm", os.O_RDONLY)
    assert bytes(await fs.ops.read(handle, B, 2 * B)) == fill("two")[:100]
    assert bytes(await fs.ops.read(handle, B + 100, B)) == b""
    assert bytes(await fs.ops.read(handle, 1 << 50, B)) == b""
    await fs.close(handle)


async def test_a_write_past_the_end_makes_the_disk_longer(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.write("vm", 3, "four")
    assert (await fs.stat("vm")).st_size == 4 * B
    assert await fs.holds("vm", "one", "", "", "four")


async def test_a_disk_has_at_most_16_tib(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    for offset, length in ((DISK_BYTES_MAX, 1), (DISK_BYTES_MAX - 1, 2), (1 << 62, B)):
        with refused(EFBIG):
            await fs.ops.write(handle, offset, bytes(length))
    for size in (DISK_BYTES_MAX + 1, 17 * TIB, (1 << 63) - 1):
        with refused(EFBIG):
            await fs.truncate("vm", size)
    assert await fs.holds("vm", "one")
    await fs.truncate("vm", DISK_BYTES_MAX)
    await fs.put(handle, DISK_BYTES_MAX // B - 1, "last")
    assert bytes(await fs.ops.read(handle, DISK_BYTES_MAX - B, 2 * B)) == fill("last")
    await fs.close(handle)


async def test_stat_tells_what_is_mapped(fs: Fs) -> None:
    await fs.disk("vm", 1000, "one", "two")
    await fs.write("vm", 500, "three")
    await fs.snapshot("vm", "s")
    await fs.write("vm", 0, "one again", "two", "new")
    disk, snapshot = await fs.stat("vm"), await fs.stat(".snapshots/vm/s")
    assert (disk.st_size, disk.st_blocks) == (1000 * B, 4 * B // 512)
    assert (snapshot.st_size, snapshot.st_blocks) == (1000 * B, 3 * B // 512)


async def test_zeros_are_data_and_become_holes_when_nobody_syncs(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two", "three", "four")
    fs.pool.io.zeros.after_s = 0.1
    handle = await fs.open("vm")
    await fs.ops.write(handle, B, bytes(2 * B))
    await fs.close(handle)
    assert (await fs.stat("vm")).st_blocks == 4 * B // 512
    await until(lambda: fs.pool.catalog.disk("vm").mapped_blocks == 2, "holes")
    await fs.service.committer.commit()
    await until(lambda: fs.pool.space.allocated_blocks == 3, "their blocks to come back")
    assert await fs.holds("vm", "one", "", "", "four")
    assert await fs.after_a_crash().holds("vm", "one", "", "", "four")


async def test_zeros_stay_data_while_somebody_syncs(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    await fs.disk("vm", 4, "one", "two", "three", "four")
    zeros, trimming = fs.pool.io.zeros, fs.service.committer.trimming
    zeros.after_s = 0.01
    handle = await fs.open("vm")
    await fs.ops.write(handle, B, bytes(2 * B))
    before = trimming._syncs()
    await fs.ops.fsync(handle, False)
    assert trimming._syncs() > before
    looks = [before]

    def one_more() -> int:
        looks.append(looks[-1] + 1)
        return looks[-1]

    with monkeypatch.context() as patch:
        patch.setattr(trimming, "_syncs", one_more)  # somebody has synced whenever the trimmer looks
        await until(lambda: zeros.due, "zeros that are due")
        seen = len(looks)
        await until(lambda: len(looks) > seen + 5, "looks of the trimmer")
        assert fs.pool.catalog.disk("vm").mapped_blocks == 4
    await until(lambda: not zeros.due, "holes")
    assert fs.pool.catalog.disk("vm").mapped_blocks == 2
    await fs.close(handle)


@pytest.mark.pool(capacity_bytes=MIB)
async def test_zeros_make_space_for_who_finds_none(fs: Fs) -> None:
    await fs.disk("vm", 512)
    handle = await fs.open("vm")
    await fs.ops.write(handle, 0, bytes(100 * B))
    for block in range(100, 355):
        await fs.put(handle, block, f"block {block}")
    disk = fs.pool.catalog.disk("vm")
    assert disk.mapped_blocks == 255
    assert await fs.holds("vm", *[""] * 100, *(f"block {block}" for block in range(100, 355)), *[""] * 157)
    with refused(ENOSPC):
        await fs.put(handle, 400, "one too many")
    await fs.close(handle)


async def test_zeros_that_cannot_be_looked_at_stay_data(fs: Fs, log: Log) -> None:
    await fs.disk("vm", 4, "one", "two")
    handle = await fs.open("vm")
    await fs.ops.write(handle, 0, bytes(B))
    await fs.close(handle)

    def broken(*_: object) -> bool:
        raise StorageError("read of the data file failed: Input/output error")

    fs.pool.data.read_cached = broken  # type: ignore[method-assign]
    fs.pool.io.zeros.hurry()
    await until(lambda: log.lines, "a line in the log")
    assert "zeros of vm stay data" in log.take()
    del fs.pool.data.read_cached
    assert fs.pool.catalog.disk("vm").mapped_blocks == 2


async def test_a_disk_cut_short_and_grown_again_reads_zeros(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two", "three", "four")
    await fs.snapshot("vm", "s")
    await fs.truncate("vm", B + 100)
    await fs.truncate("vm", 4 * B)
    expected = fill("one") + fill("two")[:100] + bytes(3 * B - 100)
    assert await fs.bytes("vm") == expected
    await fs.truncate("vm", 0)
    await fs.truncate("vm", 4 * B)
    assert await fs.holds("vm", "", "", "", "")
    assert await fs.holds(".snapshots/vm/s", "one", "two", "three", "four")


async def test_mode_owner_and_times_of_a_disk_are_set_and_kept(fs: Fs) -> None:
    await fs.disk("vm")
    entry = await fs.setattr("vm", mode=stat.S_IFREG | 0o600, uid=7, gid=8, mtime_ns=1_234_567_890)
    assert (stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid, entry.st_mtime_ns) == (0o600, 7, 8, 1_234_567_890)
    await fs.ops.fsync(await fs.open("vm"), False)
    disk = fs.after_a_crash().pool.catalog.disk("vm")
    assert (disk.mode, disk.uid, disk.gid, disk.modified_ns) == (0o600, 7, 8, 1_234_567_890)


async def test_a_disks_owner_and_mode_are_its_snapshots_too(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    path = ".snapshots/vm/s"
    for mode, shown in ((0o600, 0o400), (0o666, 0o444), (0o040, 0o040), (0o000, 0)):
        await fs.setattr("vm", mode=stat.S_IFREG | mode, uid=7, gid=8)
        entry = await fs.stat(path)
        assert (stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid) == (shown, 7, 8)
    assert ("forget", str(await fs.inode(path))) in fs.kernel.asked  # else the kernel lets others in for a second more
    await fs.setattr("vm", mode=stat.S_IFREG | 0o640)
    (clone,) = await fs.ask("clone", disk="vm", snapshot="s", targets=["clone"])
    assert stat.S_IMODE((await fs.stat(clone["name"])).st_mode) == 0o640
    await fs.unlink("vm")
    entry = await fs.stat(path)
    assert (stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid) == (0o440, 7, 8)


async def test_the_time_of_change_is_the_kernels_and_no_one_sets_it(fs: Fs) -> None:
    await fs.disk("vm")
    before = (await fs.stat("vm")).st_ctime_ns
    await until(lambda: stamp_ns() > before, "the next tick of the kernel's clock")
    entry = await fs.setattr("vm", mode=0o600, mtime_ns=5)
    assert entry.st_mtime_ns == 5 and entry.st_ctime_ns > before
    told = entry.st_ctime_ns + 10**9
    assert (await fs.setattr("vm", mtime_ns=6, ctime_ns=told)).st_ctime_ns == told
    assert (await fs.setattr("vm", mtime_ns=told + 5, ctime_ns=told - 10)).st_ctime_ns == told
    await fs.rename("vm", "other")
    await fs.service.committer.commit()
    entry = await fs.after_a_crash().stat("other")
    assert (entry.st_mtime_ns, entry.st_ctime_ns) == (told + 5, told)


@pytest.mark.parametrize("year", [-9999, 1, 1600, 1900, 1969, 2300, 9999, 10_000, 300_000])
async def test_any_time_can_be_set_and_whoever_looks_later_finds_the_nearest(fs: Fs, year: int) -> None:
    await fs.disk("vm")
    time_ns = (year - 1970) * 365 * 86_400 * 10**9
    entry = await fs.setattr("vm", mode=0o600, mtime_ns=time_ns)
    assert entry.st_mtime_ns == min(max(time_ns, TIME_NS_MIN), TIME_NS_MAX)
    (found,) = await fs.ask("list")
    assert found["name"] == "vm"
    assert await fs.getxattr("vm", "user.rowfs.modified")
    await fs.service.committer.commit()
    survivor = fs.after_a_crash()
    assert (await survivor.stat("vm")).st_mtime_ns == entry.st_mtime_ns


async def test_nothing_of_a_snapshot_can_be_changed(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")
    path = ".snapshots/vm/s"
    before = await fs.stat(path)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with refused(EROFS):
            await fs.open(path, flags)
    for change in ({"size": 0}, {"mode": 0o644}, {"uid": 1}, {"gid": 1}, {"atime_ns": 1, "mtime_ns": 1}):
        with refused(EROFS):
            await fs.setattr(path, **change)
    assert await fs.holds(path, "one", "two")
    after = await fs.stat(path)
    assert stat.S_IMODE(after.st_mode) == 0o444
    assert after.st_mtime_ns == before.st_mtime_ns


async def test_touch_takes_a_snapshot_and_is_content(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    handle = await fs.create(".snapshots/vm/s", os.O_WRONLY)
    inode = await fs.inode(".snapshots/vm/s")
    entry = await fs.setattr_of(inode, atime_ns=5, mtime_ns=5)  # as utimensat(2) of the descriptor
    assert entry.st_mtime_ns != 5  # its time is its point in time
    for change in ({"size": 0}, {"mode": 0o644}, {"uid": 1}):
        with refused(EROFS):
            await fs.setattr_of(inode, **change)
    with refused(EROFS):
        await fs.ops.write(handle, 0, b"x")
    await fs.close(handle)
    with refused(EROFS):
        await fs.setattr_of(inode, atime_ns=5, mtime_ns=5)
    assert await fs.holds(".snapshots/vm/s", "one")


async def test_the_kernel_caches_nothing_of_who_makes_a_snapshot_by_opening_it_for_writing(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    inode, _ = await fs.parent(".snapshots/vm/s")
    for name, flags, uncached in ((b"w", os.O_WRONLY, True), (b"rw", os.O_RDWR, True), (b"r", os.O_RDONLY, False)):
        info, _ = await fs.ops.create(inode, name, 0o644, flags | os.O_CREAT, fs.ctx)
        assert (info.direct_io, info.keep_cache) == (uncached, not uncached)
        again = await fs.ops.open(await fs.inode(f".snapshots/vm/{name.decode()}"), os.O_RDONLY, fs.ctx)
        assert (again.direct_io, again.keep_cache) == (False, True)
        for handle in (info.fh, again.fh):
            await fs.close(handle)
    info, _ = await fs.ops.create(await fs.inode(""), b"disk", 0o644, os.O_RDWR | os.O_CREAT, fs.ctx)
    assert (info.direct_io, info.keep_cache) == (False, True)
    await fs.close(info.fh)


async def test_what_would_empty_a_snapshot_as_it_is_made_takes_none(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    for flags in (os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC):
        with refused(EROFS):
            await fs.create(".snapshots/vm/s", flags)
    assert await fs.list(".snapshots/vm") == {}


async def test_the_times_that_the_kernel_notes_of_a_renamed_snapshot_are_taken_and_ignored(fs: Fs) -> None:
    # With its writeback cache on it sends mtime and ctime by itself, and an error would stick to the file's pages.
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    before = (await fs.stat(".snapshots/vm/s")).st_mtime_ns
    await fs.rename(".snapshots/vm/s", ".snapshots/vm/t")
    assert (await fs.setattr(".snapshots/vm/t", mtime_ns=before, ctime_ns=5)).st_mtime_ns == before


async def test_a_time_that_somebody_sets_of_a_snapshot_is_refused_or_the_kernel_would_show_it(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    for times in ({"mtime_ns": 5}, {"mtime_ns": 5, "ctime_ns": 5}, {"atime_ns": 5}):
        with refused(EROFS):
            await fs.setattr(".snapshots/vm/s", **times)
    handle = await fs.create(".snapshots/vm/t", os.O_WRONLY)
    for times in ({"mtime_ns": 6, "ctime_ns": 6}, {"atime_ns": 7, "mtime_ns": 7, "ctime_ns": 7}):  # touch -m, touch
        await fs.setattr(".snapshots/vm/t", **times)
    await fs.close(handle)
    await fs.rename(".snapshots/vm/t", ".snapshots/vm/u")
    await fs.setattr(".snapshots/vm/u", mtime_ns=7, ctime_ns=8)  # as the kernel has it
    with refused(EROFS):
        await fs.setattr(".snapshots/vm/u", mtime_ns=6, ctime_ns=8)


async def test_opening_a_disk_can_empty_it(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")
    handle = await fs.open("vm", os.O_WRONLY | os.O_TRUNC)  # the kernel leaves that to us
    assert ((await fs.stat("vm")).st_size, fs.pool.catalog.disk("vm").mapped_blocks) == (0, 0)
    await fs.put(handle, 0, "new")
    await fs.close(handle)
    assert await fs.holds("vm", "new") and await fs.holds(".snapshots/vm/s", "one", "two")


async def test_a_disk_that_opening_cannot_empty_is_left_without_a_handle(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 1, "one")
    disk = fs.pool.catalog.disk("vm")

    async def resize(*_: object) -> None:
        raise CorruptionError("a page is damaged")

    monkeypatch.setattr(fs.service, "resize", resize)
    with refused(EIO):
        await fs.open("vm", os.O_WRONLY | os.O_TRUNC)
    assert (disk.handles, disk.writers) == (0, 0)
    assert await fs.holds("vm", "one")
    assert "open: a page is damaged" in log.take()


async def test_a_snapshot_is_taken_after_the_kernel_has_flushed_and_is_durable(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")

    async def flushed() -> None:
        await fs.write("vm", 0, "two")

    fs.kernel.meanwhile = flushed
    await fs.create(".snapshots/vm/s", os.O_WRONLY)
    assert ("flush", "vm") in fs.kernel.asked
    assert await fs.after_a_crash().holds(".snapshots/vm/s", "two")


async def test_an_open_disk_that_was_deleted_lives_on(fs: Fs) -> None:
    await fs.disk("vm", 3, "one", "two")
    handle = await fs.open("vm")
    inode = await fs.inode("vm")
    await fs.unlink("vm")
    await fs.disk("vm", 3, "other")
    await fs.put(handle, 2, "three")
    await fs.ops.fsync(handle, False)
    await fs.reclaimed()
    assert bytes(await fs.ops.read(handle, 0, 3 * B)) == fill("one") + fill("two") + fill("three")
    assert (await fs.ops.getattr(inode, fs.ctx)).st_nlink == 0
    await fs.close(handle)
    assert await fs.holds("vm", "other", "", "")
    await fs.reclaimed()
    assert fs.pool.space.allocated_blocks == 2


async def test_an_open_disk_that_was_deleted_can_be_cut_short_and_leaves_nothing(fs: Fs) -> None:
    await fs.disk("vm", 3, "one", "two")
    handle = await fs.open("vm")
    inode = await fs.inode("vm")
    await fs.unlink("vm")
    await fs.setattr_of(inode, size=0)
    await fs.put(handle, 0, "three")
    await fs.setattr_of(inode, size=100)
    assert bytes(await fs.ops.read(handle, 0, B)) == fill("three")[:100]
    await fs.close(handle)
    await fs.reclaimed()
    assert fs.pool.space.allocated_blocks == 1


async def test_the_kernel_may_keep_times_of_an_open_disk_that_was_deleted(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    inode = await fs.inode("vm")
    await fs.unlink("vm")
    await fs.setattr_of(inode, mtime_ns=5, ctime_ns=5)
    await fs.setattr_of(inode, mode=0o600)
    await fs.close(handle)
    assert await fs.after_a_crash().list() == {".snapshots": 2}


async def test_an_open_snapshot_that_was_deleted_lives_on(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")
    handle = await fs.open(".snapshots/vm/s", os.O_RDONLY)
    await fs.write("vm", 0, "new")
    await fs.unlink(".snapshots/vm/s")
    await fs.reclaimed()
    await fs.disk("other", 2, "x", "y")
    assert bytes(await fs.ops.read(handle, 0, 2 * B)) == fill("one") + fill("two")
    await fs.close(handle)
    await fs.reclaimed()
    assert fs.pool.space.allocated_blocks == 1 + 2 + 2


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
async def test_a_disk_that_was_deleted_cannot_be_opened_any_more(fs: Fs, flags: int) -> None:
    # As through a descriptor of O_PATH, or when it is deleted between the kernel's lookup and its open.
    await fs.disk("vm", 2, "one", "two")
    inode = await fs.inode("vm")
    await fs.unlink("vm")
    await fs.reclaimed()
    with refused(ENOENT, ESTALE):
        await fs.ops.open(inode, flags, fs.ctx)


async def test_a_disk_that_was_deleted_cannot_be_cut_short_any_more(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    inode = await fs.inode("vm")
    await fs.unlink("vm")
    await fs.reclaimed()
    for size in (0, 100, 3 * B):
        with refused(ENOENT, ESTALE):
            await fs.setattr_of(inode, size=size)


async def test_a_snapshot_that_was_deleted_cannot_be_opened_any_more(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")
    await fs.write("vm", 0, "new")
    inode = await fs.inode(".snapshots/vm/s")
    await fs.unlink(".snapshots/vm/s")
    await fs.reclaimed()
    with refused(ENOENT, ESTALE):
        await fs.ops.open(inode, os.O_RDONLY, fs.ctx)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
async def test_a_synchronous_write_is_durable(fs: Fs, flag: int) -> None:
    await fs.disk("vm", 2)
    handle = await fs.open("vm", os.O_RDWR | flag)
    await fs.put(handle, 0, "one")
    assert await fs.after_a_crash().holds("vm", "one", "")


async def test_a_closed_file_is_durable(fs: Fs) -> None:
    handle = await fs.create("vm")
    await fs.put(handle, 0, "one")
    await fs.ops.flush(handle)
    assert await fs.after_a_crash().holds("vm", "one")
