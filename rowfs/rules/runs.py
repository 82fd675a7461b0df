"""What a policy does now: runs, waits, skips a start, or tries again what failed.

What is remembered between two looks is a `RunState`, and `decide` answers with the next one. Starts count from when the
policy was made, edited or resumed, and none is lost between two looks: however many were missed, the last of them is
made up, once. A start that comes while the run before it is still going is skipped. A run that fails is tried again,
later each time, until the next start takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import Enum

from rowfs.rules.schedules import Schedule, last_start, next_start
from rowfs.rules.times import HOUR_NS, MINUTE_NS, format_instant, parse_zone

RETRY_FIRST_NS, RETRY_MAX_NS = MINUTE_NS, HOUR_NS  # twice as long each time
# A clock that is put back by less than this waits for what it showed already, so that no start comes twice; by more,
# it is taken at its word.
STEP_BACK_NS = 5 * MINUTE_NS


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What is known of a policy's runs. `life` names one life of the daemon: a run ends with the one it began in."""

    since_ns: int  # when it was made, edited or resumed: starts count from then
    last_due_ns: int | None = None  # the newest start that was run or skipped
    running_due_ns: int | None = None  # the start whose run is going on
    life: str = ""  # in which that run began
    failures: int = 0  # one after the other
    failed_due_ns: int | None = None  # the start to try again
    retry_ns: int | None = None  # when to; None: not before the next start

    @property
    def floor_ns(self) -> int:
        """Starts up to here are done with."""
        return max(self.since_ns, self.last_due_ns or 0)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a snapshot that a policy takes is told by. `failed`: it is taken though it is not what it should be."""

    policy: int
    due_ns: int
    failed: bool = False


FAILURES_KEPT = 20
REASON_CHARACTERS_MAX = 500  # of a line in the log, an event, and what the hook for failures is told


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: how many snapshots came and went, and what failed, a line each."""

    due_ns: int
    ended_ns: int
    taken: int = 0
    expired: int = 0
    failures: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # what should have gone and could not, a line each; that is no failure

    @property
    def reason(self) -> str:
        """What failed, in one line that is not too long: the first of it, and how many more there are."""
        told = ""
        for number, failure in enumerate(self.failures):
            more = f"{told}; {failure}" if told else failure
            if len(more) > REASON_CHARACTERS_MAX:
                told = told or f"{failure[:REASON_CHARACTERS_MAX]}..."
                left = len(self.failures) - max(number, 1)
                return told + (f"; and {left} more" if left else "")
            told = more
        return told


class Act(Enum):
    """What to do."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about a policy now.

    `state` is to be stored before anything is done, `due_ns` is the start that is run or skipped, `look_ns` when to
    look again (None: when something changes), and `notes` are what somebody should read, a line each.
    """

    act: Act
    state: RunState
    due_ns: int | None = None
    look_ns: int | None = None
    notes: tuple[str, ...] = ()


def decide(schedule: Schedule, state: RunState, now_ns: int, life: str, paused: bool = False) -> Decision:
    """What a policy does at `now_ns` in this `life` of the daemon."""
    zone = parse_zone(schedule.tz)
    state, notes = _with_sane_clock(state, now_ns, zone)
    if state.running_due_ns is not None and state.life != life:
        notes.append(f"the run of {format_instant(state.running_due_ns, zone)} ended with the daemon that began it")
        state = failed(state, schedule, now_ns)
    if paused:
        return Decision(act=Act.WAIT, state=state, notes=tuple(notes))
    due_ns = last_start(schedule, state.floor_ns, now_ns)
    if due_ns is not None and state.running_due_ns is not None:
        going = format_instant(state.running_due_ns, zone)
        notes.append(f"the run of {going} is still going: the start of {format_instant(due_ns, zone)} is skipped")
        state = replace(state, last_due_ns=due_ns)
        return _decision(Act.SKIP, state, schedule, now_ns, due_ns, notes)
    if due_ns is not None:
        if next_start(schedule, state.floor_ns) != due_ns:
            notes.append(f"several starts were missed: that of {format_instant(due_ns, zone)} is made up for all")
        return _decision(Act.RUN, begun(state, due_ns, life), schedule, now_ns, due_ns, notes)
    if state.retry_ns is not None and state.retry_ns <= now_ns and state.running_due_ns is None:
        assert state.failed_due_ns is not None
        again_ns = state.failed_due_ns
        return _decision(Act.RUN, begun(state, again_ns, life), schedule, now_ns, again_ns, notes)
    return _decision(Act.WAIT, state, schedule, now_ns, None, notes)


