"""Spans and points in time as people type them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import UsageError
from rowfs.base.times import TIME_NS_MAX
from rowfs.rules.times import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    SECOND_NS,
    WEEK_NS,
    format_instant,
    format_span,
    parse_instant,
    parse_span,
    parse_zone,
    to_datetime,
    to_ns,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOON = 1_800_000_000 * SECOND_NS


@pytest.mark.parametrize(
    ("text", "span_ns"),
    [
        ("15m", 15 * MINUTE_NS),
        ("1h30m", 90 * MINUTE_NS),
        ("90d", 90 * DAY_NS),
        ("2w", 2 * WEEK_NS),
        ("0d", 0),
        ("45s", 45 * SECOND_NS),
    ],
)
def test_a_span_is_numbers_with_units(text: str, span_ns: int) -> None:
    assert parse_span(text) == span_ns


@pytest.mark.parametrize(
    "text", ["", "d", "90", "-1d", "1.5h", "1 d", "1D", "1y", "1d\n", "٣d", "9" * 50 + "d", "999999w"]
)
def test_what_is_no_span_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_span(text)
    assert "\n" not in str(caught.value)


@given(span_s=st.integers(0, 10**9))
def test_a_shown_span_can_be_typed(span_s: int) -> None:
    assert parse_span(format_span(span_s * SECOND_NS)) == span_s * SECOND_NS


def test_spans_are_shown_short() -> None:
    shown = [format_span(span_ns) for span_ns in (0, 8 * DAY_NS, WEEK_NS, HOUR_NS, 90 * MINUTE_NS, -5)]
    assert shown == ["0s", "8d", "1w", "1h", "1h30m", "0s"]


@pytest.mark.parametrize("name", ["Europe/Berlin", "UTC", "America/Santiago"])
def test_a_zone_is_known_by_name(name: str) -> None:
    assert parse_zone(name).key == name


@pytest.mark.parametrize("name", ["", "Berlin", "/etc/localtime", "../UTC", "Europe", "a\0b", "x" * 5000, "\ud800"])
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="time zone"):
        parse_zone(name)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2027-03-01", "2027-02-28T23:00"),
        ("2027-03-01 12:00", "2027-03-01T11:00"),
        ("2027-03-01T12:00Z", "2027-03-01T12:00"),
        ("2027-07-01T12:00+05:00", "2027-07-01T07:00"),
    ],
)
def test_a_date_is_read_in_the_zone_it_is_typed_in(text: str, utc: str) -> None:
    instant_ns = parse_instant(text, NOON, BERLIN, ahead=True)
    assert to_datetime(instant_ns).strftime("%Y-%m-%dT%H:%M") == utc


def test_a_span_leads_ahead_or_back() -> None:
    assert parse_instant("90d", NOON, UTC, ahead=True) == NOON + 90 * DAY_NS
    assert parse_instant("90d", NOON, UTC, ahead=False) == NOON - 90 * DAY_NS


@pytest.mark.parametrize(
    "text", ["", "soon", "2027-02-30", "1969-12-31", "2300-01-01", "9999-12-31", "0001-01-01", "900w" * 5]
)
def test_a_time_out_of_reach_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_instant(text, NOON, BERLIN, ahead=False)


@settings(deadline=None)
@given(text=st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.+Z-]{0,15}"))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert 0 <= parse_instant(text, NOON, BERLIN, ahead=True) <= TIME_NS_MAX


@given(instant_us=st.integers(0, TIME_NS_MAX // 1000))
def test_times_are_instants_in_every_zone(instant_us: int) -> None:
    assert to_ns(to_datetime(instant_us * 1000, BERLIN)) == instant_us * 1000


def test_the_repeated_hour_is_shown_with_its_offset() -> None:
    first_ns = to_ns(to_datetime(NOON).replace(year=2026, month=10, day=25, hour=0, minute=30))
    shown = [format_instant(instant_ns, BERLIN) for instant_ns in (first_ns, first_ns + HOUR_NS)]
    assert [text[11:] for text in shown] == ["02:30 +02:00", "02:30 +01:00"]
    assert format_instant(0, UTC) == "1970-01-01 00:00 UTC"
