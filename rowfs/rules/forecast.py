"""What is to come: until when each snapshot stays, and what the next runs will take and let go.

Both assume that every run to come is on time and succeeds, and ask the same `plan` that the runs ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from itertools import islice

from rowfs.rules.clock import Clock
from rowfs.rules.retention import Keep, Retention, Taken, Verdict, believed, buckets, plan
from rowfs.rules.schedules import Schedule, next_start, starts
from rowfs.rules.times import HOUR_NS, MINUTE_NS, SECOND_NS, format_instant, parse_zone, to_datetime, when_shown

RUNS_SHOWN = 30
STEPS_MAX = 1000  # new snapshots, hours, days ... that are looked ahead; an end beyond that is not told


class Future:
    """The starts to come after `now_ns`, found as they are asked for. Without a schedule (paused) there are none."""

    def __init__(self, schedule: Schedule | None, now_ns: int, zone: tzinfo) -> None:
        self._schedule = schedule
        self._now_ns = now_ns
        self._zone = zone
        self._found: dict[tuple[str, tuple[int, ...]], tuple[list[int], Iterator[int]]] = {}

    def first(self) -> int | None:
        """The next start."""
        return None if self._schedule is None else next_start(self._schedule, self._now_ns)

    def nth(self, rule: str, newest_ns: int, number: int) -> int | None:
        """The start that brings the `number`th new snapshot, or hour, day, ... after the one that `newest_ns` is in."""
        if self._schedule is None or number > STEPS_MAX:
            return None
        bucket = () if rule == "last" else buckets(newest_ns, self._zone)[rule]
        if (rule, bucket) not in self._found:
            coming = self._buckets(rule, bucket) if bucket else starts(self._schedule, self._now_ns)
            self._found[rule, bucket] = ([], coming)
        found, coming = self._found[rule, bucket]
        found.extend(islice(coming, max(number - len(found), 0)))
        return found[number - 1] if len(found) >= number else None

    def _buckets(self, rule: str, bucket: tuple[int, ...]) -> Iterator[int]:
        """The first start in each hour, day, ... after `bucket` that has any."""
        assert self._schedule is not None
        start_ns = next_start(self._schedule, self._now_ns)
        while start_ns is not None:
            found = buckets(start_ns, self._zone)[rule]
            if found != bucket:
                yield start_ns
                bucket = found
            start_ns = next_start(self._schedule, self._end(rule, start_ns))

    def _end(self, rule: str, start_ns: int) -> int:
        """A point in time in the same hour, day, ... after which the next start is worth looking at."""
        local = to_datetime(start_ns, self._zone)
        match rule:
            case "hourly":
                return start_ns + HOUR_NS - (local.minute * MINUTE_NS + local.second * SECOND_NS) - 1
            case "daily":
                day = local.date() + timedelta(days=1)
            case "weekly":
                day = local.date() + timedelta(days=7 - local.weekday())
            case "monthly":
                day = (local.date().replace(day=1) + timedelta(days=32)).replace(day=1)
            case _:
                day = local.date().replace(year=local.year + 1, month=1, day=1)
        return max(when_shown(datetime.combine(day, time()), self._zone)[0] - 1, start_ns)


# Until when


def explain(
    policy: int,
    retention: Retention,
    schedule: Schedule | None,
    chain: Iterable[Taken],
    now_ns: int,
    zone: tzinfo,
    clock: Clock | None = None,
) -> list[Verdict]:
    """The plan of a pass at `now_ns`, and until when each reason lasts. Without a schedule no runs are to come."""
    verdicts = plan(policy, retention, chain, now_ns, zone, clock=clock)
    future = Future(schedule, now_ns, zone)
    at = believed([item.taken for item in verdicts], now_ns)
    newest_ns = max((at[item.taken.id] for item in verdicts if item.taken.good), default=now_ns)
    return [_with_ends(item, lambda keep: _end_of(keep, future, newest_ns, zone)) for item in verdicts]


def _with_ends(verdict: Verdict, end: Callable[[Keep], int | None]) -> Verdict:
    keeps = tuple(keep._replace(until_ns=end(keep)) for keep in verdict.keeps)
    ends = [keep.until_ns for keep in keeps]
    known = [until_ns for until_ns in ends if until_ns is not None]
    return verdict._replace(keeps=keeps, until_ns=max(known) if known and len(known) == len(ends) else None)


def _end_of(keep: Keep, future: Future, newest_ns: int, zone: tzinfo) -> int | None:
    """When a reason ends if all goes well: a newer snapshot in the same bucket, or enough newer buckets."""
    if not keep.number:
        return future.first() if keep.rule in ("just-taken", "last-good", "failed") else keep.until_ns
    first_ns = future.first()
    same = keep.rule != "last" and keep.place == 0 and first_ns is not None
    if same and buckets(first_ns or 0, zone)[keep.rule] == buckets(newest_ns, zone)[keep.rule]:
        return first_ns
    return future.nth(keep.rule, newest_ns, keep.number - keep.place)


def line(verdict: Verdict, zone: tzinfo, paused: bool = False) -> str:
    """What becomes of a snapshot, for people: which rules keep it and until when, or why it goes next."""
    if verdict.goes:
        return f"{'stays as long as its policy is paused' if paused else 'goes with the next run'}: no rule keeps it"
    texts = [
        keep.text + (f" until {format_instant(keep.until_ns, zone)}" if keep.until_ns is not None else "")
        for keep in verdict.keeps
    ]
    return f"stays: {'; '.join(texts)}"


# The next runs


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run to come: what it takes and lets go, and how many there are then."""

    due_ns: int
    takes: Taken
    goes: tuple[Taken, ...]
    kept: int


def preview(
    policy: int,
    retention: Retention,
    schedule: Schedule,
    chain: Sequence[Taken],
    now_ns: int,
    name: Callable[[int], str],
    runs: int = RUNS_SHOWN,
) -> tuple[list[Run], list[Verdict]]:
    """The next `runs` runs, and what is kept after them. `name` gives the name of the snapshot of a start."""
    zone = parse_zone(schedule.tz)
    there, found = list(chain), []
    for due_ns in islice(starts(schedule, now_ns), runs):
        number = max((taken.id for taken in there), default=0) + 1
        new = Taken(id=number, name=name(due_ns), due_ns=due_ns, policy=policy)
        there.append(new)
        gone = {item.taken.id for item in plan(policy, retention, there, due_ns, zone, number) if item.goes}
        lost = tuple(taken for taken in there if taken.id in gone)
        there = [taken for taken in there if taken.id not in gone]
        kept = sum(taken.policy == policy for taken in there)
        found.append(Run(due_ns=due_ns, takes=new, goes=lost, kept=kept))
    last_ns = found[-1].due_ns if found else now_ns
    return found, explain(policy, retention, schedule, there, last_ns, zone)
