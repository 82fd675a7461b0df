"""Counts of further owners come back as they were stored, and no damage goes unseen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base import sharecode
from rowfs.base.errors import CorruptionError
from rowfs.base.format import REGION_KEY
from rowfs.base.sharecode import FURTHER_MAX, REGION_BLOCKS

KEY = REGION_KEY.pack(5)
relaxed = settings(deadline=None)
ranges = st.lists(
    st.tuples(st.integers(0, REGION_BLOCKS - 1), st.integers(1, 3000), st.integers(1, FURTHER_MAX)), max_size=30
)


def counts_of(*parts: tuple[int, int, int]) -> np.ndarray:
    """Ranges (first, blocks, further owners), wherever they lie over each other."""
    counts = np.zeros(REGION_BLOCKS, np.uint16)
    for first, blocks, further in parts:
        counts[first : first + blocks] = further
    return counts


@relaxed
@given(parts=ranges)
def test_what_is_decoded_is_what_was_encoded(parts: list[tuple[int, int, int]]) -> None:
    counts = counts_of(*parts)
    value = sharecode.encode(KEY, counts)
    if value is None:
        assert not counts.any()
    else:
        assert (sharecode.decode(KEY, value) == counts).all()


@relaxed
@given(seed=st.binary(min_size=64, max_size=64), most=st.sampled_from([1, 2, 3, 255, FURTHER_MAX]))
def test_scattered_blocks_come_back(seed: bytes, most: int) -> None:
    counts = np.frombuffer(seed * (REGION_BLOCKS // 64), np.uint8) & 1
    counts = counts.astype(np.uint16) * np.uint16(most)
    counts[7] = 1
    value = sharecode.encode(KEY, counts)
    assert value is not None
    assert (sharecode.decode(KEY, value) == counts).all()
    assert len(value) <= 5 + most.bit_length() * REGION_BLOCKS // 8


def test_a_region_without_shares_has_no_record() -> None:
    assert sharecode.encode(KEY, counts_of()) is None


def test_a_region_that_is_shared_throughout_is_11_bytes() -> None:
    assert len(sharecode.encode(KEY, counts_of((0, REGION_BLOCKS, 1))) or b"") == 11


def test_blocks_that_are_shared_once_are_at_most_517_bytes() -> None:
    counts = np.arange(REGION_BLOCKS).astype(np.uint16) & 1
    assert len(sharecode.encode(KEY, counts) or b"") == 517


@relaxed
@given(byte=st.integers(0, 10), bit=st.integers(0, 7))
def test_a_flipped_bit_is_seen(byte: int, bit: int) -> None:
    value = bytearray(sharecode.encode(KEY, counts_of((3, 9, 2))) or b"")
    value[byte] ^= 1 << bit
    with pytest.raises(CorruptionError):
        sharecode.decode(KEY, bytes(value))


def test_a_record_of_another_region_is_seen() -> None:
    value = sharecode.encode(KEY, counts_of((3, 9, 2)))
    assert value is not None
    with pytest.raises(CorruptionError, match="checksum"):
        sharecode.decode(REGION_KEY.pack(6), value)


@pytest.mark.parametrize("value", [b"", b"\1", b"\1\0\0\0"])
def test_a_record_that_is_cut_off_is_seen(value: bytes) -> None:
    with pytest.raises(CorruptionError, match="shorter"):
        sharecode.decode(KEY, value)


@pytest.mark.parametrize(
    ("codec", "body", "why"),
    [
        (1, np.array([9, 3, 1, 5, 0, 1], "<u2").tobytes(), "cannot be"),  # not ascending
        (1, np.array([4095, 1, 1], "<u2").tobytes(), "cannot be"),  # past the end
        (1, np.array([0, 1, 0], "<u2").tobytes(), "cannot be"),  # shared by nobody
        (1, np.array([0, 1, FURTHER_MAX + 1], "<u2").tobytes(), "cannot be"),
        (1, b"12345", "does not know"),
        (2, b"", "does not know"),
        (2, bytes(511), "does not know"),
        (2, bytes(512 * 15), "does not know"),
        (3, bytes(6), "does not know"),
    ],
)
def test_what_was_never_stored_is_refused(codec: int, body: bytes, why: str) -> None:
    value = sharecode.HEADER.pack(codec, sharecode.zlib.crc32(body, sharecode.zlib.crc32(KEY))) + body
    with pytest.raises(CorruptionError, match=why):
        sharecode.decode(KEY, value)
