"""What a policy does now: missed, late, failing and overlapping runs. Names begin with their edge (M1 to M10)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.rules.runs import (
    REASON_CHARACTERS_MAX,
    Act,
    Decision,
    Outcome,
    RunState,
    begun,
    counted_from,
    decide,
    failed,
    finished,
    in_turn,
    retry_after_ns,
)
from rowfs.rules.schedules import Schedule, starts
from rowfs.rules.times import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS, to_ns

NOON = to_ns(datetime(2026, 11, 20, 12, tzinfo=UTC))
MINUTELY, HOURLY = Schedule(every_ns=MINUTE_NS), Schedule(every_ns=HOUR_NS)
DAILY = Schedule(every_ns=DAY_NS, at=(120,))  # 02:00
LIFE = "this"


def at_noon(schedule: Schedule, state: RunState, after_ns: int = 0, life: str = LIFE, paused: bool = False) -> Decision:
    return decide(schedule, state, NOON + after_ns, life, paused)


MADE = RunState(since_ns=NOON - 100 * DAY_NS)


def test_m1_after_more_than_a_hundred_missed_starts_one_is_made_up_and_it_goes_on() -> None:
    found = at_noon(MINUTELY, replace(MADE, last_due_ns=NOON - 10 * DAY_NS), 30 * SECOND_NS)
    assert (found.act, found.due_ns) == (Act.RUN, NOON)
    assert found.look_ns == NOON + MINUTE_NS
    assert "missed" in found.notes[0]
    after = finished(found.state)
    assert at_noon(MINUTELY, after, 59 * SECOND_NS).act is Act.WAIT
    assert at_noon(MINUTELY, after, MINUTE_NS).due_ns == NOON + MINUTE_NS


def test_m2_what_was_missed_while_paused_waits_for_the_next_start() -> None:
    paused = at_noon(DAILY, MADE, paused=True)
    assert (paused.act, paused.look_ns) == (Act.WAIT, None)
    resumed = at_noon(DAILY, counted_from(MADE, NOON))
    assert (resumed.act, resumed.look_ns) == (Act.WAIT, NOON + 14 * HOUR_NS)


def test_m3_a_policy_that_is_made_or_edited_does_not_run_at_once_and_misses_count_from_then() -> None:
    state = RunState(since_ns=NOON)
    assert at_noon(HOURLY, state).act is Act.WAIT
    assert at_noon(HOURLY, state, HOUR_NS - 1).act is Act.WAIT
    found = at_noon(HOURLY, state, 3 * HOUR_NS + 1)
    assert (found.act, found.due_ns) == (Act.RUN, NOON + 3 * HOUR_NS)


def test_m4_a_clock_that_is_set_back_does_not_wait_for_the_old_hour() -> None:
    ran = RunState(since_ns=NOON - DAY_NS, last_due_ns=NOON + 5 * HOUR_NS)
    found = at_noon(HOURLY, ran)
    assert (found.act, found.look_ns) == (Act.WAIT, NOON + HOUR_NS)
    assert at_noon(HOURLY, found.state, HOUR_NS).due_ns == NOON + HOUR_NS


def test_a_clock_that_is_set_back_a_little_runs_no_start_twice() -> None:
    ran = finished(at_noon(MINUTELY, replace(MADE, last_due_ns=NOON - MINUTE_NS)).state)
    for back_s in (1, 60, 200):
        found = at_noon(MINUTELY, ran, -back_s * SECOND_NS)
        assert (found.act, found.look_ns) == (Act.WAIT, NOON + MINUTE_NS)


def test_m5_a_last_run_in_the_future_is_ignored_with_a_warning() -> None:
    found = at_noon(DAILY, RunState(since_ns=NOON + 400 * DAY_NS, last_due_ns=NOON + 500 * DAY_NS))
    assert found.act is Act.WAIT
    assert found.look_ns == NOON + 14 * HOUR_NS
    assert "still to come" in found.notes[0]
    assert not at_noon(DAILY, found.state).notes
    assert at_noon(DAILY, found.state, 14 * HOUR_NS).act is Act.RUN


def test_a_retry_in_the_far_future_is_brought_near() -> None:
    state = replace(MADE, last_due_ns=NOON - 10 * HOUR_NS, failures=1, failed_due_ns=NOON - 10 * HOUR_NS)
    found = at_noon(DAILY, replace(state, retry_ns=NOON + 900 * DAY_NS))
    assert found.look_ns == NOON + MINUTE_NS


def test_m6_between_two_looks_no_minute_is_lost_and_none_comes_twice() -> None:
    state, ran = RunState(since_ns=NOON), []
    for second in (59, 61, 62, 119, 121, 180, 181):
        found = at_noon(MINUTELY, state, second * SECOND_NS)
        state = finished(found.state) if found.act is Act.RUN else found.state
        ran += [found.due_ns] if found.act is Act.RUN else []
    assert ran == [NOON + MINUTE_NS, NOON + 2 * MINUTE_NS, NOON + 3 * MINUTE_NS]


def test_m7_the_next_start_follows_the_due_one_not_its_end() -> None:
    found = at_noon(HOURLY, replace(MADE, last_due_ns=NOON - HOUR_NS), 20 * MINUTE_NS)
    assert at_noon(HOURLY, finished(found.state), 50 * MINUTE_NS).look_ns == NOON + HOUR_NS


def test_m8_a_start_while_the_run_before_is_going_is_skipped_with_a_note_not_queued() -> None:
    going = begun(RunState(since_ns=NOON - DAY_NS), NOON - HOUR_NS, LIFE)
    found = at_noon(HOURLY, going)
    assert (found.act, found.due_ns) == (Act.SKIP, NOON)
    assert "still going" in found.notes[0]
    assert at_noon(HOURLY, found.state, 1).act is Act.WAIT
    assert at_noon(HOURLY, finished(found.state), MINUTE_NS).act is Act.WAIT


def test_m9_a_run_that_ended_with_its_daemon_does_not_block_the_policy() -> None:
    going = begun(RunState(since_ns=NOON - DAY_NS), NOON - 10 * HOUR_NS, "before")
    found = at_noon(DAILY, going)
    assert found.act is Act.WAIT
    assert found.state.failures == 1
    assert found.look_ns == NOON + MINUTE_NS
    assert "ended with the daemon" in found.notes[0]
    again = at_noon(DAILY, found.state, MINUTE_NS)
    assert (again.act, again.due_ns) == (Act.RUN, NOON - 10 * HOUR_NS)


def test_m10_policies_of_one_second_take_turns_in_an_order_that_stays() -> None:
    decisions = {number: at_noon(HOURLY, replace(MADE, last_due_ns=NOON - HOUR_NS)) for number in (3, 1, 2)}
    decisions[4] = at_noon(DAILY, replace(MADE, last_due_ns=NOON - DAY_NS))
    decisions[5] = at_noon(HOURLY, RunState(since_ns=NOON))
    assert in_turn(decisions) == [4, 1, 2, 3]


# Failures


def test_a_failed_run_is_tried_again_later_each_time() -> None:
    waits = [retry_after_ns(number) // MINUTE_NS for number in (1, 2, 3, 6, 7, 50, 10**6)]
    assert waits == [1, 2, 4, 32, 60, 60, 60]
    state, now_ns = begun(MADE, NOON - 10 * HOUR_NS, LIFE), 0
    for number in (1, 2, 3):
        state = failed(state, DAILY, NOON + now_ns)
        assert state.retry_ns == NOON + now_ns + retry_after_ns(number)
        assert at_noon(DAILY, state, now_ns + 1).act is Act.WAIT
        now_ns += retry_after_ns(number)
        found = at_noon(DAILY, state, now_ns)
        assert (found.act, found.due_ns) == (Act.RUN, NOON - 10 * HOUR_NS)
        state = found.state
    assert finished(state).failures == 0


def test_the_next_start_takes_the_place_of_a_retry() -> None:
    state = failed(begun(replace(MADE, last_due_ns=NOON), NOON, LIFE), MINUTELY, NOON + 30 * SECOND_NS)
    assert (state.retry_ns, state.failures) == (None, 1)
    found = at_noon(MINUTELY, state, MINUTE_NS)
    assert found.due_ns == NOON + MINUTE_NS
    assert found.state.failures == 1


def test_a_policy_that_is_edited_forgets_what_it_wanted_to_try_again() -> None:
    state = failed(begun(MADE, NOON - 10 * HOUR_NS, LIFE), DAILY, NOON)
    assert at_noon(DAILY, counted_from(state, NOON), HOUR_NS).act is Act.WAIT


@pytest.mark.parametrize("years", [-50, -1, 1, 50, 200])
def test_a_clock_that_leaps_years_brings_at_most_one_run_and_then_the_schedule(years: int) -> None:
    leapt_ns = years * 365 * DAY_NS + 30 * MINUTE_NS
    state, runs = replace(MADE, last_due_ns=NOON), 0
    for look in range(20):
        found = at_noon(HOURLY, state, leapt_ns + look * SECOND_NS)
        runs += found.act is Act.RUN
        state = finished(found.state) if found.act is Act.RUN else found.state
    assert runs == (1 if years > 0 else 0)
    assert at_noon(HOURLY, state, leapt_ns + 30 * MINUTE_NS).act is Act.RUN


@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["ok", "fail", "long", "kill"])), max_size=25))
def test_every_start_is_run_skipped_or_made_up_by_a_later_one_and_none_twice(steps: list[tuple[int, str]]) -> None:
    state, now_ns, life = RunState(since_ns=NOON), NOON, 0
    done: list[int] = []
    for minutes, outcome in steps:
        now_ns += minutes * MINUTE_NS
        found = decide(HOURLY, state, now_ns, str(life))
        state = found.state
        assert found.look_ns is not None and found.look_ns > now_ns
        if found.act is not Act.WAIT:
            assert found.due_ns is not None and found.due_ns <= now_ns
            done += [] if found.due_ns in done and found.act is Act.RUN and state.failures else [found.due_ns]
        assert next(starts(HOURLY, state.floor_ns)) > now_ns
        if state.running_due_ns is not None and outcome != "long":
            if outcome == "kill":
                life += 1
            else:
                state = finished(state) if outcome == "ok" else failed(state, HOURLY, now_ns)
    assert done == sorted(set(done))


def test_why_a_run_failed_is_one_line_that_is_not_too_long() -> None:
    def told(*failures: str) -> str:
        return Outcome(due_ns=NOON, ended_ns=NOON, failures=failures).reason

    assert told() == ""
    assert told("vm: no", "db: no") == "vm: no; db: no"
    assert told("x" * 300, "y" * 300, "z") == "x" * 300 + "; and 2 more"
    assert told("x" * 70_000) == "x" * REASON_CHARACTERS_MAX + "..."
    assert told("x" * 70_000, "y") == "x" * REASON_CHARACTERS_MAX + "...; and 1 more"
    assert len(told(*[f"{number}: " + "x" * 70_000 for number in range(20)])) < REASON_CHARACTERS_MAX + 50
    assert len(told(*["x" * 60] * 20)) < REASON_CHARACTERS_MAX + 50
