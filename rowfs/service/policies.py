"""When policies run: looks at all of them now and then, and runs those that are due, one after the other.

The clock is an argument, so that tests make days of milliseconds. What is decided is noted before it is done, and comes
into the same commit as the first snapshot: a crash leaves both or neither.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque

import trio

from rowfs.base.actor import Actor, acting, actor
from rowfs.base.errors import BusyError, RowfsError
from rowfs.base.names import printable
from rowfs.rules.policies import Policy
from rowfs.rules.runs import Act, Decision, Outcome, begun, decide, failed, finished, in_turn
from rowfs.rules.times import SECOND_NS
from rowfs.service.givingup import RoomMaker
from rowfs.service.policyrun import PolicyRun
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.service.tasks import contained
from rowfs.store.model import Disk

LOOK_S = 20.0  # at the latest, since the clock may be set
RETRY_S = 5.0  # after a fault

log = logging.getLogger(__name__)


class PolicyRunner:
    """The policies of one mounted pool, carried out."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool
        self._book = service.pool.policies
        self._clock = service.clock
        self.life = uuid.uuid4().hex
        self._queue: deque[int] = deque()
        self._queued = trio.Event()
        self._changed = trio.Event()
        self._turn = trio.Lock()
        self._rooms = RoomMaker(service)
        service.make_room = self._make_room

    async def _make_room(self, disk: Disk, blocks: int) -> bool:
        return await self._rooms.make_room(disk, blocks, self.now_ns())

    # Tasks

    async def run(self) -> None:
        """Until cancelled. After a fault it begins anew: what was being run has failed."""
        while not await contained("running policies", self._run):
            self._forget_runs()
            await trio.sleep(RETRY_S)

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_on_time)
            while True:
                await self._queued.wait()
                self._queued = trio.Event()
                await self.work()

    async def _look_on_time(self) -> None:
        while True:
            self._changed = trio.Event()
            wait_s = await self.look()
            with trio.move_on_after(wait_s):
                await self._changed.wait()

    def _forget_runs(self) -> None:
        self._queue.clear()
        self.life = uuid.uuid4().hex

    def now_ns(self) -> int:
        """What the clock shows."""
        return self._clock.now_ns()

    def changed(self) -> None:
        """A policy is another now: look again."""
        self._changed.set()

    # Looking

    async def look(self) -> float:
        """Decide what each policy does now, and queue those that run; in how many seconds to look again."""
        if not self._book.all.readable or not await self._may_run():
            return LOOK_S
        now = self.now_ns()
        self._clock.look()
        decisions: dict[int, Decision] = {}
        slices = Slices()
        for policy in list(self._book.all.readable.values()):
            await slices.rest()
            if self._book.has(policy):
                decisions[policy.id] = self._decide(policy, now)
        self._queue.extend(in_turn(decisions))
        if self._queue:
            self._queued.set()
        later = [item.look_ns - now for item in decisions.values() if item.look_ns is not None]
        return min([LOOK_S, *(max(wait_ns, 0) / SECOND_NS for wait_ns in later)])

    async def _may_run(self) -> bool:
        return not (
            self._pool.read_only
            or self._pool.read_only_reason
            or self._service.ending
            or await self._service.is_remounted_read_only()
        )

    def _decide(self, policy: Policy, now: int) -> Decision:
        state = self._book.state(policy.id, now)
        decision = decide(policy.schedule, state, now, self.life, policy.paused)
        if decision.state != state:
            self._book.set_state(policy.id, decision.state)
        for note in decision.notes:
            log.info("the policy %s: %s", printable(policy.name), note)
            self._pool.catalog.events.add("policy run", failed=decision.act is Act.SKIP, text=f"{policy.name}: {note}")
        return decision

    # Running

    async def work(self) -> None:
        """Run what is queued."""
        while self._queue:
            number = self._queue.popleft()
            policy = self._book.all.readable.get(number)
            due_ns = None if policy is None else self._book.state(number, self.now_ns()).running_due_ns
            if policy is None or due_ns is None:  # deleted meanwhile
                continue
            outcome = await self._run_one(policy, due_ns)
            try:
                await self._service.committer.commit()
            except RowfsError as error:
                log.warning("the run of %s is not durable: %s", printable(policy.name), error)
            await self._tell(policy, outcome)

    async def run_now(self, policy: Policy) -> Outcome:
        """Run a policy whatever its schedule says; how that ended. Raises BusyError while a run of it is going."""
        self._pool.check_writable()
        now = self.now_ns()
        state = self._book.state(policy.id, now)
        if state.running_due_ns is not None and state.life == self.life:
            raise BusyError(
                f"a run of the policy {policy.name} is going on: wait until it has ended, rowfs policy show tells"
            )
        self._clock.look()
        self._book.set_state(policy.id, begun(state, now, self.life))
        outcome = await self._run_one(policy, now)
        await self._service.committer.commit()
        await self._tell(policy, outcome)
        return outcome

    async def _run_one(self, policy: Policy, due_ns: int) -> Outcome:
        async with self._turn:
            who = actor() or Actor(os.getuid(), os.getpid(), f"policy {policy.name}")
            with acting(who):
                outcome = await PolicyRun(self._service, policy, due_ns, self.now_ns, self._clock.look()).run()
                self._ended(policy, outcome)
        return outcome

    def _ended(self, policy: Policy, outcome: Outcome) -> None:
        """Note how a run ended, in the same commit as what it took."""
        if outcome.failures:
            log.warning("the policy %s failed: %s", printable(policy.name), printable(outcome.reason))
            self._pool.catalog.events.add("policy run", failed=True, text=f"{policy.name}: {outcome.reason}")
        for line in outcome.kept:
            self._pool.catalog.events.add("policy run", failed=True, text=f"{policy.name}: {line}")
        if not self._book.has(policy):
            return
        now = self.now_ns()
        state = self._book.state(policy.id, now)
        if state.running_due_ns is None:  # what was noted of it could not be read
            state = begun(state, outcome.due_ns, self.life)
        schedule = self._book.all.readable[policy.id].schedule  # it may have been edited
        self._book.set_state(policy.id, failed(state, schedule, now) if outcome.failures else finished(state))
        self._book.set_outcome(policy.id, outcome)
        self.changed()

    async def _tell(self, policy: Policy, outcome: Outcome) -> None:
        """The hook for failures, when all else is done and durable."""
        if outcome.failures and policy.hooks.on_failure:
            run = PolicyRun(self._service, policy, outcome.due_ns, self.now_ns, self._clock.believed())
            await run.tell_failure(outcome.reason)

    # What there is to say

    def warnings(self) -> list[str]:
        """A line for each policy that fails, or cannot be read."""
        lines = []
        for policy in self._book.all.readable.values():
            state, outcome = self._book.state(policy.id, self.now_ns()), self._book.outcome(policy.id)
            if state.failures and not policy.paused:
                why = outcome.failures[0] if outcome is not None and outcome.failures else "it ended with its daemon"
                times = "" if state.failures == 1 else f" {state.failures} times in a row"
                lines.append(f"the policy {policy.name} failed{times}: {why}")
        for number, why in self._book.all.unreadable.items():
            lines.append(f"the policy {self._book.called(number)} takes and deletes nothing: {why}")
        return lines
