"""Blocks that came as zeros: data at first, holes once they stayed zeros for a while.

What is written is data, zeros as well. A hole instead would be a block freed and a map changed, and a new block and
another change with the next write to it: a database fills its log with zeros before it writes it, so that its syncs
change nothing but data. So that zeros still give space back, which blocks came as such is noted here, and they are made
holes later (`DiskIO.empty`, which looks at each once more). A hole is made in what the head holds: of a block that a
snapshot holds as well, the snapshot keeps it.

In memory alone, and no more of it than `PAGES_MAX` pages: what is forgotten stays data, until somebody trims the disk.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from rowfs.base.units import BLOCK_BYTES, PAGE_BLOCKS, PageIndex
from rowfs.store.model import Disk

AFTER_S = 300.0
GENERATIONS = 4  # so what is due was not written for `after_s` to 1.25 times that
PAGES_MAX = 1 << 15  # 64 GiB of zeros, in some 8 MB of memory

Slots = dict[tuple[Disk, PageIndex], int]  # bit n: slot n of the page


class Piece(NamedTuple):
    """Some blocks of one page of a disk's head."""

    disk: Disk
    page: PageIndex
    slots: np.ndarray  # of bool, one for each


class Zeros:
    """Which blocks of a pool's disks came as zeros, and how long ago."""

    def __init__(self) -> None:
        self.after_s: float | None = AFTER_S  # how long they stay data; None: until somebody trims the disk
        self._young: deque[Slots] = deque(({} for _ in range(GENERATIONS)), GENERATIONS)  # the youngest last
        self._due: Slots = {}

    def note(self, disk: Disk, index: PageIndex, slots: int) -> None:
        """Blocks of a page were written as zeros: bit n stands for slot n."""
        latest = self._young[-1]
        latest[disk, index] = latest.get((disk, index), 0) | slots
        if len(latest) > PAGES_MAX:
            self.hurry()

    def note_run(self, disk: Disk, block: int, blocks: int) -> None:
        """So many blocks of a disk were written as zeros, from `block` on (for native/_writes.c)."""
        while blocks:
            index, slot = divmod(block, PAGE_BLOCKS)
            count = min(blocks, PAGE_BLOCKS - slot)
            self.note(disk, PageIndex(index), ((1 << count) - 1) << slot)
            block, blocks = block + count, blocks - count

    def age(self) -> None:
        """A part of the time is over, 1 / GENERATIONS of it: what was noted that many parts ago is due now.

        But for what came as zeros again since.
        """
        for key, slots in self._young.popleft().items():
            for younger in self._young:
                slots &= ~younger.get(key, 0)
            if slots:
                self._make_due(key, slots)
        self._young.append({})

    def hurry(self) -> None:
        """All of it is due."""
        for generation in self._young:
            for key, slots in generation.items():
                self._make_due(key, slots)
            generation.clear()

    def _make_due(self, key: tuple[Disk, PageIndex], slots: int) -> None:
        if len(self._due) < PAGES_MAX or key in self._due:
            self._due[key] = self._due.get(key, 0) | slots

    @property
    def noted(self) -> bool:
        """Whether there are any, due or not."""
        return bool(self._due) or any(self._young)

    @property
    def due(self) -> bool:
        """Whether any are due."""
        return bool(self._due)

    def take(self) -> Piece | None:
        """The next that are due, forgotten with this; None: there are none."""
        while self._due:
            disk, index = key = next(iter(self._due))
            slots = self._due.pop(key)
            if disk.head is not None and not disk.deleted:
                return Piece(disk, index, slot_flags(slots))
        return None


def zero_blocks(data: memoryview) -> np.ndarray:
    """Which blocks of `data` are all zeros, as an array of bool."""
    words = np.frombuffer(data, np.uint64).reshape(-1, BLOCK_BYTES // 8)
    zeros: np.ndarray = words[:, 0] == 0
    for at in np.flatnonzero(zeros):
        zeros[at] = not words[at].any()
    return zeros


def slot_bits(flags: np.ndarray) -> int:
    """An array of bool, the first slots of a page, as an integer with a bit for each."""
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def slot_flags(slots: int) -> np.ndarray:
    """The reverse, for all slots of a page."""
    packed = np.frombuffer(slots.to_bytes(PAGE_BLOCKS // 8, "little"), np.uint8)
    return np.unpackbits(packed, bitorder="little").astype(bool)
