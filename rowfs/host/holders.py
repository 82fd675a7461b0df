"""Who uses a disk's file: loop devices and what is mounted from them, and processes that have it open.

A file of ours is named by its path in the mount (`vm1`, `.snapshots/vm1/before`), by whatever way it was opened: the
kernel tells a loop device's file by the path through the mount that it was opened on, in that mount's namespace. Only
/proc and /sys are looked at. None of this waits for a mount, so that nobody else's dead server holds us up.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rowfs.base.mountinfo import MountLine, is_below, place_in
from rowfs.host.views import mounts, process_shown, views

_LOOP = re.compile(r"loop\d+")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A loop device on a file, and where file systems are mounted from it or its partitions."""

    device: str
    mounts: list[str]


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted file system, and a place where it can be reached."""

    mountpoint: str
    mount_id: int  # of mountinfo: tells whether the mountpoint still leads there


def attachments(mountpoint: str) -> dict[str, list[Attachment]]:
    """The loop devices on files of our mount at `mountpoint`, by file."""
    there = mounts()
    found: dict[str, list[Attachment]] = {}
    for loop, name in _loops(mountpoint):
        found.setdefault(name, []).append(
            Attachment(loop, [mount.mountpoint for mount in there if _is_on(mount, loop)])
        )
    return found


def loop_devices(mountpoint: str, name: str) -> list[str]:
    """The loop devices on one file."""
    return [loop for loop, file in _loops(mountpoint) if file == name]


def _loops(mountpoint: str) -> Iterator[tuple[str, str]]:
    """The loop devices on files of our mount, and their files."""
    backing = list(_backing_files())
    seen = views(mountpoint) if backing else []
    for device, path in backing:
        name = place_in(path, seen)
        if name:
            yield device, name


def _backing_files() -> Iterator[tuple[str, str]]:
    """All loop devices, and the path of each one's file."""
    for name in sorted(filter(_LOOP.fullmatch, os.listdir("/sys/block"))):
        path = _backing_file(name)
        if path is not None:
            yield f"/dev/{name}", path


def _backing_file(loop: str) -> str | None:
    try:
        with open(f"/sys/block/{loop}/loop/backing_file", "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n"))  # a name may end in one, too
    except OSError:  # not attached
        return None


def file_systems(mountpoint: str, name: str) -> list[FileSystem]:
    """What is mounted from loop devices on a file, or from their partitions: each file system once.

    Of several mountpoints the last is taken: an earlier one may be covered by it.
    """
    there = mounts()
    by_source = {
        mount.source: mount for loop in loop_devices(mountpoint, name) for mount in there if _is_on(mount, loop)
    }
    return [FileSystem(mount.mountpoint, mount.mount_id) for mount in by_source.values()]


def _is_on(mount: MountLine, loop: str) -> bool:
    return re.fullmatch(re.escape(loop) + r"(p\d+)?", mount.source) is not None


def users(mountpoint: str, name: str) -> str:
    """Who uses a file, for a message; empty when it cannot be told."""
    seen = views(mountpoint)
    return ", ".join(devices(mountpoint, name) + _processes(lambda path: place_in(path, seen) == name))


def devices(mountpoint: str, name: str) -> list[str]:
    """The loop devices that a file is attached to, each with where it is mounted, for a message."""
    return [
        f"{item.device}" + (f" (mounted on {', '.join(item.mounts)})" if item.mounts else "")
        for item in attachments(mountpoint).get(name, [])
    ]


def users_below(mountpoint: str) -> list[str]:
    """The loop devices and processes that have something open below a mountpoint, or work there."""
    loops = [device for device, path in _backing_files() if is_below(path, mountpoint)]
    return loops + _processes(lambda path: is_below(path, mountpoint))


def _processes(wanted: Callable[[str], bool]) -> list[str]:
    """The other processes that have such a path open, or work in it, as `name (pid)`, as far as one may look."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid() and any(wanted(target) for target in _open_paths(pid)):
            with contextlib.suppress(OSError):
                found.append(process_shown(pid))
    return found


def _open_paths(pid: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield os.readlink(f"/proc/{pid}/cwd")
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{fd}")
