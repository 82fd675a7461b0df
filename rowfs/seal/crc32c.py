"""The sum of a block: CRC-32C (Castagnoli; RFC 3720, B.4), which processors have an instruction for.

The C extension gives a faster way for many blocks, which lets others run meanwhile (native/extension.py calls
`compute_with`); without it the library `crc32c` does it.
"""

from __future__ import annotations

from collections.abc import Callable

import crc32c
import numpy as np

from rowfs.base.units import BLOCK_BYTES

Buffer = bytes | bytearray | memoryview
_compute: Callable[[Buffer, np.ndarray], None] | None = None


def compute_with(compute: Callable[[Buffer, np.ndarray], None] | None) -> None:
    """Have `compute` fill an array of u32 with the sums of the blocks in a buffer; None: the library does it."""
    global _compute  # noqa: PLW0603
    _compute = compute


def block_sums(data: Buffer) -> np.ndarray:
    """The sum of each block in `data`, which are whole ones, as an array of u32. Any thread."""
    view = memoryview(data)
    assert len(view) % BLOCK_BYTES == 0, "a part of a block is summed up"
    if _compute is None:
        starts = range(0, len(view), BLOCK_BYTES)
        return np.fromiter((crc32c.crc32c(view[at : at + BLOCK_BYTES]) for at in starts), np.uint32, len(starts))
    sums = np.empty(len(view) // BLOCK_BYTES, np.uint32)
    _compute(view, sums)
    return sums
