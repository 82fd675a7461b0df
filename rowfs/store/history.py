"""How the snapshots of a disk follow each other: which one each was written on from, through rollbacks and clones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from rowfs.base.format import EPOCH_MAX
from rowfs.base.units import BranchId, Epoch
from rowfs.store.catalog import Catalog
from rowfs.store.lineage import path
from rowfs.store.model import Branch, Disk, Snapshot


@dataclass(frozen=True)
class Step:
    """A snapshot or a disk, and the snapshot that it goes on from, if that is still there.

    `rolled_back`: not from the one before it, but because the disk was taken back to it.
    """

    thing: Snapshot | Disk
    after: Snapshot | None
    rolled_back: bool = False


def history(catalog: Catalog, disk: Disk) -> list[Step]:
    """The chain of a disk, oldest first, and at last the disk itself, if it is not deleted."""
    steps = [_step(catalog, snapshot, snapshot.point.branch, snapshot.epoch) for snapshot in disk.chain.values()]
    if disk.head is not None:
        steps.append(_step(catalog, disk, disk.head, EPOCH_MAX))
    return steps


def _step(catalog: Catalog, thing: Snapshot | Disk, branch: Branch, epoch: Epoch) -> Step:
    after = _seen_from(catalog, branch, Epoch(epoch - 1))
    owner = thing.owner if isinstance(thing, Snapshot) else thing
    return Step(thing, after, after is not None and after.owner is owner and after.branch != branch.id)


def _seen_from(catalog: Catalog, branch: Branch, epoch: Epoch) -> Snapshot | None:
    """The newest snapshot in the past of a point, be it another disk's; what is in the trash is none."""
    for at, until in path(branch, epoch):
        place = bisect_right(at.named, until)
        for named in reversed(at.named[:place]):
            snapshot = catalog.snapshot_at[at.id, named]
            if not snapshot.deleted:
                return snapshot
    return None


def clones(catalog: Catalog, disk: Disk) -> Iterator[tuple[Disk, Snapshot] | None]:
    """The other disks that began as snapshots of a disk, and as which; None now and then, as a pause."""
    for other in list(catalog.disks.values()):
        yield None
        if other is disk:
            continue
        found: dict[int, Snapshot] = {}
        for branch in _branches(other).values():
            if branch.origin is not None:
                snapshot = _seen_from(catalog, branch.origin, branch.fork)
                if snapshot is not None and snapshot.owner is disk:
                    found[snapshot.id] = snapshot
        for snapshot in found.values():
            yield other, snapshot


def _branches(disk: Disk) -> dict[BranchId, Branch]:
    found = {snapshot.branch: snapshot.point.branch for snapshot in disk.chain.values()}
    if disk.head is not None:
        found[disk.head.id] = disk.head
    return found
