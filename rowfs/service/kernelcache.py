"""What the kernel caches of our own mount: flush it before a snapshot, drop it after a rollback.

Each of these blocks until the daemon itself has answered, so they run in worker threads, never on the trio thread.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import ESTALE
from typing import ParamSpec, TypeVar

import trio

from rowfs.base.actor import Actor, actor
from rowfs.base.errors import RowfsError
from rowfs.base.inodenumbers import disk_inode
from rowfs.host.holders import loop_devices
from rowfs.host.loops import Loop, numbers_of, shown_by
from rowfs.host.views import OwnMount
from rowfs.store.model import Disk

RENAME_NOREPLACE = 1  # renameat2(2)
CLONE_FILES = 0x400  # unshare(2)
STDERR = 2
WRITE, WRITE_AND_WAIT = 2, 7  # SYNC_FILE_RANGE_*, linux/fs.h
EXACT_SINCE = (6, 16)  # of Linux: FUSE writes back the pages themselves, not copies that nobody can wait for

_libc = ctypes.CDLL(None, use_errno=True)

P = ParamSpec("P")
T = TypeVar("T")


async def run_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function gives that waits for our own mount, run in a thread without the descriptor of the session.

    When the daemon is killed its other threads end, but this one waits in the kernel for an answer. The kernel gives up
    on the mount when the last descriptor of /dev/fuse is closed, so this thread must not keep one. Raises as it does.
    """
    ended = trio.Event()
    token = trio.lowlevel.current_trio_token()
    results: list[T] = []
    context = contextvars.copy_context()  # on whose behalf
    errors: list[BaseException] = []

    def run() -> None:
        try:
            leave_session()
            results.append(context.run(function, *args, **kwargs))
        except BaseException as error:
            errors.append(error)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    threading.Thread(target=run, name=function.__name__, daemon=True).start()
    await ended.wait()
    if errors:
        raise errors[0]
    return results[0]


def leave_session() -> None:
    """Give this thread descriptors of its own, without /dev/fuse. It must not be used for anything else afterwards.

    Nor pipes: a process that waits for the end of one would not see it, as the one that keeps a file system frozen.
    """
    if _libc.unshare(CLONE_FILES) != 0:
        return  # not allowed in some containers: then only a kill at the wrong moment hangs
    for name in os.listdir("/proc/thread-self/fd"):
        with contextlib.suppress(OSError):
            leads_to = os.readlink(f"/proc/thread-self/fd/{name}")
            if leads_to == "/dev/fuse" or (leads_to.startswith("pipe:") and int(name) > STDERR):
                os.close(int(name))


