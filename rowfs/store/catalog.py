"""The tables of names: disks, their chains, branches, removals; what of their records the next commit must store.

A disk that was deleted while snapshots of it stay is left as a disk without a head. Making a disk of that name anew
gives it the chain back. Names go at once; the points behind them go when their removal is done (store.reclaim).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rowfs.base.errors import CorruptionError, ExistsError, NotFoundError, no_snapshot
from rowfs.base.format import (
    BRANCHES,
    DISKS,
    ID_KEY,
    META,
    PENDING,
    PENDING_KEY,
    PENDING_REMOVAL,
    PENDING_REVISIT,
    POOL_KEY,
    SNAPSHOTS,
    PoolRecord,
)
from rowfs.base.journalcode import Entry
from rowfs.base.names import check_name
from rowfs.base.times import now_ns, stamp_ns
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.persist.blockmap import BlockMap, MapUpdate
from rowfs.store.accounts import Accounts
from rowfs.store.events import Events
from rowfs.store.grouptable import GroupTable
from rowfs.store.marks import Marks
from rowfs.store.model import EPOCH_NONE, UNKNOWN_BLOCKS, Branch, Disk, Point, Removal, Snapshot, VersionKey, own_blocks
from rowfs.store.policytable import PolicyTable
from rowfs.store.records import told
from rowfs.store.shown import ShownSnapshots
from rowfs.store.trashtable import TrashTable

Named = Disk | Snapshot | Branch | Removal

NOWHERE = Point(Branch(id=BranchId(0), parent=None, fork=EPOCH_NONE, epoch=EPOCH_NONE), EPOCH_NONE)  # until it is known


class Catalog:
    """Everything of a pool that has a record."""

    def __init__(self, blockmap: BlockMap, branches: dict[BranchId, Branch]) -> None:
        """Reads all records. Raises CorruptionError when they contradict each other."""
        stored = blockmap.get(META, POOL_KEY)
        if stored is None:
            raise CorruptionError("the block map has no pool record")
        self.pool = told(PoolRecord, stored)
        self.branches = branches
        self.disks: dict[str, Disk] = {}
        self.snapshots = ShownSnapshots()
        self.snapshot_at: dict[tuple[int, int], Snapshot] = {}  # by branch and epoch
        self.removals: dict[int, Removal] = {}
        self.owed_blocks = 0  # of all of these
        self.revisits: set[VersionKey] = set()
        self.groups = GroupTable()
        self.marks = Marks()
        self.events = Events(blockmap)
        self.trash = TrashTable()
        self.room_of: Callable[[Disk, Branch], None] = lambda disk, head: None  # see store.limits
        self.policies = PolicyTable()
        self.accounts = Accounts(blockmap)
        self._changed: set[Named] = set()
        self._gone: dict[tuple[str, bytes], None] = {}
        self._later: set[Named] = set()  # whose record changed in a way that nobody waits for
        self._pool_changed = False
        self._load(blockmap)

    def _load(self, blockmap: BlockMap) -> None:
        for key, value in blockmap.items(BRANCHES):
            branch = told(Branch, value)
            self._check_id(key, branch.id)
            self.branches[branch.id] = branch
        by_id: dict[int, Disk] = {}
        for key, value in blockmap.items(DISKS):
            disk = told(Disk, value)
            self._check_id(key, disk.id)
            by_id[disk.id] = disk
            self._load_disk(disk)
        for key, value in blockmap.items(SNAPSHOTS):  # ids ascend, so each chain comes oldest first
            self._load_snapshot(key, value, by_id)
        for disk in by_id.values():
            _complete(disk)
        for branch in self.branches.values():
            self._load_origin(branch)
        for branch in self.branches.values():
            self.rewatch(branch)
        for key, value in blockmap.items(PENDING):
            self._load_pending(key, value)
        shown_or_not = dict(self.snapshots)
        for holder in self.trash.load_all(blockmap, self.pool.next_id, by_id):
            del self.disks[holder.name]
            for snapshot in holder.chain.values():
                del self.snapshots[snapshot.id]
                snapshot.deleted = True
        self.groups.load_all(blockmap, self.pool.next_id, self.snapshots)
        self.policies.load(blockmap, self.pool.next_id)
        self.marks.load(blockmap, self.pool.next_id, self.disks.values(), shown_or_not)

    def _check_id(self, key: bytes, number: int) -> None:
        """Raises CorruptionError unless this is the key of a record that says that it has this id."""
        if key != ID_KEY.pack(number) or number >= self.pool.next_id:
            raise CorruptionError(f"the record under the key {key.hex()} cannot be the one with id {number}")

    def _load_disk(self, disk: Disk) -> None:
        if disk.name in self.disks:
            raise CorruptionError(f"there are two disks {disk.name}")
        self.disks[disk.name] = disk
        if disk.branch is not None:
            disk.head = self._branch(disk.branch)
            if disk.head.has_head:
                raise CorruptionError(f"the disk {disk.name} and another one have branch {disk.branch}")
            disk.head.has_head = True

    def _load_snapshot(self, key: bytes, value: bytes | memoryview, disks: dict[int, Disk]) -> None:
        snapshot = told(Snapshot, value, point=NOWHERE, owner=next(iter(disks.values()), None))
        self._check_id(key, snapshot.id)
        if snapshot.disk not in disks:
            raise CorruptionError(f"snapshot {snapshot.name} belongs to a disk that has no record")
        snapshot.owner = disks[snapshot.disk]
        branch = self._branch(snapshot.branch)
        if not 0 < snapshot.epoch < branch.epoch:
            raise CorruptionError(f"snapshot {snapshot.name} is of an epoch that branch {branch.id} never had")
        if snapshot.name in snapshot.owner.chain or (branch.id, snapshot.epoch) in self.snapshot_at:
            raise CorruptionError(f"there are two snapshots {snapshot.name}, or of the same point")
        snapshot.point = Point(branch, snapshot.epoch)
        self._register(snapshot)

    def _load_origin(self, branch: Branch) -> None:
        if branch.parent is None:
            return
        branch.origin = self._branch(branch.parent)
        if branch.parent >= branch.id or not 0 < branch.fork < branch.origin.epoch:  # ids ascend, so there is no circle
            raise CorruptionError(f"branch {branch.id} cannot begin at epoch {branch.fork} of branch {branch.parent}")
        branch.origin.add_fork(branch.fork, branch.id)

    def _load_pending(self, key: bytes, value: bytes | memoryview) -> None:
        if len(key) != PENDING_KEY.size:
            raise CorruptionError(f"what is pending has a key that is none: {key.hex()}")
        kind, first, page, epoch = PENDING_KEY.unpack(key)
        if kind == PENDING_REMOVAL:
            removal = told(Removal, value, named=False, durable=True)
            self._check_id(ID_KEY.pack(first), removal.id)
            self.removals[first] = removal
        elif kind == PENDING_REVISIT:
            self.revisits.add((BranchId(first), PageIndex(page), Epoch(epoch)))

    def _branch(self, number: int) -> Branch:
        branch = self.branches.get(BranchId(number))
        if branch is None:
            raise CorruptionError(f"a record names branch {number}, which has none itself")
        return branch

    def _register(self, snapshot: Snapshot) -> None:
        snapshot.owner.chain[snapshot.name] = snapshot
        self.snapshots[snapshot.id] = snapshot
        self.snapshot_at[snapshot.branch, snapshot.epoch] = snapshot
        snapshot.point.branch.add_point(snapshot.epoch)

    @staticmethod
    def rewatch(branch: Branch) -> None:
        """Set whether blocks that a branch's head lets go of may be free with that (see Branch.watched)."""
        origin = branch.origin
        branch.watched = (origin is not None and not origin.has_point(branch.fork)) or any(
            not branch.has_point(fork) for fork, _ in branch.forks
        )

    # Finding

    def disk(self, name: str) -> Disk:
        """The disk of that name. Raises NotFoundError."""
        disk = self.disks.get(name)
        if disk is None:
            raise NotFoundError(f"there is no disk {name}: rowfs list shows those there are")
        if disk.head is None:
            raise NotFoundError(f"the disk {name} is deleted, only its snapshots are left: clone one of them")
        return disk

    def chain(self, name: str) -> Disk:
        """The disk of that name, be it deleted with its snapshots left. Raises NotFoundError."""
        disk = self.disks.get(name)
        if disk is None:
            raise NotFoundError(f"there is no disk {name}: rowfs list shows those there are")
        return disk

    def snapshot(self, disk: Disk, name: str) -> Snapshot:
        """The snapshot of that name in the disk's chain. Raises NotFoundError."""
        snapshot = disk.chain.get(name)
        if snapshot is None:
            raise no_snapshot(disk.name, name)
        return snapshot

    def live(self) -> Iterator[Disk]:
        """The disks that are not deleted."""
        return (disk for disk in self.disks.values() if disk.head is not None)

    def check_free(self, name: str) -> None:
        """Raises UsageError for a name that no disk may have, ExistsError for one that a disk has."""
        check_name(name, "disk name")
        held = self.disks.get(name)
        if (held is not None and held.head is not None) or self.trash.has_name(name):
            raise ExistsError(f"there is a disk {name} already")

    # Changing. Each of these notes the record for the next commit.

    def new_id(self) -> int:
        """An id that nothing had before."""
        number = self.pool.next_id
        assert number < 1 << 32, "ids are 32 bits in keys"
        self.pool.next_id += 1
        self._pool_changed = True
        return number

    def touch(self, thing: Named) -> None:
        """The record of `thing` changed."""
        self._changed.add(thing)

    def touch_time(self, disk: Disk) -> None:
        """A disk was changed at another time: the next commit that there is anyway, or one of its own in idle time.

        Linux tells a new time before each fsync of a file that was written; databases need none of it durable.
        """
        self._later.add(disk)

    def touch_later(self, thing: Named) -> None:
        """The record of `thing` changed in a way that nobody waits for: as `touch_time`."""
        self._later.add(thing)

    def touch_pool(self) -> None:
        """The pool's own record changed."""
        self._pool_changed = True

    def new_branch(self, origin: Branch | None = None, fork: Epoch = EPOCH_NONE) -> Branch:
        """A branch with a head, that begins empty or at a point of another."""
        number = BranchId(self.new_id())
        branch = Branch(
            id=number,
            parent=origin.id if origin else None,
            fork=fork,
            epoch=Epoch(1),
            origin=origin,
            has_head=True,
            replaced_blocks=0,
        )
        if origin is not None:
            origin.add_fork(fork, number)
        self.rewatch(branch)
        self.branches[number] = branch
        self.touch(branch)
        return branch

    def new_disk(
        self, name: str, head: Branch, size_bytes: int, mapped_blocks: int, owner: tuple[int, int, int]
    ) -> Disk:
        """A disk of that name, or a new life of a deleted one; `owner` is (mode, uid, gid)."""
        now = now_ns()
        disk = self.disks.get(name)
        number = self.new_id()
        if disk is None:
            disk = Disk(id=number, name=name, size_bytes=0, branch=None, created_ns=now, modified_ns=now, inode=number)
        assert disk.head is None, "a disk is made twice"
        disk.inode, disk.created_ns, disk.modified_ns, disk.changed_ns = number, now, now, stamp_ns()
        disk.mode, disk.uid, disk.gid = owner
        disk.size_bytes = size_bytes
        self.disks[name] = disk
        self.set_head(disk, head, mapped_blocks)
        return disk

    def set_head(self, disk: Disk, head: Branch, mapped_blocks: int) -> None:
        """From now on the disk is what `head` holds."""
        disk.head, disk.branch, disk.mapped_blocks = head, head.id, mapped_blocks
        self.room_of(disk, head)
        self.touch(disk)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """A snapshot of its branch's current epoch; the branch goes on in the next."""
        branch = snapshot.point.branch
        assert snapshot.epoch == branch.epoch, "a snapshot is of the present"
        self._register(snapshot)
        self.begin_epoch(branch)
        branch.written_blocks = 0
        snapshot.carried_blocks, branch.carried_blocks = branch.carried_blocks, 0
        snapshot.replaced_blocks, branch.replaced_blocks = branch.replaced_blocks, 0
        self.touch(snapshot)

    def begin_epoch(self, branch: Branch) -> None:
        """What a branch holds now is a point; its head goes on in the next epoch."""
        branch.epoch = Epoch(branch.epoch + 1)
        self.rewatch(branch)
        self.touch(branch)

    def drop_disk(self, disk: Disk, keep_chain: bool) -> Disk | None:
        """Forget a disk's name. With `keep_chain` and snapshots, the disk without a head is left, and returned."""
        disk.deleted = True
        self._changed.discard(disk)
        self._later.discard(disk)
        self.marks.forget(disk.id)
        if not (keep_chain and disk.chain):
            self.accounts.end(disk.id, disk.name, disk.labels)
        del self.disks[disk.name]
        if not (keep_chain and disk.chain):
            self._gone[DISKS, ID_KEY.pack(disk.id)] = None
            return None
        left = Disk(
            id=disk.id,
            name=disk.name,
            size_bytes=0,
            branch=None,
            created_ns=disk.created_ns,
            modified_ns=disk.modified_ns,
            changed_ns=max(disk.changed_ns, stamp_ns()),
            inode=disk.inode,
            mode=disk.mode,
            uid=disk.uid,
            gid=disk.gid,
            chain=disk.chain,
        )
        for snapshot in left.chain.values():
            snapshot.owner = left
        disk.chain = {}
        self.disks[left.name] = left
        self.touch(left)
        return left

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a snapshot's name. What was written for it counts for the next one; its blocks go with its removal."""
        owner, branch = snapshot.owner, snapshot.point.branch
        snapshot.deleted = True
        del owner.chain[snapshot.name]
        self.snapshots.remove(snapshot)  # in the trash it is not there
        self.groups.lose(snapshot.id)
        self.marks.forget(snapshot.id)
        del self.snapshot_at[snapshot.branch, snapshot.epoch]
        branch.unname(snapshot.epoch)
        self.count_written(branch, snapshot.epoch, snapshot.written_blocks, carried=True)
        self._behind(branch, snapshot.epoch).replaced_blocks += snapshot.replaced_blocks
        self._changed.discard(snapshot)
        self._gone[SNAPSHOTS, ID_KEY.pack(snapshot.id)] = None
        self.drop_if_empty(owner)

    def drop_if_empty(self, owner: Disk) -> None:
        """Forget a deleted disk of which no snapshot is left."""
        if owner.head is None and not owner.chain and owner.name in self.disks and not owner.deleted:
            self.drop_disk(owner, keep_chain=False)

    def new_chain(self, name: str, created_ns: int, owner: tuple[int, int, int]) -> Disk:
        """A deleted disk, whose chain is still empty; `owner` is (mode, uid, gid)."""
        number = self.new_id()
        disk = Disk(
            id=number,
            name=name,
            size_bytes=0,
            branch=None,
            created_ns=created_ns,
            modified_ns=created_ns,
            changed_ns=stamp_ns(),
            inode=number,
        )
        disk.mode, disk.uid, disk.gid = owner
        self.disks[name] = disk
        self.touch(disk)
        return disk

    def hide(self, snapshot: Snapshot, holder: Disk) -> None:
        """Move a snapshot into the chain of a disk that nothing shows."""
        del snapshot.owner.chain[snapshot.name]
        del self.snapshots[snapshot.id]
        snapshot.deleted = True
        self.groups.lose(snapshot.id)
        self._put_into(snapshot, holder, snapshot.name)

    def show(self, snapshot: Snapshot, owner: Disk, name: str) -> None:
        """Move it back into a chain, at the place that its age gives it."""
        self._put_into(snapshot, owner, name)
        owner.chain = dict(sorted(owner.chain.items(), key=lambda item: item[1].id))
        snapshot.deleted = False
        self.snapshots[snapshot.id] = snapshot
        self.groups.regain(snapshot.id)

    def _put_into(self, snapshot: Snapshot, owner: Disk, name: str) -> None:
        snapshot.owner, snapshot.disk, snapshot.name = owner, owner.id, name
        owner.chain[name] = snapshot
        self.touch(snapshot)

    def drop_holder(self, holder: Disk) -> None:
        """Forget a disk that nothing shows."""
        self._changed.discard(holder)
        self._gone[DISKS, ID_KEY.pack(holder.id)] = None

    def count_written(self, branch: Branch, epoch: Epoch, blocks: int, carried: bool = False) -> None:
        """Add to what was written up to the first snapshot from `epoch` on, or else since the last.

        `carried`: these blocks are of a deleted point.
        """
        target = self._behind(branch, epoch)
        target.written_blocks += blocks
        if carried:
            target.carried_blocks = max(0, target.carried_blocks + blocks)
        self.touch(target)

    def _behind(self, branch: Branch, epoch: Epoch) -> Snapshot | Branch:
        """The first snapshot from `epoch` on, or else the branch."""
        named = branch.named_from(epoch)
        return self.snapshot_at[branch.id, named] if named is not None else branch

    def freed_at_most(self, snapshot: Snapshot) -> int:
        """How many blocks come back with a snapshot, at most: the rest is held by the next one, or the head."""
        branch = snapshot.point.branch
        behind = self._behind(branch, Epoch(snapshot.epoch + 1))
        if behind.replaced_blocks >= UNKNOWN_BLOCKS or (behind is branch and not branch.has_head):
            return own_blocks(snapshot)
        return min(snapshot.written_blocks, behind.replaced_blocks)

    def drop_branch(self, branch: Branch) -> None:
        """Forget a branch that has no versions left."""
        del self.branches[branch.id]
        self._changed.discard(branch)
        self._later.discard(branch)
        self._gone[BRANCHES, ID_KEY.pack(branch.id)] = None

    def add_removal(self, removal: Removal) -> None:
        """A point that is to go."""
        self.removals[removal.id] = removal
        self.owed_blocks += removal.blocks
        self.touch(removal)

    def paid(self, removal: Removal, blocks: int) -> None:
        """The reclaimer has freed so many blocks of a removal, or of what lies below it."""
        blocks = min(blocks, removal.blocks)
        removal.blocks -= blocks
        self.owed_blocks -= blocks

    def drop_removal(self, removal: Removal) -> None:
        """The point is gone and what it alone held is freed."""
        del self.removals[removal.id]
        self.owed_blocks -= removal.blocks
        self._changed.discard(removal)
        self._gone[PENDING, PENDING_KEY.pack(PENDING_REMOVAL, removal.id, 0, 0)] = None

    def rename_disk(self, disk: Disk, name: str) -> None:
        """Give a disk a name that no disk has, or whose disk is deleted: then it takes that one's chain over."""
        left = self.disks.pop(name, None)
        del self.disks[disk.name]
        if left is not None:
            assert left.head is None and not disk.chain, "a chain would be lost"
            self._gone[DISKS, ID_KEY.pack(disk.id)] = None
            self._changed.discard(left)
            self._later.discard(left)
            old_id, disk.id, disk.chain = disk.id, left.id, left.chain
            self.marks.renumbered(disk, old_id)
            self.accounts.end(old_id, name, disk.labels)
            for snapshot in disk.chain.values():
                snapshot.owner = disk
        disk.name = name
        self.disks[name] = disk
        self.touch(disk)

    def rename_snapshot(self, snapshot: Snapshot, name: str) -> None:
        """Give a snapshot a name that is free in its chain; its place in the chain stays."""
        owner = snapshot.owner
        owner.chain = {name if other is snapshot else other.name: other for other in owner.chain.values()}
        snapshot.name = name
        self.touch(snapshot)

    # Committing

    @property
    def unsaved(self) -> bool:
        """Whether a commit would change records, and not only times."""
        return bool(
            self._changed
            or self._gone
            or self._pool_changed
            or self.groups.unsaved
            or self.marks.unsaved
            or self.trash.unsaved
            or self.policies.unsaved
        )

    @property
    def unsaved_times(self) -> bool:
        """Whether a commit would change what nobody waits for: times, samples, or events that changed nothing."""
        return bool(self._later) or self.events.unsaved or self.accounts.unsaved

    def freeze(self, update: MapUpdate) -> None:
        """Put what changed since the last freeze into `update`."""
        for thing in self._changed:
            if isinstance(thing, Disk) and self.disks.get(thing.name) is thing:
                self.accounts.see(thing)
        for (table, key), _ in self._gone.items():
            update.put(table, key, None)
        for table, key, value in self.entries(self._changed | self._later):
            update.put(table, key, value)
        if self._pool_changed:
            update.put(META, POOL_KEY, self.pool.pack())
        self.groups.freeze(update)
        self.marks.freeze(update)
        self.events.freeze(update)
        self.trash.freeze(update)
        self.policies.freeze(update)
        self.accounts.freeze(update)
        self._changed, self._later, self._gone, self._pool_changed = set(), set(), {}, False

    def entries(self, things: Iterable[Named]) -> Iterator[Entry]:
        """The records of these as they are now, but for what has none any more."""
        for thing in things:
            match thing:
                case Disk():
                    if not thing.deleted:
                        yield DISKS, ID_KEY.pack(thing.id), thing.pack()
                case Snapshot():
                    yield SNAPSHOTS, ID_KEY.pack(thing.id), thing.pack()
                case Branch() if thing.id in self.branches:
                    yield BRANCHES, ID_KEY.pack(thing.id), thing.pack()
                case Removal():
                    yield PENDING, PENDING_KEY.pack(PENDING_REMOVAL, thing.id, 0, 0), thing.pack()


def _complete(disk: Disk) -> None:
    """What rowfs 0.1 did not store of a disk: when it changed; of a deleted one, who may read its snapshots."""
    if disk.changed_ns:
        return
    disk.changed_ns = disk.modified_ns
    if disk.head is None and disk.chain:
        newest = list(disk.chain.values())[-1]
        disk.mode, disk.uid, disk.gid = newest.mode, newest.uid, newest.gid
