"""When a policy starts. Names begin with the edge they hold (T1 to T14), as docs/POLICIES.md has them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import UsageError
from rowfs.rules.schedules import Schedule, check_schedule, described, last_start, next_start, parse_schedule, starts
from rowfs.rules.times import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    SECOND_NS,
    format_instant,
    parse_span,
    parse_zone,
    to_datetime,
    to_ns,
)

ZONES = ("Europe/Berlin", "America/Santiago", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
SPRING, AUTUMN = "2026-03-28T12:00", "2026-10-24T12:00"  # the day before clocks change in Berlin


def at(text: str) -> int:
    """A point in time, written in UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def schedule(
    every: str | None = None, *, at: str = "", on: str = "", cron: str | None = None, tz: str = "Europe/Berlin"
) -> Schedule:
    return parse_schedule(every, [at] if at else [], on, cron, tz, 1_790_000_000 * SECOND_NS)


def shown(found: Schedule, after: str, number: int) -> list[str]:
    """The next starts, as clocks in the schedule's zone show them: day, time, distance from UTC."""
    zone = parse_zone(found.tz)
    return [format_instant(start_ns, zone)[8:23] for start_ns in islice(starts(found, at(after)), number)]


# Clocks that change


@pytest.mark.parametrize(
    "found", [schedule("1d", at="02:30"), schedule(cron="30 2 * * *"), schedule(cron="*/15 2 * * *")], ids=str
)
def test_t1_a_start_in_the_gap_comes_once_just_after_it(found: Schedule) -> None:
    first, second = shown(found, SPRING, 2)
    assert first == "29 03:00 +02:00"
    assert second.startswith("30 02:")


@pytest.mark.parametrize("found", [schedule("1d", at="02:30"), schedule(cron="30 2 * * *")], ids=str)
def test_t2_a_fixed_time_that_comes_twice_starts_in_the_first_pass_alone(found: Schedule) -> None:
    assert shown(found, AUTUMN, 2) == ["25 02:30 +02:00", "26 02:30 +01:00"]


@pytest.mark.parametrize("found", [schedule("15m"), schedule(cron="*/15 * * * *")], ids=str)
def test_t3_each_quarter_starts_in_both_passes_of_the_repeated_hour(found: Schedule) -> None:
    after = "2026-10-25T01:59+02:00"
    passes = [f"25 02:{minute:02} {offset}" for offset in ("+02:00", "+01:00") for minute in (0, 15, 30, 45)]
    assert shown(found, after, 9) == [*passes, "25 03:00 +01:00"]


def test_t4_of_several_starts_only_the_one_in_the_gap_moves() -> None:
    found = schedule("1d", at="00:30,02:30,04:30,08:00,12:00,20:00")
    times = ["29 00:30 +01:00", "29 03:00 +02:00", "29 04:30 +02:00", "29 08:00 +02:00", "29 12:00 +02:00"]
    assert shown(found, "2026-03-28T22:00", 6) == [*times, "29 20:00 +02:00"]
    assert shown(schedule(cron="0 */2 * * *"), "2026-03-28T22:30", 3) == [
        "29 00:00 +01:00",
        "29 03:00 +02:00",
        "29 04:00 +02:00",
    ]


def test_a_line_of_each_hour_loses_nothing_in_the_gap_and_gets_no_start_for_it() -> None:
    assert shown(schedule(cron="7 * * * *"), "2026-03-29T00:00", 2) == ["29 01:07 +01:00", "29 03:07 +02:00"]


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 * * * *", "0 */2 * * *", "30 1 * * sun"])
def test_t5_the_next_start_is_always_strictly_later(tz: str, cron: str) -> None:
    found = schedule(cron=cron, tz=tz)
    for turn in ("2026-03-08", "2026-03-29", "2026-04-05", "2026-09-06", "2026-10-04", "2026-10-25", "2026-11-01"):
        for minute in range(0, 24 * 60, 23):
            now_ns = at(turn) + minute * MINUTE_NS
            assert (next_start(found, now_ns) or 0) > now_ns


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_t6_days_are_those_of_the_calendar_not_of_86400_seconds(day: str, hours: int) -> None:
    found = schedule("1d", at="00:00")
    first_ns, second_ns = islice(starts(found, at(day) - 12 * HOUR_NS), 2)
    assert second_ns - first_ns == hours * HOUR_NS