class KernelCache:
    """The kernel's view of one mount."""

    def __init__(self, own: OwnMount, invalidate: Callable[[int, bool], None]) -> None:
        """`invalidate` has the kernel forget what it caches of an inode, or (True) its attributes alone.

        It may block, and raise OSError.
        """
        self._own = own
        self._invalidate = invalidate
        # Kernel ids of workers whose requests come from here, and on whose behalf.
        self.own_threads: dict[int, Actor | None] = {}

    async def flush(self, disk: Disk) -> None:
        """What was written to the disk's file, or through loop devices on it, has reached the daemon on return.

        Raises RowfsError when the kernel could not hand us all of it.
        """
        if not disk.handles:
            return
        try:
            await run_apart(self._flush, disk.name, disk_inode(disk.inode))
        except OSError as error:
            why = f"what was written to {disk.name} cannot all be stored: {error.strerror}"
            raise RowfsError(why, error.errno) from None

    def _flush(self, name: str, inode: int) -> None:
        for loop in loop_devices(self._own, inode):
            _flush_device(loop)
        with self.as_own(), self._root() as root, contextlib.suppress(FileNotFoundError), _opened(name, root) as fd:
            if os.fstat(fd).st_ino == inode:
                _flush_file(fd)

    async def hand_over(self, disk: Disk) -> None:
        """The kernel begins to hand over what was written to the disk's file; nothing of ours has it open on return."""
        with contextlib.suppress(OSError):
            await run_apart(self._hand_over, disk.name, disk_inode(disk.inode))

    def _hand_over(self, name: str, inode: int) -> None:
        with self.as_own(), self._root() as root, _opened(name, root) as fd:
            if os.fstat(fd).st_ino == inode:
                write_back(fd)

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        """A descriptor of our mount's root. Raises OSError, ESTALE where something else covers it."""
        fd = os.open(self._own.mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if numbers_of(fd).device != self._own.device:
                raise OSError(ESTALE, f"something else is mounted over {self._own.mountpoint}: unmount that first")
            yield fd
        finally:
            os.close(fd)

    async def truncate(self, disk: Disk, size_bytes: int) -> None:
        """Set the size of a disk's file through the kernel, which alone knows what it caches of it."""
        await run_apart(self._truncate, disk.name, size_bytes)

    def _truncate(self, name: str, size_bytes: int) -> None:
        with self.as_own(), self._root() as root:  # a thread of its own has descriptors of its own
            os.truncate(f"/proc/thread-self/fd/{root}/{name}", size_bytes)

    async def rename(self, disk: Disk, name: str) -> None:
        """Rename a disk's file through the kernel, which alone knows the paths of open files. Raises OSError."""
        await run_apart(self._rename, disk.name, name)

    def _rename(self, old: str, new: str) -> None:
        with self._root() as root:
            if _libc.renameat2(root, os.fsencode(old), root, os.fsencode(new), RENAME_NOREPLACE) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    async def drop(self, disk: Disk) -> None:
        """Forget the pages and attributes cached of a disk's file."""
        await trio.to_thread.run_sync(self._drop, disk_inode(disk.inode), False)

    async def forget_attributes(self, inodes: Sequence[int]) -> None:
        """Forget the attributes of these, so that the kernel asks again who may open them."""
        if inodes:
            await trio.to_thread.run_sync(self._forget_attributes, inodes)

    def _forget_attributes(self, inodes: Sequence[int]) -> None:
        for inode in inodes:
            self._drop(inode, True)

    def _drop(self, inode: int, attributes_only: bool) -> None:
        with contextlib.suppress(OSError):  # ENOENT: the kernel does not know the inode, so it caches nothing
            self._invalidate(inode, attributes_only)

    @contextlib.contextmanager
    def as_own(self) -> Iterator[None]:
        """Requests for this thread in the block are ours."""
        own = threading.get_native_id()
        self.own_threads[own] = actor()
        try:
            yield
        finally:
            del self.own_threads[own]


@contextlib.contextmanager
def _opened(path: str, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _flush_device(loop: Loop) -> None:
    """What was written to a loop device has reached its file, if it still shows that one. Raises OSError."""
    with contextlib.ExitStack() as opened:
        try:
            fd = opened.enter_context(_opened(loop.device))
            if shown_by(fd) != loop.shows:  # the number is another one's by now
                return
        except OSError:  # detached meanwhile
            return
        write_and_wait(fd)  # not fsync: that would have the loop driver sync our file, and so ask for a commit


def _flush_file(fd: int) -> None:
    # fsync keeps writers from the file until it is done: what can be on its way by then, should be. It is to wait for
    # all that is on its way, nevertheless: without that lock this takes for ever beside writers, who go on.
    write_back(fd)
    os.fsync(fd)


def waits_for_pages(release: str) -> bool:
    """Whether Linux of this release waits for what it writes back in FUSE."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and tuple(map(int, numbers.groups())) >= EXACT_SINCE


WAITS_FOR_PAGES = waits_for_pages(os.uname().release)


def write_and_wait(fd: int, start: int = 0, length: int = 0) -> None:
    """Have the kernel write back what it holds of a range of a file or device, and wait; `length` 0: up to the end.

    Unlike fsync(2) it takes no lock that keeps others from writing. Raises OSError.
    """
    _sync_file_range(fd, start, length, WRITE_AND_WAIT)


def write_back(fd: int, start: int = 0, length: int = 0) -> None:
    """Have the kernel begin to write back what it holds of a range, as above, without a wait. Raises OSError."""
    _sync_file_range(fd, start, length, WRITE)


def _sync_file_range(fd: int, start: int, length: int, flags: int) -> None:
    if _libc.sync_file_range(fd, ctypes.c_int64(start), ctypes.c_int64(length), ctypes.c_uint(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
