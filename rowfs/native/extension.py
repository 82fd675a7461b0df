"""Loads the C extension that hands on what pyfuse3 does not (see _native.c), before pyfuse3 itself is loaded.

Without the extension, or with ROWFS_NATIVE=0, rowfs mounts all the same: there is no discard, copies read holes, reads
and writes are slower, and each write costs the kernel one request more. The same goes for the other one, which reads
the block map (persist.verified): LMDB reads it then.
"""

from __future__ import annotations

import importlib
import logging
import os
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rowfs.base import pagecode
from rowfs.persist.datafile import DataFile
from rowfs.seal import crc32c
from rowfs.store.model import Disk, Snapshot, State
from rowfs.store.pool import Pool

if TYPE_CHECKING:
    import pyfuse3  # only after the extension, see above

_ATTRIBUTES = struct.Struct("=QIIQQQqqqIIIIIIIIII")

log = logging.getLogger(__name__)


class Handlers(Protocol):
    """Who answers the requests that the extension hands on (their arguments are in _native.c)."""

    def fallocate(self, request: int, fh: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""

    def lseek(self, request: int, fh: int, offset: int, whence: int) -> None:
        """lseek(2) with SEEK_DATA or SEEK_HOLE."""

    def copy_file_range(self, request: int, source: int, at: int, target: int, to: int, length: int) -> None:
        """copy_file_range(2)."""


class Served(NamedTuple):
    """What the extension answered."""

    reads: int
    writes: int
    syncs: int
    records: int  # of the journal, that it made for syncs


def _load() -> ModuleType | None:
    if os.environ.get("ROWFS_NATIVE") == "0" or "pyfuse3" in sys.modules:
        return None
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)  # so that pyfuse3 finds our functions before libfuse's
    try:
        return importlib.import_module("rowfs.native._native")
    except ImportError:
        return None
    finally:
        sys.setdlopenflags(flags)


module: Any = _load()
if module is not None:
    crc32c.compute_with(module.block_sums)
    pagecode.encode_with(module.encode_page)


def hand_to(handlers: Handlers) -> None:
    """Have `handlers` answer from now on; without the extension nothing."""
    if module is not None:
        module.set_handlers(handlers.fallocate, handlers.lseek, handlers.copy_file_range)


def serve(
    handles: dict[int, Any],
    set_time: Callable[[int, int, int], pyfuse3.EntryAttributes | None],
    pool: Pool,
    committer: object,
) -> None:
    """Have the extension answer the commonest requests on these handles itself (what and how: _hotpath.h).

    `set_time` takes an inode and its times of last modification and change in nanoseconds, and gives the inode's
    attributes. Not where something else stands in for the data file.
    """
    if module is not None and type(pool.data) is DataFile:

        def touched(inode: int, modified_ns: int, changed_ns: int) -> bytes | None:
            entry = set_time(inode, modified_ns, changed_ns)
            return None if entry is None else attributes_answer(entry)

        module.serve(handles, pool, committer, touched, pool.data.fileno(), Disk, Snapshot, State.DIRTY)
        pool.data.sync_with(module.sync_data)


def attributes_answer(entry: pyfuse3.EntryAttributes) -> bytes:
    """What answers a request that asks for attributes: struct fuse_attr_out of linux/fuse.h."""
    valid_s, valid_part = divmod(entry.attr_timeout, 1)
    times = [divmod(ns, 10**9) for ns in (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns)]
    return _ATTRIBUTES.pack(
        int(valid_s),
        int(valid_part * 1e9),
        0,
        entry.st_ino,
        entry.st_size,
        entry.st_blocks,
        *(seconds for seconds, _ in times),
        *(part for _, part in times),
        entry.st_mode,
        entry.st_nlink,
        entry.st_uid,
        entry.st_gid,
        entry.st_rdev,
        entry.st_blksize,
        0,
    )


def stop() -> None:
    """Have it answer no more, and return when its workers have done what they were doing."""
    if module is not None:
        module.stop()


def served() -> Served:
    """How many requests the extension answered."""
    return Served(*module.served()) if module is not None else Served(0, 0, 0, 0)


def warn_if_missing() -> None:
    """Say once, after mounting, what a mount without the extension lacks."""
    if module is None or not module.active():
        log.warning("the C extension is not loaded: no discard, holes are not told to cp, writes are slower")
