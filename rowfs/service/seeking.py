"""lseek(2) with SEEK_DATA and SEEK_HOLE: where a disk or snapshot has data, and where it certainly has none.

Programs copy nothing of what is told to be a hole. So before one is told of in a disk that somebody has open for
writing, what the kernel still caches of it has to be here. Where that cannot be known, all is data.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENXIO
from typing import NamedTuple

from rowfs.base.errors import RowfsError
from rowfs.service.writeback import Writeback
from rowfs.store.diskio import DiskIO
from rowfs.store.model import Disk, Snapshot

TRIES = 4  # each finds a hole that was none when the last one looked


class Hole(NamedTuple):
    """A range that is told to hold no data."""

    start: int
    length: int  # 0: up to the end of the file

    def covers(self, other: Hole) -> bool:
        """Whether another one lies within this."""
        if self.length == 0 or other.length == 0:
            return self.length == 0 and self.start <= other.start
        return self.start <= other.start and other.start + other.length <= self.start + self.length


class Sought(NamedTuple):
    """What was found, and which hole that tells of."""

    offset: int | None  # None: there is none
    hole: Hole | None


async def seek(io: DiskIO, writeback: Writeback, target: Disk | Snapshot, offset: int, whence: int) -> int:
    """As lseek(2). Raises RowfsError with ENXIO past the last data, or the end; EINVAL where nothing can be told.

    Upon EINVAL programs read all of a file, as where there is no such call.
    """
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise RowfsError("only data and holes can be sought", EINVAL)
    known: Hole | None = None
    size_bytes: int | None = target.size_bytes
    for _ in range(TRIES):
        sought = look(io, target, offset, whence)
        if sought.hole is None or isinstance(target, Snapshot) or not target.writers:
            return _there(sought.offset)
        if known is not None and known.covers(sought.hole):
            return _there(sought.offset)
        question = await writeback.ask(target, *sought.hole)
        known, size_bytes = sought.hole, question.size_bytes
        if not question.written:
            break
    return _all_is_data(size_bytes, offset, whence)


def look(io: DiskIO, target: Disk | Snapshot, offset: int, whence: int) -> Sought:
    """What the pool says. The kernel may know of a longer file, so a hole at the end has none itself."""
    size = target.size_bytes
    if not 0 <= offset < size:
        return Sought(None, Hole(offset, 0) if offset >= 0 else None)
    extents = io.extents(target, offset)
    first, length = next(extents, (size, 0))
    if whence == os.SEEK_DATA:
        if first == size:
            return Sought(None, Hole(offset, 0))
        return Sought(first, Hole(offset, first - offset) if first > offset else None)
    if first > offset:
        start, end = offset, first
    else:
        start, end = first + length, next(extents, (size, 0))[0]
    return Sought(start, Hole(start, end - start if end < size else 0))


def _all_is_data(size_bytes: int | None, offset: int, whence: int) -> int:
    if size_bytes is None:
        raise RowfsError("what the kernel holds of the file is not known", EINVAL)
    if not 0 <= offset < size_bytes:
        return _there(None)
    return offset if whence == os.SEEK_DATA else size_bytes


def _there(offset: int | None) -> int:
    if offset is None:
        raise RowfsError("there is no data behind the offset", ENXIO)
    return offset
