"""Which snapshots of a policy stay, and why; what is left goes.

A rule keeps, it never deletes: a snapshot goes when no rule keeps it. Rules of numbers count what there is, not the
calendar: `daily 5` are the last five days that have a snapshot. Of several in one hour, day, week (ISO), month or year
the newest is the one that is kept, in every rule. Snapshots count for the time that their run was due, on clocks of the
policy's zone. Not counted are snapshots that failed. Kept whatever the rules say are: the one just taken, the last
good one, what is locked or needed, and, while the clock is in doubt, what is too old only if it is right.

The run, `explain` and `preview` ask the same `plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import tzinfo
from functools import lru_cache
from typing import NamedTuple

from rowfs.base.errors import UsageError
from rowfs.base.names import printable
from rowfs.rules.clock import Clock, trusted_ns
from rowfs.rules.times import MINUTE_NS, SPAN_MAX_NS, format_span, to_datetime

KEEP_MAX = 100_000
PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
_WORDS = {
    "no-rule": "its policy keeps all",
    "just-taken": "just taken",
    "last-good": "the last good one",
    "failed": "failed, and no good one came after it",
    "clock": "the clock leapt ahead, and else it is not old enough: rowfs policy run --confirm-clock, or wait a day",
}
_NOUNS = {"last": "snapshot", "hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many of which are kept, and for how long. All 0 and None: nothing ever goes."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    for_ns: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The rules of numbers that are set, by name."""
        return {name: number for name in ("last", *PERIODS) if (number := getattr(self, name))}

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) for item in fields(self))

    def __str__(self) -> str:
        words = [f"{name} {number}" for name, number in self.counts.items()]
        if self.for_ns is not None:
            words.append(f"for {format_span(self.for_ns)}")
        return ", ".join(words) or "all"


def check_retention(retention: Retention) -> Retention:
    """`retention`, if a policy may have it. Raises UsageError otherwise."""
    for name in ("last", *PERIODS):
        number = getattr(retention, name)
        if not 0 <= number <= KEEP_MAX:
            raise UsageError(f"--keep-{name} {number} is out of reach: 0 to {KEEP_MAX}")
    if retention.for_ns is not None and not MINUTE_NS <= retention.for_ns <= SPAN_MAX_NS:
        raise UsageError(f"--keep-for {format_span(retention.for_ns)} is out of reach: from 1m on")
    return retention


class Taken(NamedTuple):
    """A snapshot as retention sees it. Ids count up in the order in which snapshots were taken.

    `kept_by`: what keeps it beside any rule, in words (a lock, a clone that still needs it); empty: nothing.
    """

    id: int
    name: str
    due_ns: int  # when the run that took it was due; of a snapshot taken by hand, when it was taken
    policy: int | None = None  # None: taken by hand
    good: bool = True
    kept_by: str = ""
    group: int | None = None


class Keep(NamedTuple):
    """One reason why a snapshot stays. `place` of `number`: among those that a rule of numbers keeps, 0 the newest."""

    rule: str  # of Retention; or one of _WORDS
    place: int = 0
    number: int = 0
    until_ns: int | None = None  # filled in by rules.forecast; None: not known, it does not end by itself
    detail: str = ""

    @property
    def text(self) -> str:
        """The reason in words."""
        if self.number:
            return f"{self.rule} {self.number}, {_NOUNS[self.rule]} {self.place + 1}"
        return self.detail or _WORDS[self.rule]


@lru_cache(maxsize=1 << 12)
def _counted(rule: str, place: int, number: int) -> Keep:
    """A reason of a rule of numbers: the same object each time, since a pool at scale has tens of thousands."""
    return Keep(rule, place, number)


_LAST_GOOD = Keep("last-good")


class Verdict(NamedTuple):
    """What becomes of a snapshot: it stays for all of `keeps`, or goes for want of any."""

    taken: Taken
    keeps: tuple[Keep, ...]
    until_ns: int | None = None  # when it may go, if all `keeps` end by themselves

    @property
    def goes(self) -> bool:
        """Whether the next pass deletes it."""
        return not self.keeps


# Time


@lru_cache(maxsize=1 << 16)
def buckets(at_ns: int, zone: tzinfo) -> dict[str, tuple[int, ...]]:
    """Which hour, day, week, month and year of `zone` a point in time is in. The hour that comes twice is two."""
    local = to_datetime(at_ns, zone)
    offset = local.utcoffset()
    assert offset is not None
    return {
        "hourly": (local.toordinal(), local.hour, -int(offset.total_seconds())),
        "daily": (local.toordinal(),),
        "weekly": local.isocalendar()[:2],
        "monthly": (local.year, local.month),
        "yearly": (local.year,),
    }


def believed(own: Sequence[Taken], now_ns: int) -> dict[int, int]:
    """The time of each snapshot, by id. One that is dated ahead of `now_ns` was taken before any that is not.

    So it has the time of the next one after it, or `now_ns`: it is neither the newest for ever, nor of no age.
    """
    found = {taken.id: taken.due_ns for taken in own}
    if max(found.values(), default=now_ns) > now_ns:
        next_ns = now_ns
        for number in sorted(found, reverse=True):
            found[number] = next_ns = found[number] if found[number] <= now_ns else next_ns
    return found


# The plan


