"""When a policy starts: the points in time that a schedule names, of which every one is strictly later than the last.

    every 15m, 4h      counted in UTC from 1970 on, so that neither a restart nor a change of clocks moves them
    every 1d, 2w       on days of the calendar in the schedule's zone, at times of the day that clocks there show
    a cron line        five fields, read by cronsim, on clocks of the zone

Clocks that are put forward skip times, and clocks that are put back show some twice. A time that is skipped starts when
the clocks go on, once however many were skipped. A time that comes twice starts the first time; a cron line whose
minute or hour begins with a star goes by the clock instead: it starts both times.

No start is ever stored: all are worked out from the rule, so that a zone whose law changes is followed.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from rowfs.base.errors import UsageError
from rowfs.rules.times import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    WEEK_NS,
    format_span,
    parse_span,
    parse_zone,
    to_datetime,
    when_shown,
)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_MAX_NS = 366 * DAY_NS
AT_MAX = 24  # times of one day
CRON_CHARACTERS_MAX = 200
CRON_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# How far back the last start is looked for, the near past first: a cron line of each minute has many in a day.
LOOK_BACK_NS = (2 * HOUR_NS, DAY_NS, 10 * DAY_NS, 100 * DAY_NS, 1000 * DAY_NS)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Either `every_ns`, or `cron`. `at`: minutes after midnight; `on`: days of the week, Monday being 0."""

    every_ns: int | None = None
    at: tuple[int, ...] = ()
    on: tuple[int, ...] = ()
    cron: str | None = None
    tz: str = "UTC"

    def __str__(self) -> str:
        if self.cron is not None:
            return f"cron {self.cron}, {self.tz}"
        words = [f"every {format_span(self.every_ns or 0)}"]
        words += [f"at {','.join(f'{minute // 60:02}:{minute % 60:02}' for minute in self.at)}"] * bool(self.at)
        words += [f"on {','.join(DAYS[day] for day in self.on)}"] * bool(self.on)
        return f"{' '.join(words)}, {self.tz}"


# What people type


def parse_schedule(every: str | None, at: Iterable[str], on: str, cron: str | None, tz: str, now_ns: int) -> Schedule:
    """The schedule of --every or --cron, --at, --on and --tz. Raises UsageError when it is none, or never starts."""
    schedule = Schedule(
        every_ns=None if every is None else parse_span(every),
        at=tuple(sorted({_parse_at(word) for words in at for word in words.split(",")})),
        on=tuple(sorted({_parse_day(word) for word in on.split(",")})) if on else (),
        cron=None if cron is None else CRON_WORDS.get(cron.strip().lower(), " ".join(cron.split())),
        tz=tz,
    )
    return check_schedule(schedule, now_ns)


def _parse_at(text: str) -> int:
    hour, colon, minute = text.strip().partition(":")
    if not colon or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in (hour, minute)):
        raise UsageError(f"{text[:20]!r} is no time of the day: write it as --at 02:00")
    if int(hour) > 23 or int(minute) > 59:
        raise UsageError(f"{text!r} is no time of the day: they go from 00:00 to 23:59")
    return int(hour) * 60 + int(minute)


def _parse_day(text: str) -> int:
    try:
        return DAYS.index(text.strip().lower()[:3] if text.strip().isalpha() else "")
    except ValueError:
        raise UsageError(f"{text[:20]!r} is no day of the week: write --on mon,thu") from None


def check_schedule(schedule: Schedule, now_ns: int) -> Schedule:
    """`schedule`, if a policy may have it. Raises UsageError otherwise, and when it never starts again."""
    parse_zone(schedule.tz)
    if (schedule.every_ns is None) == (schedule.cron is None):
        raise UsageError("a schedule needs either --every or --cron, as in --every 1d --at 02:00")
    if schedule.every_ns is not None:
        _check_every(schedule, schedule.every_ns)
    elif schedule.at or schedule.on:
        raise UsageError("--at and --on go with --every: a cron line has times and days of its own")
    else:
        _check_cron(schedule.cron or "")
    if next_start(schedule, now_ns) is None:
        raise UsageError(f"{str(schedule)!r} never starts: no day is like that")
    return schedule


def _check_every(schedule: Schedule, every_ns: int) -> None:
    every = format_span(every_ns)
    if not MINUTE_NS <= every_ns <= EVERY_MAX_NS or every_ns % MINUTE_NS:
        raise UsageError(f"--every {every} is out of reach: whole minutes, from 1m to 366d")
    if every_ns > DAY_NS and every_ns % DAY_NS:
        raise UsageError(f"--every {every} is no number of days: beyond a day, write whole days or weeks")
    if every_ns < DAY_NS and schedule.at:
        raise UsageError(f"--at says when on a day, and --every {every} is less: write --every 1d, or leave --at out")
    if schedule.on and every_ns > DAY_NS and every_ns % WEEK_NS:
        raise UsageError(f"--on and --every {every} do not go together: write --every 1d, or weeks")
    if len(schedule.at) > AT_MAX or not all(0 <= minute < 1440 for minute in schedule.at):
        raise UsageError(f"--at takes up to {AT_MAX} times from 00:00 to 23:59")
    if not all(0 <= day < 7 for day in schedule.on):
        raise UsageError("--on takes days of the week, as mon,thu")


def _check_cron(line: str) -> None:
    if len(line) > CRON_CHARACTERS_MAX or len(line.split()) != 5:
        raise UsageError(
            f"{line[:60]!r} is no cron line: write five fields, minute hour day month weekday, as in '0 2 * * 1-5'"
        )
    from cronsim import CronSimError

    try:
        next(_cron_times(line, datetime(2026, 1, 1)), None)
    except (CronSimError, ValueError, AssertionError) as error:
        why = str(error).lower() or "a field that cannot be"
        raise UsageError(f"{line!r} is no cron line that ever starts: {why}") from None


