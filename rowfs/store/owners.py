"""Who owns the blocks of a pool, as the checker counts it: which have an owner, and how many further ones."""

from __future__ import annotations

import numpy as np

from rowfs.base import bitmap, sharecode
from rowfs.base.format import REGION_KEY

BATCH_BLOCKS = 1 << 20  # counted at a time: 8 MiB of addresses
AREA_BITS = 24  # 64 GiB of the data file: 2 MiB of bitmap, which the host has only where it is written
AREA_BLOCKS = 1 << AREA_BITS


class Further:
    """The further owners of blocks: those behind the first. As stored, but for the region that is counted in."""

    def __init__(self) -> None:
        self._stored: dict[int, bytes | None] = {}
        self._region = -1
        self._counts = np.zeros(sharecode.REGION_BLOCKS, np.int64)

    def add(self, addresses: np.ndarray, owners: np.ndarray) -> None:
        """Distinct, ascending blocks have so many further owners more."""
        regions = addresses >> sharecode.REGION_BITS
        for region in np.unique(regions).tolist():
            here = regions == region
            self._turn_to(region)
            self._counts[addresses[here] & sharecode.REGION_MASK] += owners[here]

    def _turn_to(self, region: int) -> None:
        if region == self._region:
            return
        if self._region >= 0:
            counts = np.minimum(self._counts, sharecode.FURTHER_MAX).astype(np.uint16)
            self._stored[self._region] = sharecode.encode(REGION_KEY.pack(self._region), counts)
        self._region = region
        self._counts = self.counts(region).astype(np.int64)

    def counts(self, region: int) -> np.ndarray:
        """Of a region that is not counted in."""
        stored = self._stored.get(region)
        return sharecode.decode(REGION_KEY.pack(region), stored) if stored else np.zeros_like(self._counts)

    def records(self) -> dict[int, bytes]:
        """The records that there ought to be, by region."""
        self._turn_to(-1)
        return {region: stored for region, stored in self._stored.items() if stored}


class Owners:
    """The owners counted so far. The label has one: nobody else may have its block.

    Blocks are counted many at a time: those of one page version lie in hundreds of places.
    """

    def __init__(self) -> None:
        self.further = Further()
        self._areas: dict[int, np.ndarray] = {}  # the bitmaps of the blocks that have an owner
        self._waiting: list[np.ndarray] = []
        self._waiting_blocks = 0
        self.claim(np.zeros(1, np.int64))

    def claim(self, addresses: np.ndarray) -> None:
        """One owner more for each of these blocks, as often as it is there."""
        self._waiting.append(addresses)
        self._waiting_blocks += len(addresses)
        if self._waiting_blocks >= BATCH_BLOCKS:
            self.settle()

    def settle(self) -> None:
        """Count what was claimed, before anybody looks."""
        addresses = np.concatenate([np.zeros(0, np.int64), *self._waiting])
        self._waiting, self._waiting_blocks = [], 0
        if not len(addresses):
            return
        addresses.sort()
        starts = _starts(addresses)
        distinct: np.ndarray = addresses[starts]
        owners = np.diff(starts, append=len(addresses))
        areas = distinct >> AREA_BITS
        bounds = _starts(areas)
        for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(distinct)], strict=True):
            self._count(int(areas[start]), distinct[start:end], owners[start:end])

    def _count(self, area: int, addresses: np.ndarray, owners: np.ndarray) -> None:
        bits = self._areas.get(area)
        if bits is None:
            bits = self._areas[area] = np.zeros(AREA_BLOCKS // 8, np.uint8)
        blocks = addresses & (AREA_BLOCKS - 1)
        places, masks = blocks >> 3, np.uint8(1) << (blocks & 7).astype(np.uint8)
        further = owners - 1 + ((bits[places] & masks) != 0)
        shared = further > 0
        if shared.any():
            self.further.add(addresses[shared], further[shared])
        starts = _starts(places)
        bits[places[starts]] |= np.bitwise_or.reduceat(masks, starts)

    def chunks(self) -> set[int]:
        """The chunks that have blocks with an owner."""
        found = set()
        for area, bits in self._areas.items():
            used = np.flatnonzero(bits.reshape(-1, bitmap.CHUNK_BYTES).any(axis=1))
            found.update((used + area * (AREA_BLOCKS // bitmap.CHUNK_BLOCKS)).tolist())
        return found

    def bits(self, chunk: int) -> bytearray:
        """The bitmap that a chunk ought to have."""
        area, place = divmod(chunk * bitmap.CHUNK_BYTES, AREA_BLOCKS // 8)
        bits = self._areas.get(area)
        return bytearray(bitmap.CHUNK_BYTES if bits is None else bits[place : place + bitmap.CHUNK_BYTES].tobytes())

    def last(self) -> int:
        """The last address that has an owner."""
        chunk = max(self.chunks())
        return chunk * bitmap.CHUNK_BLOCKS + int(np.flatnonzero(bitmap.unpack(self.bits(chunk)))[-1])


def _starts(ascending: np.ndarray) -> np.ndarray:
    """Where another value begins."""
    begins: np.ndarray = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=begins[1:])
    starts: np.ndarray = np.flatnonzero(begins)
    return starts
