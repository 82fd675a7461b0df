"""Who sees a block: each disk, snapshot and entry of the trash that reads it, and where. By the last commit alone.

It takes a look at every page version, so all blocks that are asked for are looked for at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from rowfs.base.errors import CorruptionError
from rowfs.base.format import (
    BRANCHES,
    DISKS,
    EPOCH_MAX,
    PAGE_KEY,
    PAGES,
    SNAPSHOTS,
    TRASH,
    BranchRecord,
    DiskRecord,
    Record,
    SnapshotRecord,
    TrashRecord,
)
from rowfs.base.pagecode import decode_many
from rowfs.base.units import BLOCK_BYTES, PAGE_BYTES, BranchId, Epoch, PageIndex
from rowfs.persist.mapread import Reader

BATCH_VERSIONS = 256
PLACES_TOLD = 4  # in a line for people
R = TypeVar("R", bound=Record)
Who = tuple[str, str | None, bool]  # disk, snapshot, whether it is in the trash


class Sighting(NamedTuple):
    """A block as it is seen: of which disk or snapshot, and where in it."""

    disk: str
    snapshot: str | None  # None: the disk itself
    offset_bytes: int
    in_trash: bool = False

    def __str__(self) -> str:
        name = self.disk if self.snapshot is None else f"{self.disk}@{self.snapshot}"
        return f"{name}{' (in the trash)' if self.in_trash else ''} at byte {self.offset_bytes}"


def described(seen: list[Sighting]) -> str:
    """A line of who has a block."""
    if not seen:
        return "no disk or snapshot has it"
    more = f" and {len(seen) - PLACES_TOLD} more" if len(seen) > PLACES_TOLD else ""
    return ", ".join(map(str, seen[:PLACES_TOLD])) + more


def sightings(reader: Reader, addresses: Iterable[int]) -> dict[int, list[Sighting]]:
    """Who sees these blocks, by address."""
    found: dict[int, list[Sighting]] = {}
    for found in search(lambda: reader, addresses):  # noqa: B007
        pass
    return found


def search(reader: Callable[[], Reader], addresses: Iterable[int]) -> Iterator[dict[int, list[Sighting]]]:
    """The same in steps: what was found so far. `reader` may give another one after each."""
    wanted = np.unique(np.fromiter(addresses, np.int64))
    found: dict[int, list[Sighting]] = defaultdict(list)
    if not len(wanted):
        yield found
        return
    start = b""
    while True:
        batch = list(islice(reader().items(PAGES, start), BATCH_VERSIONS))
        if not batch:
            break
        start = batch[-1][0] + b"\0"
        batch = [item for item in batch if len(item[0]) == PAGE_KEY.size]
        if not batch:
            continue
        keys, values = zip(*batch, strict=True)
        rows, _, wrong = decode_many(keys, values)
        hits = np.argwhere(np.isin(rows, wanted))
        if len(hits):
            tree = _Tree(reader())
            for row, slot in hits.tolist():
                if row not in wrong:
                    branch, page, epoch = PAGE_KEY.unpack(keys[row])
                    for disk, snapshot, in_trash in tree.seen_by(branch, page, epoch):
                        offset = page * PAGE_BYTES + slot * BLOCK_BYTES
                        found[int(rows[row, slot])].append(Sighting(disk, snapshot, offset, in_trash))
        yield found
    for seen in found.values():
        seen.sort(key=lambda item: (item.in_trash, item.disk, item.snapshot or "", item.offset_bytes))
    yield found


class _Tree:
    """The branches, and who reads at which of their points."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        trash = {record.id: record for record in _records(reader, TRASH, TrashRecord)}
        disks = {record.id: record for record in _records(reader, DISKS, DiskRecord)}
        self._points: dict[int, list[tuple[Epoch, Who]]] = defaultdict(list)
        for snapshot in _records(reader, SNAPSHOTS, SnapshotRecord):
            entry = trash.get(snapshot.disk)
            if entry is not None:
                name = None if snapshot.id == entry.head else snapshot.name
                self._points[snapshot.branch].append((snapshot.epoch, (entry.name, name, True)))
            elif snapshot.disk in disks:
                who = disks[snapshot.disk].name, snapshot.name, False
                self._points[snapshot.branch].append((snapshot.epoch, who))
        self._heads = {disk.branch: disk.name for disk in disks.values() if disk.branch is not None}
        self._children: dict[int, list[tuple[Epoch, BranchId]]] = defaultdict(list)
        for branch in _records(reader, BRANCHES, BranchRecord):
            if branch.parent is not None:
                self._children[branch.parent].append((branch.fork, branch.id))

    def seen_by(self, branch: int, page: int, epoch: int) -> Iterator[Who]:
        """The disks and snapshots that read a version."""
        waiting = [(branch, epoch, self._end(branch, page, epoch))]
        while waiting:
            at, first, end = waiting.pop()
            yield from (who for point, who in self._points[at] if first <= point < end)
            if end == EPOCH_MAX and at in self._heads:
                yield self._heads[BranchId(at)], None, False
            waiting += [
                (child, 0, self._end(child, page, 0)) for fork, child in self._children[at] if first <= fork < end
            ]

    def _end(self, branch: int, page: int, epoch: int) -> int:
        return self._reader.next_epoch(BranchId(branch), PageIndex(page), Epoch(epoch)) or EPOCH_MAX


def _records(reader: Reader, table: str, kind: type[R]) -> Iterator[R]:
    for _, value in reader.items(table):
        try:
            yield kind.unpack(value)
        except CorruptionError:  # the checker tells of it
            continue
