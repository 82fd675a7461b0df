"""The data file: reads and writes of blocks at their addresses. No other Python calls pread or pwrite on it; C does for
the commonest requests (native/_reads.c, native/_writes.c, native/_syncs.c, native/_workers.c).

The only one that calls fallocate, too: `preallocate` is for the map's file.

This is also the seam where tests inject faults: whatever offers what `DataFile` does can take its place, but for
`fileno` and `sync_with`, which are for who has the file itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from errno import EAGAIN, EINTR, EINVAL, ENOENT, ENXIO, EOPNOTSUPP

from rowfs.base.errors import NO_SPACE, CorruptionError, NoSpaceError, PoolError, StorageError, host_full_line
from rowfs.base.format import pack_label, unpack_label
from rowfs.base.ranges import Span
from rowfs.base.units import BLOCK_BITS, BLOCK_BYTES, BlockAddress
from rowfs.persist.pooldir import open_regular

OFFSET_MAX = 1 << 63  # of off_t
SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
# ext4 and XFS cache as one folio what one call writes, and ext4 looks at all blocks of it at each small write later:
# with 1 MiB that is as much work as everything else together.
WRITE_BYTES_MAX = 64 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class DataFile:
    """One open data file. Methods may be called from any thread; each system call is atomic for whole blocks."""

    def __init__(self, path: str, read_only: bool = False) -> None:
        """Raises PoolError when there is no data file of a known format at `path`."""
        self.path = path
        try:
            self._fd = open_regular(path, os.O_RDONLY if read_only else os.O_RDWR)
        except OSError as error:
            raise PoolError(f"cannot open {path}: {error.strerror}") from None
        self._direct_fd: int | None = None
        self._host_free = 0  # bytes, as it last said
        self.keeps_freed = False  # the host cannot take blocks back
        self._nowait_flag = os.RWF_NOWAIT
        self._fdatasync: Callable[[int], None] = os.fdatasync
        # Where it ends, or before; the C extension has it, too. It never gets shorter, so one that ends before that was
        # cut off by somebody else. Written to behind its end it would read as zeros where blocks were.
        self.reach = array("q", [self.size_bytes()])
        self.tell: Callable[[str], object] = lambda what: None
        try:
            self.uuid = unpack_label(os.pread(self._fd, BLOCK_BYTES, 0))
            self._punch(-(-self.size_bytes() // BLOCK_BYTES), 1)  # where nothing is: it only shows whether that works
        except BaseException:
            os.close(self._fd)
            raise

    @staticmethod
    def create(path: str, uuid: bytes) -> None:
        """Make a data file that holds its label alone. Raises PoolError when there is a file already."""
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PoolError(f"cannot create {path}: {error.strerror}") from None
        try:
            os.pwrite(fd, pack_label(uuid), 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the file, without syncing it."""
        os.close(self._fd)
        if self._direct_fd is not None:
            os.close(self._direct_fd)

    def fileno(self) -> int:
        """The descriptor, for who reads and writes blocks as `read_cached` and `write` do (native/_engine.h)."""
        return self._fd

    def write(self, address: BlockAddress, data: bytes | memoryview, skip_bytes: int = 0) -> None:
        """Write `data` from `skip_bytes` into the block at `address` on, over as many consecutive blocks as it fills.

        Raises NoSpaceError when the host file system is full, CorruptionError where the file was cut off, StorageError
        for any other failure.
        """
        position = (address << BLOCK_BITS) + skip_bytes
        end = position + len(data)
        try:
            if os.lseek(self._fd, 0, os.SEEK_END) < self.reach[0]:
                self.check_whole()
            if len(data) <= WRITE_BYTES_MAX and os.pwrite(self._fd, data, position) == len(data):
                self.reach[0] = max(self.reach[0], end)
                return
            view = memoryview(data)
            while view:  # or a signal came, or it was the last free block of the host
                done = os.pwrite(self._fd, view[:WRITE_BYTES_MAX], position)
                view, position = view[done:], position + done
            self.reach[0] = max(self.reach[0], end)
        except OSError as error:
            raise _failure(error, "write") from error

    def read(self, spans: Sequence[Span], buffer: memoryview) -> None:
        """Fill `buffer` from the spans; waits for the disk. Raises CorruptionError past the end of the file."""
        if len(spans) > 1:  # all at once: a disk that was written at random has a span for every few blocks
            for position, _, length in spans:
                os.posix_fadvise(self._fd, position, length, os.POSIX_FADV_WILLNEED)
        for position, start, length in spans:
            self._read_span(position, buffer[start : start + length], 0)

    def read_cached(self, spans: Sequence[Span], buffer: memoryview) -> bool:
        """As `read`, but False (and `buffer` undefined) when it would have to wait for the disk."""
        if not self._nowait_flag:
            return False
        for position, start, length in spans:
            if not self._read_span(position, buffer[start : start + length], self._nowait_flag):
                return False
        return True

    def read_disk(self, spans: Sequence[Span], buffer: memoryview) -> None:
        """As `read`, but what the disk has, not what the host has in memory; and the host keeps nothing of it.

        Spans and `buffer` have to be aligned to blocks. A host that cannot do that reads as it always does.
        """
        try:
            if self._direct_fd is None:
                self._direct_fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            for position, start, length in spans:
                with buffer[start : start + length] as target:
                    if os.preadv(self._direct_fd, [target], position) != length:
                        self.read([Span(position, start, length)], buffer)
        except OSError as error:
            if error.errno not in (EINVAL, EOPNOTSUPP, ENOENT):
                raise _failure(error, "read") from error
            self.read(spans, buffer)

    def _read_span(self, position: int, target: memoryview, flags: int) -> bool:
        while len(target):
            try:
                done = os.preadv(self._fd, [target], position, flags)
            except OSError as error:
                if error.errno == EAGAIN and flags:
                    return False
                if error.errno == EOPNOTSUPP and flags:  # a host file system that cannot tell: always use a thread
                    self._nowait_flag = 0
                    return False
                if error.errno == EINTR:
                    continue
                raise _failure(error, "read") from error
            if done == 0:  # a block in use was written once, so the file has reached it
                self.check_whole()
                raise CorruptionError(f"the data file ends before byte {position}, which is in use")
            target, position = target[done:], position + done
        return True

    def check_whole(self) -> None:
        """The file is as long as it was. Raises CorruptionError."""
        reach = self.reach[0]  # before the other: another thread may write meanwhile
        size = self.size_bytes()
        if size < reach:
            what = f"the data file was cut off: it ends at byte {size}, and went on to {reach}"
            self.tell(what)
            error = CorruptionError(what)
            error.logged = True
            raise error

    def sync(self) -> None:
        """Make every write that returned durable. Raises CorruptionError where the file was cut off, StorageError."""
        self.check_whole()
        try:
            self._fdatasync(self._fd)
        except OSError as error:
            raise _failure(error, "fdatasync") from error

    def write_back(self) -> None:
        """Have the host begin to write what was written, and wait for none of it. Raises StorageError."""
        if _libc.sync_file_range(self._fd, 0, 0, SYNC_FILE_RANGE_WRITE):
            code = ctypes.get_errno()
            raise StorageError(f"write-back of the data file failed: {os.strerror(code)}", code)

    def sync_with(self, fdatasync: Callable[[int], None]) -> None:
        """Have `fdatasync` called to sync, which whoever else syncs the descriptor calls too: the kernel tells only one
        caller of a write that failed."""
        self._fdatasync = fdatasync

    def punch(self, first: BlockAddress, blocks: int) -> None:
        """Give blocks back to the host file system; they read as zeros. A host that cannot is left alone."""
        code = self._punch(first, blocks)
        if code not in (0, EOPNOTSUPP):
            raise StorageError(f"cannot punch a hole into the data file: {os.strerror(code)}", code)

    def _punch(self, first: int, blocks: int) -> int:
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        code = _fallocate(self._fd, mode, first << BLOCK_BITS, blocks << BLOCK_BITS)
        self.keeps_freed |= code == EOPNOTSUPP
        return code

    def size_bytes(self) -> int:
        """Where the data file ends."""
        return os.fstat(self._fd).st_size

    def blocks_max(self) -> int:
        """How many blocks the host file system lets the file have; one less than 16 TiB on ext4."""
        return bisect_left(range(1, OFFSET_MAX >> BLOCK_BITS), True, key=self._is_too_long)

    def _is_too_long(self, blocks: int) -> bool:
        try:
            os.lseek(self._fd, blocks << BLOCK_BITS, os.SEEK_SET)  # nobody reads or writes where that leads to
        except OSError:
            return True
        return False

    def held_runs(self, first: BlockAddress, blocks: int) -> list[tuple[int, int]]:
        """Which of these blocks the host holds: runs of (first address, count). Raises StorageError."""
        runs = []
        at, end = first << BLOCK_BITS, (first + blocks) << BLOCK_BITS
        try:
            while at < end:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
                at = os.lseek(self._fd, start, os.SEEK_HOLE)
                low, high = start >> BLOCK_BITS, -(-min(at, end) // BLOCK_BYTES)
                if low < high:
                    runs.append((low, high - low))
        except OSError as error:
            if error.errno != ENXIO:  # else there is no more
                raise _failure(error, "lseek") from error
        return runs

    def used_bytes(self) -> int:
        """What the data file takes on the host file system."""
        return os.fstat(self._fd).st_blocks * 512

    def host_free_bytes(self) -> int:
        """What the host file system has left for the user who mounted; what it last said, if it cannot tell."""
        with contextlib.suppress(OSError):
            host = os.fstatvfs(self._fd)
            self._host_free = host.f_bavail * host.f_frsize
        return self._host_free


def preallocate(path: str, offset: int, length: int) -> bool:
    """Have blocks of the host ready for a range of a file, whose size stays. False: it has not so many, or no way."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length) == 0
    finally:
        os.close(fd)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    return ctypes.get_errno() if _libc.fallocate(fd, mode, offset, length) else 0


def _failure(error: OSError, what: str) -> NoSpaceError | StorageError:
    if error.errno in NO_SPACE:
        return NoSpaceError(host_full_line(error.errno))
    return StorageError(f"{what} of the data file failed: {error.strerror}")
