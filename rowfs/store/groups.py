"""Consistency groups: snapshots of several disks that are of one point in time.

Every verb here looks at all that could refuse it before it changes anything, and then changes everything in one step of
the owner thread. A commit takes all of a step or nothing, so a group is whole after any crash, and no write is between
its points: one that a disk's program began when the sync of a write to another disk had returned is in the group only
together with that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rowfs.base.errors import ExistsError, NotFoundError, UsageError
from rowfs.base.format import POLICY, GroupRecord
from rowfs.base.names import BEFORE_ROLLBACK, check_name
from rowfs.base.times import now_ns
from rowfs.rules.runs import Start
from rowfs.store.model import Disk, Snapshot

if TYPE_CHECKING:
    from rowfs.store.pool import Pool

MEMBERS_MAX = 64
Wanted = tuple[Disk, str | None]  # a disk, and what its snapshot shall be called; None: as the group


class Groups:
    """What can be done with the groups of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._table = pool.catalog.groups

    # Looking

    def members(self, group: GroupRecord) -> list[Snapshot]:
        """The snapshots of a group that are left, by the names of their disks then."""
        snapshots = self._pool.catalog.snapshots
        return [snapshots[number] for _, number in sorted(group.members.items()) if number in snapshots]

    def lost(self, group: GroupRecord) -> list[str]:
        """The disks, by their names then, whose snapshots of the group were deleted."""
        return sorted(name for name, number in group.members.items() if number not in self._pool.catalog.snapshots)

    # Taking

    def check(self, wanted: Sequence[Wanted], name: str) -> None:
        """Raises what `snapshot` would."""
        self._pool.check_writable()
        if not 0 < len(wanted) <= MEMBERS_MAX:
            raise UsageError(f"a group has 1 to {MEMBERS_MAX} disks, this one has {len(wanted)}")
        if check_name(name, "group name") == BEFORE_ROLLBACK:
            raise UsageError(f"{name} is what a group is called that a rollback keeps: choose another name")
        if self._table.named(name) is not None:
            raise ExistsError(f"there is a group {name} already: delete it first, or choose another name")
        if len({disk.id for disk, _ in wanted}) < len(wanted):
            raise UsageError("a disk is named twice: a group has one snapshot of each")
        for disk, own in wanted:
            self._pool.check_snapshot(disk, own or name)

    def snapshot(
        self,
        wanted: Sequence[Wanted],
        name: str,
        *,
        description: str = "",
        frozen: Sequence[Disk] = (),
        kind: str = "user",
        start: Start | None = None,
    ) -> GroupRecord:
        """Snapshots of all these disks as they are now; those in `frozen` are recorded as such.

        Raises UsageError, ExistsError, NotFoundError; then there is none.
        """
        self.check(wanted, name)
        now = now_ns()
        taken = [
            self._pool.snapshot(
                disk,
                own or name,
                description=description,
                consistency="frozen" if disk in frozen else "crash",
                kind=kind,
                created_ns=now,
                start=start,
            )
            for disk, own in wanted
        ]
        return self._add(name, taken, now, kind if start is None else POLICY, description)

    def _add(self, name: str, snapshots: Sequence[Snapshot], now: int, kind: str, description: str) -> GroupRecord:
        members = {snapshot.owner.name: snapshot.id for snapshot in snapshots}
        group = GroupRecord(
            id=self._pool.catalog.new_id(),
            name=name,
            created_ns=now,
            members=members,
            kind=kind,
            description=description,
        )
        self._table.add(group)
        self._tell("snapshot", group, snapshots)
        return group

    def _tell(self, verb: str, group: GroupRecord, snapshots: Sequence[Snapshot]) -> None:
        disks = ", ".join(snapshot.owner.name for snapshot in snapshots)
        self._pool.catalog.events.add(verb, group=group.name, text=f"of {disks}")

    # Going back

    def check_rollback(self, group: GroupRecord, discard: bool = False) -> list[Snapshot]:
        """The snapshots that `rollback` would go back to. Raises what it would."""
        self._pool.check_writable()
        changed = [f"the snapshot of {name} was deleted" for name in self.lost(group)]
        members = self.members(group)
        changed += [f"the disk {item.owner.name} was deleted" for item in members if item.owner.head is None]
        if changed:
            raise NotFoundError(
                f"the group {group.name} is not what it was: {', '.join(changed)}; "
                f"nothing was rolled back: clone what is left of it, or roll back single disks"
            )
        for snapshot in members:
            self._pool.check_rollback(snapshot.owner, snapshot, discard)
        return members

    def rollback(self, group: GroupRecord, discard: bool = False) -> GroupRecord | None:
        """Make all disks what the group holds of them, or none.

        What they were is kept as the group `before-rollback`, which the next rollback of a group replaces, or
        discarded. Whether the disks are in use is for the caller to know. Raises NotFoundError for a group that is
        not whole.
        """
        members = self.check_rollback(group, discard)
        kept = [
            before
            for snapshot in members
            if (before := self._pool.rollback(snapshot.owner, snapshot, discard)) is not None
        ]
        self._tell("rollback", group, members)
        if not kept:
            return None
        older = self._table.named(BEFORE_ROLLBACK)
        if older is not None:  # of other disks: their snapshots stay
            self._table.disband(older)
        return self._add(BEFORE_ROLLBACK, kept, kept[0].created_ns, "rollback", f"before the rollback to {group.name}")

    # Cloning

    def clone(self, group: GroupRecord, pattern: str, owner: tuple[int, int] = (0, 0)) -> list[Disk]:
        """New disks of all snapshots of a group, or none; `pattern` has {} where the disk's name goes.

        They belong to `owner`, (uid, gid). Raises UsageError for a pattern that makes no names, NotFoundError when the
        group is not whole, ExistsError.
        """
        lost = self.lost(group)
        if lost:
            raise NotFoundError(
                f"the group {group.name} is degraded, its snapshot of {', '.join(lost)} was deleted: "
                f"clone the single snapshots that are left"
            )
        if "{}" not in pattern:
            raise UsageError(f"{pattern!r} is no pattern: {{}} stands for the disk's name, as in '{{}}-test'")
        self._pool.check_writable()
        snapshots = self._pool.catalog.snapshots
        sources = {pattern.replace("{}", name): snapshots[number] for name, number in group.members.items()}
        for name in sources:
            self._pool.catalog.check_free(name)
        return [
            disk
            for name, snapshot in sources.items()
            for disk in self._pool.clone(snapshot, [name], (snapshot.owner.mode, *owner))
        ]

    # Deleting

    def delete(self, group: GroupRecord) -> list[Snapshot]:
        """Delete all snapshots that are left of a group, and with the last one the group: all or none."""
        members = self.members(group)
        self._pool.check_deletable(*members, what=f"the group {group.name}")
        self._tell("delete", group, members)
        for snapshot in members:
            self._pool.trash.delete_snapshot(snapshot)
        return members
