"""The block map: one LMDB environment. The only module that imports lmdb.

Readers see the last commit. `apply` is the one writer: a whole commit in one transaction, from any one thread at a time
(LMDB's write transactions belong to the thread that began them). The `BlockMap` itself belongs to the owner thread,
which calls `refresh` after each commit; a worker that scans opens a `Reader` of its own.

LMDB writes to its lock file through a mapping: a host that has no block for that ends the process with SIGBUS, and
where blocks are copied on write that can be at any time. So the lock file lies in memory (memfd_create), and nobody but
this process has it. Who looks at the map from another process opens it `shared`, once the owner was asked to `hold` it.

LMDB also trusts what it reads. So, where it can be had, all reading goes past it (persist.verified), and a commit sees
nothing but pages that were looked at. Once one is damaged LMDB is not asked again: there are no more commits, and what
is elsewhere can still be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import lmdb

from rowfs.base.errors import (
    NO_SPACE,
    CorruptionError,
    NoSpaceError,
    PoolError,
    StorageError,
    host_full_line,
    system_error_line,
)
from rowfs.base.format import (
    ADDED_TABLES,
    CHANGE_KEY,
    CHANGES,
    GROUP_BYTES,
    GROUP_PAGES,
    PAGE_KEY,
    PAGES,
    TABLES,
)
from rowfs.base.units import GIB, MIB
from rowfs.persist.datafile import preallocate
from rowfs.persist.lookover import command
from rowfs.persist.mapcheck import ALL_PAGES, PAGES_MAX, CommitGoneError, find_damage, meta_of
from rowfs.persist.mapread import Cursor, Reader, Trust, View
from rowfs.persist.verified import DamagedError, VerifiedMap

MAP_BYTES = 64 * GIB  # address space, not memory or disk: the map of some 20 TiB of random data
GROWTH = 2
MAP_FILE, MAP_LOCK_FILE = "data.mdb", "lock.mdb"
MAP_LOCK_BYTES = 8192  # what LMDB makes it for 126 readers, the default
MEMORY_DIR = "/dev/shm"
SHARED_TRIES = 1000  # for who makes two commits between two system calls of ours
LIB_VERSION = 0  # LMDB 0.9, whose data format persist.mappages knows
# Blocks of the host that a mounted pool's map has behind its end, so that it can commit and delete when others have
# taken the rest. A commit of 6,500 random pages, all that may be dirty with the usual cache, takes about as much.
RESERVE_BYTES = 32 * MIB
ROOM_BYTES = MIB  # that a host does not have which cuts a write short: LMDB writes 64 pages at once


@dataclass(slots=True)
class MapUpdate:
    """What one commit changes: values to put, None to delete. Page versions carry their index in CHANGES along."""

    records: dict[str, dict[bytes, bytes | None]] = field(default_factory=dict)
    pages: dict[bytes, bytes | None] = field(default_factory=dict)

    def put(self, table: str, key: bytes, value: bytes | None) -> None:
        """Put (or with None delete) one record."""
        self.records.setdefault(table, {})[key] = value

    def __bool__(self) -> bool:
        return bool(self.pages or self.records)


class MapFullError(StorageError):
    """Raised by `apply` when the map needs more address space: `grow`, then apply again."""


class MapNoSpaceError(NoSpaceError):
    """Raised by `apply` when the host is full, the reserve included: apply again when it is not. Nothing changed."""


class MapDamagedError(PoolError):
    """Raised when the map is not opened because LMDB would stumble over it."""

    findings: tuple[str, ...] = ()  # of persist.mapcheck


class _LmdbView:
    """The tables of a commit as LMDB has them, in a transaction."""

    def __init__(self, txn: lmdb.Transaction, tables: dict[str, lmdb._Database]) -> None:
        self._txn, self._tables = txn, tables
        self.commit = int(txn.id())

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return table in self._tables

    def cursor(self, table: str) -> Cursor:
        """A cursor over a table."""
        return self._txn.cursor(self._tables[table])

    def entries(self, table: str) -> int:
        """How many keys a table has."""
        return int(self._txn.stat(self._tables[table])["entries"])


class BlockMap(Reader):
    """The environment and the owner thread's reader."""

    def __init__(self, path: str, read_only: bool = False, map_bytes: int = MAP_BYTES, shared: bool = False) -> None:
        """Open the map in the directory `path`. Raises PoolError when there is none.

        MapDamagedError when LMDB would stumble over its pages. With `shared` another process, which may write to it
        meanwhile, has to `hold` it.
        """
        try:
            if not shared:
                _check_pages(path)
            held = os.stat(os.path.join(path, MAP_FILE)).st_size
            with contextlib.ExitStack() as stack:
                lock = -1 if shared else os.memfd_create(MAP_LOCK_FILE)
                if not shared:  # closed last: with any descriptor of a file that a process closes go its locks on it
                    stack.callback(os.close, lock)
                with contextlib.nullcontext(path) if shared else _beside_lock(path, lock) as directory:
                    self._env = lmdb.open(
                        os.fsencode(directory),
                        map_size=max(map_bytes, 2 * held),  # or one that has outgrown the default could not be written
                        max_dbs=len(TABLES) + 8,
                        create=False,
                        readonly=read_only,
                        readahead=False,
                        lock=not shared,
                    )
                stack.callback(self._env.close)
                self._path = os.path.join(path, MAP_FILE)
                self._holding: lmdb.Transaction | None = None  # the oldest commit that anybody holds
                self._holders = 0
                self._reserved_to = 0  # where the blocks end that `reserve` asked for
                self._keeps_reserve = False
                if shared:
                    self._check_shared(path)
                self._open_tables = dict(self._tables_there())
                self._verified = None if shared else VerifiedMap.open(self._path)
                if self._verified is not None:
                    stack.callback(self._verified.close)
                    if not read_only:
                        self._verified.guard()
                self._trust = Trust(replaced=self._verified is not None, errors=(lmdb.Error,))
                super().__init__(*self._begin())
                self._files = stack.pop_all()
        except OSError as error:
            raise PoolError(f"cannot open the block map in {path}: {error.strerror}") from None
        except lmdb.NotFoundError:
            raise PoolError(f"the block map in {path} is incomplete") from None
        except lmdb.Error as error:
            raise PoolError(f"cannot open the block map in {path}: {error}") from None
        except (DamagedError, CorruptionError) as error:  # since it was looked at
            raise PoolError(f"cannot open the block map in {path}: {error}") from None

    @staticmethod
    def create(path: str, first: MapUpdate) -> None:
        """Make a map that holds `first` alone in the empty directory `path`. Raises OSError, RowfsError."""
        try:
            with lmdb.open(
                os.fsencode(path),
                map_size=MAP_BYTES,
                max_dbs=len(TABLES) + 8,
                mode=0o600,
                lib_version=LIB_VERSION,
                lock=False,
            ) as env:
                tables = {name: env.open_db(name.encode()) for name in TABLES}
                with env.begin(write=True) as txn:
                    for table, changes in first.records.items():
                        _put_records(txn, tables[table], changes)
        except lmdb.Error as error:
            raise _failure(error) from None

    def _tables_there(self) -> Iterator[tuple[str, lmdb._Database]]:
        for name in TABLES:
            try:
                yield name, self._env.open_db(name.encode(), create=False)
            except lmdb.NotFoundError:
                if name not in ADDED_TABLES:
                    raise

    def _check_shared(self, path: str) -> None:
        # A reader keeps the pages of its commit. Its meta page is written over when two more are made.
        for _ in range(SHARED_TRIES):
            with self._env.begin() as txn, contextlib.suppress(CommitGoneError):
                return _check_pages(path, txn.id())
        raise PoolError(f"the block map in {path} has no meta page of its last commit")

    def close(self) -> None:
        """Close the environment."""
        super().close()
        self._files.close()

    def _begin(self) -> tuple[Trust, View, Callable[[], None]]:
        """For a reader of the last commit. Raises CorruptionError."""
        if self._verified is None:
            txn = self._env.begin(buffers=True)
            return self._trust, _LmdbView(txn, self._open_tables), txn.abort
        self._check_metas()
        # Without LMDB nothing is committed any more, and no page of the last commit used again.
        kept = None if self._trust.lost is not None else self._env.begin()
        end: Callable[[], None] = (lambda: None) if kept is None else kept.abort
        try:
            return self._trust, self._verified.view(self._verified.meta.commit if kept is None else kept.id()), end
        except DamagedError as error:
            end()
            raise self._trust.lose(str(error)) from None

    def refresh(self) -> None:
        """See the last commit. Buffers handed out before are no longer valid. Raises CorruptionError."""
        super().close()
        super().__init__(*self._begin())

    def reader(self) -> Reader:
        """A reader of its own for a scan, of the last commit. Close it before `grow`. Raises CorruptionError."""
        return Reader(*self._begin())

    def hold(self) -> Callable[[], None]:
        """Keep the last commit, and all that follow, for a process that has the map open `shared`, until the function
        that is returned is called.

        However many hold it, they have one of LMDB's places for readers between them: of these there are 126. Raises
        CorruptionError.
        """
        self._check_metas()
        self._trust.check()
        if self._holding is None:
            self._holding = self._env.begin()
        self._holders += 1
        return self._let_go

    def _let_go(self) -> None:
        self._holders -= 1
        if not self._holders and self._holding is not None:
            self._holding.abort()
            self._holding = None

    def look_over(self) -> tuple[list[str], Callable[[], None]]:
        """What to start to have all pages of the last commit looked at, and what to call when that is done."""
        release = self.hold()
        try:
            meta = meta_of(self._path, self.commit)
            return command(os.path.realpath(self._path), meta), release  # by a path that is good for another process
        except BaseException:
            release()
            raise

    @property
    def looked_over(self) -> bool:
        """Whether all of its pages were looked at when it was opened."""
        return self.used_bytes() <= PAGES_MAX * int(self._env.stat()["psize"])

    def distrust(self, why: str) -> None:
        """From now on LMDB is not asked for anything any more: what only it could tell raises CorruptionError."""
        self._trust.lose(why)

    def on_damage(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called, in whatever thread, when it turns out that LMDB must not be asked any more."""
        self._trust.tell = tell

    def _check_metas(self) -> None:
        """Before LMDB looks at them. What it would then do has to be done without it."""
        if self._verified is not None and self._trust.lost is None:
            try:
                self._verified.check_metas()
            except DamagedError as error:
                self._trust.lose(str(error))

    def grow(self) -> None:
        """Double the address space. No transaction may be open: not `apply`, no other reader."""
        super().close()
        if self._verified is not None:
            self._verified.unguard()
        self._env.set_mapsize(self._env.info()["map_size"] * GROWTH)
        if self._verified is not None:
            self._verified.guard()
        super().__init__(*self._begin())

    def used_bytes(self) -> int:
        """What the map takes, in whole LMDB pages that were ever used."""
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def keep_reserve(self) -> None:
        """From now on have blocks of the host ready for what the map will need, if the host has any."""
        self._keeps_reserve = True
        self._reserve()

    def release_reserve(self) -> None:
        """Give the host back what `keep_reserve` took, now or in an earlier life; `keep_reserve` takes it again."""
        self._keeps_reserve, self._reserved_to = False, 0
        os.truncate(self._path, os.stat(self._path).st_size)

    def _reserve(self) -> None:
        used = self.used_bytes()
        if self._reserved_to - used >= RESERVE_BYTES // 2:
            return
        with contextlib.suppress(OSError):  # no descriptor is left, say: the next commit tries again
            if preallocate(self._path, used, RESERVE_BYTES):
                self._reserved_to = used + RESERVE_BYTES

    def apply(self, update: MapUpdate) -> None:
        """One commit: all of `update` or nothing, durable on return.

        Raises MapFullError and MapNoSpaceError (nothing changed, and it can be tried again), StorageError,
        CorruptionError.
        """
        self._trust.check()
        tables = self._open_tables.copy()  # the owner's reader knows nothing of a new one before `refresh`
        try:
            with self._verifying(update), self._env.begin(write=True) as txn:
                self._put_pages(txn, update.pages)
                for table, changes in update.records.items():
                    if table not in tables:  # to make it at once would be a commit, and void what the journal holds
                        tables[table] = self._env.open_db(table.encode(), txn=txn)
                    _put_records(txn, tables[table], changes)
                if self._verified is not None:
                    self._verified.check_metas()
                    self._verified.check_unharmed()
        except DamagedError as error:
            raise self._trust.lose(str(error)) from None
        except lmdb.MapFullError:
            raise MapFullError("the block map is full") from None
        except lmdb.Error as error:
            raise self._no_room_for(error) or _failure(error) from error
        self._open_tables = tables
        if self._keeps_reserve:
            self._reserve()

    @contextlib.contextmanager
    def _verifying(self, update: MapUpdate) -> Iterator[None]:
        """Around a commit: what LMDB reads is in order, and what it has written. Raises DamagedError."""
        verified = self._verified
        if verified is None:
            yield
            return
        try:
            verified.prepare(_keys(update))
            yield
            verified.check_unharmed()
        except lmdb.Error:
            verified.check_unharmed()
            raise
        finally:
            verified.release()
        try:
            verified.follow()
        except DamagedError as error:  # the commit is made, and whoever waits for it may know; it is the last one
            self._trust.lose(str(error))

    def _no_room_for(self, error: lmdb.Error) -> MapNoSpaceError | None:
        # LMDB calls it EIO when the host's last blocks were enough for a part of what it wrote.
        if os.strerror(errno.EIO) in str(error) and not preallocate(self._path, self.used_bytes(), ROOM_BYTES):
            return MapNoSpaceError(host_full_line(errno.ENOSPC))
        return None

    def _put_pages(self, txn: lmdb.Transaction, pages: dict[bytes, bytes | None]) -> None:
        if not pages:
            return
        _put_records(txn, self._open_tables[PAGES], pages)
        changes = self._open_tables[CHANGES]
        masks: dict[bytes, list[int]] = {}
        for key, value in pages.items():
            change, bit = _change_of(key)
            masks.setdefault(change, [0, 0])[value is None] |= 1 << bit
        for key, (present, gone) in sorted(masks.items()):
            stored = txn.get(key, default=b"", db=changes)
            if len(stored) > GROUP_BYTES:
                raise CorruptionError("the block map is damaged: an entry of the change index is too long")
            bits = (int.from_bytes(stored, "little") | present) & ~gone
            if bits:
                txn.put(key, bits.to_bytes(GROUP_BYTES, "little"), db=changes)
            else:
                txn.delete(key, db=changes)


def _keys(update: MapUpdate) -> Iterator[tuple[str, Iterable[bytes]]]:
    """What a commit changes, by tables."""
    yield PAGES, update.pages
    yield CHANGES, {change for change, _ in map(_change_of, update.pages)}
    yield from update.records.items()


def _change_of(key: bytes) -> tuple[bytes, int]:
    """The entry of the change index that a page version has a bit in, and which bit."""
    branch, page, epoch = PAGE_KEY.unpack(key)
    group, bit = divmod(page, GROUP_PAGES)
    return CHANGE_KEY.pack(branch, epoch, group), bit


def _check_pages(path: str, commit: int | None = None) -> None:
    """Raises MapDamagedError, CommitGoneError, OSError."""
    findings = find_damage(os.path.join(path, MAP_FILE), TABLES, commit)
    if findings:
        pool = os.path.dirname(path)
        error = MapDamagedError(f"the block map in {path} is damaged ({findings[0]}): rowfs check {pool} tells more")
        error.findings = tuple(findings)
        raise error


def verify(path: str) -> list[str]:
    """What persist.mapcheck, or else LMDB's offline verifier, finds wrong with the pages of the map in `path`.

    Nobody may have it open. Raises PoolError when it cannot even begin.
    """
    from lmdb.verify import VerifyError
    from lmdb.verify import verify as verify_pages

    try:
        findings = find_damage(os.path.join(path, MAP_FILE), TABLES, pages_max=ALL_PAGES)
        return findings or [str(problem) for problem in verify_pages(path)]  # type: ignore[no-untyped-call]
    except VerifyError as error:
        raise PoolError(f"the block map in {path} cannot be read: {error}") from None
    except OSError as error:
        raise PoolError(f"the block map cannot be read: {system_error_line(error)}") from None


@contextlib.contextmanager
def _beside_lock(path: str, lock: int) -> Iterator[str]:
    """A directory in which LMDB, opening its files, finds the map in `path`, and memory as its lock file."""
    os.write(lock, bytes(MAP_LOCK_BYTES))  # LMDB would map a hole, for which there may be no memory later
    with contextlib.ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="rowfs-", dir=MEMORY_DIR if os.path.isdir(MEMORY_DIR) else None)
        stack.callback(os.rmdir, directory)
        for name, target in (
            (MAP_FILE, os.path.abspath(os.path.join(path, MAP_FILE))),
            (MAP_LOCK_FILE, f"/proc/self/fd/{lock}"),
        ):
            os.symlink(target, os.path.join(directory, name))
            stack.callback(os.unlink, os.path.join(directory, name))
        yield directory


def _put_records(txn: lmdb.Transaction, table: lmdb._Database, changes: dict[bytes, bytes | None]) -> None:
    puts = sorted((key, value) for key, value in changes.items() if value is not None)
    with txn.cursor(table) as cursor:
        cursor.putmulti(puts)
        for key, value in changes.items():
            if value is None and cursor.set_key(key):
                cursor.delete()


def _failure(error: lmdb.Error) -> StorageError | NoSpaceError | CorruptionError:
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
        return CorruptionError(f"the block map is damaged: {error}")
    for code in NO_SPACE:
        # The transaction is undone. Tried again, it writes all its pages anew, so that nothing rests on what the kernel
        # may have dropped.
        if os.strerror(code) in str(error):
            return MapNoSpaceError(host_full_line(code))
    return StorageError(f"the block map failed: {error}")
