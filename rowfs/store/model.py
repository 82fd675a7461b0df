"""What the engine holds in memory: pages, branches, disks, snapshots.

All of it belongs to one thread, the owner. The worker that commits sees only pages that are frozen.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from rowfs.base.format import EPOCH_MAX, BranchRecord, DiskRecord, RemovalRecord, SnapshotRecord
from rowfs.base.units import BLOCK_BYTES, PAGE_BLOCKS, BranchId, Epoch, PageIndex
from rowfs.persist.space import Claim
from rowfs.rules.limits import DiskLimits
from rowfs.rules.locks import UNLOCKED, Lock

EPOCH_NONE = Epoch(0)  # of a page that is not this branch's own: inherited, or holes throughout
FIRST_EPOCH = Epoch(1)  # of a branch
NO_ADDRESSES = bytes(PAGE_BLOCKS * 8)
# What a page says of a block that it owns: OWNED, it is written in place; INHERITED, others may hold it until it is
# durable that they do not; SHARED, others own it as well, or did when that was last looked at; SEALED, it has a sum.
OWNED, INHERITED, SHARED, SEALED = 1, 2, 3, 4
UNLIMITED = DiskLimits()
UNKNOWN_BLOCKS = 1 << 62  # how many were replaced is not stored: of what was there when the pool was opened
PAGE_MEMORY_BYTES = PAGE_BLOCKS * 9 + 400  # both arrays and the objects around them


VersionKey = tuple[BranchId, PageIndex, Epoch]  # names a page version


class State(IntEnum):
    """How a page in memory stands to the block map."""

    CLEAN = 0  # the same
    DIRTY = 1  # newer; the next commit takes it
    FROZEN = 2  # being committed: whoever changes it goes on with a copy


class Page:
    """A page version: 512 addresses and for each whether this version owns the block.

    `epoch` EPOCH_NONE says that it is what the branch inherits, not a version of its own; it is never changed then.
    """

    __slots__ = ("addresses", "branch", "epoch", "index", "owned", "state", "used")

    def __init__(
        self, branch: BranchId, index: PageIndex, epoch: Epoch, addresses: array[int], owned: bytearray
    ) -> None:
        self.branch = branch
        self.index = index
        self.epoch = epoch
        self.addresses = addresses
        self.owned = owned
        self.state = State.CLEAN
        self.used = True  # since the cache last looked

    def places(self) -> np.ndarray:
        """The addresses."""
        return np.frombuffer(self.addresses, np.int64)

    def owns(self) -> np.ndarray:
        """Which of the blocks there the version owns, as booleans."""
        owns: np.ndarray = np.frombuffer(self.owned, np.uint8) != 0
        return owns

    @classmethod
    def empty(cls, branch: BranchId, index: PageIndex) -> Page:
        """512 holes."""
        return cls(branch, index, EPOCH_NONE, array("q", NO_ADDRESSES), bytearray(PAGE_BLOCKS))

    def copy(self) -> Page:
        """The same version, to be changed while the original is being committed."""
        return Page(self.branch, self.index, self.epoch, self.addresses[:], self.owned[:])

    def successor(self, branch: BranchId, epoch: Epoch) -> Page:
        """The version that redirects writes: the same addresses, none of them owned."""
        return Page(branch, self.index, epoch, self.addresses[:], bytearray(PAGE_BLOCKS))


class Point:
    """A point in time of a branch and the pages read there. A head is a point that moves."""

    __slots__ = ("branch", "epoch", "pages")

    def __init__(self, branch: Branch, epoch: Epoch) -> None:
        self.branch = branch
        self.epoch = epoch
        self.pages: dict[PageIndex, Page] = {}


@dataclass(slots=True, kw_only=True, eq=False)
class Branch(BranchRecord):
    """A line of history, and what names its points.

    floor: the newest point that something names. A version after it is writable in place: only the head sees it. When
    the newest point goes, it is lowered by Versions.sink_floor alone, which sees to pages in memory.
    """

    origin: Branch | None = None  # the branch that `parent` is the id of
    has_head: bool = False
    watched: bool = False  # child branches alone name its beginning, or a point of it: versions there may be keepers
    points: list[Epoch] = field(default_factory=list)  # that snapshots hold, ascending; a removal may be on its way
    named: list[Epoch] = field(default_factory=list)  # of these, those of snapshots that are not deleted
    forks: list[tuple[Epoch, BranchId]] = field(default_factory=list)  # of child branches, ascending
    floor: Epoch = EPOCH_NONE
    pages: dict[PageIndex, Page] = field(default_factory=dict)  # what the head sees, as far as it is in memory
    claim: Claim = field(default_factory=Claim)
    carried_blocks: int = 0  # of written_blocks, what was written for snapshots that are deleted
    replaced_blocks: int = UNKNOWN_BLOCKS  # that it saw and did not own, and does not hold any more, since the last
    changes: int = 0  # counts changes of the head's map, so that figures know when they are old
    sealing: Epoch = EPOCH_NONE  # what `sealed` will be when what is being looked at was looked at

    @property
    def branch(self) -> Branch:
        """A branch is the point of its own head (see Point)."""
        return self

    def add_point(self, epoch: Epoch) -> None:
        """A snapshot names this point."""
        insort(self.points, epoch)
        insort(self.named, epoch)
        self.floor = max(self.floor, epoch)

    def add_fork(self, epoch: Epoch, child: BranchId) -> None:
        """A child branch begins here."""
        insort(self.forks, (epoch, child))
        self.floor = max(self.floor, epoch)

    def remove_point(self, epoch: Epoch) -> None:
        """No snapshot names this point any more, durably."""
        del self.points[bisect_left(self.points, epoch)]

    def unname(self, epoch: Epoch) -> None:
        """The snapshot of this point is deleted; the point stays until that is durable."""
        del self.named[bisect_left(self.named, epoch)]

    def has_point(self, epoch: Epoch) -> bool:
        """Whether a snapshot holds this point."""
        at = bisect_left(self.points, epoch)
        return at < len(self.points) and self.points[at] == epoch

    def remove_fork(self, epoch: Epoch, child: BranchId) -> None:
        """The child branch is gone."""
        self.forks.remove((epoch, child))

    def unseal_from(self, epoch: Epoch) -> bool:
        """Versions from `epoch` on may own blocks that have to be sealed yet; whether `sealed` said otherwise."""
        self.sealing = min(self.sealing, Epoch(epoch - 1))
        lowered = self.sealed >= epoch
        self.sealed = min(self.sealed, Epoch(epoch - 1))
        return lowered

    def newest_point(self) -> Epoch:
        """The newest point that a snapshot holds or a child branch begins at; EPOCH_NONE: none."""
        return max(self.points[-1] if self.points else EPOCH_NONE, self.forks[-1][0] if self.forks else EPOCH_NONE)

    def seen_between(self, first: Epoch, end: Epoch) -> bool:
        """Whether a snapshot or the head sees a version of epoch `first` that the version at `end` follows."""
        if end == EPOCH_MAX and self.has_head:
            return True
        at = bisect_left(self.points, first)
        return at < len(self.points) and self.points[at] < end

    def forks_between(self, first: Epoch, end: Epoch) -> list[tuple[Epoch, BranchId]]:
        """The child branches that begin at a point in [first, end)."""
        low = bisect_left(self.forks, (first, 0))
        return self.forks[low : bisect_left(self.forks, (end, 0), low)]

    def point_before(self, epoch: Epoch) -> Epoch:
        """The newest point before `epoch` that a snapshot holds; EPOCH_NONE: none."""
        at = bisect_left(self.points, epoch)
        return self.points[at - 1] if at else EPOCH_NONE

    def named_from(self, epoch: Epoch) -> Epoch | None:
        """The oldest point from `epoch` on that a snapshot names; None: none."""
        at = bisect_left(self.named, epoch)
        return self.named[at] if at < len(self.named) else None


@dataclass(slots=True, kw_only=True, eq=False)
class Disk(DiskRecord):
    """A disk: its head and its chain. `head` None: the disk is deleted and only its snapshots are left."""

    head: Branch | None = None
    chain: dict[str, Snapshot] = field(default_factory=dict)  # by name, oldest first
    handles: int = 0  # open file handles; a deleted disk lives on until they are closed
    writers: int = 0  # of these, those that may write: the kernel may hold what it has not told us of
    deleted: bool = False  # its name is gone
    labels: dict[str, str] = field(default_factory=dict)  # store.marks alone changes these two
    limits: DiskLimits = UNLIMITED

    def note_change(self, time_ns: int) -> None:
        """Something of the file changed. Programs (borg, restic) trust this time, so it never goes back."""
        self.changed_ns = max(self.changed_ns, time_ns)

    @property
    def mapped_bytes(self) -> int:
        """What the head maps."""
        return self.mapped_blocks * BLOCK_BYTES


@dataclass(slots=True, kw_only=True, eq=False)
class Snapshot(SnapshotRecord):
    """A snapshot and, while it is read, the pages it sees."""

    point: Point
    owner: Disk
    carried_blocks: int = 0  # of written_blocks, what was written for snapshots that are deleted
    replaced_blocks: int = UNKNOWN_BLOCKS  # of what the snapshot before it saw, at most
    handles: int = 0
    deleted: bool = False
    labels: dict[str, str] = field(default_factory=dict)  # store.marks alone changes these two
    lock: Lock = UNLOCKED
    touched_ns: int | None = None  # the mtime that touch(1) gave the file as it made it: the kernel shows that


def own_blocks(written: Snapshot | Branch) -> int:
    """What was written for a snapshot, or since the last, without what was for deleted ones before it."""
    return max(0, written.written_blocks - written.carried_blocks)


def address(thing: Disk | Snapshot) -> str:
    """What a disk or snapshot is called in messages: `vm1`, `vm1@before`."""
    return thing.name if isinstance(thing, Disk) else f"{thing.owner.name}@{thing.name}"


@dataclass(slots=True, kw_only=True, eq=False)
class Removal(RemovalRecord):
    """A removal on its way: it may begin when its record is durable and nothing reads the point any more."""

    named: bool = True  # the branch still holds the point
    durable: bool = False
    reader: Disk | Snapshot | None = None
    blocks: int = 0  # that the reclaimer has yet to free, at most; after a crash 0, for nobody knows

    @property
    def ready(self) -> bool:
        """Whether the point may be dropped and its blocks freed."""
        return self.durable and (self.reader is None or self.reader.handles == 0)
