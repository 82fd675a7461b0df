"""The allocation bitmap comes back as it was stored, no damage goes unseen, and no block is taken or given twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base import bitmap
from rowfs.base.bitmap import CHUNK_BLOCKS, CHUNK_BYTES
from rowfs.base.errors import CorruptionError
from rowfs.base.format import CHUNK_KEY

KEY = CHUNK_KEY.pack(5)
relaxed = settings(deadline=None)
ranges = st.lists(st.tuples(st.integers(0, CHUNK_BLOCKS - 1), st.integers(1, 3000)), max_size=30)


def bits_of(parts: list[tuple[int, int]]) -> bytearray:
    """A bitmap with these ranges (first, count) set, wherever they lie over each other."""
    number = 0
    for first, count in parts:
        number |= ((1 << min(count, CHUNK_BLOCKS - first)) - 1) << first
    return bytearray(number.to_bytes(CHUNK_BYTES, "little"))


def scattered() -> bytearray:
    return bytearray(b"\x55" * CHUNK_BYTES)


@relaxed
@given(parts=ranges)
def test_what_is_decoded_is_what_was_encoded(parts: list[tuple[int, int]]) -> None:
    bits = bits_of(parts)
    value = bitmap.encode(KEY, bits)
    if value is None:
        assert not any(bits)
    else:
        assert bitmap.decode(KEY, value) == bits


@relaxed
@given(seed=st.binary(min_size=64, max_size=64))
def test_scattered_blocks_come_back(seed: bytes) -> None:
    bits = bytearray(seed * (CHUNK_BYTES // 64))
    bits[0] |= 1
    value = bitmap.encode(KEY, bits)
    assert value is not None
    assert bitmap.decode(KEY, value) == bits
    assert len(value) <= 7 + CHUNK_BYTES


@relaxed
@given(parts=ranges)
def test_a_stored_bitmap_tells_its_count_without_being_decoded(parts: list[tuple[int, int]]) -> None:
    bits = bits_of([*parts, (0, 1)])
    assert bitmap.used_blocks(bitmap.encode(KEY, bits)) == int.from_bytes(bits, "little").bit_count()


def test_an_empty_chunk_has_no_record() -> None:
    assert bitmap.encode(KEY, bytearray(CHUNK_BYTES)) is None


def test_a_full_chunk_is_11_bytes() -> None:
    full = bytearray(b"\xff" * CHUNK_BYTES)
    value = bitmap.encode(KEY, full)
    assert len(value) == 11
    assert bitmap.used_blocks(value) == CHUNK_BLOCKS
    assert bitmap.decode(KEY, value) == full


@pytest.mark.parametrize("bits", [bits_of([(0, 1), (100, 7)]), bits_of([(32767, 1)]), bytearray(b"\xff" * CHUNK_BYTES)])
def test_each_flipped_bit_of_runs_is_detected(bits: bytearray) -> None:
    assert_every_flip_is_seen(bitmap.encode(KEY, bits), step=1)


def test_flipped_bits_of_a_plain_bitmap_are_detected() -> None:
    assert_every_flip_is_seen(bitmap.encode(KEY, scattered()), step=61)


def assert_every_flip_is_seen(value: bytes, step: int) -> None:
    for bit in (*range(min(72, len(value) * 8)), *range(72, len(value) * 8, step)):
        damaged = bytearray(value)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(CorruptionError):
            bitmap.decode(KEY, damaged)


@pytest.mark.parametrize("length", range(11))
def test_a_value_that_is_cut_short_is_detected(length: int) -> None:
    value = bitmap.encode(KEY, bytearray(b"\xff" * CHUNK_BYTES))
    with pytest.raises(CorruptionError):
        bitmap.decode(KEY, value[:length])


def test_the_bitmap_of_another_chunk_is_detected() -> None:
    with pytest.raises(CorruptionError):
        bitmap.decode(CHUNK_KEY.pack(6), bitmap.encode(KEY, scattered()))


@relaxed
@given(first=st.integers(0, CHUNK_BLOCKS - 1), count=st.integers(1, 5000), parts=ranges)
def test_setting_and_clearing_a_range_touches_nothing_else(
    first: int, count: int, parts: list[tuple[int, int]]
) -> None:
    count = min(count, CHUNK_BLOCKS - first)
    mask = ((1 << count) - 1) << first
    before = int.from_bytes(bits_of(parts), "little") & ~mask
    bits = bytearray(before.to_bytes(CHUNK_BYTES, "little"))
    bitmap.set_range(bits, first, count)
    assert int.from_bytes(bits, "little") == before | mask
    bitmap.clear_range(bits, first, count)
    assert int.from_bytes(bits, "little") == before


@pytest.mark.parametrize("count", [1, 2, 9])
def test_no_block_is_allocated_twice(count: int) -> None:
    bits = bits_of([(105, 1)])
    with pytest.raises(AssertionError, match="allocated twice"):
        bitmap.set_range(bits, 105 - count + 1, count)


def test_no_block_is_freed_twice() -> None:
    bits = bits_of([(100, 3)])
    with pytest.raises(AssertionError, match="freed twice"):
        bitmap.clear_range(bits, 99, 2)
    with pytest.raises(AssertionError, match="freed twice"):
        bitmap.clear_many(bits, np.array([100, 103]))


@relaxed
@given(parts=ranges, picks=st.sets(st.integers(0, 99)))
def test_clearing_many_clears_just_those(parts: list[tuple[int, int]], picks: set[int]) -> None:
    bits = bits_of([*parts, (200, 100)])
    before = int.from_bytes(bits, "little")
    bitmap.clear_many(bits, np.array([200 + pick for pick in sorted(picks)], np.int64))
    assert int.from_bytes(bits, "little") == before & ~sum(1 << 200 + pick for pick in picks)


@relaxed
@given(parts=ranges)
def test_used_and_free_runs_make_up_the_chunk(parts: list[tuple[int, int]]) -> None:
    bits = bits_of(parts)
    used = [(first, end - first) for first, end in bitmap.used_runs(bits).tolist()]
    free = bitmap.free_runs(bits)
    at = 0
    for first, count in sorted(used + free):
        assert first == at
        at += count
    assert at == CHUNK_BLOCKS
    assert bits_of(used) == bits
    assert bitmap.free_blocks(bits) == sum(count for _, count in free)
    assert bitmap.free_runs(bits, 7) == [run for run in free if run[1] >= 7]
