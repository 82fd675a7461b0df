"""What users wait for: the command line, the socket, and the mount itself under fio."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchlib.engine import CHAIN
from benchlib.figures import Bench, environment, ms, say, timed, timing
from benchlib.fill import base_pool, copy_pool, lengthen_chain
from benchlib.fio import job
from benchlib.signals import interrupts_later
from rowfs.base.format import DATA_FILE, MAP_DIR
from rowfs.base.units import GIB
from rowfs.cli.client import Client
from rowfs.store.pool import Pool, init_pool

START_S_MAX = 0.25
LIST_S_MAX = 1
IOPS_MIN, BYTES_RATIO_MAX = 20_000, 1.05
PROCESSES = 10
FLOOR_S, FLOOR_START_S = 2, 10


@dataclass(frozen=True, slots=True)
class Mount:
    """A pool that is mounted."""

    pool: Path
    point: Path
    pid: int

    def call(self, method: str, **params: Any) -> Any:
        """What the daemon answers."""
        with Client(str(self.pool)) as client:
            return client.call(method, params)

    def written_bytes(self) -> int:
        """What the daemon has made dirty in the host's page cache: data file, block map and log."""
        return process_written_bytes(self.pid)

    def cpu_s(self) -> float:
        """Processor time that the daemon has had, in itself and in the kernel."""
        with open(f"/proc/{self.pid}/stat") as figures:
            fields = figures.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def data_bytes(self) -> int:
        """What the data file takes on the host."""
        return os.stat(self.pool / DATA_FILE).st_blocks * 512


def process_written_bytes(pid: int) -> int:
    """What a process has made dirty in the host's page cache so far."""
    with open(f"/proc/{pid}/io") as figures:
        return next(int(line.split()[1]) for line in figures if line.startswith("write_bytes:"))


def rowfs(*arguments: str | Path, **variables: str) -> None:
    """Run a command of ours, quietly unless it fails, with these variables in its environment."""
    command = [sys.executable, "-m", "rowfs", *map(str, arguments)]
    subprocess.run(
        command,
        env=environment() | variables,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us alone: we end things in order
        check=True,
        timeout=120,
    )


@contextlib.contextmanager
def mounted(pool: Path, **variables: str) -> Iterator[Mount]:
    """The pool on a directory beside it, and gone again at the end whatever happened. `variables` are the daemon's."""
    point = pool.with_name(pool.name + "-mnt")
    point.mkdir()
    pid = 0
    try:
        with interrupts_later():
            rowfs("mount", pool, point, **variables)
        with Client(str(pool)) as client:
            pid = client.call("info")["pid"]
        yield Mount(pool, point, pid)
    finally:
        _take_down(point, pid)
        point.rmdir()


def _take_down(point: Path, pid: int) -> None:
    if not os.path.ismount(point):
        return
    try:
        rowfs("umount", point)
    except (subprocess.SubprocessError, OSError):
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["fusermount3", "-uz", str(point)], check=False)


def can_mount(bench: Bench) -> bool:
    """Whether mounts work here; if not, the table says so."""
    if os.access("/dev/fuse", os.R_OK | os.W_OK) and shutil.which("fusermount3"):
        return True
    bench.note("skipped", "no /dev/fuse, or no fusermount3")
    return False


# The command line


def cli(bench: Bench) -> None:
    """How soon commands answer."""
    say("processes of the command line")
    commands = {"rowfs --help": ["--help"]}
    with contextlib.ExitStack() as stack:
        if can_mount(bench):
            path = bench.directory / "few"
            init_pool(str(path))
            pool = Pool(str(path))
            for number in range(5):
                disk = pool.create_disk(f"vm{number}", GIB)
                lengthen_chain(pool, disk, 5)
            pool.close()
            mount = stack.enter_context(mounted(path))
            commands["rowfs list, 5 disks of 5 snapshots"] = ["list", str(mount.point)]
        times: dict[str, list[float]] = {name: [] for name in commands}
        bare: list[float] = []
        for _ in range(PROCESSES):
            with timing(bare):
                subprocess.run([sys.executable, "-c", ""], check=True)
            for name, arguments in commands.items():
                with timing(times[name]):
                    rowfs(*arguments)
    for name, taken in times.items():
        bench.below(f"{name}: from process start", START_S_MAX, median(taken), "s")
    bench.note("  of it Python itself", f"{ms(bare):.0f} ms")


