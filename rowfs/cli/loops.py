"""Loop devices: making and ending them, with the kernel's own calls (see loop(4)). Which there are: host.loops.

Which file is meant is told by its numbers, and looked at again through the descriptor that is then acted on: a path, or
a device's name, may lead elsewhere a moment later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator

from rowfs.base.errors import BusyError, RowfsError
from rowfs.cli.mounts import everything_mounted
from rowfs.host.holders import mounted_from
from rowfs.host.loops import FileNumbers, Loop, backing_file, loops, numbers_of, showing, shown_by

CONTROL = "/dev/loop-control"
CLR_FD, SET_CAPACITY, CTL_GET_FREE, CONFIGURE = 0x4C01, 0x4C07, 0x4C82, 0x4C0A  # linux/loop.h
READ_ONLY, PARTSCAN, DIRECT_IO = 1, 8, 16
CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")  # struct loop_config: fd, block size, struct loop_info64, reserved
ATTEMPTS = 64  # another program may take the free device that the kernel named
TURN_S = 5.0  # that another rowfs may take to attach the same file
GONE_S = 10.0  # udev and its kin open a device for moments


def attach(path: str, numbers: FileNumbers, read_only: bool, direct_io: bool) -> Loop:
    """A loop device on the file at `path`, which lies on a mount that answers, and has these numbers.

    It is read-only where the mount is; without direct I/O where the kernel cannot. Raises OSError, RowfsError, and
    BusyError where the file is attached for writing already, by anybody.
    """
    with _opened_file(path, read_only) as (file_fd, writable):
        if numbers_of(file_fd) != numbers:
            raise BusyError(f"{path} is another file by now: try again")
        if writable:
            _have_turn(file_fd, path)
            check_unattached(path, numbers)
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
                if writable:
                    _give_way(fd, device, path, numbers)
            return Loop(device, path, numbers)
    raise BusyError("other programs took each free loop device: try again")


def _have_turn(fd: int, path: str) -> None:
    """One attaches a file at a time, so that each sees what the one before has made."""
    deadline = time.monotonic() + TURN_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BusyError(f"{path} is locked by another program, with flock(2): end that first") from None
            time.sleep(0.01)


def check_unattached(shown: str, numbers: FileNumbers, but: str = "") -> None:
    """Raises BusyError when a file is attached for writing, on another device than `but`."""
    found = [loop for loop in showing(numbers, loops()) if loop.device != but and not loop.read_only]
    if found:
        where = ", ".join(map(device_shown, found))
        raise BusyError(f"{shown} is attached already as {where}: use that, or attach a clone")


def _give_way(fd: int, device: str, path: str, numbers: FileNumbers) -> None:
    """Who does not take turns (losetup, mount -o loop) may have attached the file meanwhile: then we do not."""
    try:
        check_unattached(path, numbers, but=device)
    except BusyError:
        fcntl.ioctl(fd, CLR_FD)
        raise


def device_shown(loop: Loop) -> str:
    """A device, and where it is mounted, for a message."""
    places = mounted_on(loop)
    return loop.device + (f" (mounted on {', '.join(places)})" if places else "")


def mounted_on(loop: Loop) -> list[str]:
    """Where a loop device and its partitions are mounted."""
    return [mount.mountpoint for mount in mounted_from(loop, everything_mounted())]


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


def update_size(device: str, numbers: FileNumbers) -> None:
    """Have a loop device on a file take the size that this has now. Raises RowfsError where that is not allowed."""
    try:
        with _opened(device, os.O_RDONLY) as fd:
            if shown_by(fd) == numbers:
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
    while backing_file(loop.name) == loop.file:
        if time.monotonic() > deadline:
            raise BusyError(f"{loop.device} is still open somewhere: it goes when that is closed")
        time.sleep(0.01)


@contextlib.contextmanager
def _claimed(loop: Loop) -> Iterator[int]:
    """The open device, which nobody can mount meanwhile: the kernel gives it, or a part of it, to one user alone."""
    try:
        with _opened(loop.device, os.O_RDONLY | os.O_EXCL) as fd:
            if not _still_shows(fd, loop):  # the number is somebody else's by now
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            yield fd
    except OSError as error:
        if error.errno == errno.EBUSY:
            places = mounted_on(loop)
            where = f"mounted on {', '.join(places)}" if places else "in use"
            raise BusyError(f"{loop.device} is {where}: end that first") from None
        if error.errno == errno.ENXIO:
            raise BusyError(f"{loop.device} was detached meanwhile") from None
        raise


def _still_shows(fd: int, loop: Loop) -> bool:
    """Whether an open device shows what it did; one that did not tell, as its server is gone, does so no more now."""
    if loop.shows is not None:
        return shown_by(fd) == loop.shows
    return backing_file(loop.name) == loop.file
