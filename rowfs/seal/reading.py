"""Reading blocks by their addresses, to sum them up."""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from typing import Protocol

import numpy as np

from rowfs.base.ranges import Span, joined_spans
from rowfs.base.units import BLOCK_BITS
from rowfs.seal.crc32c import block_sums


class File(Protocol):
    """What is wanted of the data file (persist.datafile)."""

    def read(self, spans: list[Span], buffer: memoryview) -> None:
        """Fill the buffer from the spans, and wait for the disk."""

    def read_disk(self, spans: list[Span], buffer: memoryview) -> None:
        """The same past the host's memory."""

    def size_bytes(self) -> int:
        """Where it ends."""


def sums_read(file: File, addresses: np.ndarray) -> np.ndarray:
    """What blocks sum up to, whatever is expected of them; 0, which is no sum, where the data file has ended before.

    Any thread. Raises StorageError.
    """
    return _sums(file, addresses, file.read)


def sums_on_disk(file: File, addresses: np.ndarray) -> np.ndarray:
    """The same of what the host's disk holds, whatever the host has of it in memory."""
    return _sums(file, addresses, file.read_disk)


def _sums(file: File, addresses: np.ndarray, read: Callable[[list[Span], memoryview], None]) -> np.ndarray:
    there = addresses < file.size_bytes() >> BLOCK_BITS
    sums: np.ndarray = np.zeros(len(addresses), np.uint32)
    if there.any():
        # O_DIRECT wants memory that is aligned, as this is. Nobody closes it: views may be left in a traceback.
        buffer = memoryview(mmap(-1, int(np.count_nonzero(there)) << BLOCK_BITS))
        read(joined_spans(addresses[there]), buffer)
        sums[there] = block_sums(buffer)
    return sums
