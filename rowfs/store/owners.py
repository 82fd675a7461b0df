"""Who owns the blocks of a pool, as the checker counts it: which have an owner, and how many further ones."""

from __future__ import annotations

import numpy as np

from rowfs.base import bitmap, sharecode
from rowfs.base.format import REGION_KEY


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
    """The owners counted so far. The label has one: nobody else may have its block."""

    def __init__(self) -> None:
        self.further = Further()
        self.chunks: dict[int, bytearray] = {}  # the bitmaps of the blocks that have an owner
        self.claim(np.zeros(1, np.int64))

    def claim(self, addresses: np.ndarray) -> None:
        """One owner more for each of these blocks, as often as it is there."""
        addresses = np.sort(addresses)
        for chunk in np.unique(addresses // bitmap.CHUNK_BLOCKS).tolist():
            blocks, owners = np.unique(bitmap.of_chunk(addresses, chunk), return_counts=True)
            flags = bitmap.unpack(self.bits(chunk))
            further = owners - 1 + flags[blocks]
            shared = further > 0
            if shared.any():
                self.further.add(blocks[shared] + chunk * bitmap.CHUNK_BLOCKS, further[shared])
            flags[blocks] = True
            self.chunks[chunk] = bitmap.pack(flags)

    def bits(self, chunk: int) -> bytearray:
        """The bitmap that a chunk ought to have."""
        return self.chunks.get(chunk) or bytearray(bitmap.CHUNK_BYTES)

    def last(self) -> int:
        """The last address that has an owner."""
        chunk = max(self.chunks)
        return chunk * bitmap.CHUNK_BLOCKS + int(np.flatnonzero(bitmap.unpack(self.chunks[chunk]))[-1])
