"""The allocation bitmap of one chunk (32,768 blocks, 128 MiB of the data file) and how it lies in the block map.

    u8   codec        1: runs, 2: plain
    u32  checksum     CRC-32 (zlib) of the chunk's key and of what follows
    u16  used         allocated blocks, less one (a chunk without any has no record)
    runs:   n * (u16 first, u16 count less one)   the allocated runs, ascending
    plain:  4,096 bytes                           block 0 in the lowest bit of the first byte

Little-endian. A full chunk is 11 bytes, so that a 1 TiB disk written in sequence costs the map 0.1 MB here.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from rowfs.base.errors import CorruptionError

CHUNK_BLOCKS = 32768
CHUNK_BYTES = CHUNK_BLOCKS // 8
CODEC_RUNS, CODEC_PLAIN = 1, 2
HEADER = struct.Struct("<BIH")
assert HEADER.size == 7


def unpack(bits: bytearray) -> np.ndarray:
    """For each block of the chunk whether it is allocated."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").view(bool)


def pack(flags: np.ndarray) -> bytearray:
    """The bitmap that `unpack` took."""
    return bytearray(np.packbits(flags, bitorder="little"))


def of_chunk(addresses: np.ndarray, chunk: int) -> np.ndarray:
    """Of sorted addresses those in the chunk, counted from its first block."""
    low, high = np.searchsorted(addresses, (chunk * CHUNK_BLOCKS, (chunk + 1) * CHUNK_BLOCKS))
    return addresses[low:high] - chunk * CHUNK_BLOCKS


def set_range(bits: bytearray, first: int, count: int) -> None:
    """Mark `count` blocks from `first` on as allocated. All of them must be free."""
    if count == 1:
        mask = 1 << (first & 7)
        assert not bits[first >> 3] & mask, "a block is allocated twice"
        bits[first >> 3] |= mask
        return
    low, high = first >> 3, (first + count + 7) >> 3
    mask = ((1 << count) - 1) << (first & 7)
    held = int.from_bytes(bits[low:high], "little")
    assert not held & mask, "a block is allocated twice"
    bits[low:high] = (held | mask).to_bytes(high - low, "little")


def clear_range(bits: bytearray, first: int, count: int) -> None:
    """Mark `count` blocks from `first` on as free. All of them must be allocated."""
    low, high = first >> 3, (first + count + 7) >> 3
    mask = ((1 << count) - 1) << (first & 7)
    held = int.from_bytes(bits[low:high], "little")
    assert held & mask == mask, "a block is freed twice"
    bits[low:high] = (held & ~mask).to_bytes(high - low, "little")


def clear_many(bits: bytearray, blocks: np.ndarray) -> None:
    """Mark the distinct `blocks` as free. All of them must be allocated."""
    flags = unpack(bits)
    assert flags[blocks].all(), "a block is freed twice"
    flags[blocks] = False
    bits[:] = pack(flags)


def put_many(bits: bytearray, blocks: np.ndarray, allocated: bool) -> None:
    """Mark the `blocks` as allocated or free, whatever they were."""
    flags = unpack(bits)
    flags[blocks] = allocated
    bits[:] = pack(flags)


def used_runs(bits: bytearray) -> np.ndarray:
    """The allocated runs as rows of (first, end)."""
    flags = unpack(bits)
    edges = np.diff(flags, prepend=False, append=False)
    return np.flatnonzero(edges).reshape(-1, 2)


def free_runs(bits: bytearray, blocks_min: int = 1) -> list[tuple[int, int]]:
    """The free runs of so many blocks or more as (first, count), ascending."""
    edges = np.diff(unpack(bits), prepend=True, append=True)
    firsts, ends = np.flatnonzero(edges).reshape(-1, 2).T
    counts = ends - firsts
    wanted = counts >= blocks_min  # of 10,000 runs mostly none: to make tuples of them all takes 5 ms
    return list(zip(firsts[wanted].tolist(), counts[wanted].tolist(), strict=True))


def free_blocks(bits: bytearray) -> int:
    """How many blocks are free."""
    return CHUNK_BLOCKS - int.from_bytes(bits, "little").bit_count()


def encode(key: bytes, bits: bytearray) -> bytes | None:
    """The value that stores a chunk's bitmap under `key`; None when nothing in it is allocated."""
    bounds = used_runs(bits)
    if not len(bounds):
        return None
    counts = bounds[:, 1] - bounds[:, 0]
    if len(bounds) * 4 < CHUNK_BYTES:
        codec = CODEC_RUNS
        rows = np.stack((bounds[:, 0], counts - 1), axis=1)
        body = rows.astype("<u2").tobytes()
    else:
        codec, body = CODEC_PLAIN, bytes(bits)
    used = struct.pack("<H", int(counts.sum()) - 1)
    return struct.pack("<BI", codec, zlib.crc32(used + body, zlib.crc32(key))) + used + body


def used_blocks(value: bytes | memoryview) -> int:
    """How many blocks the bitmap stored as `value` says are allocated, without decoding it."""
    if len(value) < HEADER.size:
        raise CorruptionError("an allocation bitmap is shorter than its header")
    return int(HEADER.unpack_from(value)[2]) + 1


def decode(key: bytes, value: bytes | memoryview) -> bytearray:
    """The bitmap that `encode` took. Raises CorruptionError when `value` is not what was stored under `key`."""
    used = used_blocks(value)
    codec, checksum, _ = HEADER.unpack_from(value)
    body = bytes(value[HEADER.size :])
    if zlib.crc32(bytes(value[5:]), zlib.crc32(key)) != checksum:
        raise CorruptionError("an allocation bitmap does not match its checksum")
    if codec == CODEC_PLAIN and len(body) == CHUNK_BYTES:
        bits = bytearray(body)
    elif codec == CODEC_RUNS and len(body) % 4 == 0:
        bits = bytearray(CHUNK_BYTES)
        for first, count in np.frombuffer(body, "<u2").reshape(-1, 2).tolist():
            set_range(bits, first, count + 1)
    else:
        raise CorruptionError(f"an allocation bitmap has codec {codec}, which this rowfs does not know")
    if int.from_bytes(bits, "little").bit_count() != used:
        raise CorruptionError("an allocation bitmap does not hold as many blocks as it says")
    return bits
