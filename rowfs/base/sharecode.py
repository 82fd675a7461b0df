"""How many owners the blocks of a region (4,096 blocks, 16 MiB of the data file) have beside the first, as stored.

    u8   codec        1: runs, 2: planes
    u32  checksum     CRC-32 (zlib) of the region's key and of what follows
    runs:    n * (u16 first, u16 blocks less one, u16 further owners)   the blocks that have any, ascending
    planes:  k * 512 bytes   bit n of each block's count, n from 0 on; block 0 in the lowest bit of the first byte

Little-endian. A region without further owners has no record. What was written in sequence and is shared once has 11
bytes, blocks that are shared once wherever they lie have at most 517.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from rowfs.base.errors import CorruptionError

REGION_BITS = 12
REGION_BLOCKS = 1 << REGION_BITS
REGION_MASK = REGION_BLOCKS - 1
FURTHER_BITS = 14
FURTHER_MAX = (1 << FURTHER_BITS) - 1  # further owners of one block
CODEC_RUNS, CODEC_PLANES = 1, 2
HEADER = struct.Struct("<BI")
PLANE_BYTES = REGION_BLOCKS // 8
RUN_BYTES = 6
assert HEADER.size == 5


def encode(key: bytes, counts: np.ndarray) -> bytes | None:
    """The value that stores a region's counts (4,096 of u16) under `key`; None when all are 0."""
    starts = np.concatenate(([0], np.flatnonzero(counts[1:] != counts[:-1]) + 1))
    ends = np.append(starts[1:], REGION_BLOCKS)
    shared = counts[starts] != 0
    if not shared.any():
        return None
    starts, ends = starts[shared], ends[shared]
    planes = int(counts.max()).bit_length()
    if len(starts) * RUN_BYTES < planes * PLANE_BYTES:
        codec = CODEC_RUNS
        body = np.stack((starts, ends - starts - 1, counts[starts]), axis=1).astype("<u2").tobytes()
    else:
        codec = CODEC_PLANES
        body = b"".join(np.packbits(counts >> n & 1, bitorder="little").tobytes() for n in range(planes))
    return HEADER.pack(codec, zlib.crc32(body, zlib.crc32(key))) + body


def decode(key: bytes, value: bytes | memoryview) -> np.ndarray:
    """The counts that `encode` took. Raises CorruptionError when `value` is not what was stored under `key`."""
    if len(value) < HEADER.size:
        raise CorruptionError("a record of shares is shorter than its header")
    codec, checksum = HEADER.unpack_from(value)
    body = bytes(value[HEADER.size :])
    if zlib.crc32(body, zlib.crc32(key)) != checksum:
        raise CorruptionError("a record of shares does not match its checksum")
    if codec == CODEC_RUNS and len(body) % RUN_BYTES == 0:
        return _decode_runs(body)
    if codec == CODEC_PLANES and len(body) in range(PLANE_BYTES, FURTHER_BITS * PLANE_BYTES + 1, PLANE_BYTES):
        planes = np.frombuffer(body, np.uint8).reshape(-1, PLANE_BYTES)
        counts = np.zeros(REGION_BLOCKS, np.uint16)
        for n, plane in enumerate(planes):
            counts |= np.unpackbits(plane, bitorder="little").astype(np.uint16) << n
        return counts
    raise CorruptionError(f"a record of shares has codec {codec} and {len(body)} bytes, which this rowfs does not know")


def _decode_runs(body: bytes) -> np.ndarray:
    counts = np.zeros(REGION_BLOCKS, np.uint16)
    before = 0
    for first, less_one, further in np.frombuffer(body, "<u2").reshape(-1, 3).tolist():
        end = first + less_one + 1
        if first < before or end > REGION_BLOCKS or not 0 < further <= FURTHER_MAX:
            raise CorruptionError("a record of shares has runs that cannot be")
        counts[first:end] = further
        before = end
    return counts
