"""The kernel's list of mounts, proc_pid_mountinfo(5), and where in a mount a path leads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountLine(NamedTuple):
    """A mount: what is shown (`root` of `device`, as major:minor), and on which directory or file."""

    mount_id: int
    device: str
    root: str
    mountpoint: str
    fs_type: str
    source: str


def parse(text: bytes) -> list[MountLine]:
    """Everything mounted, in the order of mounting."""
    return [_line(line) for line in text.splitlines() if b" - " in line]


def _line(line: bytes) -> MountLine:
    before, after = line.split(b" - ", 1)
    number, _, device, root, mountpoint, *_ = before.split(b" ")  # how many optional fields follow varies
    fs_type, source, *_ = after.split(b" ")
    return MountLine(int(number), device.decode(), *map(_unescape, (root, mountpoint, fs_type, source)))


def _unescape(field: bytes) -> str:
    """`field` with the kernel's octal escapes (space, tab, newline, backslash, #) decoded."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or something in it. Both are absolute and have no trailing slash (but `/`)."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def place_in(path: str, views: Iterable[MountLine]) -> str | None:
    """What an absolute path leads to, as a path in the file system that all of `views` show; None: it is elsewhere."""
    for view in sorted(views, key=lambda view: -len(view.mountpoint)):
        if is_below(path, view.mountpoint):
            rest = path[len(view.mountpoint.rstrip("/")) :]
            return (view.root.rstrip("/") + rest).lstrip("/")
    return None
