"""The on-disk format of a pool: its files, the data file's label, the keys and records of the block map.

    POOL/data           sparse file of 4 KiB blocks; block 0 is the label below, the others belong to disks
    POOL/map/           one LMDB environment with the sub-databases of `TABLES`
    POOL/journal        small commits that the map does not hold yet (base.journalcode)
    POOL/lock           held by flock(2) while the pool is open; holds the pid for people to read
    POOL/control.sock   the daemon's socket
    POOL/read-only      since when and why nothing can be written, until a mount can again

Keys are big-endian, so that LMDB's order is numeric order. Records are JSON objects: readers ignore keys that they do
not know and give missing ones their default, so a field can be added without a new format version. Ids (disks,
snapshots, branches, removals) come from one counter and are never used twice.
"""

from __future__ import annotations

import json
import struct
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from rowfs.base.errors import CorruptionError, PoolError, UsageError
from rowfs.base.fields import STAND_INS, kept_field, missing_field, plain_check
from rowfs.base.units import BLOCK_BYTES, BranchId, Epoch, PageIndex

FORMAT_PLAIN = 1  # of a pool without sums, and of every label
FORMAT_SEALED = 2  # there are sums, or were: who writes to blocks has to know of them
FORMAT_VERSION = FORMAT_SEALED  # the newest that this rowfs reads

DATA_FILE, MAP_DIR, JOURNAL_FILE = "data", "map", "journal"
LOCK_FILE, SOCKET_FILE, LOG_FILE = "lock", "control.sock", "rowfs.log"
READ_ONLY_FILE = "read-only"


def abstract_socket(device: str) -> str:
    """The abstract name, unix(7), by which the daemon of the mount with this device number can be found as well."""
    return f"\0rowfs/{device}"


# Sub-databases. Key and value of each; all are written by the commit, in one transaction.
META = "meta"  # "pool" -> PoolRecord
DISKS = "disks"  # u64 disk id -> DiskRecord
SNAPSHOTS = "snapshots"  # u64 snapshot id -> SnapshotRecord
BRANCHES = "branches"  # u64 branch id -> BranchRecord
PAGES = "pages"  # u32 branch, u32 page, u32 epoch -> base.pagecode
CHANGES = "changes"  # u32 branch, u32 epoch, u16 group -> 64 bytes, bit n: page 512 * group + n has such a version
SPACE = "space"  # u32 chunk -> base.bitmap
PENDING = "pending"  # u8 kind, 3 * u32 -> RemovalRecord (kind 1: removal id, 0, 0), nothing (2: branch, page, epoch)
SHARES = "shares"  # u32 region -> base.sharecode
GROUPS = "groups"  # u64 group id -> GroupRecord
LABELS = "labels"  # u64 id of a disk or snapshot -> LabelsRecord
LOCKS = "locks"  # u64 snapshot id -> LockRecord
EVENTS = "events"  # u64 number -> EventRecord
TRASH = "trash"  # u64 disk id -> TrashRecord
LIMITS = "limits"  # u64 disk id -> LimitsRecord
POLICIES = "policies"  # u64 policy id -> PolicyRecord
SUMS = "sums"  # u32 stretch -> base.sumcode
ACCOUNTS = "accounts"  # u64 id of a disk or policy, or OTHERS -> rules.usagecode
# These came after the first pools: one that is missing is empty.
ADDED_TABLES = (SHARES, GROUPS, LABELS, LOCKS, EVENTS, TRASH, LIMITS, POLICIES, SUMS, ACCOUNTS)
TABLES = (META, DISKS, SNAPSHOTS, BRANCHES, PAGES, CHANGES, SPACE, PENDING, *ADDED_TABLES)

PAGE_KEY = struct.Struct(">III")
CHANGE_KEY = struct.Struct(">IIH")
CHUNK_KEY = struct.Struct(">I")
REGION_KEY = struct.Struct(">I")
STRETCH_KEY = struct.Struct(">I")
ID_KEY = struct.Struct(">Q")
PENDING_KEY = struct.Struct(">BIII")
POOL_KEY = b"pool"
PENDING_REMOVAL, PENDING_REVISIT = 1, 2
EPOCH_MAX = Epoch(0xFFFFFFFF)

GROUP_PAGES = 512  # 1 GiB of a disk: one bitmap of CHANGES
GROUP_BYTES = GROUP_PAGES // 8

POLICY = "policy"  # the kind of a snapshot that a policy took: a policy expires such ones of its own alone
TRASHED = "trash"  # the kind of the snapshot that is what a disk in the trash was
TEMPORARY = "temporary"  # the kind of a snapshot that goes when whoever took it does, or when the pool is next opened

# The label: magic, format version, pool uuid; the rest of the block is zeros.
LABEL = struct.Struct("<8sI16s")
LABEL_MAGIC = b"rowfsPL\n"
assert (PAGE_KEY.size, CHANGE_KEY.size, LABEL.size) == (12, 10, 28)


def page_key(branch: BranchId, page: PageIndex, epoch: Epoch) -> bytes:
    """The key of a page version."""
    return PAGE_KEY.pack(branch, page, epoch)


