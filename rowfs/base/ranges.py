"""Splitting byte ranges at block and page edges, and arrays of addresses into runs. Pure arithmetic."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rowfs.base.units import BLOCK_BITS, BLOCK_BYTES, HOLE, PAGE_BLOCKS, PAGE_BYTES, BlockAddress, PageIndex


class Segment(NamedTuple):
    """The part of a byte range that lies in one page: whole blocks, or a piece of one block."""

    page: PageIndex
    slot: int  # the first block, counted within the page
    blocks: int  # how many whole blocks; 0: a piece of the block at `slot`
    skip_bytes: int  # where in that block the piece begins; 0 for whole blocks
    length_bytes: int


class Run(NamedTuple):
    """Consecutive slots of a page at consecutive addresses, or all of them holes (address HOLE)."""

    slot: int
    blocks: int
    address: BlockAddress


class Span(NamedTuple):
    """Bytes of the data file and where in a buffer they belong."""

    position_bytes: int
    buffer_start: int
    length_bytes: int


def segments(offset_bytes: int, length_bytes: int) -> Iterator[Segment]:
    """Cut a byte range into head piece, whole blocks page by page, and tail piece, in order."""
    position, end = offset_bytes, offset_bytes + length_bytes
    while position < end:
        page, within = divmod(position, PAGE_BYTES)
        slot, skip = within >> BLOCK_BITS, within & (BLOCK_BYTES - 1)
        if skip or end - position < BLOCK_BYTES:
            length = min(BLOCK_BYTES - skip, end - position)
            yield Segment(PageIndex(page), slot, 0, skip, length)
        else:
            blocks = min(PAGE_BLOCKS - slot, (end - position) >> BLOCK_BITS)
            length = blocks << BLOCK_BITS
            yield Segment(PageIndex(page), slot, blocks, 0, length)
        position += length


def runs(addresses: array[int], slot: int, blocks: int) -> list[Run]:
    """What `blocks` slots of a page from `slot` on hold, in as few runs as there can be."""
    if blocks == 1:
        return [Run(slot, 1, BlockAddress(addresses[slot]))]
    window = np.frombuffer(addresses, np.int64, blocks, slot * 8)
    joined = np.diff(window) == (window[1:] != HOLE)
    joined &= (window[:-1] != HOLE) == (window[1:] != HOLE)
    starts = [0, *(np.flatnonzero(~joined) + 1).tolist()]
    ends = [*starts[1:], blocks]
    return [
        Run(slot + start, end - start, BlockAddress(address))
        for start, end, address in zip(starts, ends, window[starts].tolist(), strict=True)
    ]


def joined_spans(addresses: np.ndarray) -> list[Span]:
    """Where these blocks lie, those that follow one another as one; in the buffer they do as they do in the array."""
    if not len(addresses):
        return []
    starts = [0, *(np.flatnonzero(np.diff(addresses) != 1) + 1).tolist()]
    ends = [*starts[1:], len(addresses)]
    return [
        Span(int(addresses[start]) << BLOCK_BITS, start << BLOCK_BITS, end - start << BLOCK_BITS)
        for start, end in zip(starts, ends, strict=True)
    ]
