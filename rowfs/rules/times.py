"""Points in time and spans of it, as people type them and as rules count them.

A point in time is a number of nanoseconds since 1970 in UTC (`now_ns`, `until_ns`), so that two of them compare as they
are, whatever the clocks on walls show. Only what a person types or reads has a time zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rowfs.base.errors import UsageError
from rowfs.base.times import TIME_NS_MAX

SECOND_NS = 1_000_000_000
MINUTE_NS, HOUR_NS, DAY_NS, WEEK_NS = (SECOND_NS * s for s in (60, 3600, 86_400, 7 * 86_400))
YEAR_NS = 366 * DAY_NS  # the longest there is
SPAN_MAX_NS = 1000 * YEAR_NS
TEXT_CHARACTERS_MAX = 40

_UNITS = {"w": WEEK_NS, "d": DAY_NS, "h": HOUR_NS, "m": MINUTE_NS, "s": SECOND_NS}
_SPAN = re.compile(r"(?:\d+[wdhms])+", re.ASCII)
_PART = re.compile(r"(\d+)([wdhms])", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_span(text: str) -> int:
    """The nanoseconds that `text` names: `15m`, `1h`, `90d`, `2w`, `1h30m`. Raises UsageError when it is no span."""
    shown = text[:TEXT_CHARACTERS_MAX]
    if len(text) > TEXT_CHARACTERS_MAX or not _SPAN.fullmatch(text):
        raise UsageError(f"{shown!r} is not a span of time: write numbers with w, d, h, m or s, as in 15m, 1h or 90d")
    span_ns = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if span_ns > SPAN_MAX_NS:
        raise UsageError(f"{shown!r} is too long: 1000 years are the most")
    return span_ns


def format_span(span_ns: int) -> str:
    """`span_ns` as `parse_span` reads it, cut at the second."""
    parts, rest_ns = [], max(span_ns, 0)
    for unit, unit_ns in _UNITS.items():
        number, rest_ns = divmod(rest_ns, unit_ns)
        if number and not (unit == "w" and rest_ns):  # 8d says more than 1w1d
            parts.append(f"{number}{unit}")
        elif unit == "w":
            rest_ns += number * unit_ns
    return "".join(parts) or "0s"


def parse_zone(name: str) -> ZoneInfo:
    """The time zone called `name`, as Europe/Berlin. Raises UsageError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a path, a directory, no name at all
        shown = name[:TEXT_CHARACTERS_MAX]
        raise UsageError(f"{shown!r} is no time zone: write UTC, or a name as Europe/Berlin") from None


def parse_instant(text: str, now_ns: int, zone: tzinfo, ahead: bool) -> int:
    """The point in time that `text` names: a date (its midnight in `zone`), a time of a date, or a span from now.

    A span leads into the future where `ahead`, as --until takes it, else into the past, as --since does. Raises
    UsageError when it is none, or lies before 1970 or after 2262.
    """
    if _SPAN.fullmatch(text):
        instant_ns = now_ns + (parse_span(text) if ahead else -parse_span(text))
    else:
        try:
            written = datetime.fromisoformat(text[:TEXT_CHARACTERS_MAX])
            instant_ns = to_ns(written if written.tzinfo else written.replace(tzinfo=zone))
        except (ValueError, OverflowError):
            shown = text[:TEXT_CHARACTERS_MAX]
            raise UsageError(
                f"{shown!r} is no time: write a date as 2027-03-01, with 12:00 behind it, or a span as 90d"
            ) from None
    if not 0 <= instant_ns <= TIME_NS_MAX:
        raise UsageError(f"{text!r} is out of reach: times lie between 1970 and 2262")
    return instant_ns


def to_ns(moment: datetime) -> int:
    """The nanoseconds since 1970 of a datetime that has a zone."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def to_datetime(instant_ns: int, zone: tzinfo = UTC) -> datetime:
    """What clocks in `zone` show at `instant_ns`, to the microsecond."""
    return (_EPOCH + timedelta(microseconds=instant_ns // 1000)).astimezone(zone)


def format_instant(instant_ns: int, zone: tzinfo) -> str:
    """`instant_ns` for people in `zone`, to the minute, and how far that is from UTC: `2027-03-01 02:00 +01:00`."""
    shown = to_datetime(instant_ns, zone).isoformat(sep=" ", timespec="minutes")
    return f"{shown[:16]} {shown[16:]}".replace("+00:00", "UTC")


def when_shown(shown: datetime, zone: tzinfo) -> tuple[int, int | None]:
    """When clocks in `zone` show `shown` for the first time, and for the second (None: only once).

    A time that clocks never show, because they are put forward over it: when they go on behind it.
    """
    first_ns = to_ns(shown.replace(tzinfo=zone, fold=0))
    second_ns = to_ns(shown.replace(tzinfo=zone, fold=1))
    if second_ns > first_ns:
        return first_ns, second_ns
    if second_ns == first_ns:
        return first_ns, None
    before_s, after_s = second_ns // SECOND_NS, first_ns // SECOND_NS  # of the change
    old = to_datetime(second_ns, zone).utcoffset()
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if to_datetime(middle_s * SECOND_NS, zone).utcoffset() == old:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s * SECOND_NS, None
