"""Accounts of what was held for how long."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import CorruptionError
from rowfs.base.units import GIB, MIB
from rowfs.rules.times import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS
from rowfs.rules.usage import (
    ALL_BYTES_MAX,
    KEPT_NS,
    KINDS,
    Account,
    Piece,
    pack,
    sampled,
    share_bytes,
    thinned,
    totals,
    unpack,
)

NOON = 1_800_000_000 * SECOND_NS


def all_in_one(account: str) -> str:
    return "all"


def byte_hours(account: Account, since_ns: int, now_ns: int, kind: str = "mapped") -> int:
    return totals({"vm1": account}, all_in_one, since_ns, now_ns)["all"].byte_hours[kind]


def history(days: float, every_ns: int, seed: int = 0, rests: bool = False) -> Account:
    """An account sampled for `days` until NOON: a disk that grows and shrinks, or rests."""
    rng, account = random.Random(seed), Account()
    for now_ns in range(NOON - int(days * DAY_NS), NOON + 1, every_ns):
        held = 5 * GIB if rests else rng.randrange(20 * GIB)
        account = sampled(account, now_ns, {"provisioned": 20 * GIB, "mapped": held, "snapshots": held // 3})
    return account


def test_a_sample_holds_until_the_next_one() -> None:
    account = sampled(Account(), NOON, {"mapped": GIB})
    account = sampled(account, NOON + 2 * HOUR_NS, {"mapped": 3 * GIB})
    assert byte_hours(account, 0, NOON + 2 * HOUR_NS) == 2 * GIB
    assert byte_hours(account, 0, NOON + 3 * HOUR_NS) == 5 * GIB
    assert byte_hours(account, NOON + HOUR_NS, NOON + 3 * HOUR_NS) == 4 * GIB
    assert totals({"vm1": account}, all_in_one, 0, NOON + 3 * HOUR_NS)["all"].holds["mapped"] == 3 * GIB


def test_weeks_without_a_mount_are_held_too() -> None:
    account = sampled(sampled(Account(), NOON, {"mapped": GIB}), NOON + 21 * DAY_NS, {})
    assert byte_hours(account, 0, NOON + 21 * DAY_NS) == 21 * 24 * GIB
    assert byte_hours(account, NOON + 20 * DAY_NS, NOON + 21 * DAY_NS) == 24 * GIB


def test_a_clock_that_goes_back_adds_nothing_and_one_that_leaps_no_more_than_is_kept() -> None:
    account = sampled(sampled(Account(), NOON, {"mapped": GIB}), NOON - DAY_NS, {"mapped": GIB})
    assert byte_hours(account, 0, NOON - DAY_NS) == 0
    assert byte_hours(account, 0, NOON) == 24 * GIB
    leapt = sampled(account, NOON + 10**4 * DAY_NS, {})
    assert byte_hours(leapt, 0, NOON + 10**4 * DAY_NS) == KEPT_NS // HOUR_NS * GIB


def test_accounts_are_grouped_as_asked() -> None:
    accounts = {name: sampled(Account(), NOON, {"mapped": size * GIB}) for name, size in (("a", 1), ("b", 2), ("c", 4))}
    found = totals(accounts, {"a": "prod", "b": "prod", "c": None}.get, 0, NOON + HOUR_NS)
    assert list(found) == ["prod"]
    assert found["prod"].byte_hours["mapped"] == found["prod"].holds["mapped"] == 3 * GIB
    assert list(totals(accounts, lambda name: name, 0, NOON)) == ["a", "b", "c"]


def test_pieces_within_an_hour_are_one() -> None:
    assert len(history(1, MINUTE_NS * 10).pieces) == 24


HISTORY = history(400, 12 * HOUR_NS)


@pytest.mark.parametrize("disks", [1, 20, 300, 1000])
def test_400_days_of_all_disks_stay_within_1_mib(disks: int) -> None:
    account = HISTORY
    busy = thinned(account, NOON, share_bytes(disks))
    assert len(pack(busy)) * disks <= ALL_BYTES_MAX
    assert byte_hours(busy, 0, NOON) == byte_hours(account, 0, NOON)
    assert busy.pieces[0].begin_s * SECOND_NS == account.pieces[0].begin_s * SECOND_NS
    assert len(busy.pieces) >= (400 if disks == 1 else 12)


def test_a_disk_that_rests_takes_next_to_nothing() -> None:
    assert len(pack(thinned(history(400, 12 * HOUR_NS, rests=True), NOON, ALL_BYTES_MAX))) < 200


def test_what_is_older_than_400_days_is_dropped() -> None:
    account = thinned(history(500, DAY_NS), NOON, ALL_BYTES_MAX)
    assert (NOON - KEPT_NS) // SECOND_NS - account.pieces[0].begin_s <= DAY_NS // SECOND_NS


def test_thinning_again_and_again_loses_nothing() -> None:
    account, exact = Account(), 0
    rng = random.Random(1)
    for hour in range(24 * 30):
        held = rng.randrange(64) * MIB
        exact += held
        account = thinned(sampled(account, NOON + hour * HOUR_NS, {"mapped": held}), NOON + hour * HOUR_NS, 400)
        if hour % 50 == 0:
            account = unpack(pack(account))
    found = byte_hours(account, 0, NOON + 24 * 30 * HOUR_NS)
    assert abs(found - exact) <= 24 * 30 * 1024


AMOUNTS = st.lists(st.integers(0, 1 << 44), min_size=len(KINDS), max_size=len(KINDS)).map(tuple)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6), AMOUNTS), max_size=8),
    st.none() | st.integers(0, 10**10),
)
def test_an_account_comes_back_to_the_kib(steps: list[tuple[int, int, tuple[int, ...]]], sampled_s: int | None) -> None:
    pieces, end_s = [], 0
    for gap_s, length_s, means in steps:
        pieces.append(Piece(end_s + gap_s, end_s + gap_s + length_s, tuple(mean * length_s for mean in means)))
        end_s = pieces[-1].end_s
    account = Account(pieces=tuple(pieces), sampled_s=sampled_s, holds=(1, 2, 3, 4, 5))
    found = unpack(pack(account))
    assert (found.sampled_s, found.holds, len(found.pieces)) == (sampled_s, account.holds, len(pieces))
    for piece, back in zip(pieces, found.pieces, strict=True):
        assert (piece.begin_s, piece.end_s) == (back.begin_s, back.end_s)
        for amount, other in zip(piece.byte_seconds, back.byte_seconds, strict=True):
            assert abs(amount - other) <= 512 * (piece.end_s - piece.begin_s)


@settings(deadline=None)
@given(stored=st.binary(max_size=40), at=st.integers(0, 60), flip=st.integers(1, 255))
def test_whatever_is_stored_is_an_account_or_refused(stored: bytes, at: int, flip: int) -> None:
    real = bytearray(pack(history(2, 6 * HOUR_NS)))
    real[at % len(real)] ^= flip
    for text in (stored, bytes(real)):
        with suppress(CorruptionError):
            unpack(text)
