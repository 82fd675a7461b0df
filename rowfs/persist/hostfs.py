"""What the pool asks of its host file system beside reading and writing: locks, durable names, no copy-on-write."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
from errno import EACCES, EPERM, EROFS, EWOULDBLOCK

from rowfs.base.errors import HeldError
from rowfs.base.mountinfo import is_below, parse
from rowfs.base.names import printable
from rowfs.persist.pooldir import open_regular

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h, 64-bit
FS_NOCOW_FL = 0x00800000
UNWRITABLE = (EROFS, EACCES, EPERM)  # what a host says that is only to be read
HOLDER_BYTES_MAX = 8192  # of what a lock's file tells: a path, with escapes
_HOLDER = re.compile(rb"(process \d+)(?:(, mounted on .*) as (\d+:\d+))?\n")
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
    """A file held with flock(2) while this object is open; the kernel lets go of it when the process dies.

    So is the directory that it is in: a file can be removed, and whoever makes it anew would hold another one.
    """

    def __init__(self, path: str, what: str, read_only: bool = False) -> None:
        """With `read_only` it need not be one that can be written: then it is shared with others who only read.

        Raises HeldError naming the holder of `what`, PoolError for what is no file of ours, OSError.
        """
        self._directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fd, self._writable = _opened_lock(path, read_only)
        except BaseException:
            os.close(self._directory)
            raise
        try:
            self._take()
        except BlockingIOError:
            said = _holder(self._fd)
            self.close()
            holder, mounted, device = said.groups(b"") if said else (b"another process", b"", b"")
            error = HeldError(f"{what} is in use by {os.fsdecode(holder + mounted)}")
            error.mounted_as = device.decode() or None
            raise error from None
        self.say()

    def _take(self) -> None:
        mode = (fcntl.LOCK_EX if self._writable else fcntl.LOCK_SH) | fcntl.LOCK_NB
        fcntl.flock(self._fd, mode)
        try:
            fcntl.flock(self._directory, mode)
        except OSError as error:  # NFS locks no directory
            if error.errno == EWOULDBLOCK:
                raise

    def say(self, mountpoint: str = "", device: str = "") -> None:
        """Have the file tell others who holds it, and which mount the pool is shown on, if any. Best effort."""
        if not self._writable:
            return
        mounted = f", mounted on {printable(mountpoint)} as {device}" if mountpoint else ""
        line = f"process {os.getpid()}{mounted}\n".encode()
        with contextlib.suppress(OSError):  # then whoever asks hears that it is in use, and not by whom
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, line)  # in place: once its block is given back, a full host has no other
            os.ftruncate(self._fd, len(line))

    def close(self) -> None:
        """Let go. The lock itself, too: threads with descriptors of their own (`run_apart`) have a copy of this one."""
        for fd in (self._directory, self._fd):
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _holder(fd: int) -> re.Match[bytes] | None:
    """What the holder of a lock wrote into it."""
    try:
        return _HOLDER.match(os.read(fd, HOLDER_BYTES_MAX))
    except IsADirectoryError:  # nobody could write
        return None


def _opened_lock(path: str, read_only: bool) -> tuple[int, bool]:
    """A descriptor, and whether it can be written through."""
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT), True
    except OSError as error:
        if not read_only or error.errno not in UNWRITABLE:
            raise
    try:
        return open_regular(path, os.O_RDONLY), False
    except FileNotFoundError:  # nobody has ever held it, and nobody can
        return os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), False


def write_durably(fd: int, content: bytes) -> None:
    """Write what a small file holds. Raises OSError."""
    os.write(fd, content)
    os.fsync(fd)


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
