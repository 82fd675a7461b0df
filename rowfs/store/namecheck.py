"""The checker's rule of names: records are readable, refer to records that exist, and to points that have been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from rowfs.base.errors import CorruptionError
from rowfs.base.format import (
    ACCOUNTS,
    BRANCHES,
    DISKS,
    EVENTS,
    GROUPS,
    ID_KEY,
    LABELS,
    LIMITS,
    LOCKS,
    META,
    PAGE_KEY,
    PENDING,
    PENDING_KEY,
    PENDING_REMOVAL,
    POLICIES,
    POOL_KEY,
    SNAPSHOTS,
    TRASH,
    BranchRecord,
    DiskRecord,
    EventRecord,
    GroupRecord,
    LabelsRecord,
    LimitsRecord,
    LockRecord,
    PolicyRecord,
    PoolRecord,
    Record,
    RemovalRecord,
    SnapshotRecord,
    TrashRecord,
)
from rowfs.persist.mapread import Reader, Value
from rowfs.rules.policies import read_policies
from rowfs.rules.usagecode import unpack
from rowfs.store.accounts import OTHERS
from rowfs.store.findings import Findings
from rowfs.store.marks import labels_of, limits_of, limits_record, lock_of, lock_record

R = TypeVar(
    "R",
    BranchRecord,
    DiskRecord,
    SnapshotRecord,
    GroupRecord,
    LabelsRecord,
    LockRecord,
    TrashRecord,
    LimitsRecord,
    PolicyRecord,
)
T = TypeVar("T", bound=Record)


class NameCheck:
    """All records that can be read, by id."""

    def __init__(self, reader: Reader, findings: Findings) -> None:
        self._reader = reader
        self._findings = findings
        self._next_id = 1
        self.disks: dict[int, DiskRecord] = {}
        self.snapshots: dict[int, SnapshotRecord] = {}
        self.branches: dict[int, BranchRecord] = {}

    def run(self) -> None:
        """Read the records, and hold each against the others."""
        stored = self._reader.get(META, POOL_KEY)
        assert stored is not None, "what has no pool record is no pool"
        self._next_id = self._unpacked(META, POOL_KEY, stored, PoolRecord).next_id
        self.branches = {record.id: record for record in self._records(BRANCHES, BranchRecord)}
        self.disks = {record.id: record for record in self._records(DISKS, DiskRecord)}
        self.snapshots = {record.id: record for record in self._records(SNAPSHOTS, SnapshotRecord)}
        self._pending()
        for branch in self.branches.values():
            if branch.parent is None:
                continue
            parent = self.branches.get(branch.parent)
            if parent is None:
                self._found(f"branch {branch.id} begins on branch {branch.parent}, which has no record")
            elif parent.id >= branch.id:
                self._found(f"branch {branch.id} begins on branch {parent.id}, which is not older")
                branch.parent = None  # or following it could go round in circles
            elif not 0 < branch.fork < parent.epoch:
                self._found(f"branch {branch.id} begins at an epoch that branch {parent.id} never had")
        heads = [disk.branch for disk in self.disks.values() if disk.branch is not None]
        for number in heads:
            if number not in self.branches:
                self._found(f"a disk writes on branch {number}, which has no record")
        if len(set(heads)) < len(heads):
            self._found("two disks write on one branch")
        if len({disk.name for disk in self.disks.values()}) < len(self.disks):
            self._found("two disks have one name")
        for snapshot in self.snapshots.values():
            self._check_snapshot(snapshot)
        of_disks = {(snapshot.disk, snapshot.name) for snapshot in self.snapshots.values()}
        points = {(snapshot.branch, snapshot.epoch) for snapshot in self.snapshots.values()}
        if min(len(of_disks), len(points)) < len(self.snapshots):
            self._found("two snapshots of a disk have one name, or are of one point")
        self._check_groups([*self._records(GROUPS, GroupRecord)])
        self._check_marks()
        for _ in self._records(TRASH, TrashRecord):  # what they refer to an older rowfs may have deleted
            pass
        self._check_policies([*self._records(POLICIES, PolicyRecord)])
        self._check_events()
        self._check_accounts()

    def _check_groups(self, groups: list[GroupRecord]) -> None:
        # A member without a record is in order: an older rowfs, which knows no groups, has deleted it.
        if len({group.name for group in groups}) < len(groups):
            self._found("two groups have one name")
        members = [number for group in groups for number in group.members.values()]
        if len(set(members)) < len(members):
            self._found("a snapshot is in two groups, or twice in one")

    def _check_policies(self, policies: list[PolicyRecord]) -> None:
        # What a policy took may be there no more, and the policy of a snapshot neither: all of that is in order.
        found = read_policies({record.id: record.rule for record in policies})
        for number, why in found.unreadable.items():
            self._found(f"policy {number} takes and deletes nothing: {why}")
        if len({policy.name for policy in found.readable.values()}) < len(found.readable):
            self._found("two policies have one name")

    def _check_marks(self) -> None:
        # Those of what has no record are in order, as above.
        for labels in self._records(LABELS, LabelsRecord):
            wrong: list[str] = []
            kept = labels_of(labels, wrong)
            self._mend(LABELS, labels.id, wrong, LabelsRecord(id=labels.id, labels=kept))
        for lock in self._records(LOCKS, LockRecord):
            wrong = []
            self._mend(LOCKS, lock.id, wrong, lock_record(lock.id, lock_of(lock, wrong)))
        for limits in self._records(LIMITS, LimitsRecord):
            wrong = []
            self._mend(LIMITS, limits.id, wrong, limits_record(limits.id, limits_of(limits, wrong)))

    def _check_events(self) -> None:
        # Nothing refers to them: one that cannot be read is dropped by the repair.
        for key, value in self._reader.items(EVENTS):
            try:
                event = self._unpacked(EVENTS, key, value, EventRecord)
                right = key == ID_KEY.pack(event.id)
            except CorruptionError:
                right = False
            if not right:
                self._found(f"record {key.hex()} of {EVENTS} is not the event of that number")
                self._findings.mend(EVENTS, key, None)

    def _check_accounts(self) -> None:
        # Those of what has no record are in order: it is gone, and they tell of its past.
        for key, value in self._reader.items(ACCOUNTS):
            try:
                unpack(bytes(value))
                number = int(ID_KEY.unpack(key)[0]) if len(key) == ID_KEY.size else 0
                right = 0 < number < self._next_id or number in OTHERS.values()
            except CorruptionError:
                right = False
            if not right:
                self._found(f"record {key.hex()} of {ACCOUNTS} is no account")
                self._findings.mend(ACCOUNTS, key, None)

    def _mend(self, table: str, number: int, wrong: list[str], right: Record) -> None:
        key = ID_KEY.pack(number)
        for line in wrong:
            self._found(f"record {key.hex()} of {table}: {line}")
            self._findings.mend(table, key, right.pack())

    def _records(self, table: str, kind: type[R]) -> Iterator[R]:
        for key, value in self._reader.items(table):
            try:
                record = self._unpacked(table, key, value, kind)
            except CorruptionError as error:
                self._found(f"record {key.hex()} of {table}: {error}")
                continue
            if self._is_numbered(table, key, ID_KEY.pack(record.id), record.id):
                yield record

    def _unpacked(self, table: str, key: bytes, value: Value, kind: type[T]) -> T:
        """A record, with something else in place of what cannot be in its fields. Raises CorruptionError."""
        wrong: list[str] = []
        record = kind.unpack(value, wrong)
        for line in wrong:
            self._found(f"record {key.hex()} of {table}: {line}")
        if wrong:
            self._findings.mend(table, key, record.pack())
        return record

    def _is_numbered(self, table: str, key: bytes, right: bytes, number: int) -> bool:
        if key == right and number < self._next_id:
            return True
        self._found(f"record {key.hex()} of {table} says that its id is {number}")
        return False

    def _pending(self) -> None:
        for key, value in self._reader.items(PENDING):
            if not self._findings.is_key("names", PENDING, PENDING_KEY, key) or key[0] != PENDING_REMOVAL:
                continue
            try:
                removal = RemovalRecord.unpack(value)
            except CorruptionError as error:
                self._found(f"record {key.hex()} of {PENDING}: {error}")
                continue
            self._is_numbered(PENDING, key, PENDING_KEY.pack(PENDING_REMOVAL, removal.id, 0, 0), removal.id)

    def _check_snapshot(self, snapshot: SnapshotRecord) -> None:
        branch = self.branches.get(snapshot.branch)
        if snapshot.disk not in self.disks:
            self._found(f"snapshot {snapshot.name} is of a disk that has no record")
        if branch is None:
            self._found(f"snapshot {snapshot.name} is on branch {snapshot.branch}, which has no record")
        elif not 0 < snapshot.epoch < branch.epoch:
            self._found(f"snapshot {snapshot.name} is of an epoch that branch {branch.id} never had")

    def _found(self, text: str) -> None:
        self._findings.add("names", text)

    def where(self, key: bytes) -> str:
        """A page version in words, with the disk or snapshot that sees it first."""
        branch, page, epoch = PAGE_KEY.unpack(key)
        seen = [item for item in self.snapshots.values() if item.branch == branch and item.epoch >= epoch]
        heads = [disk.name for disk in self.disks.values() if disk.branch == branch]
        if seen:
            first = min(seen, key=lambda item: item.epoch)
            owner = self.disks.get(first.disk)
            heads = [f"{owner.name if owner else '?'}@{first.name}"]
        named = f" ({heads[0]})" if heads else ""
        return f"page {page} of branch {branch} at epoch {epoch}{named}"
