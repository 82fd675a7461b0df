"""Holes for blocks that are zeros: those that were written as such a while ago, and all of a disk on demand.

A block is looked at where it is made a hole, in one step of the owner: nothing can be written to it in between. What
the host has not in memory is read before, by whoever may wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rowfs.base.ranges import Span, joined_spans
from rowfs.base.units import BLOCK_BITS, HOLE, PAGE_BLOCKS, PAGE_BYTES, PageIndex
from rowfs.store.diskio import DiskIO
from rowfs.store.model import Disk
from rowfs.store.zeros import Piece, zero_blocks

PIECE_BLOCKS = 128  # 512 KiB, which the owner looks at in some 0.1 ms


class Emptied(NamedTuple):
    """What became of blocks that were zeros."""

    holes: int  # so many blocks of the disk are holes now
    freed: int  # and so many of these nothing holds any more, be it another disk or a snapshot


class Trim:
    """Zeros to holes, in one pool."""

    def __init__(self, io: DiskIO) -> None:
        self._io = io

    def pieces(self, disk: Disk) -> Iterator[Piece]:
        """All that a disk maps when it comes to it, a piece at a time, until it gets another head."""
        head = disk.head
        assert head is not None, "a deleted disk is trimmed"
        pages = self._io.versions.mapped_pages(head, PageIndex(0), PageIndex(-(-disk.size_bytes // PAGE_BYTES)))
        for index in pages:
            for start in range(0, PAGE_BLOCKS, PIECE_BLOCKS):
                if disk.head is not head:
                    return
                slots = np.zeros(PAGE_BLOCKS, bool)
                slots[start : start + PIECE_BLOCKS] = True
                slots &= self._io.versions.page(head, index).places() != HOLE
                if slots.any():
                    yield Piece(disk, index, slots)

    def spans(self, piece: Piece) -> list[Span]:
        """Where those blocks of a piece lie that are mapped; in a buffer they follow one another."""
        return joined_spans(self._places(piece)[1])

    @staticmethod
    def zeros(piece: Piece, data: memoryview) -> Piece:
        """Those blocks of a piece, all of them mapped, that are zeros in `data`, as its `spans` were read."""
        slots = np.zeros(PAGE_BLOCKS, bool)
        slots[np.flatnonzero(piece.slots)[zero_blocks(data)]] = True
        return piece._replace(slots=slots)

    def empty(self, piece: Piece, wait: bool = False) -> Emptied | None:
        """Make holes of the blocks of a piece that are zeros now. None: the host has not all of it in memory.

        With `wait` it is read from the disk.
        """
        head = piece.disk.head
        if head is None:
            return Emptied(0, 0)
        at, places = self._places(piece)
        if not len(at):
            return Emptied(0, 0)
        spans, buffer = joined_spans(places), memoryview(bytearray(len(at) << BLOCK_BITS))
        if not self._io.fetch(piece.disk, spans, buffer, wait):
            return None
        zeros = at[zero_blocks(buffer)]
        if not len(zeros):
            return Emptied(0, 0)
        before = self._io.space.freed_blocks
        wanted = self._io.versions.page(head, piece.page).places().copy()
        wanted[zeros] = HOLE
        self._io.remap(piece.disk, head, piece.page, 0, wanted)
        return Emptied(len(zeros), self._io.space.freed_blocks - before)

    def _places(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """The slots of a piece that are mapped, and the addresses of these."""
        assert piece.disk.head is not None, "a deleted disk is trimmed"
        places = self._io.versions.page(piece.disk.head, piece.page).places()
        at = np.flatnonzero(piece.slots & (places != HOLE))
        return at, places[at]
