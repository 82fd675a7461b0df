"""What the tests of freezing share: whether something is frozen, and writers and daemons that stand still."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rowfs.host import freezer
from tests.mount.helpers import ROOT, Mounted, run

FROZEN_S = 20.0  # a test that would hang on a frozen file system gives up

# The buffer lies in memory of which userfaultfd(2) never gives a page: write(2) waits for it, with the file system held
# as by any writer. SIGKILL ends that, which it would not if a server of FUSE stood still.
USERFAULTFD = {"x86_64": 323, "aarch64": 282}
STUCK = f"""
import ctypes, fcntl, mmap, os, select, struct, sys, threading
faults = ctypes.CDLL(None).syscall({USERFAULTFD.get(platform.machine())}, os.O_CLOEXEC)
memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
fcntl.ioctl(faults, 0xC018AA3F, struct.pack("3Q", 0xAA, 0, 0))  # UFFDIO_API
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(faults, 0xC020AA00, struct.pack("4Q", start, 4096, 1, 0))  # UFFDIO_REGISTER: missing pages
target = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
threading.Thread(target=os.write, args=(target, memory)).start()
select.select([faults], [], [])
print("stuck", flush=True)
"""

# A daemon that does not come to an end with what it does while a file system is frozen.
SLOW = """
import sys, trio
from rowfs.service.kernelcache import KernelCache
from rowfs.process.daemon import main
async def flush(self, disk):
    open(self._own.mountpoint + ".frozen", "w").close()
    await trio.sleep_forever()
KernelCache.flush = flush
sys.exit(main())
"""


def thawed(where: Path) -> None:
    """A file can be written: in a process of its own, which would hang on a frozen file system."""
    dd = ["dd", "if=/dev/zero", f"of={where}/thawed", "bs=4k", "count=1", "conv=fsync"]
    run("timeout", "--signal=KILL", str(FROZEN_S), *dd)


def freezers(where: Path) -> list[int]:
    """The processes that freeze what is mounted at `where`. Other tests freeze at the same time."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            places = {word.partition(b":")[2] for word in words}  # of ID:MOUNTPOINT
            if os.fsencode(os.path.abspath(freezer.__file__)) in words and os.fsencode(where) in places:
                found.append(int(pid))
    return found


def is_frozen(where: Path) -> bool:
    """Whether it is; freezing it to find out, and thawing it again."""
    fd = os.open(where, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, freezer.FIFREEZE, 0)
    except OSError as error:
        assert error.errno == errno.EBUSY
        return True
    else:
        fcntl.ioctl(fd, freezer.FITHAW, 0)
        return False
    finally:
        os.close(fd)


@contextlib.contextmanager
def stuck_writer(where: Path) -> Iterator[None]:
    """A write(2) to the file system at `where` that does not end before the block does."""
    command = [sys.executable, "-c", STUCK, str(where / "stuck")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == "stuck\n"
            yield
        finally:
            writer.kill()


@contextlib.contextmanager
def slow_daemon(mounted: Mounted) -> Iterator[Path]:
    """A daemon that never ends a snapshot, mounted in the block; and the file that appears when it begins to wait."""
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-c", SLOW, str(mounted.pool), str(mounted.mnt), "--ready-fd", str(write_fd)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd="/", env=environment, pass_fds=(write_fd,), start_new_session=True) as daemon:
        os.close(write_fd)
        with os.fdopen(read_fd) as pipe:
            assert pipe.readline() == "ready\n"
        mounted.pid = daemon.pid
        try:
            yield Path(f"{mounted.mnt}.frozen")
        finally:
            if mounted.pid:
                mounted.umount()
