"""A page version comes back as it was stored, is as small as the format says, and no damage goes unseen."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rowfs.base.errors import CorruptionError
from rowfs.base.format import page_key
from rowfs.base.pagecode import Coded, decode, decode_many, encode
from rowfs.base.units import PAGE_BLOCKS

KEY = page_key(1, 2, 3)
MAX_BYTES = 3141
relaxed = settings(deadline=None)

# Stretches of a page: how long, whether holes, consecutive or scattered addresses, and whether owned.
stretches = st.lists(
    st.tuples(
        st.integers(1, 200),
        st.sampled_from(["hole", "run", "scattered", "same"]),
        st.integers(1, (1 << 48) - 1000),
        st.booleans(),
    ),
    max_size=12,
)


def page_of(parts: list[tuple[int, str, int, bool]]) -> tuple[array[int], bytearray]:
    addresses, owned = array("q"), bytearray()
    for length, kind, start, own in parts:
        steps = {"hole": None, "run": 1, "scattered": 3, "same": 0}
        step = steps[kind]
        addresses.extend(0 if step is None else (start + step * n) % (1 << 48) for n in range(length))
        owned += bytes([own and step is not None]) * length
    missing = max(0, PAGE_BLOCKS - len(addresses))
    return addresses[:PAGE_BLOCKS] + array("q", bytes(8 * missing)), owned[:PAGE_BLOCKS] + bytes(missing)


def alternating() -> tuple[array[int], bytearray]:
    """No two neighbours join: the most runs there can be."""
    return array("q", range(1, 2 * PAGE_BLOCKS, 2)), bytearray([1, 0] * (PAGE_BLOCKS // 2))


@relaxed
@given(parts=stretches)
def test_what_is_decoded_is_what_was_encoded(parts: list[tuple[int, str, int, bool]]) -> None:
    addresses, owned = page_of(parts)
    assert decode(KEY, encode(KEY, addresses, owned)) == (addresses, owned)


@relaxed
@given(
    addresses=st.lists(st.integers(0, (1 << 48) - 1), min_size=PAGE_BLOCKS, max_size=PAGE_BLOCKS),
    owned=st.binary(min_size=PAGE_BLOCKS // 8, max_size=PAGE_BLOCKS // 8),
)
def test_any_512_addresses_come_back(addresses: list[int], owned: bytes) -> None:
    flags = bytearray(byte >> bit & 1 for byte in owned for bit in range(8))
    assert decode(KEY, encode(KEY, array("q", addresses), flags)) == (array("q", addresses), flags)


@relaxed
@given(parts=stretches)
def test_what_is_looked_at_is_what_was_encoded(parts: list[tuple[int, str, int, bool]]) -> None:
    assert_looked_at(*page_of(parts))


def damaged(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


RUN_OF_20 = (20, "run", 70, True)


@relaxed
@given(pages=st.lists(st.tuples(stretches, st.booleans()), max_size=6))
@example(pages=[([RUN_OF_20] * 26, False), ([RUN_OF_20] * 26, True), ([(1, "scattered", 3, True)] * 12, False)])
@example(pages=[([(1, "hole", 1, False), *[RUN_OF_20] * 26], False), ([RUN_OF_20] * 26, False)])
@example(pages=[([(512, "scattered", 9, True)], False), ([RUN_OF_20], False), ([(512, "same", 5, False)], False)])
def test_many_together_are_what_each_is(pages: list[tuple[list[tuple[int, str, int, bool]], bool]]) -> None:
    keys = [page_key(1, number, 3) for number in range(len(pages))]
    coded = [encode(key, *page_of(parts)) for key, (parts, _) in zip(keys, pages, strict=True)]
    values = [damaged(value) if wrong else value for value, (_, wrong) in zip(coded, pages, strict=True)]
    places, owns, wrong = decode_many(keys, values)
    assert set(wrong) == {row for row, (_, is_wrong) in enumerate(pages) if is_wrong}
    for row, (parts, is_wrong) in enumerate(pages):
        addresses, owned = page_of([] if is_wrong else parts)
        assert (places[row].tolist(), owns[row].tolist()) == (addresses.tolist(), [flag != 0 for flag in owned])


@pytest.mark.parametrize("owned", [b"\1" * 512, b"\0" * 512, b"\0" + b"\1" * 511, b"\1" * 511 + b"\0", b"\1\0" * 256])
def test_a_plain_page_may_own_all_none_or_some(owned: bytes) -> None:
    addresses, _ = alternating()
    assert decode(KEY, encode(KEY, addresses, bytearray(owned))) == (addresses, bytearray(owned))
    assert_looked_at(addresses, bytearray(owned))


def assert_looked_at(addresses: array[int], owned: bytearray) -> None:
    coded = Coded(KEY, encode(KEY, addresses, owned))
    assert coded.owns().tolist() == [flag != 0 for flag in owned]
    assert coded.places().tolist() == addresses.tolist()


@relaxed
@given(parts=stretches)
def test_no_page_takes_more_than_an_overflow_page_of_lmdb(parts: list[tuple[int, str, int, bool]]) -> None:
    assert len(encode(KEY, *page_of(parts))) <= MAX_BYTES


@pytest.mark.parametrize("first", [1, 2, 12345, (1 << 48) - 512])
def test_a_page_written_in_sequence_is_13_bytes(first: int) -> None:
    addresses, owned = array("q", range(first, first + PAGE_BLOCKS)), bytearray(b"\1" * PAGE_BLOCKS)
    assert len(encode(KEY, addresses, owned)) == 13
    assert decode(KEY, encode(KEY, addresses, owned)) == (addresses, owned)


def test_a_page_of_holes_is_7_bytes() -> None:
    assert len(encode(KEY, array("q", bytes(8 * PAGE_BLOCKS)), bytearray(PAGE_BLOCKS))) == 7


def test_the_worst_page_is_3141_bytes() -> None:
    assert len(encode(KEY, *alternating())) == MAX_BYTES


@pytest.mark.parametrize("runs", [390, 391, 392, 393, 394])
def test_both_codecs_meet_without_a_gap(runs: int) -> None:
    addresses = array("q", range(1, 2 * runs, 2))  # no two join
    last = addresses[-1]
    addresses.extend(range(last + 1, last + 1 + PAGE_BLOCKS - runs))
    owned = bytearray(b"\1" * PAGE_BLOCKS)
    value = encode(KEY, addresses, owned)
    assert len(value) == min(5 + 8 * runs, MAX_BYTES)
    assert decode(KEY, value) == (addresses, owned)


@pytest.mark.parametrize(
    "page", [page_of([(512, "run", 77, True)]), page_of([(9, "run", 5, False), (1, "hole", 1, False)])]
)
def test_each_flipped_bit_of_a_small_page_is_detected(page: tuple[array[int], bytearray]) -> None:
    assert_every_flip_is_seen(encode(KEY, *page), step=1)


def test_flipped_bits_of_a_plain_page_are_detected() -> None:
    assert_every_flip_is_seen(encode(KEY, *alternating()), step=13)


def assert_every_flip_is_seen(value: bytes, step: int) -> None:
    for bit in (*range(min(64, len(value) * 8)), *range(64, len(value) * 8, step)):
        damaged = bytearray(value)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(CorruptionError):
            decode(KEY, damaged)
        with pytest.raises(CorruptionError):
            Coded(KEY, damaged)  # whatever is asked of it then


@pytest.mark.parametrize("length", range(13))
def test_a_value_that_is_cut_short_is_detected(length: int) -> None:
    value = encode(KEY, *page_of([(512, "run", 77, True)]))
    assert len(value) == 13
    with pytest.raises(CorruptionError):
        decode(KEY, value[:length])


def test_a_value_with_something_behind_it_is_detected() -> None:
    with pytest.raises(CorruptionError):
        decode(KEY, encode(KEY, *alternating()) + b"\0")


@pytest.mark.parametrize("other", [page_key(2, 2, 3), page_key(1, 1, 3), page_key(1, 2, 4)])
def test_a_version_under_another_key_is_detected(other: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode(other, encode(KEY, *alternating()))


def test_ownership_on_its_way_is_stored_as_ownership() -> None:
    addresses, owned = page_of([(512, "run", 77, True)])
    plain = encode(KEY, addresses, owned)
    owned[100:200] = b"\2" * 100
    assert encode(KEY, addresses, owned) == plain
