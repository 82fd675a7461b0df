"""The kernel's list of mounts, proc_pid_mountinfo(5), and where in a mount a path leads.

What is in it comes from whoever may mount something, in a user namespace of their own too. So it is bytes, of which the
kernel escapes space, tab, newline, backslash and # alone; a line that is none is left out, and hides no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

FS_TYPE = "fuse.rowfs"  # of our mounts; anybody may call one so
FIELDS_MIN, FIELDS_AFTER_MIN = 6, 2  # of a line: before the dash, and after it
_OCTAL = re.compile(rb"\\([0-7]{3})")
_DEVICE = re.compile(rb"\d+:\d+")


class MountLine(NamedTuple):
    """A mount: what is shown (`root` of `device`, as major:minor), and on which directory or file."""

    mount_id: int
    device: str
    root: str
    mountpoint: str
    fs_type: str
    source: str
    options: str = ""  # those of the file system, wherever it is mounted
    flags: str = ""  # those of this mount alone

    @property
    def owner(self) -> int | None:
        """Who mounted it, if it is FUSE: the kernel says so, and not the user."""
        words = [word for word in self.options.split(",") if word.startswith("user_id=")]
        number = words[0].partition("=")[2] if words else ""
        return int(number) if number.isascii() and number.isdigit() else None

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed on it, by whichever path."""
        return "ro" in self.options.split(",")[:1]


def parse(text: bytes) -> list[MountLine]:
    """Everything mounted, in the order of mounting."""
    return [found for line in text.split(b"\n") if (found := _line(line)) is not None]


def _line(line: bytes) -> MountLine | None:
    before, dash, after = line.partition(b" - ")
    fields, more = before.split(b" "), after.split(b" ")  # how many optional fields follow the first ones varies
    if not dash or len(fields) < FIELDS_MIN or len(more) < FIELDS_AFTER_MIN or not fields[0].isdigit():
        return None
    if _DEVICE.fullmatch(fields[2]) is None:
        return None
    device, root, mountpoint, fs_type, source, options, flags = map(
        _unescape, (*fields[2:5], *(*more, b"")[:3], fields[5])
    )
    return MountLine(int(fields[0]), device, root, mountpoint, fs_type, source, options, flags)


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
