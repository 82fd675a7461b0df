"""Accounts of what was held for how long, what is stored of them, and rows of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

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
    NOTHING,
    Account,
    Amounts,
    Kind,
    Piece,
    byte_seconds,
    merged,
    minus,
    plus,
    sampled,
    share_bytes,
    thinned,
)
from rowfs.rules.usagecode import pack, unpack
from rowfs.rules.usagerows import NO_LABEL, Used, by_label, by_name, total, worth_telling

NOON = 1_800_000_000 * SECOND_NS
MAPPED = KINDS.index("mapped")


def of(mapped: int, provisioned: int = 0, snapshots: int = 0) -> Amounts:
    """Amounts of some kinds."""
    return (provisioned, mapped, snapshots, 0, 0)


def byte_hours(account: Account, since_ns: int, now_ns: int) -> float:
    """Of what is mapped."""
    return byte_seconds(account, since_ns, now_ns)[MAPPED] / 3600


def packed_bytes(account: Account) -> int:
    return len(pack(account))


def history(days: float, every_ns: int, seed: int = 0, rests: bool = False) -> Account:
    """An account sampled for `days` until NOON: a disk that grows and shrinks, or rests."""
    rng, account = random.Random(seed), Account()
    for now_ns in range(NOON - int(days * DAY_NS), NOON + 1, every_ns):
        held = 5 * GIB if rests else rng.randrange(20 * GIB // 4096) * 4096
        account = sampled(account, now_ns, of(held, 20 * GIB, held // 3))
    return account


def test_a_sample_holds_until_the_next_one() -> None:
    account = sampled(Account(), NOON, of(GIB))
    account = sampled(account, NOON + 2 * HOUR_NS, of(3 * GIB))
    assert byte_hours(account, 0, NOON + 2 * HOUR_NS) == 2 * GIB
    assert byte_hours(account, 0, NOON + 3 * HOUR_NS) == 5 * GIB
    assert byte_hours(account, NOON + HOUR_NS, NOON + 3 * HOUR_NS) == 4 * GIB
    assert account.holds[MAPPED] == 3 * GIB


def test_weeks_without_a_mount_are_held_too() -> None:
    account = sampled(sampled(Account(), NOON, of(GIB)), NOON + 21 * DAY_NS, NOTHING)
    assert byte_hours(account, 0, NOON + 21 * DAY_NS) == 21 * 24 * GIB
    assert byte_hours(account, NOON + 20 * DAY_NS, NOON + 21 * DAY_NS) == 24 * GIB


def test_a_clock_that_leaps_adds_no_more_than_is_kept() -> None:
    account = sampled(sampled(Account(), NOON, of(GIB)), NOON - DAY_NS, of(GIB))
    assert byte_hours(account, 0, NOON - DAY_NS) == 0
    assert byte_hours(account, 0, NOON) == 24 * GIB
    leapt = sampled(account, NOON + 10**4 * DAY_NS, NOTHING)
    assert byte_hours(leapt, 0, NOON + 10**4 * DAY_NS) == KEPT_NS // HOUR_NS * GIB


def test_what_a_clock_that_went_back_by_years_lives_through_again_is_not_counted_again() -> None:
    account = sampled(sampled(Account(), NOON, of(GIB)), NOON + 100 * DAY_NS, of(GIB))
    account = sampled(account, NOON - 9000 * DAY_NS, of(GIB))
    for day in (101, 102):
        account = sampled(account, NOON + day * DAY_NS, of(GIB))
    assert byte_hours(account, 0, NOON + 102 * DAY_NS) == 102 * 24 * GIB


def test_pieces_within_an_hour_are_one() -> None:
    assert len(history(1, MINUTE_NS * 10).pieces) == 24


HISTORY = history(400, 12 * HOUR_NS)


@pytest.mark.parametrize("disks", [1, 20, 300, 1000, 4096])
def test_400_days_of_all_disks_stay_within_1_mib(disks: int) -> None:
    account = HISTORY
    busy = thinned(account, NOON, packed_bytes, share_bytes(disks))
    assert packed_bytes(busy) * disks <= ALL_BYTES_MAX * 3 // 4
    assert byte_seconds(busy, 0, NOON) == byte_seconds(account, 0, NOON)
    assert busy.pieces[0].begin_s * SECOND_NS == account.pieces[0].begin_s * SECOND_NS
    assert len(busy.pieces) >= {1: 400, 4096: 1}.get(disks, 6)


def test_a_disk_that_rests_takes_next_to_nothing() -> None:
    resting = thinned(history(400, 12 * HOUR_NS, rests=True), NOON, packed_bytes, ALL_BYTES_MAX)
    assert packed_bytes(resting) < 200


def test_what_is_older_than_400_days_is_dropped() -> None:
    account = thinned(history(500, DAY_NS), NOON, packed_bytes, ALL_BYTES_MAX)
    assert (NOON - KEPT_NS) // SECOND_NS - account.pieces[0].begin_s <= DAY_NS // SECOND_NS


def test_thinning_again_and_again_loses_nothing() -> None:
    account, exact = Account(), 0
    rng = random.Random(1)
    for hour in range(24 * 30):
        held = rng.randrange(64 * MIB)
        exact += held
        now = NOON + hour * HOUR_NS
        account = thinned(sampled(account, now, of(held)), now, packed_bytes, 400)
        if hour % 50 == 0:
            account = unpack(pack(account))
    assert byte_hours(account, 0, NOON + 24 * 30 * HOUR_NS) == exact


# Beside a plain model: for each span of the calendar what was held then

amounts = st.lists(st.integers(0, 1 << 44), min_size=len(KINDS), max_size=len(KINDS)).map(tuple)
steps = st.lists(st.tuples(st.integers(-5 * 86_400, 40 * 86_400), amounts), max_size=25)


class Model:
    """Counts each second once, for what was held when it was reached."""

    def __init__(self) -> None:
        self.counted_s: int | None = None
        self.held: Amounts = NOTHING
        self.spans: list[tuple[int, int, Amounts]] = []

    def sample(self, now_s: int, held: Amounts) -> None:
        """Bytes from now on."""
        if self.counted_s is None:
            self.counted_s = now_s
        elif now_s > self.counted_s:
            self.spans.append((self.counted_s, now_s, self.held))
            self.counted_s = now_s
        elif not self.spans:
            self.counted_s = now_s
        self.held = held

    def total(self) -> Amounts:
        """Bytes x seconds."""
        found = NOTHING
        for begin_s, end_s, held in self.spans:
            found = plus(found, tuple(n * (end_s - begin_s) for n in held))
        return found


def lived(taken: Sequence[tuple[int, Amounts]], budget_bytes: int | None = None) -> tuple[Account, Model, int]:
    """An account and its model after samples, and the last time."""
    account, model, now_s = Account(), Model(), NOON // SECOND_NS
    for later_s, held in taken:
        now_s += later_s
        account = sampled(account, now_s * SECOND_NS, held)
        if budget_bytes is not None:
            account = unpack(pack(thinned(account, now_s * SECOND_NS, packed_bytes, budget_bytes)))
        model.sample(now_s, held)
    return account, model, now_s * SECOND_NS


@settings(deadline=None)
@given(steps.filter(lambda taken: sum(max(later, 0) for later, _ in taken) < 399 * 86_400), st.integers(60, 2000))
def test_sums_are_those_of_a_plain_model_to_the_byte_and_second(
    taken: list[tuple[int, Amounts]], budget_bytes: int
) -> None:
    for budget in (None, budget_bytes):
        account, model, now_ns = lived(taken, budget)
        assert byte_seconds(account, 0, now_ns) == model.total()
        edges = [edge for piece in account.pieces for edge in (piece.begin_s, piece.end_s)]
        assert edges == sorted(edges), "no second is counted twice"


@settings(deadline=None)
@given(steps, st.integers(0, 400 * 86_400))
def test_what_lies_before_and_after_a_time_is_all_of_it(taken: list[tuple[int, Amounts]], back_s: int) -> None:
    account, _, now_ns = lived(taken)
    at_s = now_ns // SECOND_NS - back_s
    before = NOTHING
    for piece in account.pieces:
        before = plus(before, piece.until(at_s))
    assert plus(before, byte_seconds(account, at_s * SECOND_NS, now_ns)) == byte_seconds(account, 0, now_ns)


@settings(deadline=None, max_examples=50)
@given(steps, steps, st.lists(st.integers(0, 500 * 86_400), max_size=3))
def test_accounts_that_are_added_together_hold_what_both_held(
    taken: list[tuple[int, Amounts]], others: list[tuple[int, Amounts]], backs_s: list[int]
) -> None:
    one, _, now_ns = lived(taken)
    other, _, other_ns = lived(others)
    both = merged(one, other)
    assert (both.sampled_s, both.holds) == (one.sampled_s, one.holds)
    stored = plus(_stored(one), _stored(other))
    assert _stored(both) == stored
    edges = [edge for piece in both.pieces for edge in (piece.begin_s, piece.end_s)]
    assert edges == sorted(edges)
    for back_s in backs_s:
        at_s = max(now_ns, other_ns) // SECOND_NS - back_s
        parts = plus(_stored(one, at_s), _stored(other, at_s))
        allowed = len(one.pieces) + len(other.pieces)  # each piece is cut to whole byte-seconds
        assert all(abs(n) <= allowed for n in minus(_stored(both, at_s), parts))


def _stored(account: Account, since_s: int = 0) -> Amounts:
    found = NOTHING
    for piece in account.pieces:
        found = plus(found, piece.since(since_s))
    return found


# Stored

LABELS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text(max_size=5), max_size=3)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.just("\udcff,\n")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6), amounts, amounts), max_size=8),
    st.none() | st.integers(0, 10**10),
    NAMES,
    LABELS,
    st.sampled_from(Kind),
    st.booleans(),
)
def test_an_account_comes_back_as_it_was(
    taken: list[tuple[int, int, Amounts, Amounts]],
    sampled_s: int | None,
    name: str,
    labels: dict[str, str],
    kind: Kind,
    ended: bool,
) -> None:
    pieces, end_s = [], 0
    for gap_s, length_s, means, rests in taken:
        held = plus(tuple(mean * length_s for mean in means), rests)
        pieces.append(Piece(end_s + gap_s, end_s + gap_s + length_s, held))
        end_s = pieces[-1].end_s
    account = Account(
        kind=kind,
        ended=ended,
        name=name,
        labels=labels,
        pieces=tuple(pieces),
        sampled_s=sampled_s,
        holds=(1, 2, 3, 4, 5),
    )
    assert unpack(pack(account)) == account


@settings(deadline=None)
@given(stored=st.binary(max_size=40), at=st.integers(0, 60), flip=st.integers(1, 255))
def test_whatever_is_stored_is_an_account_or_refused(stored: bytes, at: int, flip: int) -> None:
    real = bytearray(pack(history(2, 6 * HOUR_NS)))
    real[at % len(real)] ^= flip
    for text in (stored, bytes(real), bytes(real[:-1]), bytes(real) + b"x"):
        with suppress(CorruptionError):
            unpack(text)


# Rows

USED = st.builds(
    Used,
    name=st.sampled_from(["vm1", "vm2", "=db"]),
    labels=st.dictionaries(st.sampled_from(["env", "owner"]), st.sampled_from(["a", "b"])),
    ended=st.booleans(),
    snapshots=st.integers(0, 9),
    holds=amounts,
    byte_seconds=amounts,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(USED, max_size=8))
def test_rows_add_up_to_the_total_and_each_is_the_sum_of_its_disks(all_used: list[Used]) -> None:
    everything = total(all_used)
    for rows in (by_name(all_used), by_label(all_used, "env")):
        assert [row.name for row in rows] == sorted({row.name for row in rows})
        for kind in range(len(KINDS)):
            assert sum(row.holds[kind] for row in rows) == everything.holds[kind]
            assert sum(row.byte_seconds[kind] for row in rows) == everything.byte_seconds[kind]
        assert sum(row.count for row in rows) == everything.count == sum(not used.ended for used in all_used)
    for row in by_label(all_used, None):
        chosen = [
            used
            for used in all_used
            if (row.name in [f"{key}={value}" for key, value in used.labels.items()] if row.name else not used.labels)
        ]
        assert row == replace(total(chosen), name=row.name)


def test_a_disk_is_in_the_row_of_each_of_its_labels_or_in_that_of_what_has_none() -> None:
    one = Used(name="a", labels={"env": "prod", "owner": "db"}, holds=of(GIB))
    other = Used(name="b", holds=of(1))
    assert [row.name for row in by_label([one, other], None)] == [NO_LABEL, "env=prod", "owner=db"]
    assert [(row.name, row.holds) for row in by_label([one, other], "owner")] == [
        (NO_LABEL, of(1)),
        ("owner=db", of(GIB)),
    ]


def test_what_is_gone_and_held_nothing_is_not_told() -> None:
    there, gone = Used(name="a"), Used(name="b", ended=True)
    held = Used(name="c", ended=True, byte_seconds=of(1))
    assert list(worth_telling([there, gone, held])) == [there, held]
