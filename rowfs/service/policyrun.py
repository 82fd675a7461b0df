"""One run of a policy: its snapshots, the hooks around them, and what goes by its retention afterwards.

A disk that fails keeps no other from its snapshot, and a run whose snapshots all failed still lets old ones go: the
space may be what they lack. All of a run but what waits in between becomes durable with one commit, by whoever runs it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from rowfs.base.errors import LimitError, RowfsError
from rowfs.base.names import printable
from rowfs.host.freeze import LIMIT_S
from rowfs.host.hooks import run_hook
from rowfs.rules import retention
from rowfs.rules.clock import Clock
from rowfs.rules.policies import AfterPre, Policy, WhenLimited, snapshot_name
from rowfs.rules.retention import Taken, Verdict, whole_groups
from rowfs.rules.runs import FAILURES_KEPT, Outcome, Start
from rowfs.rules.times import SECOND_NS, parse_zone
from rowfs.service import givingup
from rowfs.service.groups import GroupVerbs
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.service.tasks import log_fault
from rowfs.store.model import Disk, Snapshot, address

log = logging.getLogger(__name__)

Take = Callable[[Start], Awaitable[Sequence[Snapshot]]]


class PolicyRun:
    """What one run does."""

    def __init__(self, service: Service, policy: Policy, due_ns: int, now_ns: Callable[[], int], clock: Clock) -> None:
        self._service = service
        self._pool = service.pool
        self._book = service.pool.policies
        self._policy = policy
        self._due_ns = due_ns
        self._now_ns = now_ns
        self._clock = clock
        self._slices = Slices()
        self._taken: dict[int, int] = {}  # by the id of the disk
        self._expired = 0
        self._failures: list[str] = []
        self._kept: list[str] = []

    async def run(self) -> Outcome:
        """Take what is chosen, then let go of what no rule keeps; how that ended."""
        await self._guarded("", self._take)
        if not self._policy.paused:
            await self._guarded("retention", self._expire)
        return Outcome(
            due_ns=self._due_ns,
            ended_ns=self._now_ns(),
            taken=len(self._taken),
            expired=self._expired,
            failures=tuple(self._failures[:FAILURES_KEPT]),
            kept=tuple(self._kept[:FAILURES_KEPT]),
        )

    async def _guarded(self, what: str, step: Callable[[], Awaitable[object]]) -> str | None:
        """A step; why it failed, which is noted, or None."""
        try:
            await step()
            return None
        except RowfsError as error:
            why = str(error)
        except Exception as fault:
            log_fault(f"the policy {printable(self._policy.name)}", fault)
            why = f"a fault in rowfs itself: {fault!r}"
        self._failures.append(f"{what}: {why}" if what else why)
        return why

    # Taking

    async def _take(self) -> None:
        chosen = [disk for disk in self._pool.catalog.live() if self._policy.choice.chooses(disk.name, disk.labels)]
        disks = sorted(chosen, key=lambda disk: disk.name)
        left = [disk for disk in disks if not self._book.run_of(disk, self._policy, self._due_ns)]
        if self._policy.group:
            if left and len(left) == len(disks):
                await self._take_group(left)
            return
        for disk in left:
            await self._slices.rest()
            if not disk.deleted:
                await self._take_disk(disk)

    async def _take_disk(self, disk: Disk) -> None:
        name = snapshot_name(self._policy, self._due_ns, disk.chain)

        async def take(start: Start) -> Sequence[Snapshot]:
            freeze_s = LIMIT_S if self._policy.freeze and await self._service.is_mounted(disk) else None
            return [await self._service.take(disk, name, self._description(), freeze_s, start=start)]

        await self._take_hooked(disk.name, [disk], name, take)

    async def _take_group(self, disks: list[Disk]) -> None:
        name = snapshot_name(self._policy, self._due_ns, {group.name for group in self._pool.catalog.groups})

        async def take(start: Start) -> Sequence[Snapshot]:
            freeze_s = LIMIT_S if self._policy.freeze and await self._service.is_mounted(*disks) else None
            wanted = [(disk, None) for disk in disks]
            group = await GroupVerbs(self._service).snapshot(wanted, name, self._description(), freeze_s, start=start)
            return self._pool.groups.members(group)

        await self._take_hooked("the group", disks, name, take)

    def _description(self) -> str:
        return f"by the policy {self._policy.name}"

    async def _take_hooked(self, what: str, disks: Sequence[Disk], name: str, take: Take) -> None:
        """The hook before, the snapshot, the hook after, which runs whatever became of the two."""
        hooks = self._policy.hooks
        told = {"ROWFS_DISKS": "/".join(disk.name for disk in disks), "ROWFS_SNAPSHOT": name}  # no name has a slash
        if len(disks) == 1:
            told["ROWFS_DISK"] = disks[0].name
        wrong = await self._hook("pre", hooks.pre, told)
        if wrong is not None:
            self._failures.append(f"{what}: {wrong}")
        if wrong is None or hooks.after_pre is AfterPre.MARK:
            start = Start(policy=self._policy.id, due_ns=self._due_ns, failed=wrong is not None)
            wrong = await self._guarded(what, lambda: self._take_limited(disks, take, start)) or wrong
        if wrong is None and hooks.post:  # which may drop a log that the snapshot has
            wrong = await self._guarded(what, self._service.committer.commit)
        after = await self._hook("post", hooks.post, told | {"ROWFS_REASON": wrong or ""})
        if after is not None:
            self._failures.append(f"{what}: {after}")

    async def _take_limited(self, disks: Sequence[Disk], take: Take, start: Start) -> None:
        """Take; where a limit leaves no place, and the policy says so, its own oldest makes one."""
        try:
            taken = await take(start)
        except LimitError:
            expires = self._policy.when_limited is WhenLimited.EXPIRE and not self._policy.paused
            if start.failed or not expires or not await self._give_up(disks):  # none goes for one that failed
                raise
            taken = await take(start)
        self._taken.update({snapshot.owner.id: snapshot.id for snapshot in taken})

    async def _give_up(self, disks: Sequence[Disk]) -> bool:
        """Delete the policy's oldest where there are too many; whether there is a place then."""
        going = givingup.for_snapshots(self._pool, self._policy, disks, self._now_ns())
        for snapshot in going or ():
            await self._slices.rest()
            if not snapshot.deleted:
                self._pool.delete_snapshot(snapshot)
                self._expired += 1
        return bool(going)

    async def _hook(self, which: str, words: Sequence[str], told: dict[str, str]) -> str | None:
        if not words:
            return None
        wrong = await run_hook(words, self.environment(which) | told, self._policy.hooks.limit_ns / SECOND_NS)
        return None if wrong is None else f"the {which} hook {wrong}"

    def environment(self, which: str) -> dict[str, str]:
        """What every hook is told."""
        return {
            "ROWFS_HOOK": which,
            "ROWFS_POLICY": self._policy.name,
            "ROWFS_POOL": self._pool.directory.current_path(),
            "ROWFS_MOUNT": self._service.own.mountpoint,
        }

    async def tell_failure(self, reason: str) -> None:
        """Run the hook for failures."""
        wrong = await self._hook("on-failure", self._policy.hooks.on_failure, {"ROWFS_REASON": reason})
        if wrong is not None:
            log.warning("the policy %s: %s", printable(self._policy.name), wrong)

    # Letting go

    async def _expire(self) -> None:
        for taken in await going(self._service, self._policy, self._now_ns(), self._clock, self._slices, self._taken):
            await self._slices.rest()
            snapshot = self._pool.catalog.snapshots.get(taken.id)
            if snapshot is None:
                continue
            try:
                self._pool.delete_snapshot(snapshot)
                self._expired += 1
            except RowfsError as error:
                self._kept.append(f"{address(snapshot)} stays for now: {error}")


