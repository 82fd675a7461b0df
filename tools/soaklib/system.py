"""What a soak asks of the system: programs, files past the page cache, the daemon's process, a host file system."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from soaklib.records import Lost

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
DEADLINE_S, DYING_S = 30.0, 3.0
DAEMON = (sys.executable, "-m", "rowfs.process.daemon")  # what `rowfs mount` starts, without its half a second

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN
NO_LOG_FLUSH = 2  # what is in memory is lost: dirty pages, and the part of the journal that is not on disk yet
HOST_MIB = 512  # sparse; mkfs.xfs makes none below 300 MiB
# ext4 hides a missing fsync before a rename, unless it is told not to.
HOSTS = {"ext4": (["mkfs.ext4", "-q", "-F"], ["noauto_da_alloc"]), "xfs": (["mkfs.xfs", "-q", "-f"], [])}
KINDS = HOSTS | {"btrfs": (["mkfs.btrfs", "-q", "-f"], [])}  # and one that cannot be shut down


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll with a deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise Lost(f"in vain waited for {what}")
        time.sleep(0.005)


def run(*words: str | Path) -> str:
    """Run a program to its end; what it prints."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment())
    if done.returncode:
        raise Lost(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment() -> dict[str, str]:
    """An environment in which this very rowfs is found."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def umount_whatever(option: str, *places: Path) -> None:
    """Take away what is mounted there, if anything."""
    for place in places:
        subprocess.run(["umount", option, place], capture_output=True, check=False, timeout=60)


def _umounted(place: Path) -> bool:
    return subprocess.run(["umount", place], capture_output=True, check=False, timeout=60).returncode == 0


# Files


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """An open file, whose server may be gone when it is closed."""
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def read_direct(path: Path) -> bytes:
    """A whole file as its server has it."""
    if not os.stat(path).st_size:
        return b""  # what was to be copied when the daemon died
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, os.fstat(fd).st_size) as buffer:
        done = 0
        while done < len(buffer):
            with memoryview(buffer)[done : done + MIB] as piece:
                count = os.preadv(fd, [piece], done)
            if not count:
                raise Lost(f"{path} ends at {done}")
            done += count
        return buffer[:]


def write_aligned(fd: int, offset: int, data: bytes) -> None:
    """Write from memory that O_DIRECT takes."""
    with mmap.mmap(-1, len(data)) as buffer:
        buffer[:] = data
        if os.pwritev(fd, [buffer], offset) != len(data):
            raise OSError("a short write")


# Loop devices


def attach(path: Path) -> str:
    """A loop device on a file, past the page cache."""
    return run("losetup", "--find", "--show", "--direct-io=on", path).strip()


def detach(device: str) -> None:
    """Detach a loop device, and wait until the kernel has."""
    file = backing_file(device)
    run("losetup", "--detach", device)
    until(lambda: backing_file(device) != file, f"{device} to detach")


def backing_file(device: str) -> bytes | None:
    """The file that a loop device shows. Who finds it free may take it: two devices are the same with the same file."""
    try:
        return Path("/sys/block", Path(device).name, "loop/backing_file").read_bytes()
    except OSError:
        return None


# The daemon


class Daemon:
    """The process of one mount."""

    def __init__(self, command: Sequence[str], pool: Path, mnt: Path) -> None:
        """Start it, and return when the mount is ready."""
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as pipe:
            try:
                self._process = subprocess.Popen(
                    [*command, str(pool), str(mnt), "--ready-fd", str(write_fd)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment(),
                    start_new_session=True,
                    pass_fds=(write_fd,),
                )
            finally:
                os.close(write_fd)
            word = pipe.readline()
        self.pid = self._process.pid
        if word != b"ready\n":
            self._process.wait(DEADLINE_S)
            raise Lost(f"the pool cannot be mounted: {word.decode()!r}")

    def kill(self, mnt: Path) -> bool:
        """SIGKILL. False: it did not die of it, and its connection had to be cut.

        A worker that waits in the kernel for its own mount, and keeps /dev/fuse open: nobody hears that it is gone.
        """
        self._process.send_signal(signal.SIGKILL)
        died = True
        try:
            until(lambda: not alive(self.pid), "the daemon to die", DYING_S)
        except Lost:
            died = False
            umount_whatever("--force", mnt)
            until(lambda: not alive(self.pid), "the daemon to die")
        self._process.wait(DEADLINE_S)
        return died

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def ended(self) -> int:
        """Its exit code, once it has ended of itself."""
        return self._process.wait(DEADLINE_S)


def alive(pid: int) -> bool:
    """Whether any thread is left; the first may be a zombie and others hold on to files."""
    states = []
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread has just ended, and no other
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return any(state not in "ZX" for state in states)


# The host


class Host:
    """A file system of its own on a loop device, which can be shut down as if the power went."""

    def __init__(self, directory: Path, kind: str, mib: int = HOST_MIB) -> None:
        """Make and mount it, of so many MiB."""
        make, self._options = KINDS[kind]
        image, self.where = directory / "host.img", directory / "host"
        with open(image, "wb") as file:
            file.truncate(mib * MIB)
        run(*make, image)
        self.where.mkdir()
        self._device = run("losetup", "--find", "--show", image).strip()
        self.mount()

    def mount(self) -> None:
        """Mount it; after a shutdown, its journal is replayed."""
        options = ["-o", ",".join(self._options)] if self._options else []
        run("mount", *options, self._device, self.where)

    def shut_down(self) -> None:
        """Everything that is not on the device is lost, and everybody gets EIO until it is mounted again."""
        with opened(self.where, os.O_RDONLY | os.O_DIRECTORY) as fd:
            fcntl.ioctl(fd, SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, sys.byteorder))

    def remount(self) -> None:
        """Mount it again after a shutdown; nobody may use it, but for who looks through /proc just now."""
        until(self._comes_back, f"{self.where} to be free and mounted again")

    def _comes_back(self) -> bool:
        if not _umounted(self.where):
            return False
        self.mount()
        try:
            os.listdir(self.where)
        except OSError:  # a new mount namespace somewhere has it for a moment: it is the one that was shut down
            return False
        return True

    def remove(self) -> None:
        """Unmount it and let go of the device."""
        umount_whatever("--lazy", self.where)
        detach(self._device)
