"""The pool: opens the files of a directory and offers everything that can be done with disks and snapshots.

One thread, the owner, calls these methods. What they change is in memory until a commit; `commit` makes it durable, and
whoever reports success to a user waits for that. The mount runs commits in a worker thread (store.commit says how).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from errno import EROFS

import numpy as np

from rowfs.base import bitmap, sharecode, sumcode
from rowfs.base.errors import (
    CorruptionError,
    ExistsError,
    LockedError,
    NotFoundError,
    PoolError,
    ReadOnlyError,
    UsageError,
)
from rowfs.base.format import (
    CHUNK_KEY,
    DATA_FILE,
    EPOCH_MAX,
    FORMAT_PLAIN,
    JOURNAL_FILE,
    LOCK_FILE,
    LOG_FILE,
    MAP_DIR,
    META,
    POLICY,
    POOL_KEY,
    REGION_KEY,
    SHARES,
    SPACE,
    STRETCH_KEY,
    SUMS,
    TEMPORARY,
    TRASHED,
    PoolRecord,
)
from rowfs.base.names import (
    BEFORE_ROLLBACK,
    check_description,
    check_name,
    check_new_snapshot_name,
    default_snapshot_name,
)
from rowfs.base.sumcode import STRETCH_BLOCKS
from rowfs.base.times import now_ns, stamp_ns
from rowfs.base.units import BLOCK_BYTES, CAPACITY_BYTES_MAX, MIB, Epoch, check_disk_size, format_size
from rowfs.persist.blockmap import MAP_FILE, BlockMap, MapUpdate
from rowfs.persist.datafile import DataFile
from rowfs.persist.hostfs import Lock, disable_copy_on_write, sync_directory
from rowfs.persist.journal import Journal
from rowfs.persist.mapread import Reader
from rowfs.persist.pooldir import PoolDirectory
from rowfs.persist.shares import Shares, shared_regions
from rowfs.persist.space import Space, used_counts
from rowfs.rules.locks import UNLOCKED, check_deletable
from rowfs.rules.runs import Start
from rowfs.seal.sums import Sums
from rowfs.store.catalog import Catalog
from rowfs.store.commit import Commits
from rowfs.store.damage import Damage
from rowfs.store.diskio import DiskIO, point_of, readable
from rowfs.store.figures import Figures
from rowfs.store.groups import Groups
from rowfs.store.holdings import Holdings
from rowfs.store.limits import Limits
from rowfs.store.marking import Marking
from rowfs.store.model import Branch, Disk, Point, Removal, Snapshot, address, own_blocks
from rowfs.store.policies import PolicyBook
from rowfs.store.punching import Puncher
from rowfs.store.reclaim import Reclaimer
from rowfs.store.replay import open_map
from rowfs.store.sealing import Sealer
from rowfs.store.sightings import Sighting, search
from rowfs.store.trash import Trash
from rowfs.store.trim import Trim
from rowfs.store.versions import Versions

CACHE_BYTES = 64 * MIB
CAPACITY_BYTES_MIN = MIB
PUNCHING_S = 1.0  # that closing a pool takes longer for the host to have back what is free; the rest is for next time
Owner = tuple[int, int, int]  # mode, uid, gid
OWNER: Owner = (0o644, 0, 0)
_KEPT = re.compile(re.escape(BEFORE_ROLLBACK) + r"(-\d+)?")


def init_pool(path: str, capacity_bytes: int | None = None, other_owner: bool = False) -> None:
    """Make a pool in the directory `path`, which is created, or empty. On failure nothing is left behind.

    With `other_owner` the directory may belong to another user. Raises UsageError for a capacity that no pool has,
    PoolError when the directory holds something or is not writable, ForeignError.
    """
    if capacity_bytes is not None and capacity_bytes < CAPACITY_BYTES_MIN:
        raise UsageError("a pool needs a capacity of at least 1M")
    if capacity_bytes is not None and capacity_bytes > CAPACITY_BYTES_MAX:
        raise UsageError(
            f"a pool has a capacity of at most {format_size(CAPACITY_BYTES_MAX)}: leave it out for no limit"
        )
    made = not os.path.lexists(path)
    if not made and not os.path.isdir(path):
        raise PoolError(f"{path} is not a directory: give a new or an empty one")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise PoolError(f"cannot make a pool in {path}: {error.strerror}") from None
    with contextlib.closing(PoolDirectory(path, other_owner)) as directory, directory.naming():
        try:
            if os.listdir(directory.place):
                what = "is a pool already" if is_pool(path) else "is not empty: give a new or an empty directory"
                raise PoolError(f"{path} {what}")
        except OSError as error:
            raise PoolError(f"cannot make a pool in {path}: {error.strerror}") from None
        try:
            _fill_pool(directory.place, capacity_bytes)
        except BaseException:
            for name in (MAP_DIR, DATA_FILE):
                target = os.path.join(directory.place, name)
                shutil.rmtree(target) if os.path.isdir(target) else _unlink(target)
            if made:
                os.rmdir(path)
            raise


def _fill_pool(path: str, capacity_bytes: int | None) -> None:
    disable_copy_on_write(path)
    number = uuid.uuid4()
    record = PoolRecord(format=FORMAT_PLAIN, uuid=number.hex, created_ns=now_ns(), capacity_bytes=capacity_bytes)
    label_bits = bytearray(bitmap.CHUNK_BYTES)
    bitmap.set_range(label_bits, 0, 1)
    key = CHUNK_KEY.pack(0)
    first = MapUpdate()
    first.put(META, POOL_KEY, record.pack())
    first.put(SPACE, key, bitmap.encode(key, label_bits))
    try:
        os.mkdir(os.path.join(path, MAP_DIR), 0o700)
        BlockMap.create(os.path.join(path, MAP_DIR), first)
        # The data file last: without it the directory is no pool.
        DataFile.create(os.path.join(path, DATA_FILE), number.bytes)
        for directory in (os.path.join(path, MAP_DIR), path, f"{path}/.."):
            sync_directory(directory)
    except OSError as error:
        raise PoolError(f"cannot make a pool in {path}: {error.strerror}") from None


def is_pool(path: str) -> bool:
    """Whether `path` looks like a pool."""
    return os.path.isfile(os.path.join(path, DATA_FILE)) and os.path.isdir(os.path.join(path, MAP_DIR))


def no_pool(path: str, advice: str = "") -> PoolError:
    """Why `path` is not taken for a pool: nothing of one is there, or nobody lets us look."""
    try:
        os.stat(os.path.join(path, MAP_DIR))
    except PermissionError:
        return PoolError(f"{path} may not be looked into: Permission denied: only its owner and root may")
    except OSError:
        pass
    return PoolError(f"{path} is not a rowfs pool{advice}")


def opened_directory(path: str, other_owner: bool = False) -> PoolDirectory:
    """The directory of a pool, of which all files are of whom they may be. Raises PoolError, ForeignError."""
    directory = PoolDirectory(path, other_owner)
    try:
        directory.check(LOCK_FILE, JOURNAL_FILE, DATA_FILE)
        directory.check_directory(MAP_DIR, MAP_FILE)
    except BaseException:
        directory.close()
        raise
    return directory


def open_log(path: str, flags: int, mode: int, other_owner: bool = False) -> int:
    """A descriptor of the log of the pool in `path`. Raises PoolError, ForeignError, OSError."""
    with contextlib.closing(PoolDirectory(path, other_owner)) as directory:
        return directory.open(LOG_FILE, flags, mode)


def _held(place: str, path: str, read_only: bool) -> Lock:
    try:
        return Lock(f"{place}/{LOCK_FILE}", f"the pool {path}", read_only)
    except OSError as error:
        if read_only or error.errno != EROFS:
            raise
        why = f"{path} is on a host that is read-only: mount it with -o ro, which writes nothing"
        raise ReadOnlyError(why) from None


class Pool:
    """An open pool."""

    def __init__(
        self,
        path: str,
        read_only: bool = False,
        cache_bytes: int = CACHE_BYTES,
        open_data: Callable[[str, bool], DataFile] = DataFile,
        other_owner: bool = False,
        recovery: bool = True,
    ) -> None:
        """Open the pool in `path` and hold it until `close`. `open_data` is where tests put a data file that fails.

        With `other_owner` it may belong to another user. Without `recovery`, which only a pool to be read may do
        without, it is as its last commit left it, whatever the journal holds. ForeignError for what is somebody else's.
        Raises PoolError (no pool, a newer format), BusyError (someone else has it open), CorruptionError.
        """
        if not is_pool(path):
            raise no_pool(path, f": make one with rowfs init {path}")
        self.path = path
        self.read_only = read_only
        with contextlib.ExitStack() as stack:
            self.directory = opened_directory(path, other_owner)
            stack.callback(self.directory.close)
            stack.enter_context(self.directory.naming())
            place = self.directory.place
            self._lock = _held(place, path, read_only)
            stack.callback(self._lock.close)
            self._journal = Journal(f"{place}/{JOURNAL_FILE}", read_only)
            stack.callback(self._journal.close)
            try:
                self._map, damage = open_map(
                    f"{place}/{MAP_DIR}",
                    self._journal,
                    read_only,
                    lambda: open_data(f"{place}/{DATA_FILE}", False),
                    recovery,
                )
                stack.callback(self._map.close)
                self.read_only = read_only = read_only or damage is not None
                self.data = open_data(f"{place}/{DATA_FILE}", read_only)
                stack.callback(self.data.close)
                self._open_engine(cache_bytes)
                if damage is not None:
                    self._tell_of_journal(damage)
            except CorruptionError as error:
                raise CorruptionError(f"the pool is damaged ({error}): rowfs check {path} tells more") from None
            self._resources = stack.pop_all()

    def _tell_of_journal(self, damage: str) -> None:
        self.versions.damaged(
            f"the journal: {damage}. What was synced after the last commit is not shown; "
            f"rowfs check --repair brings back what is before the damage"
        )

    def _open_engine(self, cache_bytes: int) -> None:
        shares = Shares(self._load_shares, shared_regions(key for key, _ in self._map.items(SHARES)))
        sums = self._sums(cache_bytes)
        self.versions = Versions(self._map, shares, sums, cache_bytes)
        self.catalog = Catalog(self._map, self.versions.branches)
        sums.blocks = self.catalog.pool.sealed_blocks
        if self.data.uuid.hex() != self.catalog.pool.uuid:
            raise PoolError("the data file and the block map are of different pools")
        capacity = self.catalog.pool.capacity_bytes
        self.space = Space(
            self._load_bitmap,
            used_counts(self._map.items(SPACE)),
            None if capacity is None else capacity // BLOCK_BYTES,
            self.data.host_free_bytes,
            shares,
            lambda: self.data.keeps_freed,
            self.data.blocks_max(),
            self.data.size_bytes() // BLOCK_BYTES,
        )
        self.puncher = Puncher(self.data, self.space)
        self.damage = Damage(self.versions, self.catalog.events)
        self.io = DiskIO(self.data, self.space, self.versions, sums, self.damage)
        self.space.forget, self.space.is_sealed = self._forget_sums, sums.has_any
        self.sealer = Sealer(self.versions, self.catalog, self.io)
        self.io.revisits = set(self.catalog.revisits)
        self.trim = Trim(self.io)
        self.reclaimer = Reclaimer(self.versions, self.space, self.catalog, self.io)
        self.groups = Groups(self)
        self.marking = Marking(self)
        self.trash = Trash(self)
        self.limits = Limits(self)
        self.policies = PolicyBook(self)
        self.figures = Figures(self.versions, self.catalog, shares, lambda: self.io.revisits)
        self.holdings = Holdings(self)
        self.commits = Commits(self.data, self._map, self._journal, self.space, self.versions, self.catalog, self.io)
        self._map.on_damage(self._map_damaged)
        self.data.tell = self.versions.damaged
        self.was_clean = self.catalog.pool.clean
        self._check_length()
        if not self.read_only and not self.versions.damage:
            self.catalog.pool.clean = False
            self.catalog.pool.journal, self.catalog.pool.journal_bytes = None, 0  # it is empty now
            self.catalog.touch_pool()
            self.reclaimer.drop_unnamed()
            for snapshot in list(self.catalog.snapshots.values()):
                if snapshot.kind == TEMPORARY:  # the daemon that should have deleted it was killed
                    self.delete_snapshot(snapshot)

    def _check_length(self) -> None:
        # What was cut off would read as other data once something is written behind it.
        used_bytes, size_bytes = self.space.end_of_used() * BLOCK_BYTES, self.data.size_bytes()
        if size_bytes < used_bytes:
            self.versions.damaged(f"the data file ends at byte {size_bytes}, and blocks up to {used_bytes} are in use")

    def _load_bitmap(self, chunk: int) -> bytearray | None:
        key = CHUNK_KEY.pack(chunk)
        stored = self._map.get(SPACE, key)
        try:
            return None if stored is None else bitmap.decode(key, stored)
        except CorruptionError as error:
            raise self.versions.damaged(f"the allocation bitmap of chunk {chunk}: {error}") from None

    def _load_shares(self, region: int) -> np.ndarray | None:
        key = REGION_KEY.pack(region)
        stored = self._map.get(SHARES, key)
        try:
            return None if stored is None else sharecode.decode(key, stored)
        except CorruptionError as error:
            raise self.versions.damaged(f"the shares of region {region}: {error}") from None

    def _sums(self, cache_bytes: int) -> Sums:
        last = self._map.last_key(SUMS)
        there = self.data.size_bytes() // BLOCK_BYTES // STRETCH_BLOCKS + 1
        stretches = 0 if last is None else min(int.from_bytes(last) + 1, there)  # what is past the end is never read
        return Sums(self._load_sums, stretches, cache_bytes // 4)

    def _load_sums(self, stretch: int) -> np.ndarray | None:
        key = STRETCH_KEY.pack(stretch)
        stored = self._map.get(SUMS, key)
        try:
            return None if stored is None else sumcode.decode(key, stored)
        except CorruptionError as error:  # what they were of can be read all the same, and nothing is written any more
            self.versions.damaged(f"the sums of stretch {stretch}: {error}")
            return None

    def _forget_sums(self, addresses: np.ndarray) -> None:
        if self.io.sums.forget(addresses):
            self.damage.forget(addresses)

    def close(self) -> None:
        """Commit and let go of the pool. It is let go of even when the commit fails; then its error is raised."""
        try:
            if not self.read_only and not self.commits.failed:
                self.commits.run()
                self.puncher.run(PUNCHING_S)
                self.catalog.pool.clean = True
                self.catalog.touch_pool()
                self.commits.run()
        finally:
            self._resources.close()

    def say_mounted(self, mountpoint: str = "", device: str = "") -> None:
        """Have whoever wants the pool hear on which mount it is shown; without arguments: on none any more."""
        self._lock.say(mountpoint, device)

    def keep_reserve(self) -> None:
        """As BlockMap.keep_reserve, for as long as the pool is open: a full host can still commit and delete."""
        if not self.read_only:
            self._map.keep_reserve()

    def release_reserve(self) -> None:
        """As BlockMap.release_reserve."""
        if not self.read_only:
            self._map.release_reserve()

    def abandon(self) -> None:
        """Let go of the pool without a commit, as a crash would."""
        self._resources.close()

    def check_writable(self) -> None:
        """Raises ReadOnlyError when nothing can be changed."""
        if self.read_only_reason:
            raise ReadOnlyError(f"the pool is read-only since {self.read_only_reason}")
        if self.read_only:
            raise ReadOnlyError("the pool is mounted read-only")

    @property
    def read_only_reason(self) -> str | None:
        """What made a pool that was opened for writing read-only; None: nothing."""
        if self.commits.failed:
            return f"a commit failed: {self.commits.failed}"
        return None if self.versions.damage is None else f"it is damaged: {self.versions.damage}"

    # Bytes

    def read(self, target: Disk | Snapshot, offset: int, length: int) -> bytes | bytearray:
        """As DiskIO.read."""
        return self.io.read(target, offset, length)

    def write(self, disk: Disk, offset: int, data: bytes | memoryview) -> None:
        """As DiskIO.write. Raises ReadOnlyError besides."""
        if self.read_only or self.commits.failed or self.versions.damage:
            self.check_writable()
        self.io.write(disk, offset, data)

    def punch(self, disk: Disk, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        self.check_writable()
        for _ in self.io.punch(disk, offset, length):
            pass

    def share(self, source: Disk | Snapshot, at: int, disk: Disk, to: int, length: int) -> Iterator[int]:
        """As copy_file_range(2), without copying; pauses with how many bytes are done, fewer in the end than there are.

        A whole file into an empty disk is a clone, anything else as DiskIO.share. Nothing to do: no pause.
        """
        self.check_writable()
        length = readable(source, at, length)
        whole = at == to == 0 and length == source.size_bytes >= disk.size_bytes
        if whole and disk is not source and not disk.mapped_blocks:
            if length:
                self.become(disk, source)
                yield length
            return
        yield from self.io.share(source, at, disk, to, length)

    def resize(self, disk: Disk, size_bytes: int) -> None:
        """Set a disk's size. What is cut off is gone from the disk, not from its snapshots; what is added is zeros."""
        self.check_writable()
        check_disk_size(size_bytes)
        if size_bytes == 0 and disk.mapped_blocks:
            self._replace_head(disk, self.catalog.new_branch(), 0)
        if size_bytes < disk.size_bytes:
            self.punch(disk, size_bytes, disk.size_bytes - size_bytes)
        self.set_size(disk, size_bytes)

    def set_size(self, disk: Disk, size_bytes: int) -> None:
        """Set a disk's size when nothing is mapped past it (punch first)."""
        self.check_writable()
        if size_bytes > disk.size_bytes:
            self.limits.check_provisioned(size_bytes - disk.size_bytes)
            self.io.clear_tail(disk, check_disk_size(size_bytes))
        disk.size_bytes = check_disk_size(size_bytes)
        disk.modified_ns = now_ns()
        disk.note_change(stamp_ns())
        self.catalog.touch(disk)

    # Disks

    def create_disk(self, name: str, size_bytes: int, owner: Owner = OWNER) -> Disk:
        """A disk of zeros. Raises UsageError, ExistsError."""
        self.check_writable()
        self.catalog.check_free(name)
        self.limits.check_disks(1, check_disk_size(size_bytes))
        disk = self.catalog.new_disk(name, self.catalog.new_branch(), size_bytes, 0, owner)
        self.catalog.events.of_disk("create", disk)
        return disk

    def delete_disk(self, disk: Disk, keep_snapshots: bool = True) -> None:
        """Forget a disk. Open handles on it go on until they are closed. Its snapshots stay, or go with it.

        Raises LockedError when one that would go has to stay; the disk stays, too.
        """
        self.check_writable()
        assert disk.head is not None, "a disk is deleted twice"
        if not keep_snapshots:
            self.check_deletable(*disk.chain.values(), what=f"the disk {disk.name}")
            for snapshot in list(disk.chain.values()):
                self.delete_snapshot(snapshot)
        self.catalog.events.of_disk("delete", disk)
        self.drop_disk(disk, keep_snapshots)

    def drop_disk(self, disk: Disk, keep_snapshots: bool = True) -> None:
        """Forget a disk's name and its head, whatever of its chain is left."""
        assert disk.head is not None, "a disk is deleted twice"
        self.catalog.drop_disk(disk, keep_snapshots)
        self.remove_point(disk.head, EPOCH_MAX, disk, own_blocks(disk.head))

    def rename_disk(self, disk: Disk, name: str, replace: bool = False) -> None:
        """Give a disk another name. With `replace` it takes the place of a disk of that name, as rename(2) does.

        A chain that the name has already goes on under the disk, unless it has one of its own: then ExistsError.
        """
        self.check_writable()
        check_name(name, "disk name")
        other = self.catalog.disks.get(name)
        if other is disk:
            return
        if self.catalog.trash.has_name(name):
            raise ExistsError(f"there is a disk {name} already, in the trash")
        if other is not None:
            if other.head is not None and not replace:
                raise ExistsError(f"there is a disk {name} already")
            if other.chain and disk.chain:
                raise ExistsError(f"both {disk.name} and {name} have snapshots: delete those of one of them first")
            if other.head is not None:
                self.trash.delete_disk(other)
        self.catalog.events.of_disk("rename", disk, f"to {name}")
        disk.note_change(stamp_ns())
        self.catalog.rename_disk(disk, name)

    # Snapshots

    def snapshot(
        self,
        disk: Disk,
        name: str | None = None,
        *,
        description: str = "",
        consistency: str = "crash",
        kind: str = "user",
        created_ns: int | None = None,
        start: Start | None = None,
    ) -> Snapshot:
        """A snapshot of the disk as it is now; `name` None: disk, date and time. Raises UsageError, ExistsError.

        `start`: which start of a policy takes it; the snapshot is that policy's, then.
        """
        self.check_snapshot(disk, name, description, kind)
        if name is None:
            name = default_snapshot_name(disk.name, datetime.now(), disk.chain)
        head = disk.head
        assert head is not None, "a deleted disk is snapshotted"
        snapshot = Snapshot(
            id=self.catalog.new_id(),
            disk=disk.id,
            name=name,
            branch=head.id,
            epoch=head.epoch,
            size_bytes=disk.size_bytes,
            created_ns=created_ns or now_ns(),
            mode=disk.mode & 0o444,
            uid=disk.uid,
            gid=disk.gid,
            kind=kind if start is None else POLICY,
            consistency=consistency,
            description=description,
            referenced_blocks=disk.mapped_blocks,
            written_blocks=head.written_blocks,
            policy=None if start is None else start.policy,
            due_ns=None if start is None else start.due_ns,
            failed=start is not None and start.failed,
            point=Point(head, head.epoch),
            owner=disk,
        )
        self.catalog.add_snapshot(snapshot)
        self.catalog.events.of_snapshot("snapshot", snapshot)
        return snapshot

    def check_snapshot(self, disk: Disk, name: str | None, description: str = "", kind: str = "user") -> None:
        """Raises what `snapshot` would. What comes and goes by itself has no limit."""
        self.check_writable()
        check_description(description)
        if disk.deleted:
            raise NotFoundError(f"the disk {disk.name} was deleted meanwhile")
        if name is not None:
            check_new_snapshot_name(name)
            if name in disk.chain:
                raise ExistsError(f"the disk {disk.name} has a snapshot {name} already")
        if kind not in ("rollback", TEMPORARY, TRASHED):
            self.limits.check_snapshots(disk)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a snapshot's name at once; what it alone held is freed by the reclaimer, after the next commit.

        Raises LockedError when somebody has locked it.
        """
        self.check_deletable(snapshot)
        assert not snapshot.deleted, "a snapshot is deleted twice"
        blocks = self.catalog.freed_at_most(snapshot)
        self.catalog.events.of_snapshot("delete", snapshot)
        self.catalog.drop_snapshot(snapshot)
        self.remove_point(snapshot.point.branch, snapshot.epoch, snapshot, blocks)

    def check_deletable(self, *snapshots: Snapshot, what: str = "") -> None:
        """Raises what `delete_snapshot` would for any of them, LockedError too; `what` would go together with them."""
        self.check_writable()
        locks = {address(item): item.lock for item in snapshots if item.lock != UNLOCKED and not item.deleted}
        if locks:
            check_deletable(locks, now_ns(), what)

    def rename_snapshot(self, snapshot: Snapshot, name: str) -> None:
        """Give a snapshot another name. Raises UsageError, ExistsError."""
        self.check_writable()
        if name != snapshot.name:
            check_new_snapshot_name(name)
        if name in snapshot.owner.chain and name != snapshot.name:
            raise ExistsError(f"the disk {snapshot.owner.name} has a snapshot {name} already")
        self.catalog.events.of_snapshot("rename", snapshot, f"to {name}")
        snapshot.changed_ns = max(snapshot.changed_ns, stamp_ns())
        self.catalog.rename_snapshot(snapshot, name)

    def clone(self, snapshot: Snapshot, names: Sequence[str], owner: Owner | None = None) -> list[Disk]:
        """New disks that begin as the snapshot, one for each name; all or none. Raises UsageError, ExistsError."""
        self.check_writable()
        for name in names:
            self.catalog.check_free(name)
        if len(set(names)) < len(names):
            raise UsageError("a name is given twice")
        self.limits.check_disks(len(names), snapshot.size_bytes)
        point = snapshot.point
        made = [
            self.catalog.new_disk(
                name,
                self.catalog.new_branch(point.branch, point.epoch),
                snapshot.size_bytes,
                snapshot.referenced_blocks,
                owner or OWNER,
            )
            for name in names
        ]
        for disk in made:
            self.catalog.events.of_disk("clone", disk, f"of {address(snapshot)}")
        return made

    def become(self, disk: Disk, source: Disk | Snapshot) -> None:
        """Make an empty disk what a snapshot, or another disk just now, holds."""
        self.check_writable()
        assert not disk.mapped_blocks and disk is not source, "only an empty disk becomes another"
        self.limits.check_provisioned(source.size_bytes - disk.size_bytes)
        point = point_of(source)
        head = self.catalog.new_branch(point.branch, point.epoch)
        if isinstance(source, Disk):
            self.catalog.begin_epoch(point.branch)
        mapped = source.mapped_blocks if isinstance(source, Disk) else source.referenced_blocks
        disk.size_bytes = source.size_bytes
        self._replace_head(disk, head, mapped)
        self.catalog.events.of_disk("clone", disk, f"of {address(source)}")

    def rollback(self, disk: Disk, snapshot: Snapshot, discard: bool = False) -> Snapshot | None:
        """Make a disk what its snapshot holds. Newer ones stay. What it was is kept as `before-rollback`, or discarded.

        What an earlier rollback kept is replaced; beside a user's own snapshot of that name it has a number behind it.
        Raises UsageError when the snapshot is another disk's. Whether the disk is in use is for the caller to know.
        """
        self.check_rollback(disk, snapshot, discard)
        head = self.catalog.new_branch(snapshot.point.branch, snapshot.point.epoch)
        kept = None
        if not discard:
            name, older = _kept_name(disk)
            if older is not None:  # the point lives on if the new head begins there
                self.delete_snapshot(older)
            kept = self.snapshot(disk, name, kind="rollback")
        disk.size_bytes = snapshot.size_bytes
        self._replace_head(disk, head, snapshot.referenced_blocks)
        self.catalog.events.of_snapshot("rollback", snapshot)
        return kept

    def check_rollback(self, disk: Disk, snapshot: Snapshot, discard: bool = False) -> None:
        """Raises what `rollback` would."""
        self.check_writable()
        if disk.deleted or snapshot.deleted:
            raise NotFoundError(f"{disk.name if disk.deleted else snapshot.name} was deleted meanwhile")
        if snapshot.owner is not disk:
            raise UsageError(
                f"{snapshot.name} is a snapshot of {snapshot.owner.name}, not of {disk.name}: "
                f"make a new disk of it with rowfs clone"
            )
        name, older = _kept_name(disk)
        if older is not None and not discard and older.lock.keeps(now := now_ns()):
            raise LockedError(
                f"{disk.name} is not rolled back: its snapshot {name}, which would be replaced, is kept by "
                f"{older.lock.described(now)}: rename that one first"
            )

    def _replace_head(self, disk: Disk, head: Branch, mapped_blocks: int) -> None:
        old = disk.head
        assert old is not None, "a chain gets another head"
        self.catalog.set_head(disk, head, mapped_blocks)
        disk.modified_ns = now_ns()
        disk.note_change(stamp_ns())
        if disk.deleted:  # the old head's removal is on its way; the new one goes as well when the disk is closed
            self.remove_point(head, EPOCH_MAX, disk, 0)
        else:
            self.remove_point(old, EPOCH_MAX, None, own_blocks(old))

    def remove_point(self, branch: Branch, epoch: Epoch, reader: Disk | Snapshot | None, blocks: int) -> None:
        """Nothing names a point any more; `blocks` at most it alone held, and they go when `reader` is closed."""
        removal = Removal(id=self.catalog.new_id(), branch=branch.id, epoch=epoch, reader=reader, blocks=blocks)
        self.catalog.add_removal(removal)

    # Keeping

    def commit(self) -> None:
        """Make everything up to now durable. Raises NoSpaceError, StorageError; the pool is read-only then."""
        if self.commits.failed:
            self.check_writable()
        self.commits.run()

    def sightings(self, addresses: Iterable[int]) -> Iterator[dict[int, list[Sighting]]]:
        """Who sees these blocks as of the last commit: what is found so far, in steps between which others may work."""
        return search(lambda: self._map, addresses)

    def hold(self) -> Callable[[], None]:
        """As BlockMap.hold, for the checker in another process."""
        return self._map.hold()

    @property
    def map_looked_over(self) -> bool:
        """Whether all of LMDB's pages were looked at when the pool was opened."""
        return self._map.looked_over

    def look_over(self) -> tuple[list[str], Callable[[], None]]:
        """As BlockMap.look_over."""
        return self._map.look_over()

    def distrust_map(self, why: str) -> None:
        """The map is damaged where LMDB would stumble over it: it is not asked any more, nor written to."""
        self._map.distrust(why)

    def _map_damaged(self, why: str) -> None:
        self.versions.damaged(f"the block map: {why}")
        self.commits.fail(f"the block map is damaged: {why}")

    def reader(self) -> Reader:
        """A view of the last commit, for the checker (any thread). Close it soon: the map cannot grow meanwhile."""
        return self._map.reader()

    def reclaim(self) -> None:
        """Free everything that can be freed now, with as many commits as it takes, and give it back to the host."""
        self.commit()
        while self.reclaimer.pending and not self.versions.damage:
            worked = self.reclaimer.step(budget_s=1.0) or self.commits.map_behind
            self.commit()
            if not worked and not self.reclaimer.ready:
                break  # what is left waits for an open handle
        self.puncher.run()


def _kept_name(disk: Disk) -> tuple[str, Snapshot | None]:
    """The name that a rollback keeps a disk's state under, and what an earlier rollback kept, which it replaces."""
    name, number = BEFORE_ROLLBACK, 1
    for snapshot in disk.chain.values():  # what somebody has renamed since is theirs
        if snapshot.kind == "rollback" and _KEPT.fullmatch(snapshot.name):
            return snapshot.name, snapshot
    while name in disk.chain:
        number += 1
        name = f"{BEFORE_ROLLBACK}-{number}"
    return name, None


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
