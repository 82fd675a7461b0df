"""`mount -o remount,ro` and back: what the kernel lets be written. The daemon reads it in the kernel's list."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from errno import EBUSY, EPERM

from rowfs.base.errors import BusyError, NotFoundError, ReadOnlyError, RowfsError
from rowfs.base.mountinfo import MountLine
from rowfs.cli.mounts import Mount, current_mounts, everything_mounted
from rowfs.cli.session import ask

REMOUNT = 32  # sys/mount.h
_FLAGS = {
    **{"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "dirsync": 128},
    **{"noatime": 1 << 10, "nodiratime": 1 << 11, "relatime": 1 << 21, "strictatime": 1 << 24, "lazytime": 1 << 25},
}
_OFF = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "atime": "noatime"} | {
    "diratime": "nodiratime",
    "norelatime": "relatime",
    "nostrictatime": "strictatime",
    "nolazytime": "lazytime",
}

_libc = ctypes.CDLL(None, use_errno=True)


def remount(mountpoint: str, words: Sequence[str]) -> None:
    """Change how the live mount at `mountpoint` may be used; what `words` do not say stays as it is.

    Raises NotFoundError, ReadOnlyError, BusyError, RowfsError.
    """
    mount = next((mount for mount in current_mounts() if mount.mountpoint == mountpoint), None)
    if mount is None:
        raise NotFoundError(f"no pool is mounted on {mountpoint}: there is nothing to remount")
    line = next(line for line in everything_mounted()[::-1] if line.mountpoint == mountpoint)
    flags = _flags([*_now(line), *words])
    if not flags & _FLAGS["ro"]:
        _check_writable(mount)
    if _libc.mount(b"none", os.fsencode(mountpoint), None, REMOUNT | flags, None) != 0:
        raise _refused(mountpoint, ctypes.get_errno())


def _now(line: MountLine) -> list[str]:
    return [*line.flags.split(","), *line.options.split(",")]


def _flags(words: Sequence[str]) -> int:
    """The flags of mount(2) that are left when the words are taken in order; those that are none mean nothing here."""
    flags = 0
    for word in words:
        if word in _OFF:
            flags &= ~_FLAGS[_OFF[word]]
        else:
            flags |= _FLAGS.get(word, 0)
    return flags


def _check_writable(mount: Mount) -> None:
    if ask(mount, "hello").get("read_only"):
        raise ReadOnlyError(
            f"the pool on {mount.mountpoint} was opened read-only, or became so: rowfs umount it, and mount it again"
        )


def _refused(mountpoint: str, code: int) -> RowfsError:
    if code == EBUSY:
        return BusyError(f"files on {mountpoint} are open for writing (loop devices too): close them first")
    if code == EPERM:
        return RowfsError(f"only root can remount {mountpoint}: or rowfs umount it, and mount it again", code)
    return RowfsError(f"cannot remount {mountpoint}: {os.strerror(code)}", code)
