"""Who uses a file of our mount: loop devices and what is mounted from them, and processes that have it open.

A file of ours is the device number of the mount and an inode, by whatever path, in whatever namespace it was opened; a
path says nothing. Where loop devices cannot be asked what they show, since we are not root, their paths are all there
is: what is told by them is marked so, and good for a warning alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EPERM, ETIMEDOUT

from rowfs.base.errors import RowfsError
from rowfs.base.mountinfo import MountLine, place_in
from rowfs.host.loops import FileNumbers, Loop, loops
from rowfs.host.views import OwnMount, mounts, process_shown

# Of these a mount has another device number than the device it is on; and no user but root can mount one.
_NUMBERLESS = ("btrfs", "bcachefs")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A loop device on a file, and where file systems are mounted from it or its partitions."""

    device: str
    mounts: list[str]
    by_path: bool = False  # told by the path of its file alone


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted file system, and a place where it can be reached."""

    mountpoint: str
    mount_id: int  # of mountinfo: tells whether the mountpoint still leads there


def attachments(own: OwnMount) -> dict[int | str, list[Attachment]]:
    """The loop devices on files of our mount, by inode; those told by their path alone, by that path in the mount."""
    there = mounts()
    found: dict[int | str, list[Attachment]] = {}
    for loop in loops():
        if loop.shows is None:
            key: int | str | None = place_in(loop.file, own.views_anywhere())
        else:
            key = loop.shows.inode if loop.shows.device == own.device else None
        if key:
            places = [mount.mountpoint for mount in mounted_from(loop, there)]
            found.setdefault(key, []).append(Attachment(loop.device, places, by_path=loop.shows is None))
    return found


def loop_devices(own: OwnMount, inode: int) -> list[Loop]:
    """The loop devices on one file, as far as they can be asked."""
    return [loop for loop in loops() if loop.shows == FileNumbers(own.device, inode)]


def mounted_from(loop: Loop, there: list[MountLine]) -> list[MountLine]:
    """What is mounted from a loop device or its partitions."""
    numbers = loop.numbers()
    return [mount for mount in there if _device_below(mount) in numbers]


def _device_below(mount: MountLine) -> str:
    """The number of the device that a mounted file system is on."""
    if mount.fs_type not in _NUMBERLESS:
        return mount.device
    try:
        number = os.stat(mount.source).st_rdev
    except OSError:
        return ""
    return f"{os.major(number)}:{os.minor(number)}"


def file_systems(own: OwnMount, inode: int) -> list[FileSystem]:
    """What is mounted from loop devices on a file, or from their partitions: each file system once.

    Of several mountpoints the last is taken: an earlier one may be covered by it. Raises RowfsError when a device that
    seems to be on a file of ours does not tell which: the wrong file system might be frozen, or one left out.
    """
    there = mounts()
    by_device: dict[str, MountLine] = {}
    for loop in loops():
        if loop.shows is None:
            _check_not_ours(loop, own)
        elif loop.shows == FileNumbers(own.device, inode):
            by_device |= {mount.device: mount for mount in mounted_from(loop, there)}
    return [FileSystem(mount.mountpoint, mount.mount_id) for mount in by_device.values()]


def _check_not_ours(loop: Loop, own: OwnMount) -> None:
    if place_in(loop.file, own.views_anywhere()) is None:
        return
    if os.geteuid() != 0:
        raise RowfsError(f"only root can tell which disk {loop.device} is on, and freeze it", EPERM)
    raise RowfsError(f"{loop.device} does not tell in time which disk it is on: try again", ETIMEDOUT)


def users(own: OwnMount, inode: int, name: str) -> str:
    """Who uses a file, which is called `name` in the mount, for a message; empty when it cannot be told."""
    return ", ".join(devices(own, inode, name) + _processes(own, lambda found: found == inode))


def devices(own: OwnMount, inode: int, name: str) -> list[str]:
    """The loop devices that a file is attached to, each with where it is mounted, for a message."""
    found = attachments(own)
    return [
        f"{item.device}" + (f" (mounted on {', '.join(item.mounts)})" if item.mounts else "")
        for item in found.get(inode, []) + found.get(name, [])
    ]


def users_below(own: OwnMount) -> list[str]:
    """The loop devices and processes that have something of our mount open, or work there."""
    found = [item.device for items in attachments(own).values() for item in items]
    return found + _processes(own, lambda inode: True)


def _processes(own: OwnMount, wanted: Callable[[int], bool]) -> list[str]:
    """The other processes that have such a file of ours open, or work in it, as `name (pid)`, if one may look."""
    ids = {view.mount_id for view in own.views_anywhere()}
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid() and any(mount in ids and wanted(inode) for mount, inode in _opened(pid)):
            with contextlib.suppress(OSError):
                found.append(process_shown(pid))
    return found


def _opened(pid: str) -> Iterator[tuple[int, int]]:
    """Mount id and inode of what a process has open or works in. No mount is asked, so that none holds us up."""
    with contextlib.suppress(OSError):
        yield _working_directory(pid)
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield _fdinfo(f"/proc/{pid}/fdinfo/{fd}")


def _working_directory(pid: str) -> tuple[int, int]:
    fd = os.open(f"/proc/{pid}/cwd", os.O_PATH | os.O_CLOEXEC)
    try:
        return _fdinfo(f"/proc/thread-self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _fdinfo(path: str) -> tuple[int, int]:
    """The mount id and the inode in a file of fdinfo, proc_pid_fdinfo(5); 0 for what the kernel does not tell."""
    with open(path, "rb") as file:
        found = dict(line.split(b":", 1) for line in file.read().split(b"\n") if b":" in line)
    return int(found.get(b"mnt_id", b"0")), int(found.get(b"ino", b"0"))
