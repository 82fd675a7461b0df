"""The commit: how changes in memory become durable, all of them or none.

    1  freeze       owner   dirty pages, bitmaps, shares, records are set aside; the owner goes on with copies
    2  sync         worker  fdatasync of the data file
    3  apply        worker  one LMDB transaction, synced
    4  finish       owner   frozen pages are clean; points whose removal is durable now may be dropped
    5  recycle      owner   blocks that this commit freed may be allocated again, once reads that began before are done

A crash before 3 is done leaves the map as it was: what 2 made durable lies in blocks that no durable page holds, or in
blocks that the disk's head owned then already, where old or new are both right until an fsync. Hence invariants 3
(nothing is reused before 5, nor punched: store.punching does that with what is free), 4 (2 before 3) and 5 (points are
dropped at 4, never before). After 3 a crash loses nothing. A failure of 2 or 3 makes the pool read-only: the frozen set
stays readable in memory, and nothing is tried again, since a second fdatasync may report success for pages that the
kernel has dropped.

A small commit may go to the journal instead (`begin_record`): where nothing changed but what heads map, a record of it
is written, and who waits goes on. For the engine nothing else happens: all of it stays dirty, freed blocks stay
allocated, and the next commit takes it along. Only replay after a crash ever reads the record (store.replay).

The record also holds what was written since the last sync, where that is little: then step 2 is left out, for the data
is durable in the journal, and in its place with the next commit. From then on until that commit a sync of the data file
alone would not do: replay would put the older data over what was synced. So each sync is a record; one that has the
data file synced first, because more was written, says so, and replay leaves the data of those before it alone.
"""

from __future__ import annotations

import logging
from collections import deque
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rowfs.base import bitmap, journalcode, pagecode, sharecode, sumcode
from rowfs.base.errors import ReadOnlyError, RowfsError
from rowfs.base.format import (
    CHUNK_KEY,
    FORMAT_SEALED,
    META,
    PAGES,
    PENDING,
    PENDING_KEY,
    PENDING_REVISIT,
    POOL_KEY,
    REGION_KEY,
    SHARES,
    SPACE,
    STRETCH_KEY,
    SUMS,
    PoolRecord,
    page_key,
)
from rowfs.base.ranges import Span
from rowfs.base.units import BLOCK_BITS, BLOCK_BYTES
from rowfs.persist.blockmap import BlockMap, MapFullError, MapUpdate
from rowfs.persist.datafile import DataFile
from rowfs.persist.journal import Journal, Mark
from rowfs.persist.space import FrozenSpace, Space
from rowfs.seal.sums import Sums
from rowfs.store.catalog import Catalog
from rowfs.store.diskio import DiskIO
from rowfs.store.model import Branch, Disk, Page, Removal
from rowfs.store.versions import Layer, Versions

RECORD_PAGES_MAX = 16  # of a record of the journal: coding them takes the owner's time, some 30 us each

log = logging.getLogger(__name__)


class Appended(NamedTuple):
    """A record and its place in the journal: durable once it is written there, and what was written before is."""

    position: int
    record: bytes
    data_first: bool  # what was written is not in it: the data file has to be synced before


@dataclass(slots=True)
class Batch:
    """What one commit takes. Nothing in it changes until it is finished."""

    pages: Layer
    space: FrozenSpace
    update: MapUpdate
    sums: dict[int, np.ndarray]
    pool: PoolRecord  # a copy
    removals: list[Removal] = field(default_factory=list)
    mark: Mark | None = None  # of the journal, if it is not what the map has said until now


@dataclass(slots=True)
class Freed:
    """Blocks of a durable commit, and the read tickets given out when it finished."""

    addresses: np.ndarray
    tickets: int


