"""Copying what a snapshot holds, and only that: holes stay holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from rowfs.base.errors import RowfsError

COPY_BYTES = 1 << 20  # the largest request a FUSE mount gets
ZEROS = bytes(COPY_BYTES)

Extent = Sequence[int]  # offset and length in bytes
CopiedCallback = Callable[[int], None]


def copy_sparse(
    source: BinaryIO, extents: Sequence[Extent], target: BinaryIO, size_bytes: int, copied: CopiedCallback
) -> None:
    """Makes the empty file `target` hold `extents` of `source` in `size_bytes`. `copied` hears of each piece."""
    target.truncate(size_bytes)
    for offset, piece in _pieces(source, extents):
        target.seek(offset)
        target.write(piece)
        copied(len(piece))
    target.flush()


def stream_out(
    source: BinaryIO, extents: Sequence[Extent], target: BinaryIO, size_bytes: int, copied: CopiedCallback
) -> None:
    """Writes all `size_bytes` to `target`, which need not seek: what is in no extent as zeros."""
    position = 0
    for offset, piece in _pieces(source, extents):
        _write_zeros(target, offset - position)
        target.write(piece)
        position = offset + len(piece)
        copied(len(piece))
    _write_zeros(target, size_bytes - position)
    target.flush()


def _pieces(source: BinaryIO, extents: Sequence[Extent]) -> Iterator[tuple[int, bytes]]:
    """The bytes of `extents` and where they lie. Raises RowfsError when they cannot be read."""
    for start, length in extents:
        offset, end = start, start + length
        while offset < end:
            piece = _read_at(source, min(COPY_BYTES, end - offset), offset)
            yield offset, piece
            offset += len(piece)


def _read_at(source: BinaryIO, length: int, offset: int) -> bytes:
    try:
        source.seek(offset)
        piece = source.read(length)
    except OSError as error:
        raise RowfsError(f"cannot read the snapshot at byte {offset}: {error.strerror}", error.errno) from error
    if not piece:
        raise RowfsError(f"the snapshot's file ends at byte {offset}, before the data it should hold")
    return piece


def _write_zeros(target: BinaryIO, length: int) -> None:
    while length > 0:
        target.write(ZEROS[:length])
        length -= min(length, COPY_BYTES)
