"""What the mount and the socket have in common: the verbs that take more than one step, and wait.

The engine does each step at once. Here are the waits in between: for the kernel's caches, for commits, for reclaim.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from errno import EFBIG, EINVAL, EOPNOTSUPP
from functools import partial

import trio

from rowfs.base.errors import (
    BlockDamagedError,
    BusyError,
    DiskFullError,
    ExistsError,
    NoSpaceError,
    ReadOnlyError,
    RowfsError,
)
from rowfs.base.inodenumbers import disk_inode
from rowfs.base.names import check_name
from rowfs.base.units import BLOCK_BYTES, DISK_BYTES_MAX, check_disk_size
from rowfs.host.freeze import Freezes
from rowfs.host.holders import devices, file_systems, users
from rowfs.host.views import OwnMount
from rowfs.native import extension
from rowfs.rules.runs import Start
from rowfs.service.committer import Committer
from rowfs.service.hostclock import HostClock
from rowfs.service.kernelcache import KernelCache, run_apart
from rowfs.service.seeking import seek
from rowfs.service.trimming import Progress
from rowfs.service.writeback import Writeback
from rowfs.store.diskio import Reading
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # modes of fallocate, linux/falloc.h
SLICE_PAGES = 64  # pages punched before others may work
SLICE_S = 0.002  # of counting or sharing, before they may
SPACE_TRIES = 4  # for a write that finds no space
CLOSING_S = 0.5  # that Linux may take to tell that nobody has a file open any more


class Service:
    """A pool on a mountpoint."""

    def __init__(self, pool: Pool, mountpoint: str, invalidate: Callable[[int, bool], None]) -> None:
        """`invalidate` has the kernel forget what it caches of an inode (see KernelCache)."""
        self.pool = pool
        self.own = OwnMount(mountpoint)
        self.clock = HostClock(pool)
        pool.catalog.accounts.now_ns = self.clock.believed_ns
        self.ending = False  # nobody waits for what may happen any more
        self.make_room = _no_room  # for a disk at its limit of space, and so many blocks
        self._requests = 0
        self.committer = Committer(pool, self.requests)
        self.cache = KernelCache(self.own, invalidate)
        self.writeback = Writeback(self.own, self.cache.as_own)
        self.committer.ahead.hand_over = self.cache.hand_over
        self.freezes = Freezes()

    async def check_writable(self) -> None:
        """Raises ReadOnlyError when nothing can be changed: on the mount, so that verbs change nothing either."""
        self.pool.check_writable()
        if await self.is_remounted_read_only():
            raise ReadOnlyError("the mount is read-only: mount -o remount,rw it first")

    async def is_remounted_read_only(self) -> bool:
        """Whether the kernel lets nothing be written, though the pool could be."""
        return bool(self.own.device) and await trio.to_thread.run_sync(self.own.is_read_only)

    def requests(self) -> int:
        """How many reads and writes there were."""
        served = extension.served()
        return self._requests + served.reads + served.writes + served.syncs

    # Bytes

    def read_cached(self, target: Disk | Snapshot, offset: int, length: int) -> bytes | bytearray | None:
        """The bytes of a range, if the host has them in memory; else None."""
        self._requests += 1
        reading = Reading(self.pool.io, target, offset, length)
        with self.pool.damage.noted(target, reading.offset):
            return reading.data() if reading.cached() else None

    async def read(self, target: Disk | Snapshot, offset: int, length: int) -> bytes | bytearray:
        """The bytes of a range, read in a worker, so that nobody else waits."""
        while True:
            reading = Reading(self.pool.io, target, offset, length)
            ticket = self.pool.commits.begin_read()
            try:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(reading.wait)  # it goes on anyway, and so must the ticket
                return reading.data()
            except BlockDamagedError:
                if not reading.outdated:
                    with self.pool.damage.noted(target, reading.offset):
                        raise
            finally:
                self.committer.read_ended(ticket)

    def write_now(self, disk: Disk, offset: int, data: bytes) -> bool:
        """Write a range, unless something has to be waited for: then nothing is written, and False returned."""
        self._requests += 1
        if (offset | len(data)) & (BLOCK_BYTES - 1) or self.pool.versions.dirty_pages > self.committer.soft_pages:
            return False
        try:
            self.pool.write(disk, offset, data)
        except NoSpaceError:
            return False  # what was written of it is written again
        return True

    async def write(self, disk: Disk, offset: int, data: bytes) -> None:
        """Write a range. When the pool is full, what was deleted is reclaimed first."""
        await self._warm(disk, offset, len(data))
        await self._fit(lambda: self.pool.write(disk, offset, data), disk, offset, len(data))
        await self.committer.throttle()

    async def _fit(self, change: Callable[[], object], disk: Disk, offset: int, length: int) -> None:
        """Make a change that writes to a range. When the pool is full, what was deleted is reclaimed first.

        Raises NoSpaceError when it does not fit then: also when the host has less space than it says.
        """
        tries_left = SPACE_TRIES
        while True:
            tries_left -= 1
            try:
                change()
                return
            except DiskFullError:
                if tries_left <= 0 or not await self.make_room(
                    disk, max(self.pool.io.lacking(disk, offset, length), 1)
                ):
                    raise
                continue
            except NoSpaceError:
                if self.pool.io.unseal(disk, offset, length):
                    await self.committer.commit(whole=True)  # then it is written in place
                    continue
                # What others can count on is free, and yet not ours: then the trash goes bit by bit.
                if tries_left <= 0 and not await self.committer.purge_for_space():
                    raise
            # Others may take what was made free for us; lastly all there is.
            blocks = self.pool.io.lacking(disk, offset, length) if tries_left > 1 else math.inf
            await self.committer.make_space(blocks)

    async def _warm(self, disk: Disk, offset: int, length: int) -> None:
        """Have the host cache the blocks that a write covers in part, which are read first."""
        for edge in {offset, offset + length}:
            start = edge - edge % BLOCK_BYTES
            if edge != start and self.read_cached(disk, start, BLOCK_BYTES) is None:
                await self.read(disk, start, BLOCK_BYTES)

    async def resize(self, disk: Disk, size_bytes: int) -> None:
        """Set a disk's size, as truncate(2) does: EFBIG past the largest. A long tail is cut off in slices."""
        self.pool.check_writable()
        if size_bytes > DISK_BYTES_MAX:
            raise RowfsError("a disk cannot be larger than 16 TiB", EFBIG)
        check_disk_size(size_bytes)
        old_bytes = disk.size_bytes
        if size_bytes == 0:
            self.pool.resize(disk, 0)
        head = None
        while disk.head is not head:  # again when the disk is rolled back meanwhile
            head = disk.head
            if size_bytes < disk.size_bytes:
                await self._punch(disk, size_bytes, disk.size_bytes - size_bytes)
        await self._set_size(disk, size_bytes)
        if size_bytes != old_bytes and not disk.deleted:
            self.pool.catalog.events.of_disk("resize", disk, f"from {old_bytes} bytes")

    async def _set_size(self, disk: Disk, size_bytes: int) -> None:
        await self._fit(lambda: self.pool.set_size(disk, size_bytes), disk, disk.size_bytes, 1)

    async def truncate(self, disk: Disk, size_bytes: int) -> None:
        """Set a disk's size through the kernel, which knows what it caches of the file; it asks for `resize`."""
        self.pool.check_writable()
        check_disk_size(size_bytes)
        if size_bytes > disk.size_bytes:
            self.pool.limits.check_provisioned(size_bytes - disk.size_bytes)  # the kernel would only hand on a number
        try:
            await self.cache.truncate(disk, size_bytes)
        except OSError as error:
            raise RowfsError(f"cannot resize {disk.name}: {error.strerror}", error.errno) from None

    async def rename(self, disk: Disk, name: str) -> None:
        """Rename a disk; an open one through the kernel, by whose paths loop devices on it are found."""
        if not disk.handles:
            self.pool.rename_disk(disk, name)
            return
        self.pool.check_writable()
        check_name(name, "disk name")
        other = self.pool.catalog.disks.get(name)
        if other is disk:
            return
        if other is not None and other.head is not None:
            raise ExistsError(f"there is a disk {name} already")
        try:
            await self.cache.rename(disk, name)
        except OSError as error:
            raise RowfsError(f"cannot rename {disk.name} to {name}: {error.strerror}", error.errno) from None

    async def fallocate(self, disk: Disk, mode: int, offset: int, length: int) -> None:
        """As fallocate(2): punch holes, zero ranges; plain allocation grows the disk and checks that there is space.

        Raises RowfsError with EOPNOTSUPP for the modes that move data, EFBIG past the largest size.
        """
        self.pool.check_writable()
        if mode & ~(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE):
            raise RowfsError("this mode of fallocate is not supported", EOPNOTSUPP)
        end = offset + length
        if end > DISK_BYTES_MAX:
            raise RowfsError("a disk cannot be larger than 16 TiB", EFBIG)
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            await self._punch(disk, offset, length)
        else:
            await self._check_fits(disk, offset, length)
        if not mode & KEEP_SIZE and end > disk.size_bytes:
            await self._set_size(disk, end)

    async def _check_fits(self, disk: Disk, offset: int, length: int) -> None:
        """Raises NoSpaceError unless so much of a range as the disk does not own can be written."""
        space, wanted = self.pool.space, -(-length // BLOCK_BYTES)
        for is_last in (False, True):
            blocks = wanted
            if 0 < blocks - space.free_blocks() <= disk.mapped_blocks:  # else it is known without a look at each page
                blocks -= await self._owned_blocks(disk, offset, length)
            if blocks <= space.free_blocks():
                return
            if is_last or blocks > space.free_blocks() + space.allocated_blocks:
                raise NoSpaceError("the pool has not that much space left")
            await self.committer.make_space(blocks)

    async def _owned_blocks(self, disk: Disk, offset: int, length: int) -> int:
        count, end = 0, time.monotonic() + SLICE_S
        for owned in self.pool.io.owned(disk, offset, length):
            count += owned
            if time.monotonic() >= end:
                await trio.lowlevel.checkpoint()
                end = time.monotonic() + SLICE_S
        return count

    async def _punch(self, disk: Disk, offset: int, length: int) -> None:
        await self._warm(disk, offset, length)
        for piece in _pieces(offset, length):  # what is kept of these blocks may need new places
            await self._fit(partial(self.pool.punch, disk, *piece), disk, *piece)
        for done, _ in enumerate(self.pool.io.punch(disk, offset, length)):
            if done % SLICE_PAGES == SLICE_PAGES - 1:
                await self.committer.throttle()
                await trio.lowlevel.checkpoint()

    async def trim(self, disk: Disk, progress: Progress, dry_run: bool = False) -> tuple[int, int]:
        """As Trimming.trim, of what was written before it was asked for; durable."""
        self.pool.check_writable()
        await self.cache.flush(disk)
        with self.held(disk):
            done = await self.committer.trimming.trim(disk, progress, dry_run)
        await self.committer.commit()
        return done

    async def seek(self, target: Disk | Snapshot, offset: int, whence: int) -> int:
        """As seeking.seek."""
        return await seek(self.pool.io, self.writeback, target, offset, whence)

    async def share(self, source: Disk | Snapshot, at: int, disk: Disk, to: int, length: int) -> int:
        """As Pool.share: how many bytes. The kernel has written back both files, and drops its cache of the target.

        Raises RowfsError when it is none, with EOPNOTSUPP for what cannot be shared, upon which the caller copies.
        """
        shared, end = 0, time.monotonic() + SLICE_S
        if to > disk.size_bytes:
            await self._fit(lambda: self.pool.io.clear_tail(disk, to), disk, disk.size_bytes, 1)
        with self.held(source), self.held(disk):
            try:
                for done in self.pool.share(source, at, disk, to, length):
                    shared = done
                    if time.monotonic() >= end:
                        await self.committer.throttle()
                        await trio.lowlevel.checkpoint()
                        self.pool.check_writable()
                        end = time.monotonic() + SLICE_S
            except RowfsError:
                if not shared:
                    raise
        return shared

    # Snapshots

    async def snapshot(
        self,
        disk: Disk,
        name: str | None,
        description: str = "",
        freeze_s: float | None = None,
        kind: str = "user",
    ) -> Snapshot:
        """As `take`; durable."""
        snapshot = await self.take(disk, name, description, freeze_s, kind)
        await self.committer.commit()
        return snapshot

    async def take(
        self,
        disk: Disk,
        name: str | None,
        description: str = "",
        freeze_s: float | None = None,
        kind: str = "user",
        start: Start | None = None,
    ) -> Snapshot:
        """A snapshot that holds everything written before it was asked for; the next commit makes it durable.

        With `freeze_s`, the file systems mounted from the disk are frozen meanwhile, for so long at most. Raises
        RowfsError when none is, or they cannot be frozen, or that took too long: there is no snapshot then.
        """
        self.pool.check_snapshot(disk, name, description)
        if freeze_s is None:
            return await self._snapshot(disk, name, description, "crash", kind, start)
        return await self._frozen_snapshot(disk, name, description, freeze_s, kind, start)

    async def _snapshot(
        self, disk: Disk, name: str | None, description: str, consistency: str, kind: str, start: Start | None
    ) -> Snapshot:
        self.committer.ahead.expect(disk)
        await self.cache.flush(disk)
        return self.pool.snapshot(disk, name, description=description, consistency=consistency, kind=kind, start=start)

    async def is_mounted(self, *disks: Disk) -> bool:
        """Whether a file system is mounted from any of these disks, which could be frozen."""
        for disk in disks:
            if disk.handles:
                found = await run_apart(file_systems, self.own, disk_inode(disk.inode))
                if found:
                    return True
        return False

    async def _frozen_snapshot(
        self, disk: Disk, name: str | None, description: str, limit_s: float, kind: str, start: Start | None
    ) -> Snapshot:
        systems = await run_apart(file_systems, self.own, disk_inode(disk.inode))
        if not systems:
            raise RowfsError(
                f"no file system is mounted from a loop device on {disk.name}: there is nothing to freeze", EINVAL
            )
        snapshot = None
        try:
            async with self.freezes.frozen(systems, limit_s):
                snapshot = await self._snapshot(disk, name, description, "frozen", kind, start)
        except RowfsError:
            if snapshot is not None and not snapshot.deleted:  # not frozen to the end: it is not what it says
                self.pool.delete_snapshot(snapshot)
            raise
        return snapshot

    async def rollback(self, disk: Disk, snapshot: Snapshot, force: bool, discard: bool) -> Snapshot | None:
        """Make a disk what its snapshot holds; durable, and nothing stale is left in the kernel's cache.

        Raises BusyError naming who uses the disk, unless `force`.
        """
        self.pool.check_rollback(disk, snapshot)
        if not force:
            await self.check_unused(disk)
        if disk.handles:
            await self.cache.flush(disk)
        old_size_bytes = disk.size_bytes
        kept = self.pool.rollback(disk, snapshot, discard)
        await self.renewed(disk, old_size_bytes)
        await self.committer.commit()
        return kept

    async def renewed(self, disk: Disk, old_size_bytes: int) -> None:
        """A disk holds something else, and had another size perhaps: the kernel forgets what it knew of it."""
        await self.cache.drop(disk)
        if disk.handles or disk.size_bytes != old_size_bytes:  # the kernel keeps to the size that it knows
            await self.cache.truncate(disk, disk.size_bytes)

    async def check_unused(self, disk: Disk) -> None:
        """Raises BusyError naming who uses the disk. Where nobody has it open, nothing is waited for."""
        holders = await run_apart(users, self.own, disk_inode(disk.inode), disk.name) if disk.handles else ""
        with trio.move_on_after(0 if holders else CLOSING_S):  # nobody has it open: it was closed a moment ago
            while disk.handles:
                await trio.sleep(0.01)
        if disk.handles:
            raise BusyError(
                f"the disk {disk.name} is in use{' by ' + holders if holders else ''}: "
                f"unmount and detach it, or roll back with --force"
            )

    async def check_detached(self, disk: Disk, verb: str) -> None:
        """Raises BusyError when a disk is attached: whoever works on it would go on with what is not there any more."""
        held_by = await run_apart(devices, self.own, disk_inode(disk.inode), disk.name) if disk.handles else []
        if held_by:
            raise BusyError(
                f"the disk {disk.name} is attached as {', '.join(held_by)}: "
                f"unmount and detach it, or {verb} it with --force"
            )

    # Handles

    @contextlib.contextmanager
    def held(self, target: Disk | Snapshot) -> Iterator[None]:
        """Keep a disk or snapshot readable meanwhile, even if it is deleted."""
        target.handles += 1
        try:
            yield
        finally:
            self.release(target)

    def release(self, target: Disk | Snapshot) -> None:
        """One handle less."""
        target.handles -= 1
        if isinstance(target, Snapshot) and not target.handles:
            self.pool.versions.forget(target.point)


async def _no_room(disk: Disk, blocks: int) -> bool:
    """Nobody makes any."""
    return False


def _pieces(offset: int, length: int) -> list[tuple[int, int]]:
    """The offsets and lengths of those parts of a range that cover less than a block."""
    end = offset + length
    first_end, last = -(-offset // BLOCK_BYTES) * BLOCK_BYTES, end // BLOCK_BYTES * BLOCK_BYTES
    if first_end > last:
        return [(offset, length)]
    return [(start, size) for start, size in ((offset, first_end - offset), (last, end - last)) if size]
