"""The systems that `make bench-peers` measures: each shows one disk, fully written, as a file or a device.

What each writes to the host is counted where it enters the host's file system: a daemon's `write_bytes` in /proc, a
loop device's sectors in /sys/block. Mounts, loop devices and processes end with the ExitStack given to `start`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from benchlib import ratios
from benchlib.fio import job
from benchlib.mounted import Mount, mounted, process_written_bytes, rowfs
from benchlib.signals import interrupts_later
from rowfs.base.errors import BusyError
from rowfs.base.format import DATA_FILE, MAP_DIR
from rowfs.base.units import GIB
from rowfs.cli.loops import attach, detach
from rowfs.cli.mounts import everything_mounted
from rowfs.host.loops import Loop, numbers_of
from rowfs.store.pool import init_pool

START_S, END_S = 10.0, 30.0
CLUSTER_BYTES = 64 << 10
POLL_S = 0.01


class Peer(ABC):
    """One system. `path` is its disk, from `start` on."""

    key: ClassVar[str]
    has_snapshots: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("fio",)
    needs_root: ClassVar[bool] = True

    path: Path

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory / self.key
        self.size = size

    @property
    def label(self) -> str:
        return ratios.LABELS[self.key]

    def obstacle(self) -> str:
        """Why this system cannot be measured here; empty if it can."""
        missing = [name for name in self.needs if find(name) is None]
        if missing:
            return f"no {', '.join(missing)} (tools/setup --bench)"
        if self.needs_root and os.geteuid():
            return "only root attaches loop devices"
        return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "no /dev/fuse"

    def start(self, stack: contextlib.ExitStack) -> None:
        """Make the disk and fill it."""
        self.show(stack)
        job(self.path, self.size, rw="write", bs="1M", iodepth="4")
        self.sync()

    def show(self, stack: contextlib.ExitStack) -> None:
        """Make the disk, empty."""
        self.directory.mkdir()
        self._show(stack)

    @abstractmethod
    def _show(self, stack: contextlib.ExitStack) -> None:
        """Have an empty disk at `path`."""

    def snapshot(self) -> None:
        """Keep the disk as it is now."""
        raise NotImplementedError(f"{self.key} has no snapshots")

    def restore(self) -> None:
        """Have the disk as it was at `snapshot`, and no snapshot."""
        raise NotImplementedError(f"{self.key} has no snapshots")

    @abstractmethod
    def written_bytes(self) -> int:
        """What it has written to the host so far; from `snapshot` to `restore` it only grows."""

    @abstractmethod
    def backing(self) -> Iterable[Path]:
        """The files of the host that hold the disk."""

    def sync(self) -> None:
        """All that was written is on the host's disk."""
        for path in (self.path, *self.backing()):
            fsync(path)

    def evict(self) -> None:
        """The host's page cache holds nothing of the disk."""
        self.sync()
        for path in self.backing():
            forget(path)


class Rowfs(Peer):
    """This checkout: the disk on its mount."""

    key = ratios.ROWFS
    needs = ("fio", "fusermount3")
    needs_root = False
    variables: ClassVar[dict[str, str]] = {}
    warned = False  # that the extension is not loaded, in the log

    mount: Mount

    def _show(self, stack: contextlib.ExitStack) -> None:
        pool = self.directory / "pool"
        init_pool(str(pool))
        self.mount = stack.enter_context(mounted(pool, **self.variables))
        log = (pool / "rowfs.log").read_text()
        if ("C extension is not loaded" in log) is not self.warned:
            raise RuntimeError(f"{self.label}: the C extension is {'not ' if not self.warned else ''}loaded")
        self.path = self.mount.point / "disk"
        rowfs("create", self.path, str(self.size))

    def snapshot(self) -> None:
        self.mount.call("snapshot", disk="disk", snapshot="kept")

    def restore(self) -> None:
        self.mount.call("rollback", disk="disk", snapshot="kept", discard=True)
        self.mount.call("delete", disk="disk", snapshots=["kept"], wait=True)

    def written_bytes(self) -> int:
        return self.mount.written_bytes()

    def backing(self) -> Iterable[Path]:
        return self.mount.pool / DATA_FILE, self.mount.pool / MAP_DIR / "data.mdb"


class RowfsPython(Rowfs):
    """The same with its C extension switched off."""

    key = ratios.PYTHON
    variables: ClassVar[dict[str, str]] = {"ROWFS_NATIVE": "0"}
    warned = True


