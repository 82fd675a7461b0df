"""A pool that is really mounted, and the tools that a user has. All of it through the command line and the kernel."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import rowfs
from rowfs.base.mountinfo import MountLine, parse
from rowfs.cli.client import Client
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.system import alive, backing_file

B = 4096
MIB = 1 << 20
LABEL_BYTES = 4096  # what an empty pool uses
DEADLINE_S = 60.0
ROOT = Path(rowfs.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "rowfs"]


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when `condition` holds; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"in vain waited for {what}")
        time.sleep(0.005)


def run(*command: str | Path, codes: Sequence[int] = (0,), **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which has to be one of `codes`."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, errors="surrogateescape", check=False, timeout=300, **options
    )
    assert done.returncode in codes, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def fails(*command: str | Path) -> str:
    """Run a program that has to fail, and not by a signal: what it says on stderr."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode > 0, f"{command} did not fail as it should\n{done.stdout}{done.stderr}"
    return done.stderr


@dataclass
class Mounted:
    """A pool on a mountpoint, used as its owner would."""

    pool: Path
    mnt: Path
    expected_log: list[str] = field(default_factory=list)  # parts of lines that may be in the log
    options: list[str] = field(default_factory=list)
    pid: int = 0

    def path(self, name: str = "") -> str:
        """A path on the mount."""
        return f"{self.mnt}/{name}" if name else str(self.mnt)

    def snapshot_path(self, disk: str, name: str) -> str:
        """The path of a snapshot's file."""
        return self.path(f".snapshots/{disk}/{name}")

    def run(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a verb. What it says on stderr is at most one line, and never a traceback."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = run(*COMMAND, *args, codes=(code,), env=environment)
        lines = done.stderr.splitlines()
        assert "Traceback" not in done.stderr and len(lines) <= 1, done.stderr
        if code:
            assert lines and lines[0].startswith("rowfs: "), f"no line says why {args} failed: {done.stderr!r}"
        return done

    def cli(self, verb: str, *args: str) -> str:
        """Run a verb; arguments that begin with a `:` are paths on the mount. What it prints."""
        return self.run(verb, *self._paths(args)).stdout

    def json(self, verb: str, *args: str) -> Any:
        """As `cli`, with --json: what it answers."""
        return json.loads(self.cli(verb, *args, "--json"))

    def refuses(self, verb: str, *args: str, code: int = 1) -> str:
        """The line that a verb which fails with `code` says."""
        return self.run(verb, *self._paths(args), code=code).stderr.strip().removeprefix("rowfs: ")

    def _paths(self, args: Sequence[str]) -> list[str]:
        return [self.path(arg[1:]) if arg.startswith(":") else arg for arg in args]

    # The daemon

    def init(self, *options: str) -> None:
        """Make the pool. Without options in this process: a program to start takes a hundred times as long."""
        if options:
            self.cli("init", str(self.pool), *options)
        else:
            init_pool(str(self.pool))

    def mount(self, *options: str) -> None:
        """Mount the pool."""
        self.options = list(options)
        self.cli("mount", str(self.pool), str(self.mnt), *options)
        self.pid = self.info()["pid"]

    def umount(self, *options: str) -> None:
        """Unmount through the command line, which returns when the daemon is gone."""
        self.cli("umount", ":", *options)
        assert not is_mounted(self.mnt)
        assert not alive(self.pid)
        self.pid = 0

    def remount(self, *options: str) -> None:
        """Unmount if it is mounted, and mount again."""
        if self.pid:
            self.umount()
        self.mount(*options)

    def kill(self) -> None:
        """SIGKILL the daemon, and take the dead mount away."""
        self.kill_daemon()
        run("umount", "--lazy", self.mnt)

    def kill_daemon(self) -> None:
        """SIGKILL the daemon; the dead mount stays."""
        pid, self.pid = self.pid, 0
        os.kill(pid, signal.SIGKILL)
        self.wait_free(pid)

    def wait_free(self, pid: int) -> None:
        """Wait until a daemon is gone and has let go of its pool."""
        until(lambda: not alive(pid), "the daemon to end")

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon over its socket, from this process."""
        with Client(str(self.pool)) as client:
            return client.call(method, params)

    def info(self) -> dict[str, Any]:
        """What `rowfs info` answers."""
        return dict(self.call("info"))

    def disk(self, name: str) -> dict[str, Any]:
        """What `rowfs list` answers for one disk."""
        (found,) = self.call("list", disks=[name])
        return dict(found)

    def used(self) -> int:
        """How many bytes the pool uses, when nothing is left to reclaim."""
        until(self._reclaimed, "the reclaimer")
        return int(self.info()["used_bytes"])

    def _reclaimed(self) -> bool:
        directory = os.open(self.mnt, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # a commit now, which the reclaimer waits for
        finally:
            os.close(directory)
        return not self.info()["reclaiming"]

    # The end

    def finish(self) -> None:
        """Unmount; the log has to be silent, the pool in order."""
        if self.pid and alive(self.pid):
            try:
                self.umount()
            except AssertionError:  # of a test that failed halfway: nothing may be left behind
                self.kill()
                raise
        elif is_mounted(self.mnt):
            run("umount", "--lazy", self.mnt)
        self.check_log()
        self.check()

    def check(self) -> None:
        """Hold the pool against its invariants: through the command line while it is mounted, else in this process."""
        if self.pid and alive(self.pid):
            done = self.run("check", str(self.pool))
            assert done.stdout.endswith("clean\n"), done.stdout
        else:
            assert check_pool(str(self.pool)) == ([], False)

    def check_log(self) -> None:
        """The log holds no line at WARNING or above that was not expected, and no traceback."""
        text = (self.pool / "rowfs.log").read_text(errors="surrogateescape")
        bad = [line for line in text.split("\n") if _is_bad(line)]
        expected = [*self.expected_log, *([] if has_extension() else ["the C extension is not loaded"])]
        unexpected = [line for line in bad if not any(part in line for part in expected)]
        assert not unexpected, f"in the log of the daemon:\n{text}"


def has_extension() -> bool:
    """Whether the daemon has its C extension: without it there is no discard."""
    return os.environ.get("ROWFS_NATIVE") != "0" and any((ROOT / "rowfs/native").glob("_native*.so"))


def mounts() -> list[MountLine]:
    """Everything mounted, by anybody."""
    return parse(Path("/proc/self/mountinfo").read_bytes())


def is_mounted(path: str | Path) -> bool:
    """Whether something is mounted there, be its daemon dead. os.path.ismount cannot tell of a dead mount."""
    return str(path) in (line.mountpoint for line in mounts())


def _is_bad(line: str) -> bool:
    words = line.split(" ", 3)
    return line.startswith("Traceback") or (len(words) > 2 and words[2] in ("WARNING", "ERROR", "CRITICAL"))


# Data. Reading past the page cache, or after dropping it: the cache hides a broken server.


def noise(seed: object, length: int) -> bytes:
    """Bytes that are the same for the same seed, and in which no block is like another."""
    return random.Random(str(seed)).randbytes(length)


def drop_caches() -> None:
    """The kernel forgets every clean page and unused inode."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def forget_pages(path: str) -> None:
    """The kernel forgets the pages of one file or device; drop_caches makes the whole machine slow."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def read_direct(path: str, offset: int = 0, length: int | None = None) -> bytes:
    """Bytes of a file as its server has them: O_DIRECT, from an aligned offset on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        size = os.lseek(fd, 0, os.SEEK_END) if length is None else offset + length
        found = bytearray()
        with mmap.mmap(-1, MIB) as buffer:
            while len(found) < size - offset:
                done = os.preadv(fd, [buffer], offset + len(found))
                if not done:
                    break
                found += buffer[:done]
        return bytes(found[: size - offset])
    finally:
        os.close(fd)


def write_direct(path: str, offset: int, data: bytes) -> None:
    """Write aligned bytes past the page cache."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            done = 0
            while done < len(data):
                with memoryview(buffer)[done:] as rest:
                    done += os.pwritev(fd, [rest], offset + done)
    finally:
        os.close(fd)


def write_file(path: str, data: bytes, offset: int = 0, sync: bool = False, flags: int = 0) -> None:
    """Write through the page cache."""
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        assert os.pwrite(fd, data, offset) == len(data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_file(path: str, offset: int = 0, length: int | None = None) -> bytes:
    """Read through the page cache."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read() if length is None else file.read(length)


def close_dead(fd: int) -> None:
    """close(2) of a file whose server is gone; it may say so."""
    with contextlib.suppress(OSError):
        os.close(fd)


def digest(path: str | Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Loop devices


@contextlib.contextmanager
def loop(path: str, direct: bool = True) -> Iterator[str]:
    """A loop device on a file."""
    options = ["--direct-io=on"] if direct else []
    device = run("losetup", "--find", "--show", *options, path).stdout.strip()
    try:
        yield device
    finally:
        detach(device)


def detach(device: str) -> None:
    """Detach a loop device, and wait until the kernel has."""
    file = backing_file(device)
    run("losetup", "--detach", device)
    until(lambda: backing_file(device) != file, f"{device} to be detached")


@contextlib.contextmanager
def unsynced(device: str, data: bytes) -> Iterator[None]:
    """Data written to a buffered device, and there alone: who closes it last writes it back."""
    with open(device, "r+b", buffering=0) as file:
        assert file.write(data) == len(data)
        yield


@contextlib.contextmanager
def mounted_device(device: str, where: Path, *options: str) -> Iterator[Path]:
    """The file system on a device."""
    where.mkdir(exist_ok=True)
    run("mount", *options, device, where)
    try:
        yield where
    finally:
        run("umount", where)