def test_t8_where_midnight_is_skipped_the_day_still_starts_once() -> None:
    for found in (schedule("1w", on="sun", tz="America/Santiago"), schedule(cron="0 0 * * 0", tz="America/Santiago")):
        assert shown(found, "2026-09-01T12:00", 2) == ["06 01:00 -03:00", "13 00:00 -03:00"]


@pytest.mark.parametrize("text", ["30 2 * * *", "*/15 * * * *", "0 3 * * *"])
def test_t9_asked_within_the_second_pass_it_says_what_it_said_before(text: str) -> None:
    found = schedule(cron=text)
    series = list(islice(starts(found, at(AUTUMN)), 200))
    for minute in range(-70, 70, 5):  # both passes, and what is around them
        now_ns = at("2026-10-25T02:00+01:00") + minute * MINUTE_NS
        assert next_start(found, now_ns) == next(start_ns for start_ns in series if start_ns > now_ns)


def test_t10_no_start_is_stored_so_a_zone_that_changes_its_law_is_followed() -> None:
    here, there = schedule("1d", at="02:00", tz="UTC"), schedule("1d", at="02:00", tz="Asia/Kolkata")
    assert set(vars(here)) == {"every_ns", "at", "on", "cron", "tz"}
    assert (next_start(here, at(SPRING)) or 0) - (next_start(there, at(SPRING)) or 0) == 5.5 * HOUR_NS


def test_t11_a_policy_in_utc_is_not_moved_by_anybodys_turn() -> None:
    found = schedule("1d", at="02:30", tz="UTC")
    times = list(islice(starts(found, at("2026-01-01")), 365))
    assert {second - first for first, second in pairwise(times)} == {DAY_NS}


def test_t12_the_zone_is_part_of_the_schedule_and_is_shown() -> None:
    assert str(schedule("1d", at="02:00", on="mon,thu")) == "every 1d at 02:00 on mon,thu, Europe/Berlin"
    assert "America/Santiago" in described(schedule(cron="0 2 * * *", tz="America/Santiago"))


def test_t13_two_fields_of_days_are_explained_as_and_or_or() -> None:
    assert described(schedule(cron="0 0 13 * 5")).endswith("(OR: either of the two days)")
    assert described(schedule(cron="0 0 */2 * 6")).endswith("(AND: both the day of the month and the weekday)")
    assert described(schedule(cron="0 0 13 * *")).endswith("13th day of every month")
    assert shown(schedule(cron="0 0 13 * 5"), "2026-04-04", 3) == [
        "10 00:00 +02:00",
        "13 00:00 +02:00",
        "17 00:00 +02:00",
    ]
    assert shown(schedule(cron="0 0 */2 * 6"), "2026-04-04", 2) == ["11 00:00 +02:00", "25 00:00 +02:00"]


@pytest.mark.parametrize(
    "cron", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 * * 8", "60 * * * *", "0 0 0 * *", "0 0 31 2 */7"]
)
def test_t14_a_start_that_never_comes_is_refused_when_it_is_set(cron: str) -> None:
    with pytest.raises(UsageError) as caught:
        schedule(cron=cron)
    assert "\n" not in str(caught.value)


def test_29_february_comes_in_leap_years_alone() -> None:
    years = [to_datetime(start_ns).year for start_ns in islice(starts(schedule(cron="0 12 29 2 *"), at(SPRING)), 4)]
    assert years == [2028, 2032, 2036, 2040]
    assert [to_datetime(x).year for x in islice(starts(schedule(cron="0 12 29 2 *"), at("2096-01-01")), 2)] == [
        2096,
        2104,
    ]


# What people type


def test_every_and_at_and_on_are_read() -> None:
    assert schedule("1h30m").every_ns == 90 * MINUTE_NS
    assert schedule("1d", at="14:00, 2:00", on="Thursday,mon") == Schedule(
        every_ns=DAY_NS, at=(120, 840), on=(0, 3), tz="Europe/Berlin"
    )
    assert shown(schedule("2w", on="wed", at="03:00"), SPRING, 2) == ["01 03:00 +02:00", "15 03:00 +02:00"]
    assert shown(schedule("1w"), SPRING, 2) == ["30 00:00 +02:00", "06 00:00 +02:00"]
    assert shown(schedule("12h", on="mon"), SPRING, 3) == ["30 02:00 +02:00", "30 14:00 +02:00", "06 02:00 +02:00"]


@pytest.mark.parametrize(
    ("word", "line"), [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), (" 0  2 * * 1 ", "0 2 * * 1")]
)
def test_a_cron_line_is_five_fields_or_a_word_for_them(word: str, line: str) -> None:
    assert schedule(cron=word).cron == line


