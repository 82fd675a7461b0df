"""Mounting and unmounting as the kernel sees it, and what it may be told about a mount that is up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from errno import EBUSY, EPERM

from rowfs.base.errors import BusyError, NotFoundError, RowfsError, UsageError
from rowfs.base.mountinfo import FS_TYPE
from rowfs.host.holders import users_below
from rowfs.host.views import OwnMount, mounts

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


def is_mounted(device: str) -> bool:
    """Whether the mount of this device number is still there."""
    return any(line.device == device and line.fs_type == FS_TYPE for line in mounts())


def unmount(own: OwnMount, lazy: bool) -> None:
    """Unmount; `lazy`: even when in use, and bind mounts of it as well. A mount that was moved is found.

    Raises BusyError naming who uses it, or the bind mounts. Blocks: not on the trio thread.
    """
    places = [line.mountpoint for line in own.views()]
    if len(places) > 1 and not lazy:
        raise BusyError(
            f"{places[0]} can also be seen on {', '.join(places[1:])} (mount --bind): unmount that first, "
            f"or use --force"
        )
    for place in places[::-1]:
        _check_uncovered(own, place)
        _unmount(own, place, lazy)


def _check_uncovered(own: OwnMount, place: str) -> None:
    """Raises BusyError when what would be unmounted is somebody else's, mounted over ours."""
    there = [line for line in mounts() if line.mountpoint == place]
    if there and there[-1].device != own.device:
        raise BusyError(f"something else is mounted over {place}: unmount that first")


def _unmount(own: OwnMount, mountpoint: str, lazy: bool) -> None:
    if _libc.umount2(os.fsencode(mountpoint), MNT_DETACH if lazy else 0) == 0:
        return
    code = ctypes.get_errno()
    if code == EPERM:
        _unmount_as_user(own, mountpoint, lazy)
    elif code == EBUSY:
        raise _busy(own, mountpoint)
    else:
        raise RowfsError(f"cannot unmount {mountpoint}: {os.strerror(code)}", code)


def _unmount_as_user(own: OwnMount, mountpoint: str, lazy: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = os.fsdecode(done.stderr).strip()
        if "busy" in said.lower():
            raise _busy(own, mountpoint)
        raise RowfsError(f"cannot unmount {mountpoint}: {said}")


def _busy(own: OwnMount, mountpoint: str) -> BusyError:
    who = users_below(own)
    return BusyError(
        f"{mountpoint} is in use{' by ' + ', '.join(who) if who else ''}: close that first, or use --force"
    )


def tune(device: str) -> None:
    """Ask the kernel for more readahead and requests on our mount and no deadlock on reclaim, as far as we may."""
    _libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)  # our own allocations must not wait for writes to our own mount
    bdi, minor = f"/sys/class/bdi/{device}", device.partition(":")[2]
    for path, value in (
        (f"{bdi}/read_ahead_kb", READ_AHEAD_KIB),
        (f"{bdi}/strict_limit", 0),  # else 1 % of memory is all that may be dirty for FUSE
        (f"{bdi}/max_ratio", 50),
        (f"/sys/fs/fuse/connections/{minor}/max_background", BACKGROUND_REQUESTS),
        (f"/sys/fs/fuse/connections/{minor}/congestion_threshold", BACKGROUND_REQUESTS * 3 // 4),
    ):
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write(str(value))
