"""Free blocks that the host still holds: they were freed, and neither written again nor punched since.

To write such a block again costs what any write costs; to punch it costs the host 65 to 130 us and a change of its own
metadata, for which the next sync waits. So they are handed out first (persist.space), and punched when there is time
(store.punching).

Invariants:
- A set bit is a block that is free in the pool, or claimed.
- Nothing here is durable. What an earlier mount left unpunched is found by asking the host, chunk by chunk: `unknown`
  has the chunks that were not asked about yet.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from rowfs.base import bitmap

CHUNKS_MAX = 4096  # 16 MiB of bitmaps; of chunks beyond that the host is asked again


class Unpunched:
    """The blocks of one pool that wait for being used again or punched."""

    def __init__(self, unknown: Iterable[int]) -> None:
        """`unknown`: the chunks in which an earlier mount may have left some."""
        self.unknown = set(unknown)
        self.blocks = 0
        self._counts = array("q")
        self._bits: dict[int, bytearray] = {}

    def counts(self, chunks: int) -> np.ndarray:
        """How many there are in each of the first so many chunks. Look at it and let go of it."""
        missing = chunks - len(self._counts)
        if missing > 0:
            self._counts.extend([0] * missing)
        return np.frombuffer(self._counts, np.int64)[:chunks]

    def flags(self, chunk: int) -> np.ndarray:
        """For each block of a chunk whether it is one."""
        bits = self._bits.get(chunk)
        return np.zeros(bitmap.CHUNK_BLOCKS, bool) if bits is None else bitmap.unpack(bits)

    def add(self, chunk: int, blocks: np.ndarray) -> None:
        """Blocks of a chunk became free, and the host holds them."""
        self._change(chunk, blocks, True)
        if len(self._bits) > CHUNKS_MAX:
            self._forget(CHUNKS_MAX // 8)

    def remove(self, chunk: int, blocks: np.ndarray) -> None:
        """Blocks of a chunk were punched."""
        self._change(chunk, blocks, False)

    def _change(self, chunk: int, blocks: np.ndarray, unpunched: bool) -> None:
        bits = self._bits.get(chunk)
        if bits is None:
            if not unpunched or not len(blocks):
                return
            bits = self._bits[chunk] = bytearray(bitmap.CHUNK_BYTES)
        bitmap.put_many(bits, blocks, unpunched)
        self._count(chunk, int.from_bytes(bits, "little").bit_count())

    def taken(self, chunk: int, first: int, count: int) -> None:
        """Blocks of a chunk were allocated, and will be written."""
        bits = self._bits.get(chunk)
        if bits is None:
            return
        low, high = first >> 3, (first + count + 7) >> 3
        held = int.from_bytes(bits[low:high], "little")
        gone = held & ((1 << count) - 1) << (first & 7)
        if gone:
            bits[low:high] = (held ^ gone).to_bytes(high - low, "little")
            self._count(chunk, self._counts[chunk] - gone.bit_count())

    def _count(self, chunk: int, count: int) -> None:
        if chunk >= len(self._counts):
            self._counts.extend([0] * (chunk + 1 - len(self._counts)))
        self.blocks += count - self._counts[chunk]
        self._counts[chunk] = count
        if not count:
            del self._bits[chunk]

    def _forget(self, chunks: int) -> None:
        # Those that have the fewest: least is lost when a host that is short of space has them a little later.
        for chunk in sorted(self._bits, key=self._counts.__getitem__)[:chunks]:
            self._count(chunk, 0)
            self.unknown.add(chunk)