def listing(bench: Bench) -> None:
    """A long chain listed."""
    if not can_mount(bench):
        return
    say(f"a chain of {CHAIN:,} snapshots, listed")
    path = copy_pool(base_pool(bench, GIB), bench.directory / "listed")
    pool = Pool(str(path))
    lengthen_chain(pool, pool.catalog.disk("disk"), CHAIN)
    pool.close()
    with mounted(path) as mount:
        first = timed(lambda: mount.call("list"))
        plain: list[float] = []
        full: list[float] = []
        for _ in range(5):
            with timing(plain):
                mount.call("list", figures=False)
            with timing(full):
                found = mount.call("list")
        assert len(found[0]["snapshots"]) == CHAIN
        command = timed(lambda: rowfs("list", mount.point))
        files = timed(lambda: os.listdir(mount.point / ".snapshots" / "disk"))
    name = f"list {CHAIN:,} snapshots over the socket"
    bench.below(f"{name}, with what each would free, the first time", LIST_S_MAX, first, "s")
    bench.below(f"{name}, again", LIST_S_MAX, median(full), "s")
    bench.below(f"{name}, without these figures", LIST_S_MAX, median(plain), "s")
    bench.note("  rowfs list as a process; readdir of their directory", f"{command:.2f} s; {files:.2f} s")


# fio


def fio(bench: Bench) -> None:
    """Random overwrites through the mount."""
    if not can_mount(bench):
        return
    if not shutil.which("fio"):
        bench.note("skipped", "no fio (tools/setup --bench installs it)")
        return
    size = bench.some(4, 1) * GIB
    seconds, rounds = bench.some(7, 3), bench.some(3, 2)
    path = bench.directory / "fio"
    init_pool(str(path))
    with mounted(path) as mount:
        disk = mount.point / "disk"
        rowfs("create", disk, str(size))
        say("fio fills the disk")
        job(disk, size, rw="write", bs="1M", iodepth="4")
        runs, floor = [], []
        for number in range(rounds):
            say("fio overwrites it after a snapshot")
            rowfs("snapshot", f"{disk}@{number}")
            runs.append(_overwrite(mount, disk, size, seconds))
            floor.append(_floor(bench.directory / "floor", size))
        say("fio overwrites what is owned")
        owned = job(disk, size, **_random(seconds))
    name = f"4 KiB random overwrite after a snapshot, direct, queue depth 16, {rounds} x {seconds} s"
    iops = median(run["iops"] for run in runs)
    bench.above(f"{name}: IOPS", IOPS_MIN, iops, "", runs=runs, floor=floor)
    thrown = median(floor)
    bench.note("  to a pyfuse3 file that throws writes away, in turn", f"{iops / thrown:.2f}x ({thrown:,.0f} IOPS)")
    bench.note("  processor time of the daemon for each write", f"{median(r['cpu_us'] for r in runs):.0f} us")
    bench.below("  growth of the data file to the payload", BYTES_RATIO_MAX, median(r["data"] for r in runs), "x")
    bench.note("  all that the daemon wrote, block map included", f"{median(run['all'] for run in runs):.2f}x")
    bench.note("  growth of the block map", f"{median(run['map'] for run in runs):.2f}x")
    bench.note("  latency, 99th percentile and longest", f"{runs[-1]['p99_ms']:.1f} ms, {runs[-1]['max_ms']:.0f} ms")
    bench.note("  the same overwrite of owned blocks", f"{owned['iops']:,.0f} IOPS")


def _random(seconds: int) -> dict[str, str]:
    return {"rw": "randwrite", "bs": "4k", "iodepth": "16", "runtime": str(seconds), "time_based": "1"}


def _overwrite(mount: Mount, disk: Path, size: int, seconds: int) -> dict[str, float]:
    cpu = mount.cpu_s()
    data, everything, block_map = mount.data_bytes(), mount.written_bytes(), _map_bytes(mount)
    done = job(disk, size, **_random(seconds))
    cpu = mount.cpu_s() - cpu
    _fsync(disk)
    payload = done["io_bytes"]
    latency = done["clat_ns"]
    return {
        "iops": done["iops"],
        "cpu_us": cpu / done["total_ios"] * 1e6,
        "data": (mount.data_bytes() - data) / payload,
        "all": (mount.written_bytes() - everything) / payload,
        "map": (_map_bytes(mount) - block_map) / payload,
        "p99_ms": latency["percentile"]["99.000000"] / 1e6,
        "max_ms": latency["max"] / 1e6,
    }


def _floor(point: Path, size: int) -> float:
    point.mkdir()
    server = subprocess.Popen([sys.executable, "-m", "benchlib.floor", str(point), str(size)], env=environment())
    try:
        end = time.monotonic() + FLOOR_START_S
        while not os.path.ismount(point):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the pyfuse3 file to compare with does not mount")
            time.sleep(0.05)
        iops: float = job(point / "file", size, **_random(FLOOR_S))["iops"]
    finally:
        subprocess.run(["fusermount3", "-uz", str(point)], check=False, stderr=subprocess.DEVNULL)
        try:
            server.wait(FLOOR_START_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        point.rmdir()
    return iops


def _map_bytes(mount: Mount) -> int:
    return os.stat(mount.pool / MAP_DIR / "data.mdb").st_blocks * 512


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
