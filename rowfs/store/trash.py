"""The trash: what was deleted, until it is deleted for good. Off unless the pool's record says for how long it keeps.

An entry is a chain under a disk of its own without a head, which nothing shows: of a deleted snapshot it has that one;
of a deleted disk, a snapshot of what it was, and those of its snapshots that went with it. A rowfs that knows no trash
shows such a chain as that of any deleted disk. Points, pages and blocks are as they were; only names are gone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from rowfs.base.errors import ExistsError, NotFoundError
from rowfs.base.format import TEMPORARY, TRASHED, TrashRecord
from rowfs.base.names import check_new_snapshot_name
from rowfs.base.times import now_ns
from rowfs.rules.trash import Entry, check_keep, free_name, overdue, undelete_name
from rowfs.store.model import Disk, Snapshot, own_blocks
from rowfs.store.trashtable import HEAD, holder_name

if TYPE_CHECKING:
    from rowfs.store.pool import Pool


class Trash:
    """The trash of one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._catalog = pool.catalog
        self._table = pool.catalog.trash

    # Its settings

    @property
    def keep_ns(self) -> int | None:
        """How long things stay in the trash; None: there is none, and what is deleted is gone."""
        return self._catalog.pool.trash_keep_ns

    def set_keep(self, keep_ns: int | None) -> None:
        """Keep what is deleted from now on, and what is in the trash, for so long; None: delete at once.

        What is in the trash then stays until it is emptied by hand, or space runs out. Raises UsageError.
        """
        self._pool.check_writable()
        self._catalog.pool.trash_keep_ns = None if keep_ns is None else check_keep(keep_ns)
        self._catalog.touch_pool()

    # Looking

    def __iter__(self) -> Iterator[TrashRecord]:
        """The entries, oldest first."""
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def snapshots(self, entry: TrashRecord) -> list[Snapshot]:
        """What an entry has, oldest first."""
        return list(self._table.holder(entry).chain.values())

    def find(self, number: int) -> TrashRecord:
        """The entry with this id. Raises NotFoundError."""
        entry = self._table.get(number)
        if entry is None:
            raise NotFoundError(f"there is nothing {number} in the trash: rowfs trash list shows what there is")
        return entry

    def newest(self, disk: str, snapshot: str | None) -> TrashRecord:
        """The entry that was last deleted under this name. Raises NotFoundError."""
        found = [entry for entry in self if (entry.name, entry.snapshot) == (disk, snapshot)]
        if not found:
            what = disk if snapshot is None else f"{disk}@{snapshot}"
            raise NotFoundError(f"there is no {what} in the trash: rowfs trash list shows what there is")
        return found[-1]

    # Deleting

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """As Pool.delete_snapshot, but into the trash if there is one."""
        if self.keep_ns is None or snapshot.kind == TEMPORARY:
            self._pool.delete_snapshot(snapshot)
            return
        self._pool.check_deletable(snapshot)
        self._catalog.events.of_snapshot("delete", snapshot, "into the trash")
        owner = snapshot.owner
        holder = self._new_holder(owner)
        self._move([snapshot], holder)
        self._catalog.drop_if_empty(owner)
        self._add(holder, owner, snapshot=snapshot.name)

    def delete_disk(self, disk: Disk, keep_snapshots: bool = True) -> None:
        """As Pool.delete_disk, but into the trash if there is one. What open handles write to it then is not kept."""
        if self.keep_ns is None:
            self._pool.delete_disk(disk, keep_snapshots)
            return
        self._pool.check_writable()
        going = [] if keep_snapshots else list(disk.chain.values())
        self._pool.check_deletable(*going, what=f"the disk {disk.name}")
        self._catalog.events.of_disk("delete", disk, "into the trash")
        name = HEAD if HEAD not in disk.chain else free_name(HEAD, disk.chain)
        head = self._pool.snapshot(disk, name, kind=TRASHED)
        holder = self._new_holder(disk)
        self._move([*going, head], holder)
        self._add(holder, disk, head=head.id)
        self._pool.drop_disk(disk)

    def _new_holder(self, owner: Disk) -> Disk:
        number, now = self._catalog.new_id(), now_ns()
        holder = Disk(
            id=number,
            name=holder_name(number, now),
            size_bytes=0,
            branch=None,
            created_ns=owner.created_ns,
            modified_ns=now,
            changed_ns=now,
            inode=number,
            mode=owner.mode,
            uid=owner.uid,
            gid=owner.gid,
        )
        self._catalog.touch(holder)
        return holder

    def _move(self, snapshots: Sequence[Snapshot], holder: Disk) -> None:
        for snapshot in snapshots:
            self._catalog.hide(snapshot, holder)

    def _add(self, holder: Disk, owner: Disk, snapshot: str | None = None, head: int | None = None) -> None:
        entry = TrashRecord(
            id=holder.id,
            name=owner.name,
            snapshot=snapshot,
            disk=owner.id,
            head=head,
            deleted_ns=holder.modified_ns,
            created_ns=owner.created_ns,
            mode=owner.mode,
            uid=owner.uid,
            gid=owner.gid,
            labels=owner.labels,
        )
        self._table.add(entry, holder)

    # Back

    def restore(self, entry: TrashRecord, name: str | None = None) -> Disk | Snapshot:
        """Take an entry out of the trash, to its old place, or under another name. Raises ExistsError, UsageError."""
        self._pool.check_writable()
        if entry.head is None:
            back: Disk | Snapshot = self._restore_snapshot(entry, name)
            self._catalog.events.of_snapshot("undelete", back)  # type: ignore[arg-type]
        else:
            back = self._restore_disk(entry, name)
            self._catalog.events.of_disk("undelete", back)
        return back

    def _restore_snapshot(self, entry: TrashRecord, asked: str | None) -> Snapshot:
        (snapshot,) = self.snapshots(entry)
        if asked is not None and asked != snapshot.name:
            check_new_snapshot_name(asked)
        owner = self._owner_of(entry)
        name = undelete_name(_rule(entry, snapshot.name), asked, {} if owner is None else owner.chain)
        if owner is None:
            owner = self._catalog.new_chain(entry.name, entry.created_ns, (entry.mode, entry.uid, entry.gid))
        self._remove(entry)
        self._catalog.show(snapshot, owner, name)
        return snapshot

    def _owner_of(self, entry: TrashRecord) -> Disk | None:
        """The disk whose chain the entry's snapshot was in, be it renamed; or the one that has its name now."""
        by_id = next((disk for disk in self._catalog.disks.values() if disk.id == entry.disk), None)
        return by_id or self._catalog.disks.get(entry.name)

    def _restore_disk(self, entry: TrashRecord, asked: str | None) -> Disk:
        taken = {disk.name: disk for disk in self._catalog.live()}
        name = undelete_name(_rule(entry, entry.name), asked, taken)
        chain = self._catalog.disks[name].chain if name in self._catalog.disks else {}
        head, others = self._parts(entry)
        for snapshot in others:
            if snapshot.name in chain:
                raise ExistsError(
                    f"{name} has a snapshot {snapshot.name} already: undelete the disk under another name"
                )
        self._catalog.check_free(name)
        self._remove(entry)
        branch = self._catalog.new_branch(head.point.branch, head.point.epoch)
        owner = (entry.mode, entry.uid, entry.gid)
        disk = self._catalog.new_disk(name, branch, head.size_bytes, head.referenced_blocks, owner)
        disk.created_ns = entry.created_ns
        for snapshot in others:
            self._catalog.show(snapshot, disk, snapshot.name)
        if entry.labels:
            self._catalog.marks.set_labels(disk, entry.labels)
        self._forget(head)
        return disk

    def _parts(self, entry: TrashRecord) -> tuple[Snapshot, list[Snapshot]]:
        """What a disk was, and the snapshots that went with it."""
        found = self.snapshots(entry)
        head = next(snapshot for snapshot in found if snapshot.id == entry.head)
        return head, [snapshot for snapshot in found if snapshot is not head]

    # For good

    def purge(self, entry: TrashRecord) -> None:
        """Delete an entry for good; what it alone held is freed by the reclaimer."""
        self._pool.check_writable()
        self._catalog.events.add("purge", disk=entry.name, snapshot=entry.snapshot)
        for snapshot in self.snapshots(entry):
            self._forget(snapshot)
        self._remove(entry)

    def _remove(self, entry: TrashRecord) -> None:
        self._catalog.drop_holder(self._table.holder(entry))
        self._table.remove(entry)

    def _forget(self, snapshot: Snapshot) -> None:
        blocks = own_blocks(snapshot)
        self._catalog.drop_snapshot(snapshot)
        self._pool.remove_point(snapshot.point.branch, snapshot.epoch, snapshot, blocks)

    def overdue(self, trusted_ns: int) -> list[TrashRecord]:
        """The entries that were there long enough at `trusted_ns`, as rules.clock has it, oldest first."""
        if self.keep_ns is None:
            return []
        entries = [_rule(entry, entry.name) for entry in self]
        return [self.find(entry.id) for entry in overdue(entries, self.keep_ns, trusted_ns)]

    def for_space(self) -> Generator[None, None, list[TrashRecord]]:
        """What has to go for anything to come back: as old, and as few one after the other, as can be.

        Nothing, if all of the trash together frees nothing: others hold what it has. Pauses now and then.
        """
        entries = list(self)
        none, enough = 0, 1  # of the oldest: so many free nothing, and so many may
        while not (yield from self._frees_any(entries[:enough])):
            if enough >= len(entries):
                return []
            none, enough = enough, min(2 * enough, len(entries))
        while none + 1 < enough:
            middle = (none + enough) // 2
            if (yield from self._frees_any(entries[:middle])):
                enough = middle
            else:
                none = middle
        first, last = 0, none  # of these the last from which on they free something
        while first < last:
            middle = (first + last + 1) // 2
            if (yield from self._frees_any(entries[middle:enough])):
                first = middle
            else:
                last = middle - 1
        return [entry for entry in entries[first:enough] if self.has(entry)]

    def _frees_any(self, entries: Sequence[TrashRecord]) -> Generator[None, None, bool]:
        there = [item for entry in entries if self.has(entry) for item in self.snapshots(entry)]
        return (yield from self._pool.figures.frees_any(there))

    def has(self, entry: TrashRecord) -> bool:
        """Whether an entry is still in the trash."""
        return self._table.get(entry.id) is entry


def _rule(entry: TrashRecord, name: str) -> Entry:
    return Entry(id=entry.id, name=name, deleted_ns=entry.deleted_ns)
