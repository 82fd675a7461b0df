"""A policy: when it runs, on which disks, what it keeps, how it takes snapshots; and all policies of a pool together.

A policy owns snapshots by its id, never by its name. A record that cannot be read is a policy of which nothing is known
but that it owns: it takes nothing, and above all it deletes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from enum import StrEnum
from typing import Any

from rowfs.base.errors import CorruptionError, ExistsError, RowfsError, UsageError
from rowfs.base.names import check_name, check_new_snapshot_name, for_snapshots, printable
from rowfs.rules.clock import Clock
from rowfs.rules.forecast import explain, line
from rowfs.rules.hooks import check_hook
from rowfs.rules.records import from_plain, to_plain
from rowfs.rules.retention import Retention, Taken, check_retention
from rowfs.rules.schedules import Schedule, check_schedule
from rowfs.rules.selectors import Choice, Labels, check_pattern, check_value
from rowfs.rules.times import HOUR_NS, SECOND_NS, parse_zone, to_datetime

NAME_CHARACTERS_MAX = 100  # its snapshots are called so, with a time behind it
HOOK_LIMIT_NS = 30 * SECOND_NS


class WhenLimited(StrEnum):
    """What a run does when a limit leaves no place for its snapshot."""

    REFUSE = "refuse"  # fails, and is tried again
    EXPIRE = "expire"  # gives up the policy's own oldest first


class AfterPre(StrEnum):
    """What becomes of a snapshot whose hook before it failed."""

    SKIP = "skip"  # it is not taken, and the run has failed for that disk
    MARK = "mark"  # it is taken, marked as failed, and counts for no rule


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Commands, as words: no shell ever sees them. The names of disks and snapshots reach them in the environment."""

    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()  # runs whatever became of the snapshot, once `pre` was begun
    on_failure: tuple[str, ...] = ()
    limit_ns: int = HOOK_LIMIT_NS
    after_pre: AfterPre = AfterPre.SKIP


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy, as stored."""

    id: int
    name: str
    schedule: Schedule
    retention: Retention = Retention()
    choice: Choice = Choice()
    paused: bool = False
    freeze: bool = False
    group: bool = False  # one point in time over all its disks
    when_limited: WhenLimited = WhenLimited.REFUSE
    hooks: Hooks = Hooks()
    backup: str = ""  # where its snapshots are backed up to; empty: nowhere


def check_policy(policy: Policy, now_ns: int, taken: Container[str] = ()) -> Policy:
    """`policy`, if it may be so at `now_ns` beside those whose names are `taken`. Raises UsageError, ExistsError."""
    check_name(policy.name, "policy name")
    if len(policy.name) > NAME_CHARACTERS_MAX or not policy.name.isprintable():
        raise UsageError(f"a policy's name has at most {NAME_CHARACTERS_MAX} characters, all printable")
    if policy.name in taken:
        raise ExistsError(f"there is a policy {policy.name} already: edit it, or choose another name")
    check_schedule(policy.schedule, now_ns)
    check_retention(policy.retention)
    for pattern in policy.choice.patterns:
        check_pattern(pattern)
    for term in policy.choice.selector.terms:
        for value in term.values:
            check_value(term.key, value)
    if not (policy.choice.patterns or policy.choice.selector.terms):
        raise UsageError(
            "the policy would take snapshots of no disk: say of which with --disks 'vm*' or --label env=prod"
        )
    for what in (policy.hooks.pre, policy.hooks.post, policy.hooks.on_failure):
        check_hook(what)
    if not SECOND_NS <= policy.hooks.limit_ns <= HOUR_NS:
        raise UsageError("a hook has between 1s and 1h")
    return policy


def edited(policy: Policy, changes: Mapping[str, Any], now_ns: int, taken: Container[str] = ()) -> Policy:
    """`policy` with other values for some of its fields. Its id, and so its snapshots, stay.

    Its starts count from now (rules.runs.counted_from). Raises UsageError, ExistsError.
    """
    assert "id" not in changes
    return check_policy(
        replace(policy, **changes), now_ns, () if changes.get("name", policy.name) == policy.name else taken
    )


def snapshot_name(policy: Policy, due_ns: int, taken: Container[str] = ()) -> str:
    """What the snapshot of a start is called: the policy and the time it was due, in UTC, which comes only once."""
    stamp = to_datetime(due_ns, UTC).strftime("%Y%m%d-%H%M%SZ")
    begin, number = for_snapshots(policy.name), 1
    name = f"{begin}-{stamp}"
    while name in taken:
        number += 1
        name = f"{begin}-{stamp}-{number}"
    return check_new_snapshot_name(name)


# Stored


def to_record(policy: Policy) -> dict[str, Any]:
    """What is stored of a policy, under its id."""
    return to_plain(policy)


def from_record(plain: object) -> Policy:
    """The policy that is stored. Raises CorruptionError when it cannot be read: it must not delete anything then."""
    policy = from_plain(Policy, plain, known_only=frozenset({"retention", "choice"}))
    try:
        check_retention(policy.retention)
        parse_zone(policy.schedule.tz)
        return policy
    except UsageError as error:
        raise CorruptionError(f"the policy {printable(policy.name)} cannot be read: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Policies:
    """All policies of a pool by id, and of those that cannot be read why."""

    readable: Mapping[int, Policy] = field(default_factory=dict)
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def of(self, disk: str, labels: Labels) -> list[Policy]:
        """The policies that take snapshots of a disk, paused ones too, by id."""
        found = (policy for policy in self.readable.values() if policy.choice.chooses(disk, labels))
        return sorted(found, key=lambda policy: policy.id)

    def unprotected(self, disks: Mapping[str, Labels]) -> list[str]:
        """Of `disks`, by name, those of which no policy that runs takes snapshots: a label may have taken one out."""
        return [name for name, labels in disks.items() if all(policy.paused for policy in self.of(name, labels))]

    def explained(self, chain: Iterable[Taken], now_ns: int, clock: Clock | None = None) -> dict[int, str]:
        """What becomes of each snapshot of a chain, by id: a line. Policies answer for their own alone."""
        snapshots = sorted(chain, key=lambda taken: taken.id)
        lines = {taken.id: self._not_ours(taken) for taken in snapshots}
        for policy in self.readable.values():
            zone: tzinfo = parse_zone(policy.schedule.tz)
            coming = None if policy.paused else policy.schedule
            for verdict in explain(policy.id, policy.retention, coming, snapshots, now_ns, zone, clock):
                lines[verdict.taken.id] = line(verdict, zone, policy.paused)
        return lines

    def _not_ours(self, taken: Taken) -> str:
        if taken.policy is None:
            return "stays: taken by hand, no policy touches it"
        if taken.policy in self.unreadable:
            return f"stays: its policy deletes nothing, {self.unreadable[taken.policy]}"
        return "stays: its policy is gone, delete it by hand"


def read_policies(records: Mapping[int, object]) -> Policies:
    """All policies that are stored, by id. One that cannot be read leaves the others as they are."""
    readable, unreadable = {}, {}
    for number, record in records.items():
        try:
            policy = from_record(record)
            if policy.id != number:
                raise CorruptionError(f"the record of a policy cannot be read: it has the id {policy.id}")
            readable[number] = policy
        except RowfsError as error:
            unreadable[number] = str(error)
    return Policies(readable=readable, unreadable=unreadable)
