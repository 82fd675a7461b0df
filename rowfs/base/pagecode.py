"""How a page version lies in the block map: 512 addresses and an owned bit for each, run-length coded.

    u8   codec        1: runs, 2: plain
    u32  checksum     CRC-32 (zlib) of the version's key and of what follows
    runs:   n * u16   bits 0-8 slots in the run less one, bit 9 owned, bit 10 mapped (else a run of holes)
            m * u48   first address of each mapped run
            n is not stored: the runs cover 512 slots exactly
    plain:  512 * u48 addresses, HOLE (0) where there is none
            64 bytes  owned bits, slot 0 in the lowest bit of the first byte

Integers are little-endian. A sequentially written page is 5 + 2 + 6 = 13 bytes. Runs grow by 8 bytes each; past 391 of
them plain is smaller, so a value never exceeds 3,141 bytes and fits one LMDB overflow page of 4 KiB (16 of them
header). The checksum covers the key, so that a version found under another's key is seen.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from rowfs.base.errors import CorruptionError
from rowfs.base.units import HOLE, PAGE_BLOCKS

CODEC_RUNS, CODEC_PLAIN = 1, 2
ADDRESS_BYTES = 6
HEADER = struct.Struct("<BI")
assert HEADER.size == 5
OWNED_AT = PAGE_BLOCKS * ADDRESS_BYTES  # in a plain body
PLAIN_BYTES = OWNED_AT + PAGE_BLOCKS // 8
RUNS_MAX = PLAIN_BYTES // (2 + ADDRESS_BYTES)
FEW_RUNS = 4  # up to here a loop is faster than numpy
OWNED_BIT, MAPPED_BIT, COUNT_MASK = 1 << 9, 1 << 10, PAGE_BLOCKS - 1

_SLOTS = np.arange(PAGE_BLOCKS, dtype=np.int64)
_ALL = np.ones(PAGE_BLOCKS, bool)
_ALL.flags.writeable = False
_ALL_BITS = np.packbits(_ALL).tobytes()
_ADDRESS_MASK = np.array((1 << 8 * ADDRESS_BYTES) - 1)  # not an int, which numpy takes 0.3 us to make this of


def encode(key: bytes, addresses: array[int], owned: bytearray) -> bytes:
    """The value that stores a page version under `key`: of 512 addresses, and a byte for each, not 0 if it is owned."""
    return _encode(key, addresses, owned)


def encode_with(function: Encode | None) -> None:
    """Have `function` do from now on what `encode` does, to the byte; None: it is done here again."""
    global _encode  # noqa: PLW0603
    _encode = function or encode_here


def encode_here(key: bytes, addresses: array[int], owned: bytearray) -> bytes:
    """As `encode`, in Python."""
    places = np.frombuffer(addresses, np.int64)
    owns = np.frombuffer(owned, np.uint8) != 0
    mapped = places != HOLE
    # A slot goes on with the run before it if it is as much owned and mapped, and mapped to the next address.
    begins = np.ones(PAGE_BLOCKS, bool)
    np.not_equal(places[1:] - places[:-1], mapped[1:], out=begins[1:])
    begins[1:] |= mapped[1:] != mapped[:-1]
    begins[1:] |= owns[1:] != owns[:-1]
    starts = begins.nonzero()[0]
    if len(starts) > RUNS_MAX:
        codec, body = CODEC_PLAIN, _pack_addresses(places) + np.packbits(owns, bitorder="little").tobytes()
    else:
        codec, body = CODEC_RUNS, _encode_runs(places, owns, mapped, starts)
    return HEADER.pack(codec, zlib.crc32(body, zlib.crc32(key))) + body


Encode: TypeAlias = Callable[[bytes, "array[int]", bytearray], bytes]
_encode: Encode = encode_here


def decode(key: bytes, value: bytes | memoryview) -> tuple[array[int], bytearray]:
    """The addresses and owned flags of a page version, as `encode` took them.

    Raises CorruptionError when `value` is not what was stored under `key`.
    """
    coded = Coded(key, value)
    return array("q", coded.places().tobytes()), bytearray(coded.owns())


def decode_many(
    keys: Sequence[bytes], values: Sequence[bytes | memoryview]
) -> tuple[np.ndarray, np.ndarray, dict[int, CorruptionError]]:
    """The addresses and owned flags of many page versions as rows; those that cannot be read are told, by row.

    For who looks at all there are: with many at once, a version takes a fifth of the time that `Coded` takes.
    """
    places, owns = np.zeros((len(keys), PAGE_BLOCKS), np.int64), np.zeros((len(keys), PAGE_BLOCKS), bool)
    wrong: dict[int, CorruptionError] = {}
    bodies: dict[int, dict[int, bytes]] = {CODEC_RUNS: {}, CODEC_PLAIN: {}}
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        try:
            codec, body = _checked(key, value)
        except CorruptionError as error:
            wrong[row] = error
        else:
            bodies[codec][row] = body
    _decode_plain(bodies[CODEC_PLAIN], places, owns)
    for row, body in _decode_mapped_runs(bodies[CODEC_RUNS], places, owns):
        try:
            places[row], owns[row] = _decode_runs(body)
        except CorruptionError as error:
            wrong[row] = error
    return places, owns, wrong


def _checked(key: bytes, value: bytes | memoryview) -> tuple[int, bytes]:
    """The codec and the body of what was stored under `key`. Raises CorruptionError when `value` is not that."""
    if len(value) < HEADER.size:
        raise CorruptionError("a page version is shorter than its header")
    codec, checksum = HEADER.unpack_from(value)
    body = bytes(value[HEADER.size :])
    if zlib.crc32(body, zlib.crc32(key)) != checksum:
        raise CorruptionError("a page version does not match its checksum")
    if codec != CODEC_RUNS and (codec != CODEC_PLAIN or len(body) != PLAIN_BYTES):
        raise CorruptionError(f"a page version has codec {codec}, which this rowfs does not know")
    return codec, body


class Coded:
    """A page version as it is stored, to look at. Of a plain one, only what is asked for is decoded."""

    __slots__ = ("_body", "_runs")

    def __init__(self, key: bytes, value: bytes | memoryview) -> None:
        """Raises CorruptionError when `value` is not what was stored under `key`."""
        codec, self._body = _checked(key, value)
        self._runs = _decode_runs(self._body) if codec == CODEC_RUNS else None

    def places(self) -> np.ndarray:
        """The addresses."""
        return _unpack_addresses(self._body, PAGE_BLOCKS) if self._runs is None else self._runs[0]

    def owns(self) -> np.ndarray:
        """Which of the blocks there the version owns, as booleans."""
        if self._runs is not None:
            return self._runs[1]
        bits = self._body[OWNED_AT:]
        if bits == _ALL_BITS:  # the usual, where all was written since the last snapshot
            return _ALL
        return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").view(bool)


def _decode_plain(bodies: dict[int, bytes], places: np.ndarray, owns: np.ndarray) -> None:
    rows = np.fromiter(bodies, np.int64)
    together = np.frombuffer(b"".join(bodies.values()), np.uint8).reshape(len(rows), PLAIN_BYTES)
    wide = np.zeros((len(rows), PAGE_BLOCKS, 8), np.uint8)
    wide[:, :, :ADDRESS_BYTES] = together[:, :OWNED_AT].reshape(len(rows), PAGE_BLOCKS, ADDRESS_BYTES)
    places[rows] = wide.view("<i8")[:, :, 0]
    owns[rows] = np.unpackbits(together[:, OWNED_AT:], axis=1, bitorder="little").view(bool)


def _decode_mapped_runs(bodies: dict[int, bytes], places: np.ndarray, owns: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Decode those without holes, whose length tells how many runs they have. The others are left to the caller."""
    mapped: dict[int, bytes] = {}
    for row, body in bodies.items():
        if len(body) % (2 + ADDRESS_BYTES) == 0 and len(body) > FEW_RUNS * (2 + ADDRESS_BYTES):
            mapped[row] = body
        else:
            yield row, body
    numbers = [len(body) // (2 + ADDRESS_BYTES) for body in mapped.values()]
    if not numbers:
        return
    heads = np.frombuffer(
        b"".join(body[: 2 * number] for body, number in zip(mapped.values(), numbers, strict=True)), "<u2"
    )
    counts = (heads & COUNT_MASK).astype(np.int64) + 1
    firsts = np.concatenate(([0], np.cumsum(numbers)[:-1]))  # of each version's heads
    fits = np.add.reduceat(counts, firsts) == PAGE_BLOCKS
    fits &= np.bitwise_and.reduceat(heads & MAPPED_BIT, firsts) != 0
    fitting = np.repeat(fits, numbers)
    heads, counts = heads[fitting], counts[fitting]
    for (row, body), fit in zip(mapped.items(), fits.tolist(), strict=True):
        if not fit:
            yield row, body
    packed = b"".join(
        body[2 * number :] for body, number, fit in zip(mapped.values(), numbers, fits.tolist(), strict=True) if fit
    )
    if not len(heads):
        return
    starts = np.cumsum(counts) - counts
    bases = _unpack_addresses(packed + bytes(2), len(heads)) - starts
    rows = np.fromiter(mapped, np.int64)[fits]
    slots = bases.repeat(counts)
    slots += np.arange(len(slots))
    places[rows] = slots.reshape(-1, PAGE_BLOCKS)
    owns[rows] = ((heads & OWNED_BIT) != 0).repeat(counts).reshape(-1, PAGE_BLOCKS)


def _encode_runs(places: np.ndarray, owns: np.ndarray, mapped: np.ndarray, starts: np.ndarray) -> bytes:
    heads = np.empty(len(starts), np.int64)  # first of all how many slots, less one
    heads[:-1] = starts[1:]
    heads[-1] = PAGE_BLOCKS
    heads -= starts
    heads -= 1
    run_mapped = mapped[starts]
    heads |= owns[starts] * OWNED_BIT
    heads |= run_mapped * MAPPED_BIT
    return heads.astype("<u2").tobytes() + _pack_addresses(places[starts[run_mapped]])


def _decode_runs(body: bytes) -> tuple[np.ndarray, np.ndarray]:
    if len(body) <= FEW_RUNS * (2 + ADDRESS_BYTES):
        return _decode_few_runs(body)
    # n heads and m addresses share the body: read heads until they cover the page.
    heads = np.frombuffer(body, "<u2", min(len(body) // 2, PAGE_BLOCKS))
    counts = (heads & COUNT_MASK) + 1
    ends = counts.cumsum(dtype=np.int64)
    number = int(ends.searchsorted(PAGE_BLOCKS)) + 1
    heads, counts, ends = heads[:number], counts[:number], ends[:number]
    mapped = (heads & MAPPED_BIT) != 0
    packed, addresses = body[number * 2 :], int(np.count_nonzero(mapped))
    if ends[-1] != PAGE_BLOCKS or len(packed) != addresses * ADDRESS_BYTES:
        raise CorruptionError("the runs of a page version do not cover the page")
    bases = np.zeros(number, np.int64)
    bases[mapped] = _unpack_addresses(packed + bytes(2), addresses) - (ends - counts)[mapped]
    slots = heads.repeat(counts)  # each slot's head
    places = bases.repeat(counts)
    places += _SLOTS
    places *= (slots & MAPPED_BIT) != 0
    return places, (slots & OWNED_BIT) != 0


def _decode_few_runs(body: bytes) -> tuple[np.ndarray, np.ndarray]:
    # The same as below without numpy's cost of each call: most pages were written in sequence.
    heads = []
    covered = at = addresses = 0
    while covered < PAGE_BLOCKS and at + 2 <= len(body):
        head = int.from_bytes(body[at : at + 2], "little")
        heads.append(head)
        covered += (head & COUNT_MASK) + 1
        addresses += (head & MAPPED_BIT) != 0
        at += 2
    if covered != PAGE_BLOCKS or len(body) - at != addresses * ADDRESS_BYTES:
        raise CorruptionError("the runs of a page version do not cover the page")
    places, owns = np.zeros(PAGE_BLOCKS, np.int64), np.zeros(PAGE_BLOCKS, bool)
    slot = 0
    for head in heads:
        end = slot + (head & COUNT_MASK) + 1
        if head & MAPPED_BIT:
            first = int.from_bytes(body[at : at + ADDRESS_BYTES], "little")
            places[slot:end] = _SLOTS[: end - slot] + first
            at += ADDRESS_BYTES
        if head & OWNED_BIT:
            owns[slot:end] = True
        slot = end
    return places, owns


def _pack_addresses(places: np.ndarray) -> bytes:
    wide = np.ascontiguousarray(places, "<i8").view(np.uint8).reshape(-1, 8)
    return wide[:, :ADDRESS_BYTES].tobytes()


def _unpack_addresses(packed: bytes, number: int) -> np.ndarray:
    # Eight bytes at each sixth, and the two that belong to what follows cleared: two bytes must follow the last one.
    eight = np.ndarray((number,), "<i8", packed, 0, (ADDRESS_BYTES,))
    addresses: np.ndarray = eight & _ADDRESS_MASK
    return addresses
