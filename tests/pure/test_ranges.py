"""Splitting byte ranges and runs of addresses: nothing is left out, nothing comes twice, nothing could be joined."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.ranges import runs, segments
from rowfs.base.units import BLOCK_BYTES, DISK_BYTES_MAX, PAGE_BLOCKS, PAGE_BYTES

B, P = BLOCK_BYTES, PAGE_BYTES
relaxed = settings(deadline=None)

near_an_edge = st.builds(
    lambda page, block, byte: max(0, page * P + block * B + byte),
    st.integers(0, 4),
    st.sampled_from([0, 1, 2, 510, 511]),
    st.sampled_from([-1, 0, 1, 100, B - 1]),
)
offsets = near_an_edge | st.integers(0, DISK_BYTES_MAX)


@pytest.mark.parametrize(
    ("offset", "length", "cut"),
    [
        (0, 0, []),
        (0, 1, [(0, 0, 0, 0, 1)]),
        (0, B, [(0, 0, 1, 0, B)]),
        (1, B - 1, [(0, 0, 0, 1, B - 1)]),
        (B - 1, 2, [(0, 0, 0, B - 1, 1), (0, 1, 0, 0, 1)]),
        (100, 2 * B, [(0, 0, 0, 100, B - 100), (0, 1, 1, 0, B), (0, 2, 0, 0, 100)]),
        (P - B, 2 * B, [(0, 511, 1, 0, B), (1, 0, 1, 0, B)]),
        (P - 1, 2, [(0, 511, 0, B - 1, 1), (1, 0, 0, 0, 1)]),
        (P, P, [(1, 0, 512, 0, P)]),
        (B, 2 * P, [(0, 1, 511, 0, P - B), (1, 0, 512, 0, P), (2, 0, 1, 0, B)]),
        (DISK_BYTES_MAX - B, B, [(DISK_BYTES_MAX // P - 1, 511, 1, 0, B)]),
    ],
)
def test_a_range_is_cut_at_block_and_page_edges(offset: int, length: int, cut: list[tuple[int, ...]]) -> None:
    assert list(segments(offset, length)) == cut


@relaxed
@given(offset=offsets, length=st.integers(0, 3 * P) | st.integers(0, 3 * B))
def test_segments_cover_the_range_in_order(offset: int, length: int) -> None:
    at = offset
    for page, slot, _, skip, size in segments(offset, length):
        assert page * P + slot * B + skip == at
        at += size
    assert at == offset + length


@relaxed
@given(offset=offsets, length=st.integers(0, 3 * P) | st.integers(0, 3 * B))
def test_a_segment_is_whole_blocks_of_one_page_or_a_piece_of_one_block(offset: int, length: int) -> None:
    for segment in segments(offset, length):
        if segment.blocks:
            assert segment.skip_bytes == 0
            assert segment.length_bytes == segment.blocks * B
            assert segment.slot + segment.blocks <= PAGE_BLOCKS
        else:
            assert 0 < segment.length_bytes < B
            assert segment.skip_bytes + segment.length_bytes <= B


@relaxed
@given(offset=offsets, length=st.integers(0, 3 * P) | st.integers(0, 3 * B))
def test_there_are_no_more_segments_than_pages_and_two_pieces(offset: int, length: int) -> None:
    assert len(list(segments(offset, length))) <= length // P + 2 + 2


# Addresses are drawn so that neighbours often join, and holes often meet.
pages = st.lists(st.sampled_from([0, 0, 0, 7, 8, 9, 10, 1 << 40]), min_size=8, max_size=8).map(
    lambda few: array("q", few * (PAGE_BLOCKS // 8))
)
windows = st.tuples(st.integers(0, PAGE_BLOCKS - 1), st.integers(1, PAGE_BLOCKS)).map(
    lambda pair: (pair[0], min(pair[1], PAGE_BLOCKS - pair[0]))
)


@relaxed
@given(addresses=pages, window=windows)
def test_runs_say_what_the_slots_hold(addresses: array[int], window: tuple[int, int]) -> None:
    slot, blocks = window
    said: list[int] = []
    at = slot
    for run in runs(addresses, slot, blocks):
        assert run.slot == at
        said += [run.address + n if run.address else 0 for n in range(run.blocks)]
        at += run.blocks
    assert said == addresses[slot : slot + blocks].tolist()


@relaxed
@given(addresses=pages, window=windows)
def test_no_two_runs_could_be_one(addresses: array[int], window: tuple[int, int]) -> None:
    for first, second in pairwise(runs(addresses, *window)):
        if first.address and second.address:
            assert first.address + first.blocks != second.address
        else:
            assert first.address or second.address


def test_the_address_behind_a_hole_does_not_join_it() -> None:
    addresses = array("q", [0, 1, 2, 0, 0, 5]) + array("q", bytes(8 * (PAGE_BLOCKS - 6)))
    assert list(runs(addresses, 0, 6)) == [(0, 1, 0), (1, 2, 1), (3, 2, 0), (5, 1, 5)]
