"""Which rowfs mounts there are, and where a path leads, without asking a mount anything.

A daemon that is dead or stuck leaves a mount on which any system call fails or hangs. So mounts are read from
/proc/self/mountinfo, and symlinks are followed here, component by component, stopping where a rowfs mount begins.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from urllib.parse import unquote

from rowfs.base.mountinfo import FS_TYPE, MountLine, is_below, parse

MOUNTINFO = "/proc/self/mountinfo"
SYMLINKS_MAX = 40  # as Linux does


@dataclass(frozen=True)
class Mount:
    """A mounted pool: the directory it shows its disks in, and the directory that holds it, as its daemon said.

    Anybody may call a mount so. What the kernel itself tells of one is its device number, and who mounted it.
    """

    mountpoint: str
    pool: str
    device: str = field(default="", compare=False)  # major:minor
    owner: int | None = field(default=None, compare=False)  # uid


def parse_mountinfo(text: bytes) -> list[Mount]:
    """The rowfs mounts in `text` (see proc_pid_mountinfo(5)) that can be reached.

    The lines are in the order of mounting, so what a later line mounts over, or over a directory above, is hidden. Bind
    mounts of a part of a rowfs mount are left out: the place in them says nothing about the disk.
    """
    found: list[Mount] = []
    for line in parse(text):
        found = [mount for mount in found if not is_below(mount.mountpoint, line.mountpoint)]
        if line.fs_type == FS_TYPE and line.root == "/":
            pool = unquote(line.source, errors="surrogateescape")
            found.append(Mount(line.mountpoint, pool, line.device, line.owner))
    return found


def everything_mounted() -> list[MountLine]:
    """What is mounted, of any type, in the order of mounting."""
    with open(MOUNTINFO, "rb") as file:
        return parse(file.read())


def current_mounts() -> list[Mount]:
    """The rowfs mounts this process sees now."""
    with open(MOUNTINFO, "rb") as file:
        return parse_mountinfo(file.read())


def mount_at(path: str, mounts: Collection[Mount]) -> Mount | None:
    """The mount that `path` (absolute, resolved) lies on: of several, the one with the longest mountpoint."""
    holding = [mount for mount in mounts if is_below(path, mount.mountpoint)]
    return max(holding, key=lambda mount: len(mount.mountpoint), default=None)


def resolve_path(path: str, mounts: Collection[Mount], readlink: Callable[[str], str] = os.readlink) -> str:
    """`path` made absolute, with symlinks and `..` followed, but with no system call at or below a rowfs mount.

    It need not exist. Raises OSError (ELOOP) when its symlinks lead in circles.
    """
    waiting = _components(absolute(path))
    resolved = "/"
    links = 0
    while waiting:
        part = waiting.pop()
        resolved = os.path.dirname(resolved) if part == ".." else os.path.join(resolved, part)
        target = None if part == ".." or mount_at(resolved, mounts) else _link_target(resolved, readlink)
        if target is None:
            continue
        links += 1
        if links > SYMLINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        resolved = os.path.dirname(resolved)
        if target.startswith("/"):
            resolved = "/"
        waiting += _components(target)
    return resolved


def absolute(path: str) -> str:
    """`path`, from the root on. Raises OSError, with words that say so, when the current directory was removed."""
    if path.startswith("/"):
        return path
    try:
        return f"{os.getcwd()}/{path}"
    except OSError as error:
        raise OSError(error.errno, error.strerror, "the current directory") from error


def _components(path: str) -> list[str]:
    """The parts of `path` that lead somewhere, the first one last: a stack to pop from."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _link_target(path: str, readlink: Callable[[str], str]) -> str | None:
    """Where the symlink `path` points to; None when it is none, or not there."""
    try:
        return readlink(path)
    except OSError:
        return None