# Starts


def next_start(schedule: Schedule, after_ns: int) -> int | None:
    """The first start that is strictly later than `after_ns`; None: there is none in the next 50 years."""
    return next(starts(schedule, after_ns), None)


def last_start(schedule: Schedule, after_ns: int, until_ns: int) -> int | None:
    """The last start that is strictly later than `after_ns` and not later than `until_ns`; None: there is none."""
    for back_ns in (*LOOK_BACK_NS, max(until_ns - after_ns, 0)):
        begin_ns = max(after_ns, until_ns - back_ns)
        found = None
        for found_ns in itertools.takewhile(lambda start_ns: start_ns <= until_ns, starts(schedule, begin_ns)):
            found = found_ns
        if found is not None or begin_ns == after_ns:
            return found
    return None


def starts(schedule: Schedule, after_ns: int) -> Iterator[int]:
    """All starts that are strictly later than `after_ns`, in order."""
    zone = parse_zone(schedule.tz)
    if schedule.every_ns is not None and schedule.every_ns < DAY_NS:
        found = _counted(schedule.every_ns, schedule.on, zone, after_ns)
    else:
        begin = _begin(zone, after_ns)
        if schedule.cron is not None:
            minute, hour = schedule.cron.split()[:2]
            by_clock = minute.startswith("*") or hour.startswith("*")
            found = _instants(_cron_times(schedule.cron, begin), zone, by_clock, skipped=hour != "*")
        else:
            found = _instants(_calendar(schedule, begin.date()), zone)
    return itertools.dropwhile(lambda start_ns: start_ns <= after_ns, found)


def _counted(every_ns: int, on: tuple[int, ...], zone: tzinfo, after_ns: int) -> Iterator[int]:
    start_ns = (after_ns // every_ns + 1) * every_ns
    while True:
        local = to_datetime(start_ns, zone)
        if not on or local.weekday() in on:
            yield start_ns
            start_ns += every_ns
        else:  # to the next day, or just before it
            rest = timedelta(days=1) - timedelta(hours=local.hour, minutes=local.minute)
            start_ns += max((rest // timedelta(minutes=1) * MINUTE_NS - 2 * HOUR_NS) // every_ns, 1) * every_ns


def _begin(zone: tzinfo, after_ns: int) -> datetime:
    """A time that clocks show from which on all starts after `after_ns` are; earlier by what clocks are changed."""
    offsets = [to_datetime(after_ns + shift_ns, zone).utcoffset() or timedelta() for shift_ns in (-DAY_NS, 0, DAY_NS)]
    shown = to_datetime(after_ns, zone).replace(tzinfo=None, fold=0)
    return shown - (max(offsets) - min(offsets)) - timedelta(seconds=1)


def _calendar(schedule: Schedule, day: date) -> Iterator[datetime]:
    """The times of days that `every`, `on` and `at` name, from `day` on, as clocks show them."""
    assert schedule.every_ns is not None
    days, weeks = schedule.every_ns // DAY_NS, schedule.every_ns // WEEK_NS
    weekly = schedule.every_ns % WEEK_NS == 0
    on = schedule.on or ((0,) if weekly else tuple(range(7)))
    for number in itertools.count(day.toordinal()):
        # Day 1 was a Monday.
        due = ((number - 1) // 7) % weeks == 0 if weekly else number % days == 0
        day = date.fromordinal(number)
        if due and day.weekday() in on:
            for minute in schedule.at or (0,):
                yield datetime.combine(day, time(minute // 60, minute % 60))


def _cron_times(line: str, begin: datetime) -> Iterator[datetime]:
    """The times that clocks show which a cron line names, later than `begin`. Raises what cronsim raises."""
    from cronsim import CronSim

    return iter(CronSim(line, begin))


def _instants(shown: Iterable[datetime], zone: tzinfo, twice: bool = False, skipped: bool = True) -> Iterator[int]:
    """When clocks in `zone` show each of these times, in order. Those shown twice: `twice`; never: when clocks go on.

    Without `skipped` those never shown are left out.
    """
    waiting: list[int] = []  # second times: others come before them
    last_ns = None
    for moment in shown:
        first_ns, second_ns = when_shown(moment, zone)
        while waiting and waiting[0] < first_ns:
            yield heapq.heappop(waiting)
        if second_ns is not None and twice:
            heapq.heappush(waiting, second_ns)
        if first_ns != last_ns and (skipped or second_ns is not None or _is_shown(moment, first_ns, zone)):
            yield first_ns
            last_ns = first_ns
    yield from sorted(waiting)


def _is_shown(shown: datetime, instant_ns: int, zone: tzinfo) -> bool:
    return to_datetime(instant_ns, zone).replace(tzinfo=None, fold=0) == shown


# For people


def described(schedule: Schedule) -> str:
    """The schedule in words; of a cron line that names days of the month and of the week, how they go together."""
    if schedule.cron is None:
        return str(schedule)
    from cronsim import CronSim

    days, weekdays = schedule.cron.split()[2], schedule.cron.split()[4]
    both = days != "*" and weekdays != "*"
    together = days.startswith("*") or weekdays.startswith("*")
    how = " (AND: both the day of the month and the weekday)" if together else " (OR: either of the two days)"
    explained = CronSim(schedule.cron, datetime(2026, 1, 1)).explain()
    return f"{schedule}: {explained}{how if both else ''}"
