"""The systems that `make bench-databases` measures: each shows one file, an ext4 on it is on a loop device."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from benchlib.mounted import Mount, mounted, rowfs
from benchlib.peers import POLL_S, START_S, Qcow2, is_mounted, run
from benchlib.signals import interrupts_later
from rowfs.cli.client import Client
from rowfs.store.pool import init_pool

MAKE = ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0")  # nothing at work in the background
CHAIN = 1000
EVERY_S = 10.0


class System(ABC):
    """One system. `where` is the directory for databases, from `start` on."""

    key: ClassVar[str]
    label: ClassVar[str]
    bears_direct: ClassVar[bool] = True

    def __init__(self, directory: Path, size: int, direct: bool) -> None:
        self.directory = directory / self.key
        self.where = self.directory / "ext4"
        self._size, self._direct = size, direct and self.bears_direct

    def start(self, stack: contextlib.ExitStack) -> None:
        """Make the file, and an ext4 on it."""
        self.directory.mkdir()
        self.directory.chmod(0o711)  # databases do not run as root
        path = self.show(stack)
        with interrupts_later():
            device = _attach(path, self._direct)
            stack.callback(run, "losetup", "--detach", device)
        run(*MAKE, device)
        self.where.mkdir()
        with interrupts_later():
            run("mount", device, self.where)
            stack.callback(run, "umount", self.where)

    @abstractmethod
    def show(self, stack: contextlib.ExitStack) -> Path:
        """The file, empty."""

    @contextlib.contextmanager
    def meanwhile(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[misc]
        """What else happens while something is measured: nothing."""
        yield

    def _sparse(self, name: str) -> Path:
        path = self.directory / name
        with open(path, "wb") as made:
            made.truncate(self._size)
        return path


class Plain(System):
    """A file of the host."""

    key = "plain"
    label = "plain file"

    def show(self, stack: contextlib.ExitStack) -> Path:
        return self._sparse("disk")


class Qcow2Export(System):
    """A qcow2 image that qemu-storage-daemon shows as a file. 7.2 corrupts parallel direct writes: always buffered."""

    key = "qcow2"
    label = "qcow2, FUSE export"
    bears_direct = False

    def show(self, stack: contextlib.ExitStack) -> Path:
        peer = Qcow2(self.directory, self._size)
        peer.show(stack)
        return peer.path


class Line(System):
    """The C server of one file that does only what it must (line.c)."""

    key = "line"
    label = "C line"

    def show(self, stack: contextlib.ExitStack) -> Path:
        program, point = self.directory / "line", self.directory / "mnt"
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True
        ).stdout.split()
        run("cc", "-O2", "-o", str(program), str(Path(__file__).with_name("line.c")), *flags)
        point.mkdir()
        server = subprocess.Popen([program, self._sparse("backing"), point], start_new_session=True)
        stack.callback(self._end, server, point)
        deadline = time.monotonic() + START_S
        while not is_mounted(point):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the C line does not mount")
            time.sleep(POLL_S)
        return point / "disk"

    @staticmethod
    def _end(server: subprocess.Popen[bytes], point: Path) -> None:
        server.terminate()
        server.wait()
        if is_mounted(point):
            subprocess.run(["fusermount3", "-uz", str(point)], check=False)


class Rowfs(System):
    """This checkout."""

    key = "rowfs"
    label = "rowfs"
    mount: Mount

    def show(self, stack: contextlib.ExitStack) -> Path:
        pool = self.directory / "pool"
        init_pool(str(pool))
        self.mount = stack.enter_context(mounted(pool))
        path = self.mount.point / "disk"
        rowfs("create", path, str(self._size))
        return path


class RowfsChain(Rowfs):
    """The same with many snapshots in the chain."""

    key = "rowfs-chain"
    label = f"rowfs, {CHAIN:,} snapshots"

    def start(self, stack: contextlib.ExitStack) -> None:
        super().start(stack)
        run("sync", "-f", str(self.where))
        for number in range(CHAIN):
            self.mount.call("snapshot", disk="disk", snapshot=f"s{number}")


class RowfsRolling(Rowfs):
    """The same with a snapshot every so often, the last three of which are kept."""

    key = "rowfs-rolling"
    label = f"rowfs, a snapshot every {EVERY_S:.0f} s"
    _taken = 0

    @contextlib.contextmanager
    def meanwhile(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[misc]
        stop = threading.Event()
        thread = threading.Thread(target=self._roll, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _roll(self, stop: threading.Event) -> None:
        with Client(str(self.mount.pool)) as client:
            while not stop.wait(EVERY_S):
                client.call("snapshot", {"disk": "disk", "snapshot": f"r{self._taken}"})
                if self._taken >= 3:
                    client.call("delete", {"disk": "disk", "snapshots": [f"r{self._taken - 3}"]})
                self._taken += 1


SYSTEMS: dict[str, type[System]] = {
    each.key: each for each in (Plain, Qcow2Export, Line, Rowfs, RowfsChain, RowfsRolling)
}


def _attach(path: Path, direct: bool) -> str:
    command = ["losetup", "--find", "--show", *(["--direct-io=on"] if direct else []), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def obstacle() -> str:
    """Why nothing can be measured here; empty if it can."""
    if os.geteuid():
        return "only root attaches loop devices"
    needs = ("fusermount3", "qemu-storage-daemon", "qemu-img", "cc", "pkg-config")
    missing = [name for name in needs if shutil.which(name) is None]
    return f"no {', '.join(missing)} (tools/setup --bench)" if missing else ""
