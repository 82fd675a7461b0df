"""Setting labels, descriptions and locks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rowfs.base.errors import LockedError, UsageError
from rowfs.base.format import TEMPORARY
from rowfs.base.names import check_description
from rowfs.base.times import now_ns, stamp_ns
from rowfs.rules import locks, selectors
from rowfs.rules.locks import Lock
from rowfs.store.model import Disk, Snapshot, address

if TYPE_CHECKING:
    from rowfs.store.pool import Pool


class Marking:
    """What people say of the disks and snapshots of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._marks = pool.catalog.marks
        self._events = pool.catalog.events

    def label(self, thing: Disk | Snapshot, changes: Mapping[str, str | None]) -> None:
        """Set labels, and with None take them away. Raises UsageError when there would be too many."""
        self._pool.check_writable()
        if isinstance(thing, Disk) and thing.head is None:
            raise UsageError(f"the disk {thing.name} is deleted: only its snapshots can have labels")
        self._marks.set_labels(thing, selectors.changed(thing.labels, changes))
        said = " ".join(f"{key}-" if value is None else f"{key}={value}" for key, value in changes.items())
        if isinstance(thing, Disk):
            self._events.of_disk("label", thing, said)
        else:
            self._events.of_snapshot("label", thing, said)

    def describe(self, snapshot: Snapshot, description: str) -> None:
        """Say something else of a snapshot. Raises UsageError for what is no text, or too long."""
        self._pool.check_writable()
        snapshot.description = check_description(description)
        snapshot.changed_ns = max(snapshot.changed_ns, stamp_ns())
        self._pool.catalog.touch(snapshot)
        self._events.of_snapshot("describe", snapshot)

    def lock(
        self, snapshots: Sequence[Snapshot], until_ns: int | None, compliance: bool = False, reason: str = ""
    ) -> None:
        """Keep snapshots until somebody releases them, or until a time; all of them or none.

        Raises UsageError for a date that is none to come, LockedError where a compliance lock would become shorter.
        """
        self._pool.check_writable()
        now = now_ns()
        found = {}
        for snapshot in snapshots:
            if snapshot.kind == TEMPORARY:
                raise UsageError(f"{address(snapshot)} is temporary: it goes with what it was taken for")
            found[snapshot] = self._tried(
                snapshot, lambda lock: locks.locked(lock, now, until_ns, compliance=compliance, reason=reason)
            )
        self._set("lock", found)

    def release(self, snapshots: Sequence[Snapshot]) -> None:
        """No longer keep snapshots; all of them or none. A date of compliance stays where a hold goes.

        Raises LockedError where nothing but such a date keeps one.
        """
        self._pool.check_writable()
        now = now_ns()

        def released(lock: Lock) -> Lock:
            dated = lock.compliance and lock.dated(now)
            return locks.unheld(lock) if lock.hold and dated else locks.released(lock, now)

        self._set("release", {snapshot: self._tried(snapshot, released) for snapshot in snapshots})

    @staticmethod
    def _tried(snapshot: Snapshot, change: Callable[[Lock], Lock]) -> Lock:
        try:
            return change(snapshot.lock)
        except LockedError as error:
            raise LockedError(f"{address(snapshot)}: {error}") from None

    def _set(self, verb: str, found: Mapping[Snapshot, Lock]) -> None:
        for snapshot, lock in found.items():
            self._marks.set_lock(snapshot, lock)
            self._events.of_snapshot(verb, snapshot, f"kept by {lock.described(now_ns())}")