@pytest.mark.parametrize(
    ("every", "rest"),
    [
        (None, {}),
        ("0m", {}),
        ("30s", {}),
        ("90s", {}),
        ("36h", {}),
        ("367d", {}),
        ("soon", {}),
        ("1h", {"at": "02:00"}),
        ("2d", {"on": "mon"}),
        ("1d", {"at": "24:00"}),
        ("1d", {"at": "2"}),
        ("1d", {"at": "02:60"}),
        ("1d", {"at": "-1:00"}),
        ("1d", {"on": "mo"}),
        ("1d", {"on": "8"}),
        ("1d", {"on": "mon,"}),
        ("1d", {"tz": "Berlin"}),
        ("1d", {"cron": "0 2 * * *"}),
        (None, {"cron": "0 2 * * *", "at": "02:00"}),
        (None, {"cron": "0 2 * *"}),
        (None, {"cron": "0 0 2 * * *"}),
        (None, {"cron": "@reboot"}),
        (None, {"cron": ""}),
        (None, {"cron": "1" * 500 + " * * * *"}),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(every: str | None, rest: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        schedule(every, **rest)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_stored_schedule_is_held_to_the_same() -> None:
    for bad in (Schedule(every_ns=1), Schedule(every_ns=DAY_NS, at=(1440,)), Schedule(every_ns=DAY_NS, on=(7,))):
        with pytest.raises(UsageError):
            check_schedule(bad, 0)


@settings(deadline=None)
@given(text=st.text(st.sampled_from("0123456789*/,-#L W?@MONdaily"), max_size=25) | st.text(max_size=25))
def test_any_text_is_a_cron_line_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        found = schedule(cron=text)
        assert (next_start(found, at(SPRING)) or 0) > at(SPRING)


# Beside a plain reading of the calendar


def plain_starts(found: Schedule, day: datetime, days: int) -> list[int]:
    """When clocks first show a time of `at`, or have gone past it, looked up minute by minute."""
    zone, times = parse_zone(found.tz), set()
    for wall_day in (day + timedelta(days=number) for number in range(days)):
        for minute in found.at:
            wanted = wall_day + timedelta(minutes=minute)
            instant_ns = to_ns(wanted.replace(tzinfo=UTC)) - 15 * HOUR_NS
            while to_datetime(instant_ns, zone).replace(tzinfo=None) < wanted:
                instant_ns += MINUTE_NS
            times.add(instant_ns)
    return sorted(times)


@settings(deadline=None, max_examples=12)
@given(
    tz=st.sampled_from(ZONES),
    day=st.sampled_from(
        ["2026-03-07", "2026-03-28", "2026-04-04", "2026-09-05", "2026-10-03", "2026-10-24", "2026-10-31"]
    ),
    times=st.lists(st.integers(0, 1439) | st.integers(0, 200), min_size=1, max_size=3, unique=True).map(sorted),
)
def test_starts_are_where_a_plain_reading_of_the_clocks_finds_them(tz: str, day: str, times: list[int]) -> None:
    found = Schedule(every_ns=DAY_NS, at=tuple(times), tz=tz)
    expected = plain_starts(found, datetime.fromisoformat(day), 3)
    assert list(islice(starts(found, expected[0] - 1), len(expected))) == expected
    for earlier, later in pairwise(expected):
        assert next_start(found, earlier) == later
        assert next_start(found, later - 1) == later
        assert last_start(found, earlier - 1, later) == later
        assert last_start(found, earlier - DAY_NS, later - 1) == earlier


SOME = [
    schedule("15m"),
    schedule("1d", at="02:30"),
    schedule("2w"),
    schedule(cron="*/20 2 * * *"),
    schedule(cron="0 0 29 2 *"),
]


@settings(deadline=None, max_examples=60)
@given(found=st.sampled_from(SOME), minute=st.integers(0, 3_000_000), back=st.sampled_from(["1m", "2h", "3d", "400d"]))
def test_the_last_start_is_the_one_before_the_next(found: Schedule, minute: int, back: str) -> None:
    now_ns = at("2026-01-01") + minute * MINUTE_NS
    after_ns = now_ns - parse_span(back)
    last_ns = last_start(found, after_ns, now_ns)
    if last_ns is None:
        assert (next_start(found, after_ns) or 0) > now_ns
    else:
        assert after_ns < last_ns <= now_ns
        assert (next_start(found, last_ns) or 0) > now_ns
