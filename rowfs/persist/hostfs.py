"""What the pool asks of its host file system beside reading and writing: locks, durable names, no copy-on-write."""

from __future__ import annotations

import fcntl
import os
import struct

from rowfs.base.errors import NO_SPACE, BusyError
from rowfs.base.mountinfo import is_below, parse

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h, 64-bit
FS_NOCOW_FL = 0x00800000
BTRFS_SUPER_MAGIC = 0x9123683E  # linux/magic.h


def disable_copy_on_write(directory: str) -> None:
    """On btrfs, have files made in `directory` from now on overwritten in place; LMDB would fragment without end."""
    if file_system_type(directory) != "btrfs":
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags | FS_NOCOW_FL))
    finally:
        os.close(fd)


def file_system_type(path: str) -> str:
    """The type of the file system that holds `path`, as /proc/self/mountinfo names it; empty if it does not."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = parse(file.read())
    for mount in mounts:
        if mount.device == wanted:
            return mount.fs_type
    # btrfs gives files another device number than its mount: go by the longest mountpoint, and the last one there.
    real = os.path.realpath(path)
    holding = [mount for mount in mounts if is_below(real, mount.mountpoint)]
    return max(reversed(holding), key=lambda mount: len(mount.mountpoint)).fs_type if holding else ""


class Lock:
    """A file held with flock(2) while this object is open; the kernel lets go of it when the process dies."""

    def __init__(self, path: str, what: str) -> None:
        """Raises BusyError naming the holder of `what`."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with open(path) as file:
                holder = file.read(64).strip() or "another process"
            os.close(self._fd)
            raise BusyError(f"{what} is in use by {holder}") from None
        self._say_who()

    def _say_who(self) -> None:
        line = f"process {os.getpid()}\n".encode()
        try:  # in place: once its block is given back, a full host has no other
            os.write(self._fd, line)
            os.ftruncate(self._fd, len(line))
        except OSError as error:
            if error.errno not in NO_SPACE:  # else whoever asks hears that it is in use, and not by whom
                os.close(self._fd)
                raise

    def close(self) -> None:
        """Let go."""
        os.close(self._fd)


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