class Commits:
    """The commits of one pool, one at a time."""

    def __init__(
        self,
        data: DataFile,
        blockmap: BlockMap,
        journal: Journal,
        space: Space,
        versions: Versions,
        catalog: Catalog,
        io: DiskIO,
    ) -> None:
        self._data = data
        self._map = blockmap
        self.journal = journal
        self._space = space
        self._versions = versions
        self._catalog = catalog
        self._io = io
        self._sums: Sums = io.sums
        self._saved_revisits = set(catalog.revisits)
        journal.begin(blockmap.commit)
        self.running: Batch | None = None
        self.syncing = False  # between `begin_sync` and `end_sync`
        self.failed: str | None = None  # why the pool is read-only
        self._tickets = 0
        self._reading: set[int] = set()
        self.freed: deque[Freed] = deque()  # durable, and not yet recycled

    @property
    def needed(self) -> bool:
        """Whether anything changed since the last commit began that an fsync has to make durable."""
        return self._io.unsynced or self._unrecorded

    @property
    def wanted(self) -> bool:
        """Whether anything changed at all: the times of disks besides."""
        return (
            self.needed
            or self._catalog.unsaved_times
            or self.map_behind
            or bool(self.journal.state.holds_data)
            or self._sums.changed
        )

    @property
    def map_changed(self) -> bool:
        """Whether an fsync needs more than a sync of the data file: a commit of the map, or a record of the journal."""
        return bool(self.journal.state.holds_data) or self._unrecorded

    @property
    def _unrecorded(self) -> bool:
        """Whether the map changed beyond what the journal holds."""
        return bool(self._io.unjournaled) or self.others_changed or (self.map_behind and not self.journal.state.records)

    @property
    def appending(self) -> int:
        """Records between `begin_record` and `end_record`."""
        return self.journal.state.under_way

    @property
    def others_changed(self) -> bool:
        """Whether anything changed that no record of the journal may hold."""
        return self._catalog.unsaved or self._space.shares.changed or self._io.revisits != self._saved_revisits

    @property
    def map_behind(self) -> bool:
        """Whether a commit of the map would change more than times, be it durable in the journal already."""
        return bool(self._io.changed or self._versions.dirty or self._space.freed_now) or self.others_changed

    # 1 and 4: the owner

    def freeze(self) -> Batch:
        """Begin a commit. Raises ReadOnlyError when an earlier one failed."""
        assert self.running is None, "one commit at a time"
        if self.failed:
            raise ReadOnlyError(f"the pool is read-only since a commit failed: {self.failed}")
        update = MapUpdate()
        self._save_revisits(update)
        for thing in self._io.changed:
            self._catalog.touch(thing)
        if self.journal.state.holds_data:  # it has to become void: there must be a commit, be there nothing to commit
            self._catalog.touch_pool()
        self._io.changed = set()
        self._io.unjournaled.clear()
        self._io.unsynced = False
        self._io.forget_recent()
        removals = [removal for removal in self._catalog.removals.values() if not removal.durable]
        sums = self._sums.freeze()
        if sums:
            record = self._catalog.pool
            record.sealed_blocks, record.format = max(0, self._sums.blocks), FORMAT_SEALED
            self._catalog.touch_pool()
        self._catalog.freeze(update)
        pool = copy(self._catalog.pool)
        self.running = Batch(self._versions.freeze(), self._space.freeze(), update, sums, pool, removals)
        return self.running

    def _save_revisits(self, update: MapUpdate) -> None:
        revisits = self._io.revisits
        for key in revisits - self._saved_revisits:
            update.put(PENDING, PENDING_KEY.pack(PENDING_REVISIT, *key), b"")
        for key in self._saved_revisits - revisits:
            update.put(PENDING, PENDING_KEY.pack(PENDING_REVISIT, *key), None)
        self._saved_revisits = set(revisits)

    def begin_sync(self, recorded: bool = False) -> None:
        """Instead of `freeze`: `sync` makes durable what was written until now, where `map_changed` says no.

        Or `append` does, of what was `recorded` a moment ago.
        """
        assert self.running is None and (recorded or not self.map_changed), "the map has to be committed"
        self._io.unsynced = False
        self._io.forget_recent()
        self.syncing = True

    def end_sync(self) -> None:
        """What was written before `begin_sync` is durable."""
        self.syncing = False

    def begin_record(self) -> Appended | None:
        """Instead of `freeze`, where so little changed that the journal may hold it: what to `append`.

        None: the map has to be committed.
        """
        changed, state = self._io.unjournaled, self.journal.state
        pages = [thing for thing in changed if isinstance(thing, Page)]
        disks = [thing for thing in changed if isinstance(thing, Disk)]
        if self.running is not None or self.failed or self.others_changed or len(pages) > RECORD_PAGES_MAX:
            return None
        if (not state.records and not changed) or any(disk.deleted or disk.head is None for disk in disks):
            return None
        entries = []
        for page in sorted(pages, key=lambda page: (page.branch, page.index, page.epoch)):
            key = page_key(page.branch, page.index, page.epoch)
            entries.append((PAGES, key, pagecode.encode(key, page.addresses, page.owned)))
        counts = sorted(_counts(disk, disk.head) for disk in disks if disk.head is not None)
        data = self._recent_data()
        home = state.home if data is not None else state.records
        record = journalcode.encode(
            state.commit, state.records + 1, entries, state.nonce, state.durable, home, data or (), counts
        )
        position = self.journal.place(len(record))
        if position is None:
            return None
        changed.clear()
        self._io.forget_recent()
        self.journal.begun(home, bool(data))
        return Appended(position, record, data is None)

    def _recent_data(self) -> list[journalcode.Block] | None:
        """What was written since the last sync; None: it is too much for a record, or cannot be had at once."""
        addresses = self._io.recent_blocks()
        if addresses is None:
            return None
        data = memoryview(bytearray(len(addresses) << BLOCK_BITS))
        starts = range(0, len(data), BLOCK_BYTES)
        spans = [Span(address << BLOCK_BITS, at, BLOCK_BYTES) for address, at in zip(addresses, starts, strict=True)]
        try:
            if not self._data.read_cached(spans, data):
                return None
        except RowfsError:
            return None
        return [(address, data[at : at + BLOCK_BYTES]) for address, at in zip(addresses, starts, strict=True)]

    def end_record(self) -> None:
        """The oldest record that was begun is durable, or will never be."""
        self.journal.ended()

    def record_lost(self) -> None:
        """A record could not be written. What it has is not durable until the next commit of the map."""
        self.journal.give_up()
        self._io.unsynced = True

    def finish(self, batch: Batch) -> None:
        """The batch is durable."""
        assert batch is self.running, "another commit is running"
        self.running = None
        self._map.refresh()
        if batch.mark is not None:
            self._catalog.pool.journal, self._catalog.pool.journal_bytes = batch.mark
        self.journal.begin(self._map.commit)
        self._space.committed()
        self._sums.committed()
        self._versions.committed()
        for removal in batch.removals:
            removal.durable = True
        if len(batch.space.freed):
            self.freed.append(Freed(batch.space.freed, self._tickets))

    def fail(self, why: str) -> None:
        """A commit failed: from now on nothing is changed any more."""
        self.failed = self.failed or why

    # 2 and 3: any thread

    def sync(self) -> None:
        """Make what was written in place durable. Raises NoSpaceError, StorageError."""
        self._data.sync()

    def append(self, appended: Appended) -> None:
        """Make a record of the journal durable, and what was written before, if it is not in it.

        Raises JournalError (the map has to be committed, after `record_lost`), NoSpaceError, StorageError.
        """
        if appended.data_first:
            self._data.sync()
        self.journal.write(appended.position, appended.record)

    def write(self, batch: Batch) -> None:
        """Make a batch durable.

        Raises MapFullError (call `grow`, then this again), MapNoSpaceError (this again, later), NoSpaceError,
        StorageError.
        """
        self._data.sync()
        update = batch.update
        for (branch, index), held in batch.pages.items():
            for epoch, page in held.items():
                key = page_key(branch, index, epoch)
                update.pages[key] = None if page is None else pagecode.encode(key, page.addresses, page.owned)
        for chunk, bits in batch.space.chunks.items():
            key = CHUNK_KEY.pack(chunk)
            update.put(SPACE, key, bitmap.encode(key, bits))
        for region, counts in batch.space.shares.items():
            key = REGION_KEY.pack(region)
            update.put(SHARES, key, sharecode.encode(key, counts))
        for stretch, sums in batch.sums.items():
            key = STRETCH_KEY.pack(stretch)
            update.put(SUMS, key, sumcode.encode(key, sums))
        self._prepare_journal(batch)
        if update:
            self._map.apply(update)

    def _prepare_journal(self, batch: Batch) -> None:
        """Have the journal ready, if it is wanted; the batch says then that it is there."""
        self.journal.prepare()
        mark = self.journal.mark
        if mark is not None and mark != (batch.pool.journal, batch.pool.journal_bytes):
            batch.mark = mark
            batch.pool.journal, batch.pool.journal_bytes = mark
        if batch.mark is not None:
            batch.update.put(META, POOL_KEY, batch.pool.pack())

    def grow(self) -> None:
        """Give the map more address space (owner; no reader may be open)."""
        self._map.grow()

    # 5

    def begin_read(self) -> int:
        """A read in a worker begins; blocks freed from now on are kept until `end_read`."""
        self._tickets += 1
        self._reading.add(self._tickets)
        return self._tickets

    def end_read(self, ticket: int) -> None:
        """That read is done."""
        self._reading.discard(ticket)

    def unread(self) -> Freed | None:
        """The oldest freed blocks that no read may still want; None: there are none."""
        if self.freed and all(ticket > self.freed[0].tickets for ticket in self._reading):
            return self.freed[0]
        return None

    def recycle(self, freed: Freed) -> None:
        """Freed blocks may be allocated again (owner)."""
        assert freed is self.freed[0], "freed blocks are recycled in order"
        self.freed.popleft()
        self._space.recycle(freed.addresses)

    def run(self) -> None:
        """A whole commit in this thread, as far as one is needed. Raises as `write`; the pool is read-only then."""
        if self.needed or self.map_behind or self.journal.state.holds_data or self._sums.changed:
            try:
                batch = self.freeze()
                self._write_growing(batch)
            except BaseException as error:
                self.fail(str(error) or repr(error))
                raise
            self.finish(batch)
        while (freed := self.unread()) is not None:
            self.recycle(freed)

    def _write_growing(self, batch: Batch) -> None:
        while True:
            try:
                return self.write(batch)
            except MapFullError:
                self.grow()


def _counts(disk: Disk, head: Branch) -> journalcode.Counts:
    return journalcode.Counts(
        disk.id, disk.size_bytes, disk.mapped_blocks, disk.modified_ns, disk.changed_ns, head.id, head.written_blocks
    )
