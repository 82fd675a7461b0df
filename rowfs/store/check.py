"""The checker: holds a pool's last commit against the invariants. It shares the format with the engine, and no rule.

    names                            store.namecheck: records, and what they refer to
    versions                         store.versioncheck: page versions, each held against the one before it
    owners, space, changes, figures  store.derivedcheck: what follows from the page versions
    seals, data                      store.sealcheck: sums, and if that is asked for what they are of
    pages                            LMDB's own pages: persist.mapcheck, and its offline verifier when nobody has the
                                     pool open

Here the pool is opened, as damaged as it may be, and mended. A mounted one can be checked too, while its daemon holds
the last commit for us. What can be mended without guessing is collected while checking: bitmaps, shares, the change
index and figures follow from the page versions, as long as every one of those can be read. Nothing that a name refers
to is ever removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from errno import EROFS

from rowfs.base.errors import BusyError, PoolError, ReadOnlyError
from rowfs.base.format import DATA_FILE, JOURNAL_FILE, LOCK_FILE, MAP_DIR, META, POOL_KEY, PoolRecord, check_format
from rowfs.base.units import BLOCK_BYTES
from rowfs.persist.blockmap import BlockMap, MapDamagedError, MapUpdate, verify
from rowfs.persist.datafile import DataFile
from rowfs.persist.hostfs import Lock
from rowfs.persist.journal import Journal
from rowfs.persist.mapread import Reader
from rowfs.store.derivedcheck import DerivedCheck
from rowfs.store.findings import Finding, Findings
from rowfs.store.namecheck import NameCheck
from rowfs.store.pool import no_pool, opened_directory
from rowfs.store.replay import named_journal, replay
from rowfs.store.sealcheck import SealCheck, check_data
from rowfs.store.versioncheck import Progress, VersionCheck

Hold = Callable[[], contextlib.AbstractContextManager[object]]


def check_pool(
    path: str,
    progress: Progress = lambda done, total: None,
    repair: bool = False,
    hold: Hold | None = None,
    other_owner: bool = False,
    data: bool = False,
) -> tuple[list[Finding], bool]:
    """Everything that is wrong with the pool in `path`, and whether all of it was mended (with `repair`, else False).

    `progress` gets versions done and in all. A mounted pool is checked as of its last commit, which its daemon keeps
    within `hold`, and cannot be repaired. With `data` all sealed blocks are read, too, of a pool that is not mounted.
    With `other_owner` it may belong to another user. Where the host is read-only, nothing is written. Raises PoolError
    when it cannot be opened as a pool, ForeignError, BusyError when it is in use and `hold` is None, or it is to be
    repaired, or its data to be looked at.
    """
    if not os.path.isdir(os.path.join(path, MAP_DIR)):
        raise no_pool(path)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(contextlib.closing(opened_directory(path, other_owner)))
        stack.enter_context(directory.naming())
        return _check_place(directory.place, path, progress, repair, hold, data)


def _check_place(
    path: str, shown: str, progress: Progress, repair: bool, hold: Hold | None, data: bool
) -> tuple[list[Finding], bool]:
    """The same of the pool that `path` leads to, and that is called `shown`."""
    with contextlib.ExitStack() as stack:
        mounted = _held(stack, path, shown, repair, hold)
        if mounted and data:
            raise BusyError(f"the pool {shown} is mounted: its data is looked at with rowfs scrub, on the mount")
        findings = [] if mounted else [Finding("pages", text) for text in verify(os.path.join(path, MAP_DIR))]
        if findings:  # reading on through LMDB could crash
            return findings, False
        try:
            blockmap = BlockMap(os.path.join(path, MAP_DIR), read_only=not repair, shared=mounted)
        except MapDamagedError as error:
            return [Finding("pages", text) for text in error.findings], False
        stack.callback(blockmap.close)
        size_bytes = _check_label(path, blockmap)
        lost = None if mounted else _check_journal(stack, path, blockmap, repair)
        findings, mended = _check(blockmap, progress, size_bytes)
        if repair and findings:
            blockmap.apply(mended)
            blockmap.refresh()
            whole = not _check(blockmap, progress, size_bytes)[0]
        else:
            whole = not findings
        if lost is not None:
            findings.insert(0, Finding("journal", lost))
        if data:
            file = DataFile(os.path.join(path, DATA_FILE), read_only=True)
            stack.callback(file.close)
            damaged = check_data(blockmap, file, progress)
            findings, whole = findings + damaged, whole and not damaged
        return findings, bool(repair and findings) and whole


def _held(stack: contextlib.ExitStack, path: str, shown: str, repair: bool, hold: Hold | None) -> bool:
    """Hold the pool while it is checked. True: somebody has it mounted, and only looking is possible."""
    try:
        stack.callback(Lock(os.path.join(path, LOCK_FILE), f"the pool {shown}", read_only=not repair).close)
    except BusyError:
        if hold is None or repair:
            raise
        stack.enter_context(hold())
        return True
    except OSError as error:
        if error.errno == EROFS and repair:
            raise ReadOnlyError(
                f"{shown} is on a host that is read-only: only check without --repair is possible there"
            ) from None
        raise PoolError(f"cannot open {shown}: {error.strerror}") from None
    return False


def _check_journal(stack: contextlib.ExitStack, path: str, blockmap: BlockMap, repair: bool) -> str | None:
    """What is wrong with the journal; with `repair` what it holds is in the map, for a commit of ours would void it."""
    journal = Journal(os.path.join(path, JOURNAL_FILE), read_only=not repair)
    stack.callback(journal.close)
    if not repair:
        return journal.records(blockmap.commit, named_journal(blockmap)).damage
    return replay(blockmap, journal, lambda: DataFile(os.path.join(path, DATA_FILE)))


def _check_label(path: str, blockmap: BlockMap) -> int:
    """The size of the data file. Raises PoolError when the files are not those of one pool of a known format."""
    stored = blockmap.get(META, POOL_KEY)
    if stored is None:
        raise PoolError(f"the block map of {path} has no pool record")
    record = PoolRecord.unpack(stored)
    check_format(record.format)
    data = DataFile(os.path.join(path, DATA_FILE), read_only=True)
    size_bytes = data.size_bytes()
    data.close()
    if data.uuid.hex() != record.uuid:
        raise PoolError("the data file and the block map are of different pools")
    return size_bytes


def check_map(reader: Reader, progress: Progress = lambda done, total: None) -> list[Finding]:
    """Everything that is wrong with the commit that `reader` sees."""
    return _check(reader, progress)[0]


def _check(reader: Reader, progress: Progress, size_bytes: int | None = None) -> tuple[list[Finding], MapUpdate]:
    """What is wrong with a commit, and with a data file of so many bytes under it; and what mends the commit."""
    found = Findings()
    names = NameCheck(reader, found)
    names.run()
    versions = VersionCheck(reader, found, names)
    versions.run(progress)
    DerivedCheck(reader, found, names, versions).run()
    SealCheck(reader, found, names, versions).run()
    findings = found.listed()
    last = versions.owners.last()
    if size_bytes is not None and (last + 1) * BLOCK_BYTES > size_bytes:
        findings.append(Finding("space", f"the data file ends at byte {size_bytes}, but address {last} is in use"))
    return findings, found.mended