def pack_label(uuid: bytes) -> bytes:
    """Block 0 of the data file of the pool with this 16-byte uuid."""
    return LABEL.pack(LABEL_MAGIC, FORMAT_PLAIN, uuid).ljust(BLOCK_BYTES, b"\0")


def unpack_label(block: bytes) -> bytes:
    """The pool uuid in a label. Raises PoolError when it is none, or of a newer format."""
    if len(block) < LABEL.size:
        raise PoolError("the data file is too short to be one of rowfs")
    magic, version, uuid = LABEL.unpack_from(block)
    if magic != LABEL_MAGIC:
        raise PoolError("the data file does not begin with the label of a rowfs pool")
    check_format(version)
    return bytes(uuid)


def check_format(version: int) -> None:
    """Raises PoolError when this rowfs does not read pools of format `version`."""
    if version > FORMAT_VERSION:
        raise PoolError(
            f"the pool has format {version}, this rowfs knows formats up to {FORMAT_VERSION}: use a newer rowfs"
        )


_from_json = json.JSONDecoder().raw_decode  # loads looks for blanks around, which nothing writes
_to_json = json.JSONEncoder(separators=(",", ":")).encode


_names: dict[type[Record], tuple[str, ...]] = {}  # of the stored fields


def _stored_fields(cls: type[Record]) -> tuple[str, ...]:
    names = _names.get(cls)
    if names is None:
        names = _names[cls] = tuple(item.name for item in fields(cls.record_class()))
    return names


@dataclass(slots=True, kw_only=True, eq=False)
class Record:
    """What the records have in common: to JSON and back."""

    def pack(self) -> bytes:
        """The record as stored. Only the fields of the record class itself, not those of a subclass in memory."""
        return _to_json({name: getattr(self, name) for name in _stored_fields(type(self))}).encode()

    @classmethod
    def record_class(cls) -> type[Record]:
        """The class that defines the stored fields: the direct child of Record."""
        return _layout(cls).kind

    @classmethod
    def unpack(cls, value: bytes | memoryview, wrong: list[str] | None = None, **extra: Any) -> Self:
        """The record stored as `value`; `wrong` gets a line for each field that something else stands for.

        Raises CorruptionError when it is none, or when what it refers to cannot be.
        """
        kind = cls.record_class()
        stored = _stored(kind, value)
        wrong = [] if wrong is None else wrong
        known = {}
        for name, wanted, plain in _layout(kind).checks:
            if plain is not None and name in stored:
                python_type, least, most = plain
                item = stored[name]
                if type(item) is python_type and (type(item) is not int or least <= item <= most):
                    known[name] = item
                    continue
            try:
                if name in stored:
                    known[name] = kept_field(name, wanted, stored[name], stored.get("id"), wrong)
                elif name in _layout(kind).required:
                    known[name] = missing_field(name, stored.get("id"), wrong)
            except (ValueError, UsageError) as error:
                raise _damaged(kind, str(error)) from None
        return cls(**known, **extra)


def _damaged(kind: type[Record], why: str) -> CorruptionError:
    what = kind.__name__.removesuffix("Record").lower()
    return CorruptionError(f"the record of a {what} is damaged: {why}")


def _stored(kind: type[Record], value: bytes | memoryview) -> dict[str, Any]:
    """What is stored as `value`, with all fields that nothing can stand for. Raises CorruptionError."""
    try:
        text = str(value, "utf-8")
        stored, end = _from_json(text)
        if end != len(text):
            stored = None
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise _damaged(kind, "its bytes are not a JSON object")
    missing = [name for name in _layout(kind).required if name not in stored and name not in STAND_INS]
    if missing:
        raise _damaged(kind, f"it has no {', '.join(missing)}")
    return stored


class _Layout:
    """What there is to know of a record class, or of a subclass in memory; found once."""

    def __init__(self, cls: type[Record]) -> None:
        self.kind = next(c for c in reversed(cls.__mro__) if issubclass(c, Record) and c is not Record)
        self.required = _required(self.kind)
        self.checks = [(f.name, str(f.type), plain_check(f.name, str(f.type))) for f in fields(self.kind)]


_layouts: dict[type[Record], _Layout] = {}


def _layout(cls: type[Record]) -> _Layout:
    found = _layouts.get(cls)
    if found is None:
        found = _layouts[cls] = _Layout(cls)
    return found


def _required(kind: type[Record]) -> list[str]:
    """The fields that have no default."""
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


@dataclass(slots=True, kw_only=True, eq=False)
class PoolRecord(Record):
    """The pool as a whole."""

    format: int
    uuid: str  # 32 hex digits, the same as in the label
    created_ns: int
    capacity_bytes: int | None = None  # of the data file; None: what the host file system has
    next_id: int = 1
    clean: bool = True  # false while the pool is open for writing
    trash_keep_ns: int | None = None  # how long the trash keeps what is deleted; None: there is no trash
    limit_snapshots: int | None = None  # of each chain that has no limit of its own; None: no limit, as the next two
    limit_disks: int | None = None
    limit_provisioned_percent: int | None = None  # the sizes of all disks together, of the pool's capacity
    limit_hook: list[str] | None = None  # the words of what is run when a limit comes near; null: nothing
    clock_seen_ns: int | None = None  # the last reading of the host's clock, as rules.clock wants it
    clock_leapt_from_ns: int | None = None
    clock_leapt_to_ns: int | None = None
    sealed_blocks: int = 0
    journal: str | None = None  # the nonce, 16 hex digits, of the journal that may go on from this commit
    journal_bytes: int = 0  # that it has at least


