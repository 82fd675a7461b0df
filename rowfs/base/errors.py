"""What can go wrong, by when it does. Each class carries the errno a file system answers with.

A message is one line that says what, why and what to do. A broken invariant is an assertion, never one of these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EBUSY, EDQUOT, EEXIST, EINVAL, EIO, ENOENT, ENOSPC, EPERM, EROFS

NO_SPACE = (ENOSPC, EDQUOT)  # what a host says that has no block for us: it is full, or a quota is used up


class RowfsError(Exception):
    """Anything rowfs itself reports. `errno` is what a system call on the mount answers, `exit_code` what a program."""

    errno: int = EIO
    exit_code: int = 1

    def __init__(self, message: str, errno_: int | None = None) -> None:
        super().__init__(message)
        if errno_ is not None:
            self.errno = errno_


class UsageError(RowfsError):
    """Raised when a name, size or option is not one rowfs takes, whatever there is. Nothing was changed."""

    errno: int = EINVAL
    exit_code: int = 2


class NotFoundError(RowfsError):
    """Raised when a disk or a snapshot of that name is not there."""

    errno: int = ENOENT


def system_error_line(error: OSError) -> str:
    """What a system call refused, and on which file, for people."""
    why = error.strerror or str(error) or type(error).__name__
    return why if error.filename is None else f"{os.fsdecode(error.filename)}: {why}"


def no_snapshot(disk: str, name: str) -> NotFoundError:
    """What says that `disk` has no snapshot `name`."""
    return NotFoundError(f"the disk {disk} has no snapshot {name}: rowfs list shows those it has")


class ExistsError(RowfsError):
    """Raised when a name is taken already."""

    errno: int = EEXIST


class BusyError(RowfsError):
    """Raised when a disk or pool is in use by someone the message names."""

    errno: int = EBUSY


class HeldError(BusyError):
    """Raised when a pool is held by another process; `mounted_as`: the device number of its mount, if it said one."""

    mounted_as: str | None = None


class ReadOnlyError(RowfsError):
    """Raised when a snapshot, a read-only mount or a pool that failed would have to change."""

    errno: int = EROFS


class NoSpaceError(RowfsError):
    """Raised when the pool's capacity or its host file system is used up."""

    errno: int = ENOSPC


def host_full_line(code: int) -> str:
    """What one of NO_SPACE means, and what to do."""
    if code == EDQUOT:
        return "the quota that holds for the pool on its file system is used up: raise it, or free some space there"
    return "the file system that holds the pool is full: free some space there"


class DiskFullError(NoSpaceError):
    """Raised when a disk holds all that it may: nothing that others give up would help."""


class LimitError(RowfsError):
    """Raised when a limit that somebody set is reached: the message names it. Not for want of space."""

    errno: int = EDQUOT


class LockedError(RowfsError):
    """Raised when a lock keeps what would have to go or change: the message names the lock."""

    errno: int = EPERM


class PoolError(RowfsError):
    """Raised when a directory cannot be opened as a pool: not one, a newer format, in pieces."""

    errno: int = EINVAL


class CorruptionError(RowfsError):
    """Raised when what is stored cannot be what was written: a checksum or an invariant on disk does not hold."""

    errno: int = EIO
    logged = False  # a line in the log tells of it already


class BlockDamagedError(RowfsError):
    """Raised when sealed blocks do not read as what was sealed. Nothing of them is handed on."""

    def __init__(self, message: str, addresses: Sequence[int] = (), starts: Sequence[int] = ()) -> None:
        """At these addresses, read to where the buffer has these offsets."""
        super().__init__(message)
        self.addresses, self.starts = addresses, starts


class StorageError(RowfsError):
    """Raised when the host file system or the block map failed to read or write."""

    errno: int = EIO
