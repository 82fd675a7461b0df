"""The policies of a pool: making and changing them, what they know of their runs, and which snapshots are theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rowfs.base.errors import CorruptionError, NotFoundError
from rowfs.base.format import PolicyRecord
from rowfs.rules.clock import Clock
from rowfs.rules.locks import UNLOCKED
from rowfs.rules.policies import Policies, Policy, check_policy, edited, read_policies, to_record
from rowfs.rules.records import from_plain, to_plain
from rowfs.rules.retention import Taken
from rowfs.rules.runs import Outcome, RunState, counted_from
from rowfs.store.model import Disk, Snapshot
from rowfs.store.shown import policy_of

if TYPE_CHECKING:
    from rowfs.store.pool import Pool


class PolicyBook:
    """What is written down of a pool's policies."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._table = pool.catalog.policies
        self._events = pool.catalog.events
        self._read: Policies | None = None

    # Looking

    @property
    def all(self) -> Policies:
        """All policies, those that cannot be read too."""
        if self._read is None:
            self._read = read_policies({record.id: record.rule for record in self._table})
        return self._read

    def named(self, name: str) -> Policy:
        """The policy of that name. Raises NotFoundError."""
        found = next((policy for policy in self.all.readable.values() if policy.name == name), None)
        if found is None:
            raise NotFoundError(f"there is no policy {name}: rowfs policy list shows those there are")
        return found

    def called(self, number: int) -> str:
        """What a policy that cannot be read is called: by its name, if that can be, or else by its id."""
        record = self._table.get(number)
        rule = None if record is None else record.rule
        name = rule.get("name") if isinstance(rule, dict) else None
        return name if isinstance(name, str) and name else f"#{number}"

    def state(self, number: int, now_ns: int) -> RunState:
        """What is known of a policy's runs. If that cannot be read, its starts count from now on."""
        try:
            return from_plain(RunState, self._record(number).runs)
        except CorruptionError:
            return RunState(since_ns=now_ns)

    def outcome(self, number: int) -> Outcome | None:
        """How its last run ended; None: none has."""
        try:
            return from_plain(Outcome, self._record(number).outcome)
        except CorruptionError:
            return None

    def _record(self, number: int) -> PolicyRecord:
        record = self._table.get(number)
        assert record is not None, "a policy that is gone is asked for"
        return record

    def has(self, policy: Policy) -> bool:
        """Whether the policy is still there, be it edited."""
        return self._table.get(policy.id) is not None

    # Changing. Starts count from then.

    def create(self, policy: Policy, now_ns: int) -> Policy:
        """A new policy, whatever id `policy` has. Raises UsageError."""
        self._pool.check_writable()
        made = replace(check_policy(policy, now_ns, self._names()), id=self._pool.catalog.new_id())
        self._put(PolicyRecord(id=made.id, rule=_stored(to_record(made)), runs=to_plain(RunState(since_ns=now_ns))))
        self._events.add("policy create", text=f"{made.name}: {made.schedule}")
        return made

    def _names(self) -> set[str]:
        names = {policy.name for policy in self.all.readable.values()}
        return names | {self.called(number) for number in self.all.unreadable}

    def edit(self, policy: Policy, changes: Mapping[str, Any], now_ns: int, verb: str = "edit") -> Policy:
        """A policy with other values for some fields; its snapshots stay its own. Raises UsageError."""
        self._pool.check_writable()
        made = edited(policy, changes, now_ns, self._names())
        record = self._record(policy.id)
        record.rule = _stored(to_record(made))
        record.runs = to_plain(counted_from(self.state(policy.id, now_ns), now_ns))
        self._put(record)
        self._events.add(f"policy {verb}", text=made.name)
        return made

    def delete(self, name: str) -> int:
        """Forget a policy, be it unreadable. Its snapshots stay: how many those are. Raises NotFoundError."""
        self._pool.check_writable()
        unreadable = [number for number in self.all.unreadable if self.called(number) == name]
        number = unreadable[0] if unreadable else self.named(name).id
        self._table.drop(number)
        self._read = None
        self._events.add("policy delete", text=name)
        return len(self._pool.catalog.snapshots.of_policy(number))

    def set_state(self, number: int, state: RunState) -> None:
        """Note what is known of a policy's runs now."""
        record = self._record(number)
        record.runs = to_plain(state)
        self._table.put(record)

    def set_outcome(self, number: int, outcome: Outcome) -> None:
        """Note how its last run ended."""
        record = self._record(number)
        record.outcome = to_plain(outcome)
        self._table.put(record)

    def _put(self, record: PolicyRecord) -> None:
        self._table.put(record)
        self._read = None

    # The clock

    @property
    def clock(self) -> Clock:
        """The last reading that was noted."""
        pool = self._pool.catalog.pool
        return Clock(
            seen_ns=pool.clock_seen_ns, leapt_from_ns=pool.clock_leapt_from_ns, leapt_to_ns=pool.clock_leapt_to_ns
        )

    def set_clock(self, clock: Clock) -> None:
        """Note a reading."""
        pool = self._pool.catalog.pool
        pool.clock_seen_ns = clock.seen_ns
        pool.clock_leapt_from_ns, pool.clock_leapt_to_ns = clock.leapt_from_ns, clock.leapt_to_ns
        self._pool.catalog.touch_pool()

    # Snapshots

    def owned(self, policy: Policy) -> dict[Disk, list[Snapshot]]:
        """The snapshots that a policy has, by the disk in whose chain they are."""
        found: dict[Disk, list[Snapshot]] = {}
        for snapshot in self._pool.catalog.snapshots.of_policy(policy.id).values():
            found.setdefault(snapshot.owner, []).append(snapshot)
        return found

    def taken(self, snapshots: Iterable[Snapshot], now_ns: int) -> list[Taken]:
        """Snapshots as retention sees them."""
        return [self._taken(snapshot, now_ns) for snapshot in snapshots]

    def _taken(self, snapshot: Snapshot, now_ns: int) -> Taken:
        group = self._pool.catalog.groups.of(snapshot.id)
        return Taken(
            snapshot.id,
            snapshot.name,
            snapshot.created_ns if snapshot.due_ns is None else snapshot.due_ns,
            policy_of(snapshot),
            not snapshot.failed,
            _kept_by(snapshot, now_ns),
            None if group is None else group.id,
        )

    def run_of(self, chain: Disk, policy: Policy, due_ns: int) -> bool:
        """Whether the chain has what a start of the policy takes: by the run that failed, or ended with its daemon."""
        return any(
            (item.policy, item.due_ns, item.failed) == (policy.id, due_ns, False) for item in chain.chain.values()
        )


def _kept_by(snapshot: Snapshot, now_ns: int) -> str:
    """What keeps a snapshot beside any rule. What was cloned from one does not need it: it has the blocks itself."""
    if snapshot.lock is not UNLOCKED and snapshot.lock.keeps(now_ns):
        return f"locked: {snapshot.lock.described(now_ns)}"
    return "open or attached" if snapshot.handles else ""


def _stored(rule: dict[str, Any]) -> object:
    """`rule` as it is read back."""
    return json.loads(json.dumps(rule))
