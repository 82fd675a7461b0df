"""The sums of the sealed blocks of a stretch (960 blocks, 3.75 MiB of the data file) and how they lie in the block map.

    u8   codec        1: few, 2: many
    u32  checksum     CRC-32 (zlib) of the stretch's key and of what follows
    few:    n * (u16 block, u32 sum)   the sealed blocks, ascending, counted from the stretch's first
    many:   120 bytes                  a bit for each block, block 0 in the lowest bit of the first byte: set if sealed
            n * u32                    their sums

Little-endian. A stretch without sealed blocks has no record. 960 is what fits into one overflow page of LMDB (4,080
bytes) and leaves whole words of bits: a stretch that is sealed throughout has 3,965 bytes, 0.1 % of its data. 1,024
would take two pages. With few of them sealed it is six bytes each.

A sum is the CRC-32C of all 4,096 bytes of a block. In memory 0 stands for none, so the one block in four billion whose
sum is 0 is not sealed.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from rowfs.base.errors import CorruptionError

STRETCH_BLOCKS = 960
BITMAP_BYTES = STRETCH_BLOCKS // 8
CODEC_FEW, CODEC_MANY = 1, 2
HEADER = struct.Struct("<BI")
FEW = np.dtype([("block", "<u2"), ("sum", "<u4")])
assert (HEADER.size, FEW.itemsize) == (5, 6)
assert HEADER.size + BITMAP_BYTES + 4 * STRETCH_BLOCKS <= 4080


def encode(key: bytes, sums: np.ndarray) -> bytes | None:
    """The value that stores a stretch's sums (960 of u32, 0: none) under `key`; None when there are none."""
    blocks = np.flatnonzero(sums)
    if not len(blocks):
        return None
    if len(blocks) * FEW.itemsize < BITMAP_BYTES + 4 * len(blocks):
        rows = np.empty(len(blocks), FEW)
        rows["block"], rows["sum"] = blocks, sums[blocks]
        codec, body = CODEC_FEW, rows.tobytes()
    else:
        bits = np.packbits(sums != 0, bitorder="little").tobytes()
        codec, body = CODEC_MANY, bits + sums[blocks].astype("<u4").tobytes()
    return HEADER.pack(codec, zlib.crc32(body, zlib.crc32(key))) + body


def decode(key: bytes, value: bytes | memoryview) -> np.ndarray:
    """The sums that `encode` took. Raises CorruptionError when `value` is not what was stored under `key`."""
    if len(value) < HEADER.size:
        raise CorruptionError("a record of sums is shorter than its header")
    codec, checksum = HEADER.unpack_from(value)
    body = bytes(value[HEADER.size :])
    if zlib.crc32(body, zlib.crc32(key)) != checksum:
        raise CorruptionError("a record of sums does not match its checksum")
    sums = np.zeros(STRETCH_BLOCKS, np.uint32)
    if codec == CODEC_FEW and len(body) % FEW.itemsize == 0:
        rows = np.frombuffer(body, FEW)
        blocks, values = rows["block"].astype(np.int64), rows["sum"]
    elif codec == CODEC_MANY and len(body) >= BITMAP_BYTES and len(body) % 4 == 0:
        blocks = np.flatnonzero(np.unpackbits(np.frombuffer(body, np.uint8, BITMAP_BYTES), bitorder="little"))
        values = np.frombuffer(body, "<u4", offset=BITMAP_BYTES)
    else:
        raise CorruptionError(
            f"a record of sums has codec {codec} and {len(body)} bytes, which this rowfs does not know"
        )
    if len(blocks) != len(values) or not len(blocks) or not values.all():
        raise CorruptionError("a record of sums does not hold as many as it says")
    if (np.diff(blocks) <= 0).any() or blocks[-1] >= STRETCH_BLOCKS:
        raise CorruptionError("a record of sums has blocks that cannot be")
    sums[blocks] = values
    return sums
