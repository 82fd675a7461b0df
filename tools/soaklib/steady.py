"""Long work without a crash: what the daemon holds on to must not grow."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import lmdb

from rowfs.base.format import MAP_DIR
from soaklib.lives import Soak
from soaklib.records import Lost
from soaklib.system import MIB

CACHE = "4M"  # for pages of the map: full within seconds, or it would grow for many minutes, as it should
WARM_UP = 0.2  # of the time: caches fill, threads are started
SAMPLES = 20
# What may come and go with the work of a moment, on top of what was there after warming up.
MEMORY_BYTES, DESCRIPTORS, READERS = 16 * MIB, 16, 4


@dataclass(frozen=True)
class Held:
    """What a daemon holds: memory in bytes, open descriptors, slots in LMDB's table of readers."""

    memory: int
    descriptors: int
    readers: int

    @classmethod
    def now(cls, pid: int, pool: Path) -> Held:
        """What it holds now, but for files that are gone and that the kernel remembers as long as it has memory."""
        Path("/proc/sys/vm/drop_caches").write_text("2")  # names and inodes: it tells their servers to forget them
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) - _file_pages(pid)
        readers = sum(1 for line in _readers(pid, pool) if line.split()[:1] == [str(pid)])
        if not readers:
            raise Lost("the daemon is no reader of its own map: another table was looked at")
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")), readers)

    def __str__(self) -> str:
        return f"{self.memory / MIB:.1f} MiB, {self.descriptors} descriptors, {self.readers} LMDB readers"


def _readers(pid: int, pool: Path) -> list[str]:
    """LMDB's table of readers, a line each; a daemon has it in memory, where its descriptor leads."""
    table = next(fd for fd in Path(f"/proc/{pid}/fd").iterdir() if "memfd:lock.mdb" in os.readlink(fd))
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "data.mdb").symlink_to(pool / MAP_DIR / "data.mdb")
        Path(directory, "lock.mdb").symlink_to(table)
        with lmdb.open(directory, readonly=True, max_dbs=16, max_readers=126) as env:
            return str(env.readers()).splitlines()


def _file_pages(pid: int) -> int:
    """Pages that are the map's file, or programs: the host's memory, not the daemon's."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[2])


def watch(soaked: Soak, seconds: float) -> None:
    """Everybody works for so long; then all has to be there. Raises Lost when what the daemon holds has grown."""
    daemon = soaked.daemon
    assert daemon is not None
    soaked.work()
    time.sleep(seconds * WARM_UP)
    samples = []
    for _ in range(SAMPLES):
        samples.append(Held.now(daemon.pid, soaked.pool))
        time.sleep(seconds * (1 - WARM_UP) / SAMPLES)
    soaked.stop()
    print(f"after warming up {samples[0]}; at the end {samples[-1]}", flush=True)
    judge(samples)
    soaked.detach()
    soaked.verify()


def judge(samples: list[Held]) -> None:
    """Compare the least of the first and of the last quarter: a peak of the moment is no growth. Raises Lost."""
    quarter = max(1, len(samples) // 4)
    first, last = samples[:quarter], samples[-quarter:]
    for what, margin in (("memory", MEMORY_BYTES), ("descriptors", DESCRIPTORS), ("readers", READERS)):
        before, after = (min(getattr(held, what) for held in part) for part in (first, last))
        if after > before + margin:
            raise Lost(f"the daemon's {what} have grown from {before} to {after}")