@dataclass(slots=True, kw_only=True, eq=False)
class DiskRecord(Record):
    """A disk, or (branch null) the chain of a disk that was deleted."""

    id: int
    name: str
    size_bytes: int
    branch: BranchId | None
    created_ns: int
    modified_ns: int
    inode: int  # an id of its own for each life of the name: a disk made anew is another file
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mapped_blocks: int = 0  # what the head maps
    changed_ns: int = 0  # when anything of the file changed, its mode and name too; 0: as modified_ns


@dataclass(slots=True, kw_only=True, eq=False)
class SnapshotRecord(Record):
    """A snapshot: the point (branch, epoch) of a disk's history."""

    id: int
    disk: int
    name: str
    branch: BranchId
    epoch: Epoch
    size_bytes: int
    created_ns: int
    mode: int = 0o444
    uid: int = 0
    gid: int = 0
    kind: str = "user"  # or "rollback": what the disk was before its last rollback; or TEMPORARY, or POLICY
    consistency: str = "crash"  # or "frozen"
    description: str = ""
    referenced_blocks: int = 0  # what it maps
    written_blocks: int = 0  # owned by versions after the snapshot before it on its branch
    changed_ns: int = 0  # when it was renamed or described anew; 0: never
    policy: int | None = None  # the policy that took it, be it gone; None: somebody else did
    due_ns: int | None = None  # when the run that took it was due
    failed: bool = False  # its run says that it is not what it should be: it counts for no rule


@dataclass(slots=True, kw_only=True, eq=False)
class BranchRecord(Record):
    """A line of history. `parent` null: it began empty."""

    id: BranchId
    parent: BranchId | None
    fork: Epoch  # the epoch of the parent at which it begins; 0 without a parent
    epoch: Epoch  # the current epoch
    written_blocks: int = 0  # owned by versions after the last snapshot
    sealed: Epoch = Epoch(0)  # what versions up to this epoch own was looked at, and sealed where it was not


@dataclass(slots=True, kw_only=True, eq=False)
class RemovalRecord(Record):
    """A point that nothing names any more and whose blocks are not all freed yet."""

    id: int
    branch: BranchId
    epoch: Epoch  # EPOCH_MAX: the head


@dataclass(slots=True, kw_only=True, eq=False)
class GroupRecord(Record):
    """Snapshots of several disks that are of one point in time."""

    id: int
    name: str
    created_ns: int
    members: dict[str, int]  # the disk's name then -> snapshot id; one that is no snapshot's any more was deleted
    kind: str = "user"  # or "rollback": what the disks were before the last rollback of a group; or as a snapshot's
    description: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class LabelsRecord(Record):
    """What somebody called a disk or a snapshot beside its name."""

    id: int  # of the disk or the snapshot
    labels: dict[str, str]


@dataclass(slots=True, kw_only=True, eq=False)
class LockRecord(Record):
    """What keeps a snapshot from being deleted."""

    id: int  # of the snapshot
    hold: bool = False  # until somebody releases it
    until_ns: int | None = None  # and until then
    compliance: bool = False  # nobody can release it before
    reason: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class EventRecord(Record):
    """Something that happened."""

    id: int  # counts from 1, without a gap
    time_ns: int
    verb: str  # as of the command line, or `mount`, `unmount`
    disk: str | None = None
    snapshot: str | None = None
    group: str | None = None
    size_bytes: int | None = None  # of the disk or snapshot
    uid: int | None = None  # of who asked for it, with the process and its name; null: the daemon did it of itself
    pid: int | None = None
    command: str | None = None
    failed: bool = False
    text: str = ""  # a line for people: why it failed, or what there is to say beside the names


@dataclass(slots=True, kw_only=True, eq=False)
class TrashRecord(Record):
    """Something in the trash: a snapshot, or a disk with those of its snapshots that went with it."""

    id: int  # of a disk without a head, whose chain is all that the entry has
    name: str  # of the disk it was, or was of
    disk: int  # that one's id
    snapshot: str | None = None  # its name; None: the entry is a disk
    head: int | None = None  # the snapshot that is what the disk was
    deleted_ns: int
    created_ns: int  # of the disk, as the next four
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class LimitsRecord(Record):
    """What a disk and its chain may hold, and can count on."""

    id: int  # of the disk
    snapshots: int | None = None
    space_bytes: int | None = None
    reserve_bytes: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class PolicyRecord(Record):
    """A policy, and what is known of its runs. What cannot be read of it takes and deletes nothing (rules.policies)."""

    id: int
    rule: object  # as rules.policies.to_record gives it
    runs: object = None  # rules.runs.RunState
    outcome: object = None  # rules.runs.Outcome, of the last run that ended; null: none has
