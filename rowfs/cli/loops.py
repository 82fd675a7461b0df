"""Loop devices: making, finding and ending them, with the kernel's own calls (see loop(4))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rowfs.base.errors import BusyError, RowfsError
from rowfs.cli.mounts import MOUNTINFO, mount_points

CONTROL = "/dev/loop-control"
SYS_BLOCK = "/sys/block"
CLR_FD, SET_CAPACITY, CTL_GET_FREE, CONFIGURE = 0x4C01, 0x4C07, 0x4C82, 0x4C0A  # linux/loop.h
READ_ONLY, PARTSCAN, DIRECT_IO = 1, 8, 16
CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")  # struct loop_config: fd, block size, struct loop_info64, reserved
ATTEMPTS = 64  # another program may take the free device that the kernel named
GONE_S = 10.0  # udev and its kin open a device for moments

_LOOP = re.compile(r"loop\d+")


@dataclass(frozen=True)
class Loop:
    """A loop device, the path of the file it shows, and where it and its partitions are mounted."""

    device: str
    file: str
    mounts: list[str]

    @property
    def _sys(self) -> str:
        return f"{SYS_BLOCK}/{os.path.basename(self.device)}"

    @property
    def direct_io(self) -> bool:
        """Whether it reads and writes its file past the page cache."""
        return _read(f"{self._sys}/loop/dio") == "1"

    @property
    def read_only(self) -> bool:
        """Whether it can only be read."""
        return _read(f"{self._sys}/ro") == "1"

    @property
    def partitions(self) -> list[str]:
        """The devices of its partitions, where the kernel has found some."""
        name = os.path.basename(self.device)
        found = [entry for entry in os.listdir(self._sys) if re.fullmatch(rf"{name}p\d+", entry)]
        return [f"/dev/{entry}" for entry in sorted(found, key=lambda entry: int(entry.rpartition("p")[2]))]

    def shown(self) -> str:
        """The device, and where it is mounted, for a message."""
        return self.device + (f" (mounted on {', '.join(self.mounts)})" if self.mounts else "")


def loops() -> list[Loop]:
    """The loop devices in use."""
    mounts = mount_points(MOUNTINFO)
    found = []
    for name in sorted(filter(_LOOP.fullmatch, os.listdir(SYS_BLOCK)), key=lambda name: int(name[4:])):
        file = _read(f"{SYS_BLOCK}/{name}/loop/backing_file")
        if file is not None:
            parts = re.compile(rf"/dev/{name}(p\d+)?")
            found.append(Loop(f"/dev/{name}", file, [point for source, point in mounts if parts.fullmatch(source)]))
    return found


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n"))  # a name may end in one, too
    except OSError:
        return None


def attach(path: str, read_only: bool, direct_io: bool) -> Loop:
    """A loop device on the file at `path`, which lies on a mount that answers.

    It is read-only where the mount is; without direct I/O where the kernel cannot. Raises OSError, RowfsError.
    """
    with _opened_file(path, read_only) as (file_fd, writable):
        flags = PARTSCAN | (0 if writable else READ_ONLY) | (DIRECT_IO if direct_io else 0)
        for _ in range(ATTEMPTS):
            device = _free_device()
            with _opened(device, os.O_RDWR if writable else os.O_RDONLY) as fd:
                try:
                    fcntl.ioctl(fd, CONFIGURE, _config(file_fd, flags, path))
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        continue
                    raise OSError(error.errno, f"{os.strerror(error.errno or 0)} ({path})", device) from None
            return Loop(device, path, [])
    raise BusyError("other programs took each free loop device: try again")


def _config(file_fd: int, flags: int, path: str) -> bytes:
    name = os.fsencode(path)[:63]  # what losetup shows where there is no sysfs
    numbers = (0, 0, 0, 0, 0, 0, 0, 0, flags)  # device, inode, rdevice, offset, limit, number, encryption × 2, flags
    return CONFIG.pack(file_fd, 0, *numbers, name, b"", b"", 0, 0, *[0] * 8)


@contextlib.contextmanager
def _opened_file(path: str, read_only: bool) -> Iterator[tuple[int, bool]]:
    """A descriptor of the file, and whether it can be written through."""
    writable = not read_only
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EROFS or not writable:
            raise
        writable = False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd, writable
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    """An open device. Raises RowfsError where only root may open it."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except PermissionError as error:
        raise RowfsError(f"only root can use loop devices ({path}: {error.strerror})", error.errno) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _free_device() -> str:
    with _opened(CONTROL, os.O_RDWR) as fd:
        return f"/dev/loop{fcntl.ioctl(fd, CTL_GET_FREE)}"


def update_size(device: str) -> None:
    """Have a loop device take the size that its file has now. Raises RowfsError where that is not allowed."""
    try:
        with _opened(device, os.O_RDONLY) as fd:
            fcntl.ioctl(fd, SET_CAPACITY)
    except OSError as error:
        if error.errno != errno.ENXIO:  # else it was detached meanwhile
            raise RowfsError(f"{device}: {error.strerror}", error.errno) from None


def detach(loop: Loop) -> None:
    """End a loop device; what was written to it is durable. Raises BusyError when it is in use, naming where."""
    with _claimed(loop) as fd:
        os.fsync(fd)
        fcntl.ioctl(fd, CLR_FD)
    deadline = time.monotonic() + GONE_S
    while _read(f"{loop._sys}/loop/backing_file") == loop.file:
        if time.monotonic() > deadline:
            raise BusyError(f"{loop.device} is still open somewhere: it goes when that is closed")
        time.sleep(0.01)


@contextlib.contextmanager
def _claimed(loop: Loop) -> Iterator[int]:
    """The open device, which nobody can mount meanwhile: the kernel gives it, or a part of it, to one user alone."""
    try:
        with _opened(loop.device, os.O_RDONLY | os.O_EXCL) as fd:
            if _read(f"{loop._sys}/loop/backing_file") != loop.file:  # the number is somebody else's by now
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            yield fd
    except OSError as error:
        if error.errno == errno.EBUSY:
            where = f"mounted on {', '.join(loop.mounts)}" if loop.mounts else "in use"
            raise BusyError(f"{loop.device} is {where}: end that first") from None
        if error.errno == errno.ENXIO:
            raise BusyError(f"{loop.device} was detached meanwhile") from None
        raise
