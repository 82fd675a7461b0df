"""Policies as a whole: validation, names of snapshots, what is stored, explanations. Names begin with their edge."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import CorruptionError, ExistsError, UsageError
from rowfs.rules.locks import Lock
from rowfs.rules.policies import (
    AfterPre,
    Hooks,
    Policies,
    Policy,
    WhenLimited,
    check_policy,
    edited,
    from_record,
    read_policies,
    snapshot_name,
    to_record,
)
from rowfs.rules.records import from_plain, to_plain
from rowfs.rules.retention import Retention, Taken
from rowfs.rules.runs import RunState
from rowfs.rules.schedules import Schedule
from rowfs.rules.selectors import parse_choice
from rowfs.rules.times import DAY_NS, HOUR_NS, to_ns

NOON = to_ns(datetime(2026, 11, 20, 12, tzinfo=UTC))
NIGHTLY = Policy(
    id=7,
    name="nightly",
    schedule=Schedule(every_ns=DAY_NS, at=(120,), on=(0, 3), tz="Europe/Berlin"),
    retention=Retention(last=7, daily=14, for_ns=90 * DAY_NS),
    choice=parse_choice(["vm*"], "env in (prod,test),!old"),
    hooks=Hooks(pre=("/usr/bin/pg", "start $(x)"), after_pre=AfterPre.MARK),
    when_limited=WhenLimited.EXPIRE,
    freeze=True,
)
ALL = replace(NIGHTLY, id=1, name="all", choice=parse_choice(["*"], ""))


def stored(**changes: Any) -> dict[str, Any]:
    """The record of NIGHTLY as JSON gives it back, changed."""
    return {**json.loads(json.dumps(to_record(NIGHTLY))), **changes}


def test_a_policy_comes_back_as_it_was_stored() -> None:
    assert from_record(stored()) == NIGHTLY
    assert check_policy(NIGHTLY, NOON) == NIGHTLY


def test_readers_ignore_what_they_do_not_know_and_fill_in_what_is_missing() -> None:
    record = stored(colour="blue")
    del record["hooks"], record["paused"]
    assert from_record(record) == replace(NIGHTLY, hooks=Hooks())


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        stored(id="7"),
        stored(name=7),
        stored(freeze=1),
        stored(retention=None),
        stored(retention={"last": "7"}),
        stored(retention={"last": -1}),
        stored(retention={"last": 1.5}),
        stored(retention={"last": True}),
        stored(retention={"last": 7, "quarterly": 4}),
        stored(retention={"last": 1 << 80}),
        stored(choice={"patterns": "vm*"}),
        stored(choice={"patterns": ["vm*"], "tags": ["a"]}),
        stored(choice={"selector": {"terms": [{"key": "env", "op": "like", "values": []}]}}),
        stored(schedule={"tz": "Mars/Base"}),
        stored(schedule={"every_ns": DAY_NS, "at": [None]}),
        stored(when_limited="maybe"),
        stored(hooks={"pre": "/bin/sh -c"}),
    ],
    ids=str,
)
def test_r7_a_rule_that_cannot_be_read_deletes_nothing_and_leaves_the_others_alone(record: Any) -> None:
    with pytest.raises(CorruptionError):
        from_record(record)
    found = read_policies({1: to_record(ALL), 7: record})
    assert found.readable == {1: ALL}
    assert "cannot be read" in found.unreadable[7]
    chain = [Taken(id=number, name="s", due_ns=NOON - number * DAY_NS, policy=7) for number in range(1, 300)]
    lines = found.explained(chain, NOON)
    assert all(text.startswith("stays: its policy deletes nothing") for text in lines.values())
    assert len(lines) == 299


def test_a_record_under_another_id_is_not_read() -> None:
    assert list(read_policies({8: to_record(NIGHTLY)}).unreadable) == [8]


@settings(deadline=None)
@given(
    field=st.sampled_from(sorted(stored())),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["last", "tz", "terms", "x"]), inner)
        ),
        max_leaves=6,
    ),
)
def test_whatever_is_stored_is_read_or_refused(field: str, value: Any) -> None:
    found = read_policies({7: stored(**{field: value})})
    assert set(found.readable) | set(found.unreadable) == {7}


def test_states_and_locks_are_stored_the_same_way() -> None:
    for value in (RunState(since_ns=NOON, retry_ns=5), Lock(hold=True, reason="ä"), Lock(until_ns=NOON)):
        assert from_plain(type(value), json.loads(json.dumps(to_plain(value)))) == value


# Validation


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "empty"),
        ({"name": "a/b"}, "must not contain"),
        ({"name": "x" * 101}, "at most 100"),
        ({"name": "a\nb"}, "printable"),
        ({"choice": parse_choice([], "")}, "no disk"),
        ({"retention": Retention(last=-1)}, "out of reach"),
        ({"schedule": Schedule()}, "--every or --cron"),
        ({"hooks": Hooks(pre=("pg_dump",))}, "full path"),
        ({"hooks": Hooks(post=("/bin/a\0",))}, "NUL"),
        ({"hooks": Hooks(on_failure=("/bin/a", *["x"] * 64))}, "words"),
        ({"hooks": Hooks(limit_ns=0)}, "between 1s and 1h"),
        ({"hooks": Hooks(limit_ns=2 * HOUR_NS)}, "between 1s and 1h"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_policy(replace(NIGHTLY, **changes), NOON, {"all"})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        edited(NIGHTLY, changes, NOON, {"all"})


def test_a_name_that_another_policy_has_is_taken_and_no_wrong_usage() -> None:
    with pytest.raises(ExistsError, match="there is a policy nightly already"):
        check_policy(NIGHTLY, NOON, {"nightly"})
    with pytest.raises(ExistsError, match="already"):
        edited(NIGHTLY, {"name": "all"}, NOON, {"nightly", "all"})
    assert ExistsError.exit_code == 1


def test_p1_a_policy_without_a_selector_is_refused() -> None:
    with pytest.raises(UsageError, match="of no disk"):
        check_policy(replace(NIGHTLY, choice=parse_choice([], " ")), NOON)


def test_an_edited_policy_keeps_its_id_and_its_own_name() -> None:
    found = edited(NIGHTLY, {"name": "weekly", "freeze": False}, NOON, {"nightly"})
    assert (found.id, found.name, found.freeze) == (7, "weekly", False)
    assert edited(NIGHTLY, {"paused": True}, NOON, {"nightly"}).paused


def test_h4_hooks_are_words_that_no_shell_ever_reads() -> None:
    assert from_record(stored()).hooks.pre == ("/usr/bin/pg", "start $(x)")


# Names


def test_t7_m10_a_snapshot_is_called_by_its_policy_and_due_time_in_utc() -> None:
    first_ns = to_ns(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))  # 02:30 in Berlin, and again an hour later
    names = [snapshot_name(NIGHTLY, due_ns) for due_ns in (first_ns, first_ns + HOUR_NS)]
    assert names == ["nightly-20261025-003000Z", "nightly-20261025-013000Z"]
    assert snapshot_name(NIGHTLY, first_ns, set(names)) == "nightly-20261025-003000Z-2"


def test_the_longest_name_of_a_policy_makes_a_name_of_a_snapshot() -> None:
    name = "😀" * 50
    check_policy(replace(NIGHTLY, name=name), NOON)
    assert snapshot_name(replace(NIGHTLY, name=name), NOON).startswith(name)


# All policies of a pool


def test_p2_a_disk_that_a_label_takes_out_of_every_policy_is_shown_as_unprotected() -> None:
    disks = {"vm1": {"env": "prod"}, "vm2": {"env": "dev"}, "web": {"env": "prod"}, "vm3": {"env": "prod", "old": ""}}
    policies = Policies(readable={7: NIGHTLY})
    assert policies.unprotected(disks) == ["vm2", "web", "vm3"]
    assert Policies(readable={7: NIGHTLY, 1: ALL}).unprotected(disks) == []
    assert Policies(readable={1: replace(ALL, paused=True)}).unprotected(disks) == list(disks)
    assert [policy.id for policy in Policies(readable={7: NIGHTLY, 1: ALL}).of("vm1", {"env": "prod"})] == [1, 7]


def test_p3_a_policy_whose_disk_is_gone_is_read_like_any_other() -> None:
    assert read_policies({7: to_record(NIGHTLY)}).unprotected({}) == []


def test_r17_snapshots_of_a_policy_that_is_gone_neither_vanish_nor_stay_unseen() -> None:
    chain = [Taken(id=1, name="a", due_ns=NOON, policy=99), Taken(id=2, name="b", due_ns=NOON)]
    assert Policies(readable={1: ALL}).explained(chain, NOON + 9000 * DAY_NS) == {
        1: "stays: its policy is gone, delete it by hand",
        2: "stays: taken by hand, no policy touches it",
    }


def test_each_policy_explains_its_own_snapshots_of_a_chain() -> None:
    chain = [Taken(id=n, name="s", due_ns=NOON - (9 - n) * DAY_NS, policy=(7, 1)[n % 2]) for n in range(1, 9)]
    few = replace(ALL, retention=Retention(last=1))
    lines = Policies(readable={7: NIGHTLY, 1: few}).explained(chain, NOON)
    assert [number for number, text in lines.items() if text.startswith("goes")] == [1, 3, 5]
    assert "last 7, snapshot 1 until" in lines[8]


def test_what_a_policy_with_an_old_name_takes_never_means_several() -> None:
    name = snapshot_name(Policy(id=1, name="a,b..c", schedule=Schedule(every_ns=DAY_NS)), 0)
    assert name == "a_b__c-19700101-000000Z"
    assert snapshot_name(Policy(id=1, name="a,b..c", schedule=Schedule(every_ns=DAY_NS)), 0, {name}) == f"{name}-2"
