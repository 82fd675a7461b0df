"""The table of the trash: its entries, and for each the disk without a head that holds its snapshots."""

from __future__ import annotations

from functools import partial

from rowfs.base.format import TRASH, TrashRecord
from rowfs.persist.mapread import Reader
from rowfs.store.model import Disk
from rowfs.store.records import Records, told

HEAD = "head"  # what the snapshot of a deleted disk's last state is called


class TrashTable(Records[TrashRecord]):
    """The entries of one pool's trash, by the ids of the disks that hold them."""

    def __init__(self) -> None:
        super().__init__(TRASH, partial(told, TrashRecord))
        self._holders: dict[int, Disk] = {}
        self._names: set[str] = set()

    def load_all(self, reader: Reader, next_id: int, disks: dict[int, Disk]) -> list[Disk]:
        """Read all entries; the disks that hold them, which nothing may show. Raises CorruptionError.

        An entry whose snapshots an older rowfs has deleted, or made a disk of, goes.
        """
        self.load(reader, next_id)
        for entry in list(self):
            holder = disks.get(entry.id)
            if holder is None or holder.branch is not None or not holder.chain:
                self.drop(entry.id)
                continue
            ids = [snapshot.id for snapshot in holder.chain.values()]
            if entry.head not in ids if entry.head is not None else len(ids) != 1:
                self.drop(entry.id)  # what is left of it is shown as the chain of a deleted disk
                continue
            self._hold(holder)
        return list(self._holders.values())

    def _hold(self, holder: Disk) -> None:
        self._holders[holder.id] = holder
        self._names.add(holder.name)

    def holder(self, entry: TrashRecord) -> Disk:
        """The disk that holds an entry's snapshots."""
        return self._holders[entry.id]

    def has_name(self, name: str) -> bool:
        """Whether a disk that holds an entry is called so: no other can be."""
        return name in self._names

    def add(self, entry: TrashRecord, holder: Disk) -> None:
        """A new entry."""
        self._hold(holder)
        self.put(entry)

    def remove(self, entry: TrashRecord) -> None:
        """An entry is no more; its snapshots go, or went, elsewhere."""
        holder = self._holders.pop(entry.id)
        self._names.discard(holder.name)
        self.drop(entry.id)


def holder_name(number: int, now: int) -> str:
    """What a disk that holds an entry is called: a rowfs that knows no trash shows it."""
    return f"trash-{number}-{now}"
