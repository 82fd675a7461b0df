"""What deleting snapshots or disks would free, and what changed between two points. Found from page versions, not data.

The generators here pause by yielding, so that a caller can let others work in between; what changes meanwhile may be
counted or not.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from itertools import groupby, takewhile, zip_longest
from typing import TypeVar

import numpy as np

from rowfs.base.format import EPOCH_MAX
from rowfs.base.ranges import runs
from rowfs.base.units import (
    BLOCK_BITS,
    BLOCK_BYTES,
    DISK_BYTES_MAX,
    HOLE,
    PAGE_BLOCKS,
    PAGE_BYTES,
    BranchId,
    Epoch,
    PageIndex,
)
from rowfs.persist.shares import Shares
from rowfs.store.catalog import Catalog
from rowfs.store.diskio import Extent, point_of
from rowfs.store.leaving import Left, Run, gathered, run_of, runs_of
from rowfs.store.lineage import Held, Lineage, branch_ids, path
from rowfs.store.model import EPOCH_NONE, Branch, Disk, Point, Snapshot, VersionKey
from rowfs.store.versions import Looked, Versions

Pausing = Generator[None, None, int]
T = TypeVar("T")
_NOBODYS = -1  # in place of a part: of what was let go of before
Change = tuple[int, int, str]  # offset and length in bytes, "data" or "zero"


class Figures:
    """Figures of one pool."""

    def __init__(
        self, versions: Versions, catalog: Catalog, shares: Shares, revisits: Callable[[], Collection[VersionKey]]
    ) -> None:
        """`revisits`: the versions that let go of something, which the reclaimer has yet to look at (DiskIO)."""
        self._versions = versions
        self._revisits = revisits
        self._shares = shares
        self._catalog = catalog
        self._known: dict[int, tuple[object, int]] = {}  # by snapshot id: what the figure rests on, and the figure

    @property
    def rest_on(self) -> object:
        """What they rest on: as long as this is equal, nothing that is deleted would free more or less."""
        catalog = self._catalog
        changes = sum(branch.changes for branch in catalog.branches.values())
        return changes, self._shares.changes, len(catalog.snapshots), catalog.pool.next_id

    def freed_by(self, snapshots: Collection[Snapshot], disks: Collection[Disk] = ()) -> Pausing:
        """How many bytes come back when these are deleted together. Pauses after each page."""
        (freed,) = yield from self.freed_in_parts([[*snapshots, *disks]])
        return freed

    def frees_any(self, snapshots: Collection[Snapshot]) -> Generator[None, None, bool]:
        """Whether anything does. It does not look on once that is known."""
        (freed,) = yield from self.freed_in_parts([snapshots], any_will_do=True)
        return freed > 0

    def freed_in_parts(
        self, parts: Sequence[Collection[Disk | Snapshot]], any_will_do: bool = False
    ) -> Generator[None, None, list[int]]:
        """The same of several parts that are deleted together, in bytes for each: they add up to what comes back.

        What several of them hold together counts in one of them. If `any_will_do`, the first that was found.
        """
        gone = {(point.branch, point.epoch): part for part, things in enumerate(parts) for point in _named_by(things)}
        left = Left(self._catalog, {(branch.id, epoch) for branch, epoch in gone})
        lineage = Lineage(self._versions, left.seen)
        before = Lineage(self._versions, Left(self._catalog, set()).seen)
        counted: set[VersionKey] = set()
        jointly: list[tuple[np.ndarray, int]] = []  # blocks that others own too, and of which part
        freed = [0] * len(parts)
        for run in runs_of(gone, left):
            for index in sorted((yield from self._unseen_pages(left, run))):
                for epoch in self._seen_at(run, index):
                    part = gone[run.branch, epoch]
                    for version, let_go in self._let_go_in_page(before, lineage, run.branch, index, epoch, counted):
                        freed[part] += int(np.count_nonzero(let_go))
                        if self._shares:
                            addresses = version.places()[let_go]
                            shared = addresses[self._shares.further(addresses) != 0]
                            freed[part] -= len(shared)
                            jointly.append((shared, part))
                if any_will_do and any(freed):
                    return [blocks * BLOCK_BYTES for blocks in freed]
                yield
        if jointly:  # free are those of which all owners let go: with the last of them
            jointly[:0] = [(addresses, _NOBODYS) for addresses in (yield from self._let_go_already())]
            addresses = np.concatenate([shared for shared, _ in jointly])[::-1]
            of_parts = np.concatenate([np.full(len(shared), part) for shared, part in jointly])[::-1]
            addresses, last, owners = np.unique(addresses, return_index=True, return_counts=True)
            free = of_parts[last[owners > self._shares.further(addresses)]]
            freed = [blocks + int(np.count_nonzero(free == part)) for part, blocks in enumerate(freed)]
        return [blocks * BLOCK_BYTES for blocks in freed]

    def _let_go_already(self) -> Generator[None, None, list[np.ndarray]]:
        """Blocks with further owners that somebody has let go of, and the reclaimer has not come to yet."""
        left = Left(self._catalog, set())
        lineage = Lineage(self._versions, left.seen)
        counted: set[VersionKey] = set()
        found: list[np.ndarray] = []

        def look(branch: Branch, index: PageIndex, epoch: Epoch) -> None:
            for version, let_go in self._let_go_in_page(None, lineage, branch, index, epoch, counted):
                addresses = version.places()[let_go]
                found.append(addresses[self._shares.further(addresses) != 0])

        branches = self._catalog.branches
        ending = [(item.branch, item.epoch) for item in self._catalog.removals.values()]
        for run in runs_of([(branches[number], epoch) for number, epoch in ending if number in branches], left):
            for index in sorted((yield from self._unseen_pages(left, run))):
                for epoch in self._seen_at(run, index):
                    look(run.branch, index, epoch)
                yield
        for number, index, epoch in list(self._revisits()):
            if number in branches:
                look(branches[number], index, Epoch(epoch - 1))
            yield
        return found

    def _unseen_pages(self, left: Left, run: Run) -> Generator[None, None, set[PageIndex]]:
        """The pages of which what is left may not see a version that a point of the run sees."""
        branch, first = run.branch, run.epochs[0]
        changed = self._versions.changed
        if run.next is None:  # nothing left on the branch sees what came last
            pages = yield from gathered(changed(branch, run.after, run.epochs[-1]))
        else:  # what no later version follows is seen at the next point
            pages = yield from gathered(changed(branch, first, run.next))
            if not run.sees_through:
                return (yield from gathered(changed(branch, run.after, run.epochs[-1]), pages))
            return pages
        if not run.sees_through:
            return pages
        heirs = left.behind(branch)
        for heir in heirs:
            pages |= yield from gathered(changed(heir, EPOCH_NONE, EPOCH_MAX))
        if not any(left.named(heir) or left.head(heir) for heir in heirs):
            assert branch.origin is not None
            below = run_of(left, branch.origin, [branch.fork])
            if below is not None:
                pages |= yield from self._unseen_pages(left, below)
        return pages

    def _seen_at(self, run: Run, index: PageIndex) -> list[Epoch]:
        """Points of a run, ascending, at which each version of a page is seen that any of them sees, each once."""
        branch, points = run.branch, run.epochs
        own = list(takewhile(lambda epoch: epoch <= points[-1], self._versions.epochs(branch, index, run.after)))
        found = [points[0]] if run.sees_through and (not own or own[0] > points[0]) else []
        for epoch, end in zip_longest(own, own[1:]):
            at = bisect_left(points, epoch)
            if end is None or points[at] < end:
                found.append(points[at])
        return found

    def _let_go_in_page(
        self,
        before: Lineage | None,
        lineage: Lineage,
        branch: Branch,
        index: PageIndex,
        epoch: Epoch,
        counted: set[VersionKey],
    ) -> Iterator[tuple[Looked, np.ndarray]]:
        """The version that a point sees and unseen ones below, each once, and where nothing left has what they own."""
        held = first = self._version_at(branch, index, epoch)
        while held is not None:
            owner, at = held
            end = self._versions.next_epoch(owner, index, at)
            followers = lineage.followers(owner, index, at, end)
            key = (owner.id, index, at)
            if followers is None or key in counted:
                break
            counted.add(key)
            dead = self._versions.look(owner, index, at)
            let_go = self._held_by_none(dead, index, lineage.seen_behind(index, followers))
            followers = None if held is first or before is None else before.followers(owner, index, at, end)
            if followers is not None and before is not None:  # dead already: what nobody held is freed anyway
                let_go = let_go & ~self._held_by_none(dead, index, before.seen_behind(index, followers))
            yield dead, let_go
            if held is first and np.count_nonzero(let_go) == PAGE_BLOCKS:
                break  # all that it held was its own: older ones lose nothing
            held = self._version_at(owner, index, Epoch(at - 1))

    def _held_by_none(self, dead: Looked, index: PageIndex, holders: list[Held]) -> np.ndarray:
        """Where none of the others has from a version what that owns: what they own themselves they have not."""
        free = dead.owns()
        for branch, epoch in holders:
            holder = self._versions.look(branch, index, epoch)
            doubtful = free & ~holder.owns()
            if np.count_nonzero(doubtful):  # else no address has to be compared, nor decoded
                free = free & ~(doubtful & (holder.places() == dead.places()))
        return free

    def _version_at(self, branch: Branch, index: PageIndex, epoch: Epoch) -> tuple[Branch, Epoch] | None:
        for owner, until in path(branch, epoch):
            at = self._versions.epoch_at(owner, index, until)
            if at:
                return owner, at
        return None

    def freed_if_deleted(self, snapshot: Snapshot) -> Pausing:
        """How many bytes come back when one snapshot is deleted."""
        rests_on = self._rests_on(snapshot)
        known = self._known.get(snapshot.id)
        if known is not None and rests_on is not None and known[0] == rests_on:
            return known[1]
        freed = yield from self.freed_by([snapshot])
        if rests_on is not None and rests_on == self._rests_on(snapshot):
            self._known[snapshot.id] = (rests_on, freed)
        return freed

    def _rests_on(self, snapshot: Snapshot) -> object | None:
        """What must stay as it is for the figure to stay; None: it cannot be told cheaply."""
        branch = snapshot.point.branch
        at = bisect_left(branch.named, snapshot.epoch)
        before = branch.named[at - 1] if at else EPOCH_NONE
        behind = branch.named[at + 1] if at + 1 < len(branch.named) else EPOCH_MAX
        if branch.forks_between(Epoch(before + 1), behind) or (before == EPOCH_NONE and branch.origin is not None):
            return None
        return before, behind, branch.changes if behind == EPOCH_MAX else 0, self._shares.changes

    def trimmed(self, disk: Disk) -> Pausing:
        """How many bytes a disk's snapshots hold where the disk itself has a hole now. Pauses after each page.

        That is what it trimmed, zeroed or cut off, and what does not come back before the snapshots go.
        """
        head = disk.head
        if head is None:
            return 0
        chains: dict[BranchId, list[Snapshot]] = {}
        for snapshot in disk.chain.values():
            chains.setdefault(snapshot.point.branch.id, []).append(snapshot)
        pages: set[PageIndex] = set()
        epochs: list[tuple[Branch, list[Epoch]]] = []
        for chain in chains.values():
            branch, points = chain[0].point.branch, sorted(snapshot.epoch for snapshot in chain)
            epochs.append((branch, points))
            pages |= self._pages_between(min(chain, key=lambda snapshot: snapshot.epoch), disk)
            pages.update(self._versions.changed(branch, points[0], points[-1]))
        held = 0
        for index in sorted(pages):
            holes = self._versions.page(head, index).places() == HOLE
            if holes.any():
                held += _distinct(
                    [page for branch, points in epochs for page in self._seen(branch, points, index)], holes
                )
            yield
        return held * BLOCK_BYTES

    def held_by(self, disk: Disk) -> Pausing:
        """How many bytes a disk and its snapshots have, each block once. Pauses after each page."""
        points: dict[Branch, list[Epoch]] = {} if disk.head is None else {disk.head: [EPOCH_MAX]}
        for snapshot in disk.chain.values():
            points.setdefault(snapshot.point.branch, []).append(snapshot.epoch)
        epochs = [(branch, sorted(found)) for branch, found in points.items()]
        end = PageIndex(DISK_BYTES_MAX // PAGE_BYTES)
        pages = [self._versions.mapped_pages(Point(branch, found[-1]), PageIndex(0), end) for branch, found in epochs]
        held = 0
        elsewhere: list[np.ndarray] = []  # blocks that may be in other pages, too
        for index, _ in groupby(heapq.merge(*pages)):
            versions = [version for branch, found in epochs for version in self._seen(branch, found, index)]
            if versions:
                addresses = np.unique(np.concatenate([version.places() for version in versions]))
                addresses = addresses[addresses != HOLE]
                if self._shares:
                    further = self._shares.further(addresses) != 0
                    elsewhere.append(addresses[further])
                    addresses = addresses[~further]
                held += len(addresses)
            yield
        if elsewhere:
            held += len(np.unique(np.concatenate(elsewhere)))
        return held * BLOCK_BYTES

    def _seen(self, branch: Branch, epochs: list[Epoch], index: PageIndex) -> Iterator[Looked]:
        """The versions of a page that are seen at any of the epochs, which ascend."""
        at = len(epochs)
        while at:
            found = self._version_at(branch, index, epochs[at - 1])
            if found is None:
                return
            owner, epoch = found
            yield self._versions.look(owner, index, epoch)
            if owner is not branch:
                return  # all earlier points see the same
            at = bisect_left(epochs, epoch)

    # What changed

    def changes(self, older: Disk | Snapshot, newer: Disk | Snapshot) -> Iterator[Change | None]:
        """The ranges in which `newer` differs from `older`, ascending; None now and then, as a pause.

        Blocks count whole, and as changed when they were written again, be it with the same bytes.
        """
        pages = sorted(self._pages_between(older, newer))
        joined: Change | None = None
        for index in pages:
            yield None
            for change in self._page_changes(older, newer, index):
                if joined is not None and joined[0] + joined[1] == change[0] and joined[2] == change[2]:
                    joined = (joined[0], joined[1] + change[1], joined[2])
                    continue
                if joined is not None:
                    yield joined
                joined = change
        if joined is not None:
            yield joined

    def _pages_between(self, older: Disk | Snapshot, newer: Disk | Snapshot) -> set[PageIndex]:
        a, b = point_of(older), point_of(newer)
        steps_a, steps_b = path(a.branch, a.epoch), path(b.branch, b.epoch)
        in_a, in_b = branch_ids(steps_a), branch_ids(steps_b)
        pages: set[PageIndex] = set()
        for steps, other in ((steps_a, in_b), (steps_b, in_a)):
            for branch, epoch in steps:
                meets = other.get(branch.id)
                after = EPOCH_NONE if meets is None else min(meets, epoch)
                pages.update(self._versions.changed(branch, after, epoch))
                if meets is not None:
                    break
        return pages

    def _page_changes(self, older: Disk | Snapshot, newer: Disk | Snapshot, index: PageIndex) -> Iterator[Change]:
        before = self._versions.page(point_of(older), index)
        after = self._versions.page(point_of(newer), index)
        differs = np.diff(before.places() != after.places(), prepend=False, append=False)
        for first, end in np.flatnonzero(differs).reshape(-1, 2).tolist():
            for slot, blocks, address in runs(after.addresses, first, end - first):
                yield from _clip(
                    index * PAGE_BYTES + (slot << BLOCK_BITS), blocks << BLOCK_BITS, address, newer.size_bytes
                )


def finish(pausing: Generator[None, None, T]) -> T:
    """Run a pausing figure to its end at once."""
    while True:
        try:
            next(pausing)
        except StopIteration as end:
            found: T = end.value
            return found


def written(extents: Iterator[Extent | None]) -> Iterator[Change | None]:
    """Extents as the changes against nothing."""
    for extent in extents:
        yield None if extent is None else (*extent, "data")


def _named_by(things: Collection[Disk | Snapshot]) -> Iterator[Point]:
    """The points that snapshots, and the heads of disks, hold; a disk that is deleted has none."""
    for thing in things:
        if isinstance(thing, Snapshot):
            yield thing.point
        elif thing.head is not None:
            yield Point(thing.head, EPOCH_MAX)


def _clip(offset: int, length: int, address: int, size: int) -> Iterator[Change]:
    length = min(length, size - offset)
    if length > 0:
        yield offset, length, "zero" if address == HOLE else "data"


def _distinct(pages: list[Looked], where: np.ndarray) -> int:
    """How many blocks the pages hold in the slots that `where` says, each once."""
    addresses = [page.places()[where] for page in pages]
    return int(np.count_nonzero(np.unique(np.concatenate(addresses)) != HOLE)) if addresses else 0
