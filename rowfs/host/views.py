"""Where our mount can be seen: on its mountpoint, through bind mounts of it or a part, in other mount namespaces.

It is told by its device number. A mount's type and source are what its owner likes to call it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from rowfs.base.errors import RowfsError
from rowfs.base.mountinfo import FS_TYPE, MountLine, parse
from rowfs.base.names import printable


@dataclass(slots=True)
class OwnMount:
    """The daemon's mount: where it was mounted, and its device number as major:minor (empty while it is not)."""

    mountpoint: str
    device: str = ""

    def find(self) -> None:
        """Learn the device number, just mounted. Raises RowfsError when it is not there."""
        at = [line for line in mounts() if line.mountpoint == self.mountpoint and line.fs_type == FS_TYPE]
        if not at or at[-1].owner != os.getuid():
            raise RowfsError(f"what was mounted on {self.mountpoint} is not there any more")
        self.device = at[-1].device

    def views(self) -> list[MountLine]:
        """The places of it in our namespace, the mountpoint first."""
        ours = [line for line in mounts() if line.device == self.device]
        return sorted(ours, key=lambda line: (line.mountpoint, line.root) != (self.mountpoint, "/"))

    def is_read_only(self) -> bool:
        """Whether the kernel lets nothing be written, as after `mount -o remount,ro`."""
        return any(line.read_only for line in self.views())

    def views_anywhere(self) -> list[MountLine]:
        """These, and the ones in other namespaces, with their paths there."""
        return self.views() + [line for _, line in _elsewhere(self.device)]


def mounts(pid: str = "self") -> list[MountLine]:
    """Everything mounted in the namespace of a process, in the order of mounting."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse(file.read())


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
