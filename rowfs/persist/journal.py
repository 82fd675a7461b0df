"""The journal: a file of records that are durable before the block map holds what is in them.

A commit of the map syncs the data file, and LMDB's file twice. A small one can be put off: its record is appended
here, with what was written, in one synced write, and the next commit of the map holds it as well. Records belong to the
commit that they follow, by LMDB's own number of it, so with each commit all of them are void at once, and the next ones
begin where the file does. Who writes records does it in the order in which they were placed, so none is written over by
an older one. The file grows when it was too small for what came between two commits. It is emptied when the pool is
opened: a map that was put back from a backup has numbers again that were given already.

What is not whole was never acknowledged if it is where the power went: at the end. Where a later record says that an
earlier one was durable, and that is not there, the file is damaged (`Found.damage`). So it is when it is not the file
that the map says it is (`Mark`): there are no records before a commit of the map has said so, nor beyond what it said.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rowfs.base.errors import PoolError, StorageError
from rowfs.base.journalcode import JournalRecord, decode, decode_first, encode_first
from rowfs.base.units import BLOCK_BYTES, MIB
from rowfs.persist.hostfs import UNWRITABLE, sync_directory
from rowfs.persist.pooldir import open_regular

JOURNAL_BYTES = 4 * MIB  # at first: some 500 records of a page between two commits
JOURNAL_BYTES_MAX = 64 * MIB
RECORD_BYTES_MAX = JOURNAL_BYTES // 8
DAMAGED_SUFFIX = ".damaged"  # of a journal that was set aside


class State(ctypes.Structure):
    """Where the journal stands. The owner's, and native/_syncs.c's, which sees it as `struct journal` (_engine.h)."""

    fd: int
    next: int  # where the next record goes
    ready_bytes: int  # of the file, that are ready for records, as the map says
    is_lost: int  # a record could not be written: there are no more
    wanted: int  # somebody would have placed a record if it were ready
    crowded: int  # or if it were larger
    nonce: int
    commit: int  # of the map, that the records go on from
    records: int  # since then
    durable: int  # of these, how many are durable for certain
    home: int  # and how many are older than a sync of the data file
    holds_data: int  # any of them does
    under_way: int  # records that were begun, and are not durable yet

    _fields_ = tuple(
        (name, ctypes.c_uint64 if name in ("nonce", "commit") else ctypes.c_int64)
        for name in (
            *("fd", "next", "ready_bytes", "is_lost", "wanted", "crowded", "nonce"),
            *("commit", "records", "durable", "home", "holds_data", "under_way"),
        )
    )


class Found(NamedTuple):
    """What the journal holds beyond a commit of the map."""

    records: list[JournalRecord]  # those that were written whole, in their order, up to the first that was not
    damage: str | None = None  # what is missing, although it was durable


class Mark(NamedTuple):
    """What the map says of the file as long as there may be records in it."""

    nonce: str  # of its first block, 16 hex digits
    size_bytes: int  # at least


class JournalError(StorageError):
    """Raised when a record could not be written: a commit of the map does as well."""


class Journal:
    """The journal of one pool. The owner places records, any one thread at a time writes them, in that order."""

    def __init__(self, path: str, read_only: bool = False) -> None:
        """The file is made by `prepare`. Raises PoolError when there is one that cannot be opened.

        With `read_only` it need not be one that can be written.
        """
        self._path = path
        self.state = State(fd=-1, next=BLOCK_BYTES)
        self._made_bytes = 0  # of the file, that would be ready if the map said so
        try:
            self.state.fd = _opened(path, read_only)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise PoolError(f"cannot open {path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        if self.state.fd >= 0:
            os.close(self.state.fd)

    # Writing

    @property
    def mark(self) -> Mark | None:
        """What the map has to say of the file; None: there is none."""
        return Mark(f"{self.state.nonce:016x}", self._made_bytes) if self._made_bytes else None

    def begin(self, commit: int) -> None:
        """The map has a new commit: all records until now are void, and it says of the file what `mark` does."""
        state = self.state
        state.next, state.commit = BLOCK_BYTES, commit
        state.records = state.durable = state.home = state.holds_data = 0
        self.open_up()

    def open_up(self) -> None:
        """Records may be placed in all of the file, since the map says that it is there."""
        self.state.ready_bytes = self._made_bytes

    def place(self, length: int) -> int | None:
        """Where the next record of so many bytes is to be written; None: a commit of the map has to come first."""
        state = self.state
        state.wanted = True
        if length > RECORD_BYTES_MAX or state.is_lost:
            return None
        if state.next + length > state.ready_bytes:
            state.crowded = state.ready_bytes > 0
            return None
        at = state.next
        state.next += length
        return at

    def begun(self, home: int, holds_data: bool) -> None:
        """One more record is on its way, with data or without, and that of those up to `home` is in its place."""
        state = self.state
        state.records += 1
        state.home = home
        state.holds_data |= holds_data
        state.under_way += 1

    def ended(self) -> None:
        """The oldest record on its way is durable, or will never be."""
        state = self.state
        state.under_way -= 1
        state.durable = max(0, state.records - state.under_way)

    def prepare(self) -> None:
        """If somebody wants it: have blocks of the host for all of the file, so that no record waits or fails for them.

        For who may wait, and commits the map next: the records that are there stay. If the host has not so many, it
        stays as small as it is, or there are no records for now.
        """
        state = self.state
        if not state.wanted or state.is_lost or (self._made_bytes and not state.crowded):
            return
        state.crowded = False
        size_bytes = min(2 * self._made_bytes or JOURNAL_BYTES, JOURNAL_BYTES_MAX)
        if size_bytes == self._made_bytes:
            return
        try:
            if state.fd < 0:
                state.fd = open_regular(self._path, os.O_RDWR | os.O_CREAT)
            self._lengthen(size_bytes)
            sync_directory(os.path.dirname(self._path))
        except (OSError, PoolError):
            return
        self._made_bytes = size_bytes

    def _lengthen(self, size_bytes: int) -> None:
        fd, before = self.state.fd, self._made_bytes
        os.posix_fallocate(fd, before, size_bytes - before)
        if before == 0:
            self.state.nonce = int.from_bytes(os.urandom(8), "little")
            os.pwrite(fd, encode_first(self.state.nonce), 0)
            before = BLOCK_BYTES
        for start in range(before, size_bytes, MIB):  # else the host notes with each record that there is data now
            os.pwrite(fd, bytes(min(MIB, size_bytes - start)), start)
        os.fsync(fd)

    def write(self, position: int, record: bytes) -> None:
        """Make a record durable. Raises JournalError."""
        try:
            if os.pwritev(self.state.fd, [record], position, os.RWF_DSYNC) != len(record):
                raise JournalError("a write to the journal was cut short")
        except OSError as error:
            raise JournalError(f"a write to the journal failed: {error.strerror}") from error

    def give_up(self) -> None:
        """A record could not be written, so no later one would be replayed: there are none until it is opened again."""
        self.state.is_lost = True
        self.state.records = 0

    # Reading

    def clear(self) -> None:
        """The map holds all of it: forget it, durably. Raises StorageError."""
        if self.state.fd < 0:
            return
        try:
            if os.fstat(self.state.fd).st_size:
                os.ftruncate(self.state.fd, 0)
                os.fsync(self.state.fd)
        except OSError as error:
            raise StorageError(f"the journal cannot be emptied: {error.strerror}") from error

    def set_aside(self) -> None:
        """Give the file, if there is one, another name, durably: it is out of the way, and nothing of it lost."""
        if self.state.fd < 0:
            return
        try:
            os.rename(self._path, self._path + DAMAGED_SUFFIX)
            sync_directory(os.path.dirname(self._path))
        except OSError as error:
            raise StorageError(f"the journal cannot be renamed: {error.strerror}") from error
        self.close()
        self.state.fd = -1

    def records(self, commit: int, mark: Mark | None = None) -> Found:
        """What follows a commit of the map, which says `mark` of the file.

        Raises StorageError, and CorruptionError for what is whole and no sense.
        """
        if self.state.fd < 0:
            return Found([], None if mark is None else "it is missing, and the map says that it is there")
        try:
            data = memoryview(os.pread(self.state.fd, JOURNAL_BYTES_MAX, 0))
        except OSError as error:
            raise StorageError(f"the journal cannot be read: {error.strerror}") from error
        nonce = decode_first(data)
        found = _scattered(data, commit) if nonce is None else _in_order(data, commit, nonce)
        if mark is None or found.damage is not None:
            return found
        if len(data) < mark.size_bytes:
            return Found(found.records, f"it ends at byte {len(data)}, and the map says that it has {mark.size_bytes}")
        if nonce is None:
            return Found([], "its first block is damaged")
        if f"{nonce:016x}" != mark.nonce:
            return Found([], "it is another one than the map says")
        return found


def _in_order(data: memoryview, commit: int, nonce: int) -> Found:
    """Records side by side, behind the first block."""
    records: list[JournalRecord] = []
    at = BLOCK_BYTES
    while (record := decode(data[at:], commit, nonce)) and record.number == len(records) + 1:
        records.append(record)
        at += record.blocks * BLOCK_BYTES
    return Found(records, _damage(len(records) + 1, _whole(data[at:], commit, nonce)))


def _scattered(data: memoryview, commit: int) -> Found:
    """Records of an older rowfs, which went round in the file, and did not tell what was durable."""
    found = {record.number: record for record in _whole(data, commit)}
    if any(record.nonce is not None for record in found.values()):
        return Found([], f"its first block is damaged, and {len(found)} records follow it")
    records: list[JournalRecord] = []
    while record := found.get(len(records) + 1):
        records.append(record)
    later = (record._replace(durable=number - 1) for number, record in found.items() if number > len(records))
    return Found(records, _damage(len(records) + 1, later))


def _whole(data: memoryview, commit: int, nonce: int | None = None) -> Iterator[JournalRecord]:
    for start in range(0, len(data), BLOCK_BYTES):
        record = decode(data[start:], commit, nonce)
        if record is not None:
            yield record


def _damage(number: int, later: Iterable[JournalRecord]) -> str | None:
    """What is wrong where record `number` is not whole, and these were found behind it."""
    known = [record.number for record in later if record.durable >= number]
    if not known:
        return None
    return f"its record {number} is damaged, and {len(known)} that were written after it are whole, up to {max(known)}"


def _opened(path: str, read_only: bool) -> int:
    try:
        return open_regular(path, os.O_RDWR)
    except OSError as error:
        if not read_only or error.errno not in UNWRITABLE:
            raise
        return open_regular(path, os.O_RDONLY)
