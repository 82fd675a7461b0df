"""A file in plain pyfuse3 and trio that throws away what is written: what the machine gives a request, here and now.

No ceiling: it waits for requests as pyfuse3 comes, and rowfs does not (rowfs/mount/polling.py).

python -m benchlib.floor MOUNTPOINT SIZE     serves MOUNTPOINT/file until it is unmounted
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

FILE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)


class Nothing(pyfuse3.Operations):
    """One file, and the shortest handlers there can be."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    async def getattr(self, inode: pyfuse3.InodeT, ctx: object = None) -> pyfuse3.EntryAttributes:
        """The file or the directory it is in."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o644)
        entry.st_size = self._size
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.entry_timeout = entry.attr_timeout = 300
        return entry

    async def lookup(self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        """The file is `file`."""
        if name != b"file":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(FILE)

    async def open(self, inode: pyfuse3.InodeT, flags: int, ctx: object) -> pyfuse3.FileInfo:
        """Always."""
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode))

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Away."""
        return len(buf)

    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Nothing to do."""

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Nothing to do."""


def main() -> None:
    """Mount, serve, and close."""
    pyfuse3.init(Nothing(int(sys.argv[2])), sys.argv[1], {"fsname=rowfs-bench-floor"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
