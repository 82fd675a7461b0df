"""Where our mount can be seen: on its mountpoint, through bind mounts of it or a part, in other mount namespaces."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rowfs.base.mountinfo import MountLine, parse
from rowfs.base.names import printable

FS_TYPE = "fuse.rowfs"


def mounts(pid: str = "self") -> list[MountLine]:
    """Everything mounted in the namespace of a process, in the order of mounting."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse(file.read())


def views(mountpoint: str) -> list[MountLine]:
    """All places of our own mount at `mountpoint`, there first; paths are as their namespace has them."""
    ours = own_views(mountpoint)
    return ours + [line for _, line in _elsewhere(ours[0].device)]


def own_views(mountpoint: str) -> list[MountLine]:
    """Of these, the ones in our namespace."""
    there = mounts()
    at = [line for line in there if line.mountpoint == mountpoint and line.fs_type == FS_TYPE]
    if not at:  # something else covers it: what was opened there is still known by this path
        return [MountLine(0, "", "/", mountpoint, FS_TYPE, "")]
    return [at[-1], *(line for line in there if line.device == at[-1].device and line is not at[-1])]


def holders_elsewhere(device: str) -> list[str]:
    """Processes whose namespaces have a mount of `device`, one for each namespace, as `name (pid)`."""
    found = []
    for pid in dict.fromkeys(pid for pid, _ in _elsewhere(device)):
        with contextlib.suppress(OSError):
            found.append(process_shown(pid))
    return found


def process_shown(pid: str) -> str:
    """A process as `name (pid)`; it calls itself what it likes. Raises OSError when it has ended."""
    return f"{printable(process_name(pid))} ({pid})"


def process_name(pid: str) -> str:
    """What a process calls itself. Raises OSError when it has ended."""
    with open(f"/proc/{pid}/comm", "rb") as file:
        return os.fsdecode(file.read().removesuffix(b"\n"))


def _elsewhere(device: str) -> Iterator[tuple[str, MountLine]]:
    """The mounts of `device` in namespaces other than ours, and for each the id of a process there."""
    seen = {os.readlink("/proc/self/ns/mnt")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # the process has ended, or is not ours to look at
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in seen:
                seen.add(namespace)
                yield from ((pid, line) for line in mounts(pid) if line.device == device)
