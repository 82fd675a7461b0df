"""Whether the host's clock can be believed when it says that things are old.

A clock that leaps ahead makes all of them old at once. So the last reading is kept, and after a leap ages go on from
there (`trusted_ns`), until the clock has stood by it for a day, or somebody confirms it. Days that the pool was not
mounted look the same, and cost a day's delay. What deletes by age, retention and the trash, asks for this time.
"""

from __future__ import annotations

from dataclasses import dataclass

from rowfs.rules.times import DAY_NS

LEAP_NS = DAY_NS  # between two readings; while a pool is mounted they are minutes apart
HOLD_NS = DAY_NS


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The last reading, and the leap that is not confirmed yet: from when, to when."""

    seen_ns: int | None = None
    leapt_from_ns: int | None = None
    leapt_to_ns: int | None = None


def read(clock: Clock, now_ns: int) -> Clock:
    """`clock` after another reading, to be stored."""
    if clock.seen_ns is not None and now_ns - clock.seen_ns > LEAP_NS:
        first_ns = clock.seen_ns if clock.leapt_from_ns is None else clock.leapt_from_ns
        return Clock(seen_ns=now_ns, leapt_from_ns=first_ns, leapt_to_ns=now_ns)
    if clock.leapt_to_ns is not None and clock.leapt_to_ns <= now_ns < clock.leapt_to_ns + HOLD_NS:
        return Clock(seen_ns=now_ns, leapt_from_ns=clock.leapt_from_ns, leapt_to_ns=clock.leapt_to_ns)
    return Clock(seen_ns=now_ns)


def trusted_ns(clock: Clock, now_ns: int) -> int:
    """The time that ages count to: `now_ns`, or how late it is if the clock had not leapt."""
    if clock.leapt_from_ns is None or clock.leapt_to_ns is None:
        return now_ns
    return min(clock.leapt_from_ns + max(now_ns - clock.leapt_to_ns, 0), now_ns)


def confirmed(clock: Clock) -> Clock:
    """`clock` after somebody said that it is right."""
    return Clock(seen_ns=clock.seen_ns)
