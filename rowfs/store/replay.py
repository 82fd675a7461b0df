"""After a crash: the records of the journal are put into the block map, as the commit would have done that never came.

A record holds page versions of heads, and what writing changes in the records of their disks and branches, nothing else
(store.commit). So which blocks they took and let go of follows from comparing what a version owns with what the version
that it replaces owned: none of these is shared, for there are no records while shares changed and the map does not know
it.

What they hold of data is written in its place first, and synced, so that no page of the map points to what is not
durable. No block changes hands between two commits of the map, so whatever a block is used for at the end is what it
was used for when the record was made, or nothing. A replay that is cut off is begun again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

import numpy as np

from rowfs.base import bitmap, sumcode
from rowfs.base.bitmap import CHUNK_BLOCKS
from rowfs.base.errors import CorruptionError, ReadOnlyError
from rowfs.base.format import (
    BRANCHES,
    CHUNK_KEY,
    DISKS,
    ID_KEY,
    META,
    PAGE_KEY,
    PAGES,
    POOL_KEY,
    SPACE,
    STRETCH_KEY,
    SUMS,
    BranchRecord,
    DiskRecord,
    PoolRecord,
    check_format,
)
from rowfs.base.journalcode import JournalRecord
from rowfs.base.pagecode import Coded
from rowfs.base.sumcode import STRETCH_BLOCKS
from rowfs.base.units import BLOCK_BYTES, BlockAddress, BranchId, Epoch, PageIndex
from rowfs.persist.blockmap import MAP_FILE, BlockMap, MapFullError, MapUpdate
from rowfs.persist.datafile import DataFile
from rowfs.persist.journal import Journal, Mark
from rowfs.persist.mapread import Value

log = logging.getLogger(__name__)


def open_map(
    path: str, journal: Journal, read_only: bool, open_data: Callable[[], DataFile], recovery: bool = True
) -> tuple[BlockMap, str | None]:
    """The block map in the directory `path`, and in it all that the journal holds; and what is wrong with the journal.

    For that it is written to even if it is only to be read then, as other file systems do it; not without `recovery`.
    With a journal that is damaged neither is changed, and the map is open to be read. Raises as BlockMap and `replay`,
    PoolError for a newer format, ReadOnlyError where the map would have to be written and cannot.
    """
    blockmap = BlockMap(path, read_only)
    try:
        records, damage = journal.records(blockmap.commit, named_journal(blockmap))
        if not recovery:
            return blockmap, damage
        reopen = read_only if damage is None and records else not read_only and damage is not None
        if reopen and read_only:
            _check_writable(path)
        if reopen:
            blockmap.close()
            blockmap = BlockMap(path, read_only=damage is not None)
        if damage is None and (records or not read_only):
            replay(blockmap, journal, open_data)
    except BaseException:
        blockmap.close()
        raise
    return blockmap, damage


def _check_writable(path: str) -> None:
    """Raises ReadOnlyError where what the journal holds cannot be put into the map."""
    if not os.access(f"{path}/{MAP_FILE}", os.W_OK):
        raise ReadOnlyError(
            "the pool was not unmounted in order, and the host is read-only: mount it where its journal can be put "
            "into the map, or with -o ro,norecovery as its last commit left it, without what was synced after that"
        )


def named_journal(blockmap: BlockMap) -> Mark | None:
    """What the map says of the journal that goes on from it; None: there need not be any.

    Raises CorruptionError, PoolError for a newer format.
    """
    stored = blockmap.get(META, POOL_KEY)
    if stored is None:
        raise CorruptionError("the block map has no pool record")
    record = PoolRecord.unpack(stored)
    check_format(record.format)
    return None if record.clean or record.journal is None else Mark(record.journal, record.journal_bytes)


def replay(blockmap: BlockMap, journal: Journal, open_data: Callable[[], DataFile]) -> str | None:
    """Put what the journal holds beyond the last commit into data file and map, durably, and empty it.

    Of one that is damaged, what is before the damage: a state that was durable once. It is not emptied, but set aside,
    and returned is what is wrong with it. Before either, the map no longer says that it is there. Raises
    CorruptionError, NoSpaceError, StorageError; then it can be tried again.
    """
    mark = named_journal(blockmap)
    records, damage = journal.records(blockmap.commit, mark)
    update = _merged(records)
    if records:
        _write_data(blockmap, records, open_data)
        _count(blockmap, update, records)
        _take_blocks(blockmap, update)
    if mark is not None:
        _forget_journal(blockmap, update)
    if update:
        _apply(blockmap, update)
    if records:
        log.info("%d records of the journal were replayed", len(records))
    if damage is None:
        journal.clear()
    else:
        journal.set_aside()
    return damage


def _forget_journal(blockmap: BlockMap, update: MapUpdate) -> None:
    stored = update.records.get(META, {}).get(POOL_KEY) or blockmap.get(META, POOL_KEY)
    assert stored is not None, "it was there when the map was opened"
    record = PoolRecord.unpack(stored)
    record.journal, record.journal_bytes = None, 0
    update.put(META, POOL_KEY, record.pack())


def _write_data(blockmap: BlockMap, records: list[JournalRecord], open_data: Callable[[], DataFile]) -> None:
    home = max(record.home for record in records)
    blocks = {address: block for record in records if record.number > home for address, block in record.data}
    if not blocks:
        return
    data = open_data()
    try:
        if not 0 < min(blocks) <= max(blocks) < data.blocks_max():
            raise CorruptionError("a record of the journal has data for an address that there is not")
        if (size := data.size_bytes()) < (used := _end_of_used(blockmap) * BLOCK_BYTES):
            raise CorruptionError(  # what is cut off would read as zeros once something is written behind it
                f"the data file ends at byte {size}, and blocks up to {used} are in use, so the journal is not "
                f"replayed: with -o ro,norecovery what is left of the last commit can be read"
            )
        for address, block in sorted(blocks.items(), key=lambda item: item[0]):
            data.write(BlockAddress(address), block)
        data.sync()
    finally:
        data.close()


def _end_of_used(blockmap: BlockMap) -> int:
    """The address behind the last block that the last commit has in use, as far as bitmaps can be read."""
    for key, value in reversed(list(blockmap.items(SPACE))):
        with contextlib.suppress(CorruptionError):  # the pool is read-only with that, once it is open
            runs = bitmap.used_runs(bitmap.decode(key, value))
            if not len(runs):
                continue
            return int(CHUNK_KEY.unpack(key)[0]) * CHUNK_BLOCKS + int(runs[-1][1])
    return 0


def _merged(records: list[JournalRecord]) -> MapUpdate:
    update = MapUpdate()
    for record in records:
        for table, key, value in record.entries:
            if table == PAGES:
                update.pages[key] = value
            else:
                update.put(table, key, value)
    return update


def _count(blockmap: BlockMap, update: MapUpdate, records: list[JournalRecord]) -> None:
    latest = {counts.disk: counts for record in records for counts in record.counts}
    for counts in latest.values():
        _put_counts(
            blockmap,
            update,
            *(DISKS, DiskRecord, counts.disk),
            size_bytes=counts.size_bytes,
            mapped_blocks=counts.mapped_blocks,
            modified_ns=counts.modified_ns,
            changed_ns=counts.changed_ns,
        )
        _put_counts(blockmap, update, BRANCHES, BranchRecord, counts.branch, written_blocks=counts.written_blocks)


def _put_counts(
    blockmap: BlockMap, update: MapUpdate, table: str, kind: type[DiskRecord | BranchRecord], number: int, **counts: int
) -> None:
    key = ID_KEY.pack(number)
    stored = blockmap.get(table, key)
    if stored is None:
        raise CorruptionError(f"a record of the journal is of one of the {table} that there is not: {number}")
    try:
        record = kind.unpack(stored)
    except CorruptionError:
        return  # it stays damaged, which the checker tells
    for name, count in counts.items():
        setattr(record, name, count)
    update.put(table, key, record.pack())


def _take_blocks(blockmap: BlockMap, update: MapUpdate) -> None:
    nothing = np.empty(0, np.int64)
    taken = np.concatenate([nothing, *(_owned(key, value) for key, value in update.pages.items() if value is not None)])
    held = np.concatenate([nothing, *(_owned_before(blockmap, key) for key in update.pages)])
    taken.sort()
    let_go = np.setdiff1d(held, taken)
    for chunk in np.unique(np.concatenate([let_go, taken]) // CHUNK_BLOCKS).tolist():
        key = CHUNK_KEY.pack(chunk)
        try:
            bits = _bitmap(blockmap, key)
        except CorruptionError:
            continue  # it stays damaged, which the checker tells and can mend
        bitmap.put_many(bits, bitmap.of_chunk(let_go, chunk), False)
        bitmap.put_many(bits, bitmap.of_chunk(taken, chunk), True)
        update.put(SPACE, key, bitmap.encode(key, bits))
    _forget_sums(blockmap, update, let_go)


def _forget_sums(blockmap: BlockMap, update: MapUpdate, let_go: np.ndarray) -> None:
    forgotten = 0
    for stretch in np.unique(let_go // STRETCH_BLOCKS).tolist():
        key = STRETCH_KEY.pack(stretch)
        stored = blockmap.get(SUMS, key)
        if stored is None:
            continue
        blocks = let_go[let_go // STRETCH_BLOCKS == stretch] % STRETCH_BLOCKS
        try:
            sums = sumcode.decode(key, stored)
        except CorruptionError:  # none of it is known, and all are free to be sealed anew after a repair
            continue
        forgotten += int(np.count_nonzero(sums[blocks]))
        sums[blocks] = 0
        update.put(SUMS, key, sumcode.encode(key, sums))
    if forgotten:
        stored = blockmap.get(META, POOL_KEY)
        assert stored is not None, "it was there when the map was opened"
        record = PoolRecord.unpack(stored)
        record.sealed_blocks = max(0, record.sealed_blocks - forgotten)
        update.put(META, POOL_KEY, record.pack())


def _owned(key: bytes, value: Value) -> np.ndarray:
    coded = Coded(key, value)
    blocks: np.ndarray = coded.places()[coded.owns()]
    return blocks


def _owned_before(blockmap: BlockMap, key: bytes) -> np.ndarray:
    branch, index, epoch = PAGE_KEY.unpack(key)
    stored = blockmap.version(BranchId(branch), PageIndex(index), Epoch(epoch))
    if stored is not None and stored[0] == epoch:
        try:
            return _owned(key, stored[1])
        except CorruptionError:  # the record's is whole; what only this one owned stays allocated until a repair
            log.warning("page %d of branch %d was damaged, and is replaced from the journal", index, branch)
    return np.empty(0, np.int64)


def _bitmap(blockmap: BlockMap, key: bytes) -> bytearray:
    stored = blockmap.get(SPACE, key)
    return bytearray(bitmap.CHUNK_BYTES) if stored is None else bitmap.decode(key, stored)


def _apply(blockmap: BlockMap, update: MapUpdate) -> None:
    while True:
        try:
            blockmap.apply(update)
        except MapFullError:
            blockmap.grow()
        else:
            return blockmap.refresh()
