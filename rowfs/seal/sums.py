"""The sums of sealed blocks, by address. What a sum means for a block is said in docs/DURABILITY.md (sealed blocks).

A block gets its sum when it does not change any more (store.sealing), and keeps it until it is free. Between the two
its bytes are never written: a block that has a sum is not written in place (store.versions).

Invariants:
- Every block that has a sum is allocated. `forget` is called in the step that frees it, so the commit which makes the
  one durable has the other: a sum never outlives what it was made of, whatever a crash takes back.
- A block is not allocated while it has a sum (assert in persist.space).
- A stretch that was changed, or is being committed, stays in memory; all others can be read from the map again.

`table` and `rows` are looked at by the C extension as well (native/_verify.c), on the same thread. Whenever one has to
be longer, it is replaced by another array, which is how C sees that it has to look anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rowfs.base.errors import BlockDamagedError
from rowfs.base.ranges import Span
from rowfs.base.sumcode import STRETCH_BLOCKS
from rowfs.base.units import BLOCK_BITS, BLOCK_BYTES
from rowfs.seal.crc32c import Buffer, block_sums

NONE, UNKNOWN = -1, -2  # in `table`: the stretch has no sums; it has to be looked for in the map
ROW_BYTES = STRETCH_BLOCKS * 4
ROWS_MIN = 256
CROWDED_ROWS = 2048  # 8 MiB of records that are not committed


@dataclass(slots=True)
class Expected:
    """What the blocks of some spans have to sum up to. It can be held against them in any thread."""

    spans: Sequence[Span]
    sums: list[np.ndarray]  # for each span that of each block; 0: it is not sealed

    def is_as(self, other: Expected | None) -> bool:
        """Whether the other expects the same sums of the same blocks."""
        return other is not None and all(map(np.array_equal, self.sums, other.sums))

    def check(self, buffer: Buffer) -> None:
        """Raises BlockDamagedError unless what was read into `buffer` is what was sealed."""
        view = memoryview(buffer)
        wrong: list[int] = []
        starts: list[int] = []
        for span, sums in zip(self.spans, self.sums, strict=True):
            if sums.any():
                found = block_sums(view[span.buffer_start : span.buffer_start + span.length_bytes])
                bad = np.flatnonzero((found != sums) & (sums != 0))
                wrong += ((span.position_bytes >> BLOCK_BITS) + bad).tolist()
                starts += (span.buffer_start + (bad << BLOCK_BITS)).tolist()
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            what = f"the block at address {wrong[0]}{more} is not what was sealed: the data file is damaged"
            raise BlockDamagedError(what, wrong, starts)


class Sums:
    """The sums of one pool."""

    def __init__(
        self, load: Callable[[int], np.ndarray | None], stretches: int, cache_bytes: int, blocks: int = 0
    ) -> None:
        """`load` gives the durable sums of a stretch, of which the first so many may have any, of `blocks` in all."""
        self._load = load
        self.table = np.full(stretches, UNKNOWN, np.int32)  # by stretch: its row, NONE or UNKNOWN
        self._rows_max = max(ROWS_MIN, cache_bytes // ROW_BYTES)
        self.rows = np.zeros((min(64, self._rows_max), STRETCH_BLOCKS), np.uint32)
        self._stretch_of: dict[int, int] = {}  # by row, those that came first in front
        self._unused = list(range(len(self.rows)))
        self._changed: set[int] = set()
        self._committing: set[int] = set()
        self._any = stretches > 0
        self.blocks = blocks  # how many are sealed

    def __bool__(self) -> bool:
        """Whether any block may have a sum."""
        return self._any

    @property
    def changed(self) -> bool:
        """Whether a commit would change any record."""
        return bool(self._changed)

    @property
    def crowded(self) -> bool:
        """Whether so much changed that it ought to be committed."""
        return len(self._changed) > CROWDED_ROWS

    # Looking

    def of(self, addresses: np.ndarray) -> np.ndarray:
        """The sums of these blocks; 0: not sealed."""
        found = np.zeros(len(addresses), np.uint32)
        if self._any and len(addresses):
            rows = self._rows_of(addresses // STRETCH_BLOCKS)
            here = rows >= 0
            found[here] = self.rows[rows[here], addresses[here] % STRETCH_BLOCKS]
        return found

    def of_run(self, address: int, blocks: int) -> np.ndarray:
        """The same of blocks that follow one another."""
        stretch, first = divmod(address, STRETCH_BLOCKS)
        if first + blocks > STRETCH_BLOCKS:
            return self.of(np.arange(address, address + blocks))
        row = self._row_of(stretch)
        return np.zeros(blocks, np.uint32) if row < 0 else self.rows[row, first : first + blocks].copy()

    def has_any(self, address: int, blocks: int) -> bool:
        """Whether any of the blocks that follow one another is sealed."""
        return self._any and bool(self.of_run(address, blocks).any())

    def expected(self, spans: Sequence[Span]) -> Expected | None:
        """What is to be held against these spans once they are read, whole blocks all of them; None: nothing."""
        if not self._any:
            return None
        sums = [self.of_run(span.position_bytes >> BLOCK_BITS, span.length_bytes >> BLOCK_BITS) for span in spans]
        if not any(each.any() for each in sums):
            return None
        assert not any((span.position_bytes | span.length_bytes) & (BLOCK_BYTES - 1) for span in spans), (
            "a part of a block"
        )
        return Expected(spans, sums)

    # Changing

    def add(self, addresses: np.ndarray, sums: np.ndarray) -> None:
        """These distinct blocks, which had none, have sums from now on. None of these is 0."""
        if not len(addresses):
            return
        assert sums.all(), "0 stands for no sum"
        stretches = addresses // STRETCH_BLOCKS
        self._any = True
        rows = self._rows_of(stretches, make=True)
        assert not self.rows[rows, addresses % STRETCH_BLOCKS].any(), "a block is sealed twice"
        self.rows[rows, addresses % STRETCH_BLOCKS] = sums
        self.blocks += len(addresses)
        self._changed.update(stretches.tolist())

    def forget(self, addresses: np.ndarray) -> int:
        """These blocks are free, or written again: how many had sums?"""
        if not self._any or not len(addresses):
            return 0
        stretches = addresses // STRETCH_BLOCKS
        rows = self._rows_of(stretches)
        here = rows >= 0
        here[here] = self.rows[rows[here], addresses[here] % STRETCH_BLOCKS] != 0
        if here.any():
            self.rows[rows[here], addresses[here] % STRETCH_BLOCKS] = 0
            self._changed.update(stretches[here].tolist())
            self.blocks -= int(np.count_nonzero(here))
        return int(np.count_nonzero(here))

    # Committing

    def freeze(self) -> dict[int, np.ndarray]:
        """The sums by stretch that the commit that begins now makes durable."""
        assert not self._committing, "one commit at a time"
        self._committing, self._changed = self._changed, set()
        return {stretch: self.rows[self.table[stretch]].copy() for stretch in self._committing}

    def committed(self) -> None:
        """What `freeze` gave last is durable now, and what `load` reads."""
        self._committing = set()

    # Rows

    def _row_of(self, stretch: int) -> int:
        if stretch >= len(self.table):
            return NONE
        row = int(self.table[stretch])
        return self._look_up(stretch) if row == UNKNOWN else row

    def _rows_of(self, stretches: np.ndarray, make: bool = False) -> np.ndarray:
        """The rows of stretches, or NONE; with `make` every one of them gets one. They stay until the next call."""
        most = int(stretches.max())
        if most >= len(self.table):
            longer = np.full(max(most + 1, len(self.table) + 256), NONE, np.int32)  # the map has none of these yet
            longer[: len(self.table)] = self.table
            self.table = longer
        rows = self.table[stretches]
        missing = rows == UNKNOWN
        if missing.any():
            kept = set(stretches.tolist())
            for stretch in np.unique(stretches[missing]).tolist():
                self._look_up(stretch, kept)
        if make:
            for stretch in np.unique(stretches[self.table[stretches] == NONE]).tolist():
                row = self._take_row(stretch, set(stretches.tolist()))
                self.rows[row] = 0
        found: np.ndarray = self.table[stretches]
        return found

    def _look_up(self, stretch: int, kept: set[int] | None = None) -> int:
        values = self._load(stretch)
        if values is None:
            self.table[stretch] = NONE
            return NONE
        row = self._take_row(stretch, kept or set())
        self.rows[row] = values
        return row

    def _take_row(self, stretch: int, kept: set[int]) -> int:
        if not self._unused:
            self._make_room(kept)
        row = self._unused.pop()
        self._stretch_of[row] = stretch
        self.table[stretch] = row
        return row

    def _make_room(self, kept: set[int]) -> None:
        if len(self.rows) >= self._rows_max:
            wanted = len(self.rows) // 4
            for row, stretch in list(self._stretch_of.items()):
                if stretch not in self._changed and stretch not in self._committing and stretch not in kept:
                    del self._stretch_of[row]
                    self.table[stretch] = UNKNOWN
                    self._unused.append(row)
                    if len(self._unused) >= wanted:
                        break
        if not self._unused:
            more = max(64, len(self.rows) // 2)
            self._unused = list(range(len(self.rows), len(self.rows) + more))
            self.rows = np.concatenate([self.rows, np.zeros((more, STRETCH_BLOCKS), np.uint32)])
