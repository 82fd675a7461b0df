"""Where a limit leaves no place: what policies that are told to (`--when-limited expire`) give up, oldest first.

Of a policy's own snapshots never the last good one, nor what is locked or open; of a group all or none. Nothing is
given up unless that makes the place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from rowfs.base.actor import Actor, acting
from rowfs.base.units import BLOCK_BYTES
from rowfs.rules.policies import Policy, WhenLimited
from rowfs.rules.retention import expendable
from rowfs.service.counting import counted
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool


def oldest_of(pool: Pool, policy: Policy, chain: Disk, now_ns: int) -> list[list[Snapshot]]:
    """What a policy could give up of a chain: failed ones, then the oldest; each with the others of its group."""
    places: dict[Disk, dict[int, int]] = {}

    def place(snapshot: Snapshot) -> int | None:
        """How soon its chain gives it up; None: never."""
        owner = snapshot.owner
        if owner not in places:
            own = expendable(policy.id, pool.policies.taken(owner.chain.values(), now_ns))
            places[owner] = {item.id: place for place, item in enumerate(own)}
        return places[owner].get(snapshot.id)

    found = []
    first = {snapshot.id: at for snapshot in chain.chain.values() if (at := place(snapshot)) is not None}
    for snapshot_id in sorted(first, key=first.__getitem__):
        snapshot = pool.catalog.snapshots[snapshot_id]
        group = pool.catalog.groups.of(snapshot.id)
        members = [snapshot] if group is None else pool.groups.members(group)
        if all(place(member) is not None for member in members):
            found.append(members)
    return found


def for_snapshots(pool: Pool, policy: Policy, disks: Sequence[Disk], now_ns: int) -> list[Snapshot] | None:
    """What has to go so that each of these chains takes one more; None: not even that would do."""
    going: dict[int, Snapshot] = {}
    for disk in disks:
        number = pool.limits.snapshots_beyond(disk)
        oldest = oldest_of(pool, policy, disk, now_ns)
        if len(oldest) < number:
            return None
        going |= {member.id: member for members in oldest[:number] for member in members}
    return list(going.values())


class RoomMaker:
    """Makes room for writers of disks that have come to their limit of space."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool
        self._turn = trio.Lock()

    async def make_room(self, disk: Disk, blocks: int, now_ns: int) -> bool:
        """Let go of what makes so many blocks of room; False: that cannot be done, and nothing was changed."""
        async with self._turn:
            if self._lacking_bytes(disk, blocks) <= 0:  # others have made it
                return True
            going = await self._enough(disk, blocks, now_ns)
            if not going:
                return False
            for policy, snapshot in going:
                if not snapshot.deleted:
                    with acting(Actor(os.getuid(), os.getpid(), f"policy {policy.name}")):
                        self._pool.delete_snapshot(snapshot)
            await self._service.committer.reclaim(lambda: self._lacking_bytes(disk, blocks) <= 0)
            return True

    def _lacking_bytes(self, disk: Disk, blocks: int) -> int:
        most = disk.limits.space_bytes
        return 0 if most is None else self._pool.limits.held_bytes(disk) + blocks * BLOCK_BYTES - most

    async def _enough(self, disk: Disk, blocks: int, now_ns: int) -> list[tuple[Policy, Snapshot]]:
        """The oldest that have to go, as few as will do; none: all of them would not."""
        sets = [
            (policy, members)
            for policy in self._pool.policies.all.readable.values()
            if policy.when_limited is WhenLimited.EXPIRE and not policy.paused
            for members in oldest_of(self._pool, policy, disk, now_ns)
        ]
        sets.sort(key=lambda item: (not item[1][0].failed, item[1][0].id))
        few, most = 0, len(sets)
        if not await self._suffice(sets, disk, blocks):
            return []
        while most - few > 1:
            middle = (few + most) // 2
            if await self._suffice(sets[:middle], disk, blocks):
                most = middle
            else:
                few = middle
        return [(policy, member) for policy, members in sets[:most] for member in members]

    async def _suffice(self, sets: Sequence[tuple[Policy, list[Snapshot]]], disk: Disk, blocks: int) -> bool:
        going = [member for _, members in sets for member in members if member.owner is disk and not member.deleted]
        return bool(going) and await counted(self._pool.figures.freed_by(going)) >= self._lacking_bytes(disk, blocks)
