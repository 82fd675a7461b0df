"""Mounting and unmounting as the kernel sees it, and what it may be told about a mount that is up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from errno import EBUSY, EPERM
from urllib.parse import unquote

from rowfs.base.errors import BusyError, NotFoundError, RowfsError, UsageError
from rowfs.host.holders import users_below
from rowfs.host.views import mounts, own_views

MNT_DETACH = 2  # umount(2)
PR_SET_IO_FLUSHER = 57  # prctl(2)
READ_AHEAD_KIB = 1024
BACKGROUND_REQUESTS = 64

_libc = ctypes.CDLL(None, use_errno=True)


def check_mountpoint(mountpoint: str, pool: str) -> None:
    """Raises NotFoundError, UsageError, BusyError when `pool` cannot be mounted on `mountpoint` (absolute paths)."""
    if not os.path.isdir(mountpoint):
        raise NotFoundError(f"{mountpoint} is not a directory: make it first")
    real_pool, real_mount = os.path.realpath(pool) + "/", os.path.realpath(mountpoint) + "/"
    if real_mount.startswith(real_pool) or real_pool.startswith(real_mount):
        raise UsageError("the pool and the mountpoint lie in each other: mount it somewhere else")
    if os.path.ismount(mountpoint):
        raise BusyError(f"something is mounted on {mountpoint} already")


def is_mounted(pool: str) -> bool:
    """Whether the pool of this absolute path is mounted anywhere."""
    return any(unquote(line.source, errors="surrogateescape") == pool for line in mounts())


def unmount(mountpoint: str, lazy: bool) -> None:
    """Unmount; `lazy`: even when in use, and bind mounts of it as well.

    Raises BusyError naming who uses it, or the bind mounts. Blocks: not on the trio thread.
    """
    others = [line.mountpoint for line in own_views(mountpoint)[1:]]
    if others and not lazy:
        raise BusyError(
            f"{mountpoint} can also be seen on {', '.join(others)} (mount --bind): unmount that first, or use --force"
        )
    for place in [*others, mountpoint]:
        _unmount(place, lazy)


def _unmount(mountpoint: str, lazy: bool) -> None:
    if _libc.umount2(os.fsencode(mountpoint), MNT_DETACH if lazy else 0) == 0:
        return
    code = ctypes.get_errno()
    if code == EPERM:
        _unmount_as_user(mountpoint, lazy)
    elif code == EBUSY:
        raise _busy(mountpoint)
    else:
        raise RowfsError(f"cannot unmount {mountpoint}: {os.strerror(code)}", code)


def _unmount_as_user(mountpoint: str, lazy: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = os.fsdecode(done.stderr).strip()
        if "busy" in said.lower():
            raise _busy(mountpoint)
        raise RowfsError(f"cannot unmount {mountpoint}: {said}")


def _busy(mountpoint: str) -> BusyError:
    who = users_below(mountpoint)
    return BusyError(
        f"{mountpoint} is in use{' by ' + ', '.join(who) if who else ''}: close that first, or use --force"
    )


def tune(mountpoint: str) -> None:
    """Ask the kernel for more readahead and requests on our mount and no deadlock on reclaim, as far as we may."""
    _libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)  # our own allocations must not wait for writes to our own mount
    device = os.stat(mountpoint).st_dev
    bdi = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}"
    for path, value in (
        (f"{bdi}/read_ahead_kb", READ_AHEAD_KIB),
        (f"{bdi}/strict_limit", 0),  # else 1 % of memory is all that may be dirty for FUSE
        (f"{bdi}/max_ratio", 50),
        (f"/sys/fs/fuse/connections/{os.minor(device)}/max_background", BACKGROUND_REQUESTS),
        (f"/sys/fs/fuse/connections/{os.minor(device)}/congestion_threshold", BACKGROUND_REQUESTS * 3 // 4),
    ):
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write(str(value))
