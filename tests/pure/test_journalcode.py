"""A record of the journal comes back as it was written, or not at all."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import CorruptionError
from rowfs.base.format import DISKS, PAGES, TABLES
from rowfs.base.journalcode import CHECKED_FROM, HEADER, Counts, decode, decode_first, encode, encode_first
from rowfs.base.units import BLOCK_BYTES

SECTOR = 512
ENTRIES = [(PAGES, bytes(12), b"page" * 700), (DISKS, bytes(8), b"{}"), (PAGES, b"k" * 12, b"")]

entries = st.lists(
    st.tuples(st.sampled_from(TABLES), st.binary(max_size=20), st.binary(max_size=4000)), min_size=1, max_size=20
)


@settings(deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(1, 1 << 31), entries)
def test_it_comes_back(commit: int, number: int, entries: list[tuple[str, bytes, bytes]]) -> None:
    blocks = [(number + at, bytes([at + 1]) * BLOCK_BYTES) for at in range(number % 5)]
    counts = [Counts(number + at, 5, 1 << 48, -(1 << 63), (1 << 63) - 1, at + 1, 0) for at in range(number % 3)]
    data = encode(commit, number, entries, commit ^ 5, number - 1, number // 2, blocks, counts)
    assert len(data) % BLOCK_BYTES == 0
    wanted = (commit, number, entries, commit ^ 5, number - 1, number // 2, blocks, len(data) // BLOCK_BYTES, counts)
    assert decode(memoryview(data + b"next"), commit) == decode(memoryview(data), commit, commit ^ 5) == wanted
    assert decode(memoryview(data), commit, commit ^ 4) is None


def test_a_record_of_which_any_part_is_missing_is_none() -> None:
    data = encode(7, 1, ENTRIES)
    end = HEADER.size + 20 + sum(4 + len(key) + len(value) for _, key, value in ENTRIES)
    for start in range(0, end, SECTOR):
        for there in (bytes(SECTOR), b"\xa5" * SECTOR):
            assert decode(memoryview(data[:start] + there + data[start + SECTOR :]), 7) is None
    assert decode(memoryview(data[: end - 1]), 7) is None
    assert decode(memoryview(b""), 0) is None and decode(memoryview(bytes(BLOCK_BYTES)), 0) is None


@pytest.mark.parametrize("body", [b"\xff\0\0\0", b"\0", b"\0\5\0\0shor", b"\0\0\xff\0short"])
def test_a_record_that_is_whole_and_makes_no_sense_is_damage(body: bytes) -> None:
    checked = HEADER.pack(b"rwj1", 0, 1, 1, len(body))[CHECKED_FROM:] + body
    data = memoryview(b"rwj1" + zlib.crc32(checked).to_bytes(4, "little") + checked)
    with pytest.raises(CorruptionError):
        decode(data, 1)
    assert decode(data, 2) is None, "it is void, whatever it says"


def test_the_first_block_comes_back_or_is_none() -> None:
    first = encode_first(0x0123456789ABCDEF)
    assert len(first) == BLOCK_BYTES and decode_first(memoryview(first)) == 0x0123456789ABCDEF
    for byte in range(16):
        damaged = bytearray(first)
        damaged[byte] ^= 1
        assert decode_first(memoryview(damaged)) is None
    for short in (b"", first[:15], bytes(BLOCK_BYTES), encode(1, 1, ENTRIES)):
        assert decode_first(memoryview(short)) is None
