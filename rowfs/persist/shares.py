"""Which blocks have more than one owner, and how many more.

An owner of a block is a slot of a page version that has the owned bit. Most blocks have one owner, and nothing is kept
of those. What is shared by copy_file_range has several: the further ones are counted here, and each that lets go of the
block counts one down, until the last one frees it (persist.space).

Invariants:
- A count is how many owners a block has in memory, less one.
- `shared` says yes for a block that has several owners in memory, in the last commit, or in the one under way. So a
  block for which it says no may be written in place: whatever a crash leads back to, nobody else has it.
- A region in `_holding` may have counts, or flags below; all others have neither, and are not looked at.

A page of a disk that was written at random has its blocks in hundreds of regions. So the counts of all regions that are
in memory are rows of one array, and blocks are looked up together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from errno import EOPNOTSUPP

import numpy as np

from rowfs.base.errors import CorruptionError, RowfsError
from rowfs.base.format import REGION_KEY
from rowfs.base.sharecode import FURTHER_BITS, FURTHER_MAX, REGION_BITS, REGION_BLOCKS, REGION_MASK

LOADED_REGIONS_MAX = 2048  # 16 MiB in memory, beside the changed ones
CHANGED_REGIONS_MAX = 4096  # 32 MiB of counts that are not committed
REGION_MAX = 1 << 26  # 1 PiB of data; two tables of all regions are kept in memory
NOT_LOADED = -1
# Beside the count, in the same number: the block lost its last further owner, which is not durable yet.
ENDING = np.uint16(1 << FURTHER_BITS)  # in the commit that is under way
ENDED = np.uint16(2 << FURTHER_BITS)  # since that began
COUNT = np.uint16(FURTHER_MAX)
Places = tuple[np.ndarray, np.ndarray]  # rows and blocks


class Shares:
    """The further owners of a pool's blocks."""

    def __init__(self, load: Callable[[int], np.ndarray | None], regions: Iterable[int]) -> None:
        """`load` gives a region's durable counts, `regions` are those that have any."""
        self._load = load
        self._holding = np.zeros(0, bool)  # by region
        self._row = np.zeros(0, np.int32)  # by region: its row below, or NOT_LOADED
        self._rows = np.zeros((0, REGION_BLOCKS), np.uint16)
        self._loaded: set[int] = set()
        self._unused: list[int] = []  # rows
        self._changed: set[int] = set()
        self._committing: set[int] = set()
        self._held = 0  # how many regions are in _holding
        self.changes = 0  # counts changes, so that figures know when they are old
        self._hold(np.fromiter(regions, np.int64))

    def __bool__(self) -> bool:
        """Whether any block may be shared."""
        return self._held > 0

    @property
    def changed(self) -> bool:
        """Whether a commit would change any record."""
        return bool(self._changed)

    @property
    def crowded(self) -> bool:
        """Whether so much changed that it ought to be committed."""
        return len(self._changed) > CHANGED_REGIONS_MAX

    # Looking

    def shared(self, addresses: np.ndarray) -> np.ndarray:
        """Which of these blocks have several owners, or will have after a crash. Raises CorruptionError."""
        shared: np.ndarray = self._values(addresses) != 0
        return shared

    def further(self, addresses: np.ndarray) -> np.ndarray:
        """How many owners each of these blocks has beside the first. Raises CorruptionError."""
        return self._values(addresses) & COUNT

    def _values(self, addresses: np.ndarray) -> np.ndarray:
        values = np.zeros(len(addresses), np.uint16)
        here = self._in_holding(addresses)
        if here.any():
            places = self._places(addresses[here])
            values[here] = self._rows[places]
        return values

    def _in_holding(self, addresses: np.ndarray) -> np.ndarray:
        regions = addresses >> REGION_BITS
        here: np.ndarray = regions < len(self._holding)
        here[here] = self._holding[regions[here]]
        return here

    # Changing

    def add(self, addresses: np.ndarray) -> None:
        """One owner more for each of these blocks, as often as it is there.

        Raises RowfsError with EOPNOTSUPP when one would have too many: then none has one more. CorruptionError.
        """
        if not len(addresses):
            return
        distinct, times = np.unique(addresses, return_counts=True)
        self._hold(distinct >> REGION_BITS)
        places = self._places(distinct)
        self._change(distinct)
        if ((self._rows[places] & COUNT) + times > FURTHER_MAX).any():
            raise RowfsError("a block is shared too often", EOPNOTSUPP)
        self._rows[places] += times.astype(np.uint16)

    def release(self, addresses: np.ndarray) -> np.ndarray:
        """One owner less for each of these blocks, as often as it is there: which have none now. CorruptionError."""
        if not self._held:
            return addresses
        distinct, times = np.unique(addresses, return_counts=True)
        further = self.further(distinct)
        left = further - times
        here = further > 0
        if here.any():
            places = self._places(distinct[here])
            self._change(distinct[here])
            flags = self._rows[places] & ~COUNT | (left[here] <= 0) * ENDED
            self._rows[places] = flags | np.maximum(left[here], 0).astype(np.uint16)
        assert (left >= -1).all(), "a block is let go of by more than own it"
        return distinct[left < 0]

    def _change(self, addresses: np.ndarray) -> None:
        self._changed.update((addresses >> REGION_BITS).tolist())
        self.changes += 1

    # Committing

    def freeze(self) -> dict[int, np.ndarray]:
        """The counts by region that the commit that begins now makes durable."""
        frozen = {}
        for region in self._changed:
            values = self._rows[self._row[region]]
            frozen[region] = values & COUNT
            values[:] = frozen[region] | (values & ENDED) >> 1
        self._committing, self._changed = set(frozen), set()
        return frozen

    def committed(self) -> None:
        """What `freeze` gave last is durable now, and what `load` reads."""
        for region in self._committing:
            values = self._rows[self._row[region]]
            values &= ~ENDING
            if self._holding[region] and not values.any():
                self._holding[region] = False
                self._held -= 1
        self._committing = set()

    # Regions

    def _hold(self, regions: np.ndarray) -> None:
        if not len(regions):
            return
        more = int(regions.max()) + 1 - len(self._holding)
        if more > 0:
            self._holding = np.append(self._holding, np.zeros(more, bool))
            self._row = np.append(self._row, np.full(more, NOT_LOADED, np.int32))
        new = np.unique(regions[~self._holding[regions]])
        self._holding[new] = True
        self._held += len(new)

    def _places(self, addresses: np.ndarray) -> Places:
        """Where the values of blocks are, all of which are in regions that may have any. They are loaded for that."""
        regions = addresses >> REGION_BITS
        missing = regions[self._row[regions] == NOT_LOADED]
        if len(missing):
            self._load_rows(np.unique(missing).tolist(), set(regions.tolist()))
        return self._row[regions], addresses & REGION_MASK

    def _load_rows(self, missing: list[int], wanted: set[int]) -> None:
        kept = wanted | self._changed | self._committing
        if len(self._loaded) + len(missing) > LOADED_REGIONS_MAX + len(kept):
            for region in self._loaded - kept:
                self._unused.append(int(self._row[region]))
                self._row[region] = NOT_LOADED
            self._loaded &= kept
        for region in missing:
            values = self._load(region)
            if not self._unused:
                self._grow()
            row = self._unused.pop()
            self._rows[row] = 0 if values is None else values
            self._row[region] = row
            self._loaded.add(region)

    def _grow(self) -> None:
        rows = len(self._rows)
        more = max(64, rows // 2)
        self._rows = np.append(self._rows, np.zeros((more, REGION_BLOCKS), np.uint16), axis=0)
        self._unused += range(rows, rows + more)


def shared_regions(keys: Iterable[bytes]) -> Iterator[int]:
    """The regions that these keys are of. Raises CorruptionError."""
    for key in keys:
        region = int.from_bytes(key)
        if len(key) != REGION_KEY.size or region > REGION_MAX:
            raise CorruptionError(f"there is a record of shares under the key {key.hex()}, which is none of a region")
        yield region