class Qcow2(Peer):
    """A qcow2 image that qemu-storage-daemon shows as a file; a snapshot is an overlay."""

    key = ratios.QCOW2
    needs = ("fio", "qemu-storage-daemon", "qemu-img", "fusermount3")
    needs_root = False

    def __init__(self, directory: Path, size: int) -> None:
        super().__init__(directory, size)
        self.path = self.directory / "mnt"
        self.image = self.directory / "disk.qcow2"
        self.overlay = self.directory / "overlay.qcow2"
        self._server: subprocess.Popen[bytes] | None = None

    def _show(self, stack: contextlib.ExitStack) -> None:
        self.path.touch()
        self._create(self.image, str(self.size))
        stack.callback(self._end)
        self._serve(self.image)

    def snapshot(self) -> None:
        self._end()
        self._create(self.overlay, "-b", str(self.image), "-F", "qcow2")
        self._serve(self.overlay)

    def restore(self) -> None:
        self._end()
        self.overlay.unlink()
        self._serve(self.image)

    def written_bytes(self) -> int:
        if self._server is None:
            raise RuntimeError("qemu-storage-daemon does not run")
        return process_written_bytes(self._server.pid)

    def backing(self) -> Iterable[Path]:
        return [image for image in (self.image, self.overlay) if image.exists()]

    def _create(self, image: Path, *arguments: str) -> None:
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER_BYTES}", image, *arguments)

    def _serve(self, image: Path) -> None:
        file = f"driver=file,node-name=file,filename={image}"
        export = f"type=fuse,id=export,node-name=disk,mountpoint={self.path},writable=on"
        command = ["qemu-storage-daemon", "--blockdev", file, "--blockdev", "driver=qcow2,node-name=disk,file=file"]
        self._server = subprocess.Popen([*command, "--export", export], start_new_session=True)
        deadline = time.monotonic() + START_S
        while not is_mounted(self.path):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("qemu-storage-daemon does not mount its export")
            time.sleep(POLL_S)

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.terminate()
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if is_mounted(self.path):
            subprocess.run(["fusermount3", "-uz", str(self.path)], check=False)


class Raw(Peer):
    """A plain file of the host on a loop device."""

    key = ratios.RAW
    has_snapshots = False

    def _show(self, stack: contextlib.ExitStack) -> None:
        file = self.directory / "disk"
        with open(file, "wb") as made:
            made.truncate(self.size)
            numbers = numbers_of(made.fileno())
        loop = attach(str(file), numbers, read_only=False, direct_io=False)
        stack.callback(_detach, loop)
        self.path = Path(loop.device)

    def written_bytes(self) -> int:
        return loop_written_bytes(str(self.path))

    def backing(self) -> Iterable[Path]:
        return [self.directory / "disk"]


class Reflink(Peer):
    """A file on a file system that shares blocks between copies, itself on a loop device; a snapshot is such a copy."""

    make: ClassVar[tuple[str, ...]]

    def obstacle(self) -> str:
        if reason := super().obstacle():
            return reason
        if loader := find("modprobe"):
            subprocess.run([loader, "-q", self.key], check=False)
        known = Path("/proc/filesystems").read_text().split()
        return "" if self.key in known else f"this kernel has no {self.key}"

    def _show(self, stack: contextlib.ExitStack) -> None:
        image, where = self.directory / "image", self.directory / "mnt"
        with open(image, "wb") as made:
            made.truncate(2 * self.size + GIB)
        self._device = mounted_image(stack, image, where, *self.make)
        self.path = where / "disk"

    def snapshot(self) -> None:
        run("cp", "--reflink=always", self.path, self.path.with_name("kept"))
        self.sync()

    def restore(self) -> None:
        os.replace(self.path.with_name("kept"), self.path)

    def written_bytes(self) -> int:
        return loop_written_bytes(self._device)

    def backing(self) -> Iterable[Path]:
        return [self.directory / "image"]

    def sync(self) -> None:
        run("sync", "-f", self.path)
        super().sync()


class Xfs(Reflink):
    """XFS."""

    key = ratios.XFS
    make = ("mkfs.xfs", "-q", "-K")
    needs = ("fio", "mkfs.xfs")


class Btrfs(Reflink):
    """btrfs, which redirects every write and has checksums."""

    key = ratios.BTRFS
    make = ("mkfs.btrfs", "-q", "-K")
    needs = ("fio", "mkfs.btrfs")


PEERS: dict[str, type[Peer]] = {each.key: each for each in (Rowfs, RowfsPython, Qcow2, Raw, Xfs, Btrfs)}


def find(program: str) -> str | None:
    """Where a program is."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def run(program: str, *arguments: str | Path) -> None:
    """Run a program to its end. Raises CalledProcessError, OSError."""
    command = [find(program) or program, *map(str, arguments)]
    subprocess.run(command, stdout=subprocess.DEVNULL, start_new_session=True, check=True, timeout=120)


def mounted_image(stack: contextlib.ExitStack, image: Path, where: Path, *make: str) -> str:
    """Make a file system in a file and mount it through a loop device, whose name this is."""
    run(*make, image)
    where.mkdir()
    stack.callback(_unmount, where)
    with interrupts_later():
        run("mount", "-o", "loop", image, where)
    return next(mount.source for mount in everything_mounted() if mount.mountpoint == str(where))


def _unmount(where: Path) -> None:
    if is_mounted(where):
        run("umount", where)


def _detach(loop: Loop) -> None:
    deadline = time.monotonic() + END_S
    while True:
        try:
            return detach(loop)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted there, without asking what is."""
    return any(mount.mountpoint == str(path) for mount in everything_mounted())


def loop_written_bytes(device: str) -> int:
    """What was written through a block device so far."""
    fields = Path(f"/sys/block/{os.path.basename(device)}/stat").read_text().split()
    return int(fields[6]) * 512


def fsync(path: Path) -> None:
    """What was written to a file or device is durable."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def forget(path: Path) -> None:
    """The page cache lets go of a file that is clean."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
