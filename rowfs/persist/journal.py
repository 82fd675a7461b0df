"""The journal: a file of records that are durable before the block map holds what is in them.

A commit of the map syncs LMDB's file twice. A small one can be put off: its record is appended here, with one sync, and
the next commit of the map holds it as well. Records belong to the commit that they follow, by LMDB's own number of it,
so with each commit all of them are void at once. The file is a ring; the records of one commit fill half of it at most,
so that one which is still being written is never overwritten. It is emptied when the pool is opened: a map that was put
back from a backup has numbers again that were given already.
"""

from __future__ import annotations

import itertools
import os

from rowfs.base.errors import PoolError, StorageError
from rowfs.base.journalcode import JournalRecord, decode
from rowfs.base.units import BLOCK_BYTES, MIB
from rowfs.persist.hostfs import sync_directory

JOURNAL_BYTES = 4 * MIB  # some 500 records of one block between two commits
RECORD_BYTES_MAX = JOURNAL_BYTES // 8  # what does not fit in at the end of the ring leaves so much there at most


class JournalError(StorageError):
    """Raised when a record could not be written: a commit of the map does as well."""


class Journal:
    """The journal of one pool. The owner places records, any one thread writes them, in that order."""

    def __init__(self, path: str) -> None:
        """The file is made by `prepare`. Raises PoolError when there is one that cannot be opened."""
        self._path = path
        self._fd = -1
        self._ready = self.is_lost = False
        self.wanted = False  # somebody would have placed a record if it were ready
        self._next = 0
        self._used_bytes = 0  # since the last commit
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise PoolError(f"cannot open {path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor, for who writes records that were placed as `write` does (native/_workers.c)."""
        return self._fd

    def begin(self) -> None:
        """The map has a new commit: all records until now are void."""
        self._used_bytes = 0

    def place(self, length: int) -> int | None:
        """Where the next record of so many bytes is to be written; None: a commit of the map has to come first."""
        self.wanted = True
        if length > RECORD_BYTES_MAX or not self._ready or self.is_lost:
            return None
        at = self._next if self._next + length <= JOURNAL_BYTES else 0
        used = self._used_bytes + length + (self._next and JOURNAL_BYTES - self._next if at == 0 else 0)
        if used > JOURNAL_BYTES // 2:
            return None
        self._next, self._used_bytes = at + length, used
        return at

    def prepare(self) -> None:
        """If somebody wants it: have blocks of the host for all of the ring, so that no record waits or fails for them.

        For who may wait, as the writer of records. If the host has not so many, there are no records for now.
        """
        if self._ready or self.is_lost or not self.wanted:
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(self._fd, 0, JOURNAL_BYTES)
            os.pwrite(self._fd, bytes(JOURNAL_BYTES), 0)  # else the host notes with each record that there is data now
            os.fsync(self._fd)
            sync_directory(os.path.dirname(self._path))
        except OSError:
            return
        self._ready = True

    def write(self, position: int, record: bytes) -> None:
        """Make a record durable. Raises JournalError."""
        try:
            if os.pwrite(self._fd, record, position) != len(record):
                raise JournalError("a write to the journal was cut short")
            os.fdatasync(self._fd)
        except OSError as error:
            raise JournalError(f"a write to the journal failed: {error.strerror}") from error

    def give_up(self) -> None:
        """A record could not be written, so no later one would be replayed: there are none until it is opened again."""
        self.is_lost = True

    def clear(self) -> None:
        """The map holds all of it: forget it, durably. Raises StorageError."""
        if self._fd < 0:
            return
        try:
            if os.fstat(self._fd).st_size:
                os.ftruncate(self._fd, 0)
                os.fsync(self._fd)
        except OSError as error:
            raise StorageError(f"the journal cannot be emptied: {error.strerror}") from error

    def records(self, commit: int) -> list[JournalRecord]:
        """The records that follow a commit of the map, in their order. Raises StorageError, CorruptionError."""
        if self._fd < 0:
            return []
        try:
            data = memoryview(os.pread(self._fd, JOURNAL_BYTES, 0))
        except OSError as error:
            raise StorageError(f"the journal cannot be read: {error.strerror}") from error
        found: dict[int, JournalRecord] = {}
        for start in range(0, len(data), BLOCK_BYTES):
            record = decode(data[start:], commit)
            if record is not None:
                found[record.number] = record
        # One that is missing was never acknowledged, nor was any behind it: they are written in order.
        following = (found.get(number) for number in itertools.count(1))
        return [record for record in itertools.takewhile(lambda record: record is not None, following) if record]
