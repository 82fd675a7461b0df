"""What disks and snapshots may be called and how that is shown; the name a snapshot gets when nobody gave it one."""

from __future__ import annotations

import errno
from collections.abc import Container
from datetime import datetime

from rowfs.base.errors import UsageError

NAME_BYTES_MAX = 255  # NAME_MAX of Linux: a name is one component of a path
SNAPSHOTS_DIR = ".snapshots"
BEFORE_ROLLBACK = "before-rollback"
SEVERAL = (",", "..")  # several snapshots behind an @ (cli.ranges, control.chains)
DESCRIPTION_BYTES_MAX = 65_536  # XATTR_SIZE_MAX of Linux: a description is an extended attribute too


def check_name(name: str, what: str = "name") -> str:
    """`name`, if a disk or snapshot may have it. Raises UsageError otherwise (ENAMETOOLONG when it is too long)."""
    try:
        size = len(name.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        raise UsageError(f"{name!r} cannot be a {what}: it stands for no bytes") from None
    if size == 0:
        raise UsageError(f"a {what} cannot be empty")
    if size > NAME_BYTES_MAX:
        raise UsageError(f"a {what} has at most {NAME_BYTES_MAX} bytes, this one has {size}", errno.ENAMETOOLONG)
    for bad, shown in (("/", "/"), ("@", "@"), ("\0", "NUL")):
        if bad in name:
            raise UsageError(f"{name!r} cannot be a {what}: it must not contain {shown}")
    if name.startswith("."):
        raise UsageError(f"{name!r} cannot be a {what}: it must not start with a dot")
    return name


def check_new_snapshot_name(name: str) -> str:
    """`name`, if a snapshot may be called so from now on: what means several of them behind an @ is no name of one.

    Those that have such a name keep it, from a rowfs before this rule. Raises UsageError.
    """
    for bad in SEVERAL:
        if bad in name:
            raise UsageError(f"{name!r} cannot be a snapshot name: {bad} in it means several snapshots")
    return check_name(name, "snapshot name")


def for_snapshots(name: str) -> str:
    """A name of something else as the beginning of the names of its snapshots."""
    for bad in SEVERAL:
        name = name.replace(bad, "_" * len(bad))
    return name


def check_description(text: str) -> str:
    """`text`, if it may describe a snapshot. Raises UsageError otherwise."""
    try:
        size = len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        raise UsageError("the description is not text: it has characters that stand for no bytes") from None
    if size > DESCRIPTION_BYTES_MAX:
        raise UsageError(f"a description has at most {DESCRIPTION_BYTES_MAX} bytes, this one has {size}: shorten it")
    return text


def printable(text: str) -> str:
    """`text` with every character that would move the cursor, or is none, shown as its escape."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode()


def default_snapshot_name(disk: str, now: datetime, taken: Container[str]) -> str:
    """`disk` and the local date and time, as in vm1-20261120-142501; a number behind it when that is in `taken`.

    A disk name so long that the whole would not fit is cut at a character.
    """
    stamp = now.strftime("-%Y%m%d-%H%M%S")
    number = 1
    while True:
        tail = stamp if number == 1 else f"{stamp}-{number}"
        room = NAME_BYTES_MAX - len(tail)
        name = for_snapshots(disk).encode(errors="surrogateescape")[:room].decode(errors="ignore") + tail
        if name not in taken:
            return name
        number += 1