def _decision(
    act: Act, state: RunState, schedule: Schedule, now_ns: int, due_ns: int | None, notes: list[str]
) -> Decision:
    later = [
        at_ns for at_ns in (next_start(schedule, max(now_ns, state.floor_ns)), state.retry_ns) if at_ns is not None
    ]
    return Decision(act=act, state=state, due_ns=due_ns, look_ns=min(later, default=None), notes=tuple(notes))


def _with_sane_clock(state: RunState, now_ns: int, zone: tzinfo) -> tuple[RunState, list[str]]:
    """`state` without what lies in the future, and what to say of that: a clock was wrong, then or now."""
    notes = []
    if state.floor_ns > now_ns + STEP_BACK_NS:
        shown = format_instant(state.floor_ns, zone)
        notes.append(f"the last run is said to be of {shown}, which is still to come: starts count from now on")
        last_ns = None if state.last_due_ns is None else min(state.last_due_ns, now_ns)
        state = replace(state, since_ns=min(state.since_ns, now_ns), last_due_ns=last_ns)
    if state.retry_ns is not None and state.retry_ns > now_ns + RETRY_MAX_NS:
        state = replace(state, retry_ns=now_ns + retry_after_ns(state.failures))
    return state, notes


# What happened


def begun(state: RunState, due_ns: int, life: str) -> RunState:
    """The run of the start `due_ns` begins."""
    last_ns = max(due_ns, state.last_due_ns or 0)
    return replace(state, last_due_ns=last_ns, running_due_ns=due_ns, life=life, failed_due_ns=None, retry_ns=None)


def finished(state: RunState) -> RunState:
    """The run is done, and well."""
    return replace(state, running_due_ns=None, life="", failures=0, failed_due_ns=None, retry_ns=None)


def failed(state: RunState, schedule: Schedule, now_ns: int) -> RunState:
    """The run failed at `now_ns`: it is tried again after a while, unless the next start comes before that."""
    assert state.running_due_ns is not None
    failures = state.failures + 1
    retry_ns = now_ns + retry_after_ns(failures)
    next_ns = next_start(schedule, max(now_ns, state.floor_ns))
    if next_ns is not None and next_ns <= retry_ns:
        state = replace(state, failed_due_ns=None, retry_ns=None)
    else:
        state = replace(state, failed_due_ns=state.running_due_ns, retry_ns=retry_ns)
    return replace(state, running_due_ns=None, life="", failures=failures)


def retry_after_ns(failures: int) -> int:
    """How long after the last of so many failures in a row a run is tried again."""
    return min(RETRY_FIRST_NS << min(max(failures, 1) - 1, 16), RETRY_MAX_NS)


def counted_from(state: RunState, now_ns: int) -> RunState:
    """The policy is made, edited or resumed at `now_ns`: what it missed before is not made up."""
    return replace(state, since_ns=now_ns, failed_due_ns=None, retry_ns=None)


def in_turn(decisions: Mapping[int, Decision]) -> list[int]:
    """The policies that run, by id: one after the other, those that were due first, then as they were made."""
    running = [(item.due_ns or 0, policy) for policy, item in decisions.items() if item.act is Act.RUN]
    return [policy for _, policy in sorted(running)]