def plan(
    policy: int,
    retention: Retention,
    chain: Iterable[Taken],
    now_ns: int,
    zone: tzinfo,
    just_taken: int | None = None,
    clock: Clock | None = None,
) -> list[Verdict]:
    """What becomes of those of `chain` (of one disk) that the policy took, oldest first. It speaks of no others.

    `just_taken`: the id of the snapshot that the run took which asks. `clock`: as `rules.clock.read` left it.
    """
    own, keeps = _kept(policy, retention, chain, now_ns, zone, just_taken, clock)
    return [Verdict(taken, tuple(keeps[taken.id])) for taken in own]


def going(
    policy: int,
    retention: Retention,
    chain: Iterable[Taken],
    now_ns: int,
    zone: tzinfo,
    just_taken: int | None = None,
    clock: Clock | None = None,
) -> list[Taken]:
    """Those that go by `plan`: a run wants to know no more of a policy without groups."""
    own, keeps = _kept(policy, retention, chain, now_ns, zone, just_taken, clock)
    return [taken for taken in own if not keeps[taken.id]]


def _kept(
    policy: int,
    retention: Retention,
    chain: Iterable[Taken],
    now_ns: int,
    zone: tzinfo,
    just_taken: int | None,
    clock: Clock | None,
) -> tuple[list[Taken], dict[int, list[Keep]]]:
    """The policy's own snapshots, oldest first, and what keeps each of them."""
    own = [taken for taken in chain if taken.policy == policy]
    at = believed(own, now_ns)
    own.sort()  # by id; and where that is the order of their times, the next has nothing to do
    own.sort(key=lambda taken: at[taken.id])
    keeps: dict[int, list[Keep]] = {taken.id: [] for taken in own}
    good = [taken for taken in own if taken.good]
    _keep_numbers(retention, good, at, zone, keeps)
    _keep_young(retention, good, at, now_ns, now_ns if clock is None else trusted_ns(clock, now_ns), keeps)
    _keep_besides(retention, own, keeps)
    _keep_latest(own, good, just_taken, keeps)
    return own, keeps


Keeps = Mapping[int, list[Keep]]


def _keep_numbers(
    retention: Retention, good: Sequence[Taken], at: Mapping[int, int], zone: tzinfo, keeps: Keeps
) -> None:
    newest = [taken.id for taken in reversed(good)]
    for place, taken_id in enumerate(newest[: retention.last]):
        keeps[taken_id].append(_counted("last", place, retention.last))
    rules = [(rule, number) for rule, number in retention.counts.items() if rule != "last"]
    found = [buckets(at[taken_id], zone) for taken_id in newest] if rules else []
    for rule, number in rules:
        seen: set[tuple[int, ...]] = set()
        for taken_id, bucket_of in zip(newest, found, strict=True):
            bucket = bucket_of[rule]
            if bucket not in seen:
                if len(seen) == number:
                    break
                keeps[taken_id].append(_counted(rule, len(seen), number))
                seen.add(bucket)


def _keep_young(
    retention: Retention, good: Sequence[Taken], at: Mapping[int, int], now_ns: int, trusted_ns: int, keeps: Keeps
) -> None:
    if retention.for_ns is None:
        return
    detail = f"for {format_span(retention.for_ns)}"
    for taken in reversed(good):
        if now_ns - at[taken.id] < retention.for_ns:
            keeps[taken.id].append(Keep("for", until_ns=at[taken.id] + retention.for_ns, detail=detail))
        elif trusted_ns - at[taken.id] < retention.for_ns:
            keeps[taken.id].append(Keep("clock"))
        else:
            break


def _keep_besides(retention: Retention, own: Sequence[Taken], keeps: Keeps) -> None:
    """What keeps a snapshot whatever others there are."""
    keeps_all = not retention
    for taken in own:
        if taken.kept_by:
            keeps[taken.id].append(Keep("kept-by", detail=taken.kept_by))
    if keeps_all:
        for taken in own:
            keeps[taken.id].append(Keep("no-rule"))


def _keep_latest(own: Sequence[Taken], good: Sequence[Taken], just_taken: int | None, keeps: Keeps) -> None:
    if just_taken is not None and just_taken in keeps:
        keeps[just_taken].append(Keep("just-taken"))
    last = max(good).id if good else 0  # ids come first
    if last:
        keeps[last].append(_LAST_GOOD)
    if len(own) > len(good):
        newest = {taken.due_ns: taken.id for taken in sorted(own) if not taken.good and taken.id > last}
        for taken_id in newest.values():  # one for each start, however often it was tried
            keeps[taken_id].append(Keep("failed"))


def whole_groups(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """`verdicts` of several disks such that of a group all go or none: what one member keeps, keeps the others."""
    asked = list(verdicts)
    if all(item.taken.group is None for item in asked):
        return asked
    staying = {item.taken.group: item.taken for item in reversed(asked) if item.keeps}
    staying.pop(None, None)

    def joined(item: Verdict) -> Verdict:
        if item.keeps or item.taken.group not in staying:
            return item
        member = printable(staying[item.taken.group].name)
        return item._replace(keeps=(Keep("group", detail=f"{member} of its group stays"),))

    return [joined(item) for item in asked]


def expendable(policy: int, chain: Iterable[Taken]) -> list[Taken]:
    """Those of the policy's own snapshots that it can give up where a limit is reached: failed ones, then the oldest.

    Never the last good one, nor what something keeps beside the rules.
    """
    own = sorted((taken for taken in chain if taken.policy == policy), key=lambda taken: (taken.good, taken.id))
    last = max((taken.id for taken in own if taken.good), default=0)
    return [taken for taken in own if taken.id != last and not taken.kept_by]
