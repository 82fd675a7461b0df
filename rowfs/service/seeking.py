"""lseek(2) with SEEK_DATA and SEEK_HOLE: where a disk or snapshot has data, and where it certainly has none.

Programs copy nothing of what is told to be a hole. So before one is told of in a disk that somebody has open for
writing, what the kernel still caches of it has to be here. Where that cannot be known, all is data.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from errno import EINVAL, ENXIO
from typing import NamedTuple

from rowfs.base.errors import RowfsError
from rowfs.service.counting import counted
from rowfs.service.writeback import Writeback
from rowfs.store.diskio import DiskIO, Extent, point_of
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
        point = point_of(target)
        sought = await counted(look(io, target, offset, whence))
        if point_of(target) is not point:  # the disk was rolled back meanwhile
            size_bytes = target.size_bytes
            break
        if sought.hole is None or isinstance(target, Snapshot) or not target.writers:
            return _there(sought.offset)
        if known is not None and known.covers(sought.hole):
            return _there(sought.offset)
        question = await writeback.ask(target, *sought.hole)
        known, size_bytes = sought.hole, question.size_bytes
        if not question.written:
            break
    return _all_is_data(size_bytes, offset, whence)


def look(io: DiskIO, target: Disk | Snapshot, offset: int, whence: int) -> Generator[None, None, Sought]:
    """What the pool says. The kernel may know of a longer file, so a hole at the end has none itself. Pauses."""
    size = target.size_bytes
    if not 0 <= offset < size:
        return Sought(None, Hole(offset, 0) if offset >= 0 else None)
    extents = io.extents_in_slices(target, offset)
    first, length = yield from _next(extents, size)
    if whence == os.SEEK_DATA:
        if first == size:
            return Sought(None, Hole(offset, 0))
        return Sought(first, Hole(offset, first - offset) if first > offset else None)
    if first > offset:
        start, end = offset, first
    else:
        start, (end, _) = first + length, (yield from _next(extents, size))
    return Sought(start, Hole(start, end - start if end < size else 0))


def _next(extents: Iterator[Extent | None], size: int) -> Generator[None, None, Extent]:
    for extent in extents:
        if extent is not None:
            return extent
        yield
    return size, 0


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