T = TypeVar("T")
NOTHING: Mapping[int, int] = {}


Done = Mapping[int, int]  # what the run took that asks, by disk


async def plans(
    service: Service, policy: Policy, now_ns: int, clock: Clock, slices: Slices, taken: Done = NOTHING
) -> list[Verdict]:
    """What becomes of a policy's snapshots on all disks, those that are gone or no longer chosen too."""
    return whole_groups(await _asked(retention.plan, service, policy, now_ns, clock, slices, taken))


async def going(
    service: Service, policy: Policy, now_ns: int, clock: Clock, slices: Slices, taken: Done = NOTHING
) -> list[Taken]:
    """Those of them that go now."""
    if any(map(service.pool.catalog.groups.of, service.pool.catalog.snapshots.of_policy(policy.id))):
        return [item.taken for item in await plans(service, policy, now_ns, clock, slices, taken) if item.goes]
    return await _asked(retention.going, service, policy, now_ns, clock, slices, taken)


async def _asked(
    rule: Callable[..., list[T]],
    service: Service,
    policy: Policy,
    now_ns: int,
    clock: Clock,
    slices: Slices,
    taken: Done,
) -> list[T]:
    """What a rule of retention says of all chains, in slices."""
    found: list[T] = []
    zone, book = parse_zone(policy.schedule.tz), service.pool.policies
    for disk, own in book.owned(policy).items():
        await slices.rest()
        found += rule(policy.id, policy.retention, book.taken(own, now_ns), now_ns, zone, taken.get(disk.id), clock)
    return found
