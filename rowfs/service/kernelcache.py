"""What the kernel caches of our own mount: flush it before a snapshot, drop it after a rollback.

Each of these blocks until the daemon itself has answered, so they run in worker threads, never on the trio thread.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec

import trio

from rowfs.base.actor import Actor, actor
from rowfs.base.errors import RowfsError
from rowfs.base.inodenumbers import disk_inode
from rowfs.host.holders import loop_devices
from rowfs.store.model import Disk

AT_FDCWD, RENAME_NOREPLACE = -100, 1  # renameat2(2)

CLONE_FILES = 0x400  # unshare(2)

_libc = ctypes.CDLL(None, use_errno=True)

P = ParamSpec("P")


async def run_apart(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a function that waits for our own mount, in a thread that does not hold the descriptor of the session.

    When the daemon is killed its other threads end, but this one waits in the kernel for an answer. The kernel gives up
    on the mount when the last descriptor of /dev/fuse is closed, so this thread must not keep one. Raises as it does.
    """
    ended = trio.Event()
    token = trio.lowlevel.current_trio_token()
    context = contextvars.copy_context()  # on whose behalf
    errors: list[BaseException] = []

    def run() -> None:
        try:
            leave_session()
            context.run(function, *args, **kwargs)
        except BaseException as error:
            errors.append(error)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    threading.Thread(target=run, name=function.__name__, daemon=True).start()
    await ended.wait()
    if errors:
        raise errors[0]


def leave_session() -> None:
    """Give this thread descriptors of its own, without /dev/fuse. It must not be used for anything else afterwards."""
    if _libc.unshare(CLONE_FILES) != 0:
        return  # not allowed in some containers: then only a kill at the wrong moment hangs
    for name in os.listdir("/proc/thread-self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/thread-self/fd/{name}") == "/dev/fuse":
                os.close(int(name))


class KernelCache:
    """The kernel's view of one mount."""

    def __init__(self, mountpoint: str, invalidate: Callable[[int], None]) -> None:
        """`invalidate` has the kernel forget what it caches of an inode. It may block, and raise OSError."""
        self.mountpoint = mountpoint
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
        for device in loop_devices(self.mountpoint, name):
            with contextlib.ExitStack() as opened:
                try:
                    fd = opened.enter_context(_opened(device))
                except OSError:  # detached meanwhile, or not ours to open
                    continue
                os.fsync(fd)
        with self.as_own(), contextlib.suppress(FileNotFoundError), _opened(os.path.join(self.mountpoint, name)) as fd:
            if os.fstat(fd).st_ino == inode:
                os.fsync(fd)

    async def truncate(self, disk: Disk, size_bytes: int) -> None:
        """Set the size of a disk's file through the kernel, which alone knows what it caches of it."""
        await run_apart(self._truncate, disk.name, size_bytes)

    def _truncate(self, name: str, size_bytes: int) -> None:
        with self.as_own():
            os.truncate(os.path.join(self.mountpoint, name), size_bytes)

    async def rename(self, disk: Disk, name: str) -> None:
        """Rename a disk's file through the kernel, which alone knows the paths of open files. Raises OSError."""
        await run_apart(self._rename, disk.name, name)

    def _rename(self, old: str, new: str) -> None:
        paths = [os.fsencode(os.path.join(self.mountpoint, name)) for name in (old, new)]
        if _libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_NOREPLACE) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    async def drop(self, disk: Disk) -> None:
        """Forget the pages and attributes cached of a disk's file."""
        await trio.to_thread.run_sync(self._drop, disk_inode(disk.inode))

    def _drop(self, inode: int) -> None:
        with contextlib.suppress(OSError):  # ENOENT: the kernel does not know the inode, so it caches nothing
            self._invalidate(inode)

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
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
