"""Which snapshots stay and why, and what the forecast says of them. Names begin with their edge (R1 to R20, G5, K1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import UsageError
from rowfs.rules.clock import HOLD_NS, Clock, confirmed, read, trusted_ns
from rowfs.rules.forecast import explain, line, preview
from rowfs.rules.retention import (
    PERIODS,
    Retention,
    Taken,
    Verdict,
    check_retention,
    expendable,
    going,
    plan,
    whole_groups,
)
from rowfs.rules.schedules import Schedule, starts
from rowfs.rules.times import DAY_NS, HOUR_NS, MINUTE_NS, to_ns

BERLIN = ZoneInfo("Europe/Berlin")
DAILY = Schedule(every_ns=DAY_NS, at=(120,), tz="Europe/Berlin")
P, OTHER = 1, 2
NOON = to_ns(datetime(2026, 11, 20, 12, tzinfo=UTC))


def at(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=BERLIN))


def taken(*times: int | str, policy: int | None = P) -> list[Taken]:
    """Snapshots taken at these times, ids from 1 on."""
    moments = [at(time) if isinstance(time, str) else time for time in times]
    return [Taken(id=n, name=f"s{n}", due_ns=due_ns, policy=policy) for n, due_ns in enumerate(moments, 1)]


def kept(verdicts: Iterable[Verdict]) -> list[int]:
    return sorted(item.taken.id for item in verdicts if not item.goes)


def rules(verdicts: Iterable[Verdict], number: int) -> list[str]:
    (found,) = (item for item in verdicts if item.taken.id == number)
    return [keep.rule for keep in found.keeps]


def passed(retention: Retention, chain: list[Taken], now: int | str = NOON, **more: object) -> list[Verdict]:
    now_ns = at(now) if isinstance(now, str) else now
    return plan(P, retention, chain, now_ns, BERLIN, **more)  # type: ignore[arg-type]


DAYS = [f"2026-11-{day:02} 02:00" for day in range(1, 21)]


def test_each_rule_keeps_the_newest_of_as_many_as_it_says() -> None:
    chain = taken(*DAYS)
    assert kept(passed(Retention(last=3), chain)) == [18, 19, 20]
    assert kept(passed(Retention(daily=2), chain)) == [19, 20]
    assert kept(passed(Retention(weekly=2), chain)) == [15, 20]  # Sunday the 15th
    assert kept(passed(Retention(monthly=5), chain)) == [20]
    assert kept(passed(Retention(last=1, weekly=2), chain)) == [15, 20]
    assert kept(passed(Retention(for_ns=3 * DAY_NS), chain)) == [18, 19, 20]


def test_r1_the_snapshot_just_taken_stays_whatever_the_rules_say() -> None:
    chain = taken(*DAYS, "2026-11-01 01:00")  # by a clock that is behind
    assert 21 in kept(passed(Retention(last=2), chain, just_taken=21))


def test_r2_numbers_count_days_that_have_snapshots_not_those_of_the_calendar() -> None:
    chain = taken(*DAYS[:5], "2026-11-20 02:00")
    assert kept(passed(Retention(daily=5), chain)) == [2, 3, 4, 5, 6]


def test_r3_what_failed_never_counts_and_never_pushes_a_good_one_out() -> None:
    chain = taken(*DAYS[:6])
    chain[4:] = [item._replace(good=False) for item in chain[4:]]
    verdicts = passed(Retention(last=2), chain)
    assert kept(verdicts) == [3, 4, 5, 6]
    assert rules(verdicts, 6) == ["failed"]
    again = [*chain, chain[-1]._replace(id=7, name="s7"), chain[-1]._replace(id=8, name="s8")]
    assert kept(passed(Retention(last=2), again)) == [3, 4, 5, 8], "of one start the last try"
    healed = [*chain, Taken(id=7, name="s7", due_ns=at(DAYS[6]), policy=P)]
    assert kept(passed(Retention(last=2), healed)) == [4, 7]


def test_r4_when_new_ones_fail_the_last_good_one_outlives_keep_for() -> None:
    chain = taken(*DAYS[:4])
    chain[2:] = [item._replace(good=False) for item in chain[2:]]
    verdicts = passed(Retention(for_ns=HOUR_NS), chain)
    assert rules(verdicts, 2) == ["last-good"]
    assert kept(verdicts) == [2, 3, 4]


def test_r5_one_dated_ahead_is_neither_the_newest_for_ever_nor_immortal() -> None:
    chain = taken(DAYS[0], "2099-01-01", DAYS[2], DAYS[3], DAYS[4])
    assert kept(passed(Retention(last=2), chain)) == [4, 5]
    assert kept(passed(Retention(daily=2), chain)) == [4, 5]
    assert kept(passed(Retention(for_ns=365 * DAY_NS), chain)) == [1, 2, 3, 4, 5]
    assert kept(passed(Retention(for_ns=365 * DAY_NS), chain, NOON + 348 * DAY_NS)) == [4, 5]
    alone = taken(DAYS[0], "2099-01-01")
    assert kept(passed(Retention(for_ns=HOUR_NS), alone)) == [2]


def test_r6_after_a_leap_of_the_clock_a_pass_that_would_expire_all_stops_and_says_so() -> None:
    chain, rule = taken(*DAYS), Retention(for_ns=30 * DAY_NS)
    clock = read(read(Clock(), NOON), NOON + 3000 * DAY_NS)
    assert (clock.leapt_from_ns, clock.leapt_to_ns) == (NOON, NOON + 3000 * DAY_NS)
    there = [*chain, Taken(id=21, name="s21", due_ns=NOON + 3000 * DAY_NS, policy=P)]
    stopped = passed(rule, there, NOON + 3000 * DAY_NS, just_taken=21, clock=clock)
    assert kept(stopped) == list(range(1, 22))
    assert "clock leapt ahead" in line(stopped[0], BERLIN)
    assert kept(passed(rule, there, NOON + 3000 * DAY_NS, just_taken=21, clock=confirmed(clock))) == [21]
    assert kept(passed(rule, there, NOON + 3000 * DAY_NS, just_taken=21)) == [21]


def test_r6_a_leap_makes_nothing_older_beside_other_rules_either() -> None:
    clock = read(read(Clock(), NOON), NOON + 3000 * DAY_NS)
    verdicts = passed(Retention(last=2, for_ns=15 * DAY_NS), taken(*DAYS), NOON + 3000 * DAY_NS, clock=clock)
    assert kept(verdicts) == list(range(6, 21))
    assert rules(verdicts, 6) == ["clock"]
    hour = read(clock, NOON + 3000 * DAY_NS + HOUR_NS)
    assert trusted_ns(hour, NOON + 3000 * DAY_NS + HOUR_NS) == NOON + HOUR_NS
    assert trusted_ns(confirmed(hour), NOON + 3000 * DAY_NS) == NOON + 3000 * DAY_NS
    assert trusted_ns(hour, NOON) == NOON


def test_r6_a_leap_is_believed_when_the_clock_stands_by_it_for_a_day_and_forgotten_when_it_goes_back() -> None:
    leapt = read(read(Clock(), NOON), NOON + 100 * DAY_NS)
    now_ns = NOON + 100 * DAY_NS
    for _ in range(23):
        now_ns += HOUR_NS
        leapt = read(leapt, now_ns)
        assert leapt.leapt_from_ns == NOON
    assert read(leapt, now_ns + HOUR_NS) == Clock(seen_ns=NOON + 100 * DAY_NS + HOLD_NS)
    assert read(leapt, NOON + HOUR_NS) == Clock(seen_ns=NOON + HOUR_NS)
    again = read(leapt, now_ns + 400 * DAY_NS)
    assert again.leapt_from_ns == NOON
    assert read(Clock(), NOON) == read(Clock(seen_ns=NOON - DAY_NS), NOON) == Clock(seen_ns=NOON)


@pytest.mark.parametrize("retention", [Retention(), check_retention(Retention(last=0, daily=0))])
def test_r8_all_counts_zero_delete_nothing(retention: Retention) -> None:
    verdicts = passed(retention, taken(*DAYS))
    assert kept(verdicts) == list(range(1, 21))
    assert "keeps all" in line(verdicts[0], BERLIN)


@pytest.mark.parametrize("rule", PERIODS)
def test_r9_of_two_in_one_period_the_newest_stays_in_every_rule(rule: str) -> None:
    chain = taken("2026-11-18 02:10", "2026-11-18 02:30", "2026-11-18 02:50")
    assert kept(passed(Retention(**{rule: 5}), chain)) == [3]


def test_r10_a_snapshot_counts_for_the_day_it_was_due_however_late_it_was_taken() -> None:
    chain = taken("2026-11-17 23:59", "2026-11-18 23:59", "2026-11-19 23:59")
    assert kept(passed(Retention(daily=3), chain)) == [1, 2, 3]


def test_r11_days_weeks_and_months_are_those_of_one_zone() -> None:
    chain = taken("2026-11-01 00:30", "2026-10-31 23:30")  # in UTC both are on 31 October
    for rule in ("daily", "monthly"):
        assert kept(passed(Retention(**{rule: 2}), chain)) == [1, 2]
    sunday, monday = "2026-11-15 23:30", "2026-11-16 00:30"
    assert kept(passed(Retention(weekly=2), taken(sunday, monday))) == [1, 2]


def test_r12_the_iso_week_over_new_year_is_one_week() -> None:
    chain = taken("2026-12-28 02:00", "2026-12-31 02:00", "2027-01-01 02:00", "2027-01-03 02:00", "2027-01-04 02:00")
    assert kept(passed(Retention(weekly=9), chain, "2027-01-05")) == [4, 5]


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    first_ns = to_ns(datetime(2026, 10, 25, 0, 15, tzinfo=UTC))
    assert kept(passed(Retention(hourly=2), taken(first_ns, first_ns + HOUR_NS))) == [1, 2]


def test_r13_what_is_as_old_as_the_limit_goes() -> None:
    chain = taken("2026-11-20 05:00", "2026-11-20 05:30")
    assert kept(passed(Retention(for_ns=HOUR_NS), chain, "2026-11-20 06:00")) == [2]
    assert kept(passed(Retention(for_ns=HOUR_NS), chain, at("2026-11-20 06:00") - 1)) == [1, 2]


def test_r14_r15_r16_a_policy_speaks_of_its_own_snapshots_alone_and_knows_them_by_id() -> None:
    chain = [item._replace(policy=owner) for item, owner in zip(taken(*DAYS), [P, OTHER, None] * 7, strict=False)]
    chain = [item._replace(name=f"db-{item.id}") for item in chain]
    verdicts = passed(Retention(last=1), chain)
    assert [item.taken.id for item in verdicts] == [1, 4, 7, 10, 13, 16, 19]
    assert kept(verdicts) == [19]


def test_r18_when_one_cannot_be_deleted_the_next_pass_wants_the_same_again() -> None:
    chain, rule = taken(*DAYS), Retention(last=5)
    wanted = [item.taken.id for item in passed(rule, chain) if item.goes]
    stuck = [item for item in chain if item.id not in wanted or item.id == 7]
    assert [item.taken.id for item in passed(rule, stuck) if item.goes] == [7]


def test_r19_a_pass_needs_no_snapshot_to_have_been_taken() -> None:
    assert kept(passed(Retention(last=5), taken(*DAYS), just_taken=None)) == [16, 17, 18, 19, 20]


def test_k1_what_is_locked_or_needed_stays_and_is_shown() -> None:
    chain = taken(*DAYS)
    chain[2] = chain[2]._replace(kept_by="a hold (audit)")
    verdicts = passed(Retention(last=2), chain)
    assert kept(verdicts) == [3, 19, 20]
    assert line(verdicts[2], BERLIN) == "stays: a hold (audit)"
    assert line(verdicts[3], BERLIN) == "goes with the next run: no rule keeps it"


def test_g5_a_group_goes_or_stays_whole() -> None:
    one = [item._replace(group=item.id) for item in taken(*DAYS[:5])]
    two = [item._replace(id=item.id + 10, name=f"t{item.id}") for item in one]
    two[1] = two[1]._replace(kept_by="a hold")
    verdicts = whole_groups([*passed(Retention(last=2), one), *passed(Retention(last=2), two)])
    assert kept(verdicts) == [2, 4, 5, 12, 14, 15]
    assert "t2 of its group stays" in line(verdicts[1], BERLIN)
    alone = whole_groups(passed(Retention(last=2), taken(*DAYS[:5])))
    assert kept(alone) == [4, 5]


def test_where_a_limit_is_reached_the_oldest_of_its_own_are_given_up_never_the_last_good_one() -> None:
    chain = taken(*DAYS[:6])
    chain[0] = chain[0]._replace(kept_by="a hold")
    chain[1] = chain[1]._replace(policy=None)
    chain[5] = chain[5]._replace(good=False)
    assert [item.id for item in expendable(P, chain)] == [6, 3, 4], "one that failed before any good one"
    assert expendable(OTHER, chain) == []


@pytest.mark.parametrize(
    "bad", [Retention(last=-1), Retention(daily=10**6), Retention(for_ns=0), Retention(for_ns=-DAY_NS)]
)
def test_what_is_no_rule_is_refused(bad: Retention) -> None:
    with pytest.raises(UsageError):
        check_retention(bad)
    assert str(Retention(last=7, weekly=8, for_ns=90 * DAY_NS)) == "last 7, weekly 8, for 90d"


# The forecast


def test_explain_says_which_rule_keeps_it_and_until_when() -> None:
    verdicts = explain(P, Retention(last=2, daily=3), DAILY, taken(*DAYS), NOON, BERLIN)
    lines = [line(item, BERLIN) for item in verdicts]
    assert lines[16] == "goes with the next run: no rule keeps it"
    assert lines[17] == "stays: daily 3, day 3 until 2026-11-21 02:00 +01:00"
    assert lines[18] == (
        "stays: last 2, snapshot 2 until 2026-11-21 02:00 +01:00; daily 3, day 2 until 2026-11-22 02:00 +01:00"
    )
    assert "the last good one until 2026-11-21 02:00" in lines[19]


def test_a_paused_policy_promises_no_end() -> None:
    verdicts = explain(P, Retention(last=2, for_ns=90 * DAY_NS), None, taken(*DAYS), NOON, BERLIN)
    assert verdicts[-1].until_ns is None
    assert verdicts[0].until_ns == at(DAYS[0]) + 90 * DAY_NS


def test_of_a_paused_policy_nothing_goes() -> None:
    (verdict, *_) = passed(Retention(last=1), taken(*DAYS))
    assert line(verdict, BERLIN, paused=True) == "stays as long as its policy is paused: no rule keeps it"


def test_ends_beyond_what_can_be_looked_ahead_are_not_told() -> None:
    verdicts = explain(P, Retention(last=100_000), Schedule(every_ns=MINUTE_NS), taken(*DAYS), NOON, BERLIN)
    assert verdicts[0].until_ns is None
    assert line(verdicts[0], BERLIN) == "stays: last 100000, snapshot 20"


def test_r20_a_preview_is_what_then_happens_and_changes_nothing() -> None:
    chain = taken(*DAYS)
    before = list(chain)
    runs, left = preview(P, Retention(last=2, weekly=2), DAILY, chain, NOON, lambda due_ns: f"n-{due_ns}", 30)
    assert chain == before
    assert len(runs) == 30
    assert [run.due_ns for run in runs] == list(islice(starts(DAILY, NOON), 30))
    assert runs[0].takes.name == f"n-{runs[0].due_ns}"
    assert [item.id for item in runs[0].goes] == [item.id for item in chain[:14] + chain[15:19]]
    assert runs[-1].kept == len(left) == 3
    assert preview(P, Retention(), DAILY, [], NOON, str, 3)[0][-1].kept == 3


COUNTS = st.integers(0, 4)
RETENTIONS = st.builds(
    Retention,
    last=COUNTS,
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=st.integers(0, 1),
    for_ns=st.none() | st.integers(1, 20 * 24).map(lambda hours: hours * HOUR_NS),
)
SCHEDULES = st.sampled_from(
    [
        DAILY,
        Schedule(every_ns=6 * HOUR_NS, tz="Europe/Berlin"),
        Schedule(every_ns=45 * MINUTE_NS, tz="Europe/Berlin"),
        Schedule(every_ns=7 * DAY_NS, on=(2, 6), tz="Europe/Berlin"),
        Schedule(cron="0 */9 * * *", tz="Europe/Berlin"),
        Schedule(cron="30 2 28-31 * *", tz="Europe/Berlin"),
    ]
)
BEGINS = st.sampled_from(["2026-03-25", "2026-10-20", "2026-12-20"]).map(at)


@settings(deadline=None, max_examples=60)
@given(retention=RETENTIONS, schedule=SCHEDULES, begin=BEGINS, runs=st.integers(1, 12), more=st.integers(1, 40))
def test_explain_agrees_with_what_happens(
    retention: Retention, schedule: Schedule, begin: int, runs: int, more: int
) -> None:
    """What explain promises at one moment is held against the runs after it, one by one."""
    coming = iter(starts(schedule, begin))
    chain: list[Taken] = []

    def run() -> int:
        due_ns = next(coming)
        number = max((item.id for item in chain), default=0) + 1
        chain.append(Taken(id=number, name=f"s{number}", due_ns=due_ns, policy=P))
        goes = {item.taken.id for item in plan(P, retention, chain, due_ns, BERLIN, number) if item.goes}
        chain[:] = [item for item in chain if item.id not in goes]
        return due_ns

    for _ in range(runs):
        now_ns = run()
    promised = {item.taken.id: item for item in explain(P, retention, schedule, chain, now_ns, BERLIN)}
    assert not any(item.goes for item in promised.values())
    for _ in range(more):
        now_ns = run()
        there = {item.id for item in chain}
        for number, verdict in promised.items():
            assert (number in there) == (verdict.until_ns is None or now_ns < verdict.until_ns), line(verdict, BERLIN)


MOMENTS = st.integers(0, 500).map(lambda hours: NOON - hours * HOUR_NS)
CHAINS = st.lists(
    st.tuples(MOMENTS, st.booleans(), st.sampled_from([P, P, P, OTHER, None]), st.integers(0, 9)), max_size=25
)


@settings(deadline=None)
@given(retention=RETENTIONS, drawn=CHAINS, just=st.integers(0, 26))
def test_a_pass_never_deletes_what_a_rule_keeps(
    retention: Retention, drawn: list[tuple[int, bool, int | None, int]], just: int
) -> None:
    """Beside a plain reading of the rules: lists and sets of what there is, nothing of the code under test."""
    chain = [
        Taken(id=number, name="s", due_ns=due_ns, policy=owner, good=good, kept_by="a hold" * (lock == 0))
        for number, (due_ns, good, owner, lock) in enumerate(sorted(drawn, key=lambda item: item[0]), 1)
    ]
    own = [item for item in chain if item.policy == P]
    good = [item for item in own if item.good]
    stays = {item.id for item in own if item.kept_by or item.id == just}
    stays |= {item.id for item in good[-1:]}
    stays |= {item.id for item in good if retention.for_ns and item.due_ns > NOON - retention.for_ns}
    failed = [item for item in own if not item.good and (not good or item.id > good[-1].id)]
    stays |= set({item.due_ns: item.id for item in failed}.values())  # of one start the last try
    stays |= {item.id for item in own if retention == Retention()}
    stays |= {item.id for item in good[::-1][: retention.last]}
    for rule, shape in (
        ("hourly", "%Y%m%d%H%z"),
        ("daily", "%Y%m%d"),
        ("weekly", "%G%V"),
        ("monthly", "%Y%m"),
        ("yearly", "%Y"),
    ):
        newest = {}
        for item in good:
            moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=item.due_ns // 1000)).astimezone(BERLIN)
            newest[moment.strftime(shape)] = item.id
        stays |= set(list(newest.values())[::-1][: getattr(retention, rule)])
    verdicts = passed(retention, chain, just_taken=just)
    assert {item.taken.id for item in verdicts} == {item.id for item in own}
    assert set(kept(verdicts)) == stays
    gone = going(P, retention, chain, NOON, BERLIN, just)
    assert [item.id for item in gone] == [item.taken.id for item in verdicts if item.goes]
