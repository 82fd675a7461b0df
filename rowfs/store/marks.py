"""What people have said of disks and snapshots: labels, limits of disks, and locks that keep snapshots.

Disks and snapshots have them in memory; here are the records of those that have any. They go with what they are of.
What cannot be keeps no pool from being opened: such a label is left out, such limits are none, such a lock is a hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from rowfs.base.errors import UsageError
from rowfs.base.format import LABELS, LIMITS, LOCKS, LabelsRecord, LimitsRecord, LockRecord
from rowfs.persist.blockmap import MapUpdate
from rowfs.persist.mapread import Reader
from rowfs.rules.limits import DiskLimits, check_disk_limits
from rowfs.rules.locks import REASON_CHARACTERS_MAX, UNLOCKED, Lock, check_lock
from rowfs.rules.selectors import check_labels
from rowfs.store.model import UNLIMITED, Disk, Snapshot
from rowfs.store.records import Records, told

log = logging.getLogger(__name__)


class Marks:
    """The labels and locks of one pool."""

    def __init__(self) -> None:
        self._labels = Records(LABELS, partial(told, LabelsRecord))
        self._locks = Records(LOCKS, partial(told, LockRecord))
        self._limits = Records(LIMITS, partial(told, LimitsRecord))

    def load(self, reader: Reader, next_id: int, disks: Iterable[Disk], snapshots: dict[int, Snapshot]) -> None:
        """Read all of them, and drop what is of nothing any more. Raises CorruptionError."""
        self._labels.load(reader, next_id)
        self._locks.load(reader, next_id)
        self._limits.load(reader, next_id)
        things: dict[int, Disk | Snapshot] = {disk.id: disk for disk in disks if disk.head is not None}
        things |= snapshots
        wrong: list[str] = []
        for labels in list(self._labels):
            if labels.id in things:
                things[labels.id].labels = labels_of(labels, wrong)
            else:
                self._labels.drop(labels.id)
        for lock in list(self._locks):
            if lock.id in snapshots:
                snapshots[lock.id].lock = lock_of(lock, wrong)
            else:
                self._locks.drop(lock.id)
        for limits in list(self._limits):
            disk = things.get(limits.id)
            if isinstance(disk, Disk):
                disk.limits = limits_of(limits, wrong)
            else:
                self._limits.drop(limits.id)
        for line in wrong:
            log.warning("of labels, limits and locks %s (check --repair mends it)", line)

    def set_labels(self, thing: Disk | Snapshot, labels: dict[str, str]) -> None:
        """From now on it has these labels."""
        thing.labels = labels
        if labels:
            self._labels.put(LabelsRecord(id=thing.id, labels=labels))
        else:
            self._labels.drop(thing.id)

    def set_lock(self, snapshot: Snapshot, lock: Lock) -> None:
        """From now on this keeps the snapshot, or nothing does."""
        snapshot.lock = lock
        if lock == UNLOCKED:
            self._locks.drop(snapshot.id)
            return
        self._locks.put(lock_record(snapshot.id, lock))

    def set_limits(self, disk: Disk, limits: DiskLimits) -> None:
        """From now on the disk has these limits."""
        disk.limits = limits
        if limits == UNLIMITED:
            self._limits.drop(disk.id)
        else:
            self._limits.put(limits_record(disk.id, limits))

    def forget(self, number: int) -> None:
        """The disk or snapshot with this id is gone."""
        for table in (self._labels, self._locks, self._limits):
            table.drop(number)

    def renumbered(self, disk: Disk, old_id: int) -> None:
        """A disk has another id."""
        self.forget(old_id)
        self.set_labels(disk, disk.labels)
        self.set_limits(disk, disk.limits)

    @property
    def unsaved(self) -> bool:
        """Whether a commit would change anything here."""
        return self._labels.unsaved or self._locks.unsaved or self._limits.unsaved

    def freeze(self, update: MapUpdate) -> None:
        """Put what changed since the last freeze into `update`."""
        self._labels.freeze(update)
        self._locks.freeze(update)
        self._limits.freeze(update)


def labels_of(record: LabelsRecord, wrong: list[str]) -> dict[str, str]:
    """The labels that are stored; `wrong` gets a line for each that nobody could have set, which is left out."""
    kept: dict[str, str] = {}
    for key, value in record.labels.items():
        try:
            kept = check_labels(kept | {key: value})
        except UsageError as error:
            wrong.append(f"a label is left out: {error}")
    return kept


def lock_of(record: LockRecord, wrong: list[str]) -> Lock:
    """The lock that is stored; a hold, and a line in `wrong`, for one that nobody could have set."""
    lock = Lock(hold=record.hold, until_ns=record.until_ns, compliance=record.compliance, reason=record.reason)
    try:
        return check_lock(lock)
    except UsageError as error:
        wrong.append(f"a hold stands for it: {error}")
        return Lock(hold=True, reason=record.reason[:REASON_CHARACTERS_MAX])


def lock_record(number: int, lock: Lock) -> LockRecord:
    """The record of what keeps the snapshot with this id."""
    return LockRecord(id=number, hold=lock.hold, until_ns=lock.until_ns, compliance=lock.compliance, reason=lock.reason)


def limits_of(record: LimitsRecord, wrong: list[str]) -> DiskLimits:
    """The limits that are stored; none, and a line in `wrong`, where nobody could have set them."""
    try:
        return check_disk_limits(
            DiskLimits(snapshots=record.snapshots, space_bytes=record.space_bytes, reserve_bytes=record.reserve_bytes)
        )
    except UsageError as error:
        wrong.append(f"no limits stand for them: {error}")
        return UNLIMITED


def limits_record(number: int, limits: DiskLimits) -> LimitsRecord:
    """The record of the limits of the disk with this id."""
    return LimitsRecord(
        id=number,
        snapshots=limits.snapshots,
        space_bytes=limits.space_bytes,
        reserve_bytes=limits.reserve_bytes,
    )
