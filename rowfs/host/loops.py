"""The loop devices in use, and which file each shows: by the numbers of that file, which nobody chooses.

What /sys tells of a loop device is the path of its file. Paths are up to users: another file has the same one in
another namespace, below another mount, or with ` (deleted)` as a part of its name. So the kernel is asked for the
file's device and inode, which only root may (the device has to be opened).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SYS_BLOCK = "/sys/block"
GET_STATUS64 = 0x4C05  # linux/loop.h
INFO = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64: device, inode, ...
# The kernel asks the file's own server for its numbers, if that is FUSE: ours answers, another one may never.
ANSWER_S = 5.0

_LOOP = re.compile(r"loop\d+")


class FileNumbers(NamedTuple):
    """Which file: the device of its file system, as major:minor, and its inode."""

    device: str
    inode: int


@dataclass(frozen=True)
class Loop:
    """A loop device, and the file it shows. `shows` is None where that cannot be asked, for the reason `error`."""

    device: str
    file: str  # its path, as the kernel tells it: for people
    shows: FileNumbers | None = None
    error: int = 0

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return os.path.basename(self.device)

    @property
    def direct_io(self) -> bool:
        """Whether it reads and writes its file past the page cache."""
        return read(f"{SYS_BLOCK}/{self.name}/loop/dio") == "1"

    @property
    def read_only(self) -> bool:
        """Whether it can only be read."""
        return read(f"{SYS_BLOCK}/{self.name}/ro") == "1"

    @property
    def partitions(self) -> list[str]:
        """The devices of its partitions, where the kernel has found some."""
        return [f"/dev/{entry}" for entry in self._partitions()]

    def _partitions(self) -> list[str]:
        try:
            entries = os.listdir(f"{SYS_BLOCK}/{self.name}")
        except OSError:  # the device was removed
            return []
        found = [entry for entry in entries if re.fullmatch(rf"{self.name}p\d+", entry)]
        return sorted(found, key=lambda entry: int(entry.rpartition("p")[2]))

    def numbers(self) -> set[str]:
        """The device numbers, as major:minor, of the device and its partitions."""
        places = [self.name, *(f"{self.name}/{part}" for part in self._partitions())]
        return {number for place in places if (number := read(f"{SYS_BLOCK}/{place}/dev"))}


def loops() -> list[Loop]:
    """The loop devices in use, by number."""
    names = sorted(filter(_LOOP.fullmatch, os.listdir(SYS_BLOCK)), key=lambda name: int(name[4:]))
    files = {name: file for name in names if (file := backing_file(name)) is not None}
    asked = [_Question(f"/dev/{name}") for name in files]
    end = time.monotonic() + ANSWER_S
    answers = [question.answer(end) for question in asked]
    return [
        Loop(f"/dev/{name}", file, shows, error)
        for (name, file), (shows, error) in zip(files.items(), answers, strict=True)
        if error != errno.ENXIO  # detached meanwhile
    ]


class _Question:
    """What a loop device shows, asked in a thread of its own: that may never end."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._answer: tuple[FileNumbers | None, int] = None, errno.ETIMEDOUT
        self._thread = threading.Thread(target=self._ask, name=f"what {device} shows", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            fd = os.open(self._device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._answer = shown_by(fd), 0
            finally:
                os.close(fd)
        except OSError as error:
            self._answer = None, error.errno or errno.EIO

    def answer(self, end: float) -> tuple[FileNumbers | None, int]:
        """The file, or why that cannot be told, when it comes before `end`."""
        self._thread.join(max(0.0, end - time.monotonic()))
        return self._answer


def shown_by(fd: int) -> FileNumbers:
    """The file that an open loop device shows. Raises OSError: ENXIO when there is none."""
    device, inode, *_ = INFO.unpack(fcntl.ioctl(fd, GET_STATUS64, bytes(INFO.size)))
    return FileNumbers(as_text(device), inode)


def numbers_of(fd: int) -> FileNumbers:
    """The numbers of an open file."""
    found = os.fstat(fd)
    return FileNumbers(as_text(found.st_dev), found.st_ino)


def as_text(device: int) -> str:
    """A device number as the kernel's lists have it."""
    return f"{os.major(device)}:{os.minor(device)}"


def backing_file(name: str) -> str | None:
    """The path of the file that the loop device of this name shows; None: it shows none."""
    return read(f"{SYS_BLOCK}/{name}/loop/backing_file")


def read(path: str) -> str | None:
    """What a file of /sys says, without the newline that the kernel puts behind it; None: it is not there."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n"))  # a name may end in one, too
    except OSError:
        return None


def showing(numbers: FileNumbers, found: Sequence[Loop]) -> list[Loop]:
    """Those of `found` that show this very file."""
    return [loop for loop in found if loop.shows == numbers]
