"""The session with the kernel: pyfuse3's own calls, for the daemon."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Collection, Iterator

import pyfuse3

from rowfs.base.errors import RowfsError
from rowfs.mount import polling
from rowfs.mount.operations import Operations
from rowfs.native import extension

_libc = ctypes.CDLL(None, use_errno=True)

SAID_CHARS_MAX = 4096
TASKS_MAX = 99  # requests that wait for something at the same time; each has a buffer of 1 MiB


def mount(operations: Operations, mountpoint: str, options: Collection[str]) -> None:
    """Mount. One session per process. Raises RowfsError when libfuse cannot, with what it, or fusermount3, says."""
    polling.install()
    extension.hand_to(operations)
    operations.serve_natively()
    try:
        with _stderr_kept() as said:
            pyfuse3.init(operations, mountpoint, set(options))
    except RuntimeError as error:
        raise RowfsError(f"cannot mount on {mountpoint}: {'; '.join(said) or error}") from None


@contextlib.contextmanager
def _stderr_kept() -> Iterator[list[str]]:
    """The lines that come on stderr in the block, child processes included; known after it."""
    said: list[str] = []
    stderr = os.dup(2)
    with open(os.memfd_create("stderr"), errors="replace") as kept:
        try:
            os.dup2(kept.fileno(), 2)
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            said += kept.read(SAID_CHARS_MAX).splitlines()


async def serve() -> None:
    """Answer requests until the mount is gone, or `terminate`."""
    # No task ever ends for want of work: it might be the one that has the turn (see polling).
    await pyfuse3.main(min_tasks=TASKS_MAX, max_tasks=TASKS_MAX)


def terminate() -> None:
    """Have `serve` return."""
    pyfuse3.terminate()


def write_back(mountpoint: str) -> None:
    """Have the kernel hand us everything that it caches of the mount. Blocks: not on the trio thread.

    Not pyfuse3.syncfs, which keeps the GIL while the kernel waits for our own answers.
    """
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)


def invalidate(inode: int, attributes_only: bool = False) -> None:
    """Have the kernel forget the pages and attributes of an inode. Blocks.

    Raises OSError, with ENOENT when the kernel does not know the inode.
    """
    pyfuse3.invalidate_inode(pyfuse3.InodeT(inode), attr_only=attributes_only)


def close(unmount: bool) -> None:
    """End the session; with `unmount`, take down the mount too."""
    extension.stop()  # its workers answer on the session's descriptor
    pyfuse3.close(unmount=unmount)
