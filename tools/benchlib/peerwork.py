"""What is done to the disk of each system in turn: reads, overwrites, and overwrites after a snapshot.

The servers are to be compared, not the state of the host's page cache, which decides more than they do: an overwrite of
4 KiB costs what the host's folio there costs (docs/PERFORMANCE.md). So all overwrites begin with nothing of the disk in
the host's cache, and all reads but the cold ones with all of what they read. Every turn ends with all of it durable, so
that no system pays for what another wrote.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchlib.figures import SEED, say, timed
from benchlib.fio import job, mib_a_second, operations_a_second
from benchlib.peers import Peer, forget
from rowfs.base.units import GIB, MIB

DEPTH_16 = {"bs": "4k", "iodepth": "16"}
BUFFERED = {"direct": "0", "ioengine": "psync"}
LARGE = {"bs": "1M", "ioengine": "psync"}
JOB_S_MAX = "5"  # of a job that has so much to do instead of so long


def lasting(seconds: float) -> dict[str, str]:
    """A job that goes on for so long."""
    return {"runtime": f"{seconds * 1e3:.0f}ms", "time_based": "1"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done."""

    disk: int
    area: int  # of the disk, which is read, and overwritten after a snapshot
    stream: int  # in sequence
    redirected: int  # after a snapshot
    buffered: int  # 4 KiB at a time
    tree_files: int  # at least
    seconds: float  # of the other jobs
    sqlite_s: float
    beside_s: float  # of overwrites beside snapshots
    before_delete_s: float  # of overwrites: long enough for one of the commits that come with them anyway
    delete_s: float  # and beside a delete: about as long as it takes
    rounds: int
    budget_s: float  # no round begins that would probably end later
    limit_s: float  # and then what is measured ends; taking all down comes after it
    ext4_reserve_s: float  # of it, what is kept for all rounds of this, for each system
    snapshots_reserve_s: float
    others_reserve_s: float

    @property
    def for_some_time(self) -> dict[str, str]:
        return lasting(self.seconds)


FULL = Sizes(
    disk=4 * GIB,
    area=2 * GIB,
    stream=512 * MIB,
    redirected=192 * MIB,
    buffered=64 * MIB,
    tree_files=10_000,
    seconds=1.5,
    sqlite_s=2.0,
    beside_s=4.0,
    before_delete_s=3.6,
    delete_s=4.5,
    rounds=3,
    budget_s=500,
    limit_s=540,
    ext4_reserve_s=22,
    snapshots_reserve_s=35,
    others_reserve_s=62,
)
QUICK = Sizes(
    disk=GIB,
    area=GIB // 2,
    stream=192 * MIB,
    redirected=32 * MIB,
    buffered=16 * MIB,
    tree_files=2_500,
    seconds=0.6,
    sqlite_s=1.0,
    beside_s=2.0,
    before_delete_s=1.2,
    delete_s=1.5,
    rounds=2,
    budget_s=92,
    limit_s=102,
    ext4_reserve_s=8,
    snapshots_reserve_s=12,
    others_reserve_s=14,
)


@dataclass(slots=True)
class Run:
    """One run: where, how much, and what it has found."""

    directory: Path
    sizes: Sizes
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    written: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    device: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, key: str, peer: Peer, value: float) -> None:
        """A value of one round."""
        self.samples[key][peer.key].append(value)

    def note(self, text: str) -> None:
        """Something to know when reading the tables."""
        self.notes.append(text)
        say(text)

    def rounds(self, work: str, reserve_s: float, turn: Callable[[int], None]) -> None:
        """Rounds as many as there should be, or as time allows: one at least. `reserve_s` is for what comes after."""
        for number in range(self.sizes.rounds):
            began = time.monotonic()
            turn(number)
            took = time.monotonic() - began
            say(f"{work}: round {number + 1} took {took:.0f} s")
            if number + 1 < self.sizes.rounds and took > self._left_s() - reserve_s:
                self.note(f"{work}: {number + 1} of {self.sizes.rounds} rounds, for want of time")
                return

    def has_time(self, work: str, need_s: float) -> bool:
        """Whether there is time for one round of something; if not, that is noted."""
        if self._left_s() >= need_s:
            return True
        self.note(f"{work}: left out, for want of time")
        return False

    def _left_s(self) -> float:
        return self.sizes.budget_s - (time.monotonic() - self.started)


def compare(run: Run, peers: Sequence[Peer], works: Sequence[Callable[[Run, Peer], None]], reserve_s: float) -> None:
    """Rounds in which all systems take turns at each piece of work, in another order every time."""
    order = list(peers)
    shuffler = random.Random(SEED)

    def one_round(number: int) -> None:
        for work in works:
            shuffler.shuffle(order)
            took = {}
            for peer in order:
                took[peer.label] = timed(work, run, peer)
            say(f"{work.__name__}: " + ", ".join(f"{label} {seconds:.1f} s" for label, seconds in took.items()))

    run.rounds("all systems", reserve_s, one_round)


def read(run: Run, peer: Peer) -> None:
    """Cold in sequence, which has the host's cache hold it; then from there."""
    sizes = run.sizes
    peer.evict()
    _streamed(run, peer, "read-1m-cold", sizes.area, rw="read", **BUFFERED)
    _streamed(run, peer, "read-1m-direct", sizes.area, rw="read")
    found = job(peer.path, sizes.area, rw="randread", **DEPTH_16, **sizes.for_some_time)
    run.add("read-4k", peer, operations_a_second(found))


def overwrite(run: Run, peer: Peer) -> None:
    """Random and in sequence, past the page cache of the disk and through it."""
    sizes = run.sizes
    peer.evict()
    found = counted(run, peer, "overwrite-4k", sizes.disk, rw="randwrite", **DEPTH_16, **sizes.for_some_time)
    run.add("overwrite-4k", peer, operations_a_second(found))
    at_end = BUFFERED | {"end_fsync": "1"}
    found = counted(
        run,
        peer,
        "buffered-4k",
        sizes.disk,
        rw="randwrite",
        bs="4k",
        io_size=str(sizes.buffered),
        runtime=JOB_S_MAX,
        **at_end,
    )
    run.add("buffered-4k", peer, operations_a_second(found))
    found = counted(
        run, peer, "synced-4k", sizes.disk, rw="randwrite", bs="4k", fdatasync="1", **BUFFERED, **sizes.for_some_time
    )
    run.add("synced-4k", peer, operations_a_second(found))
    peer.evict()
    _streamed(run, peer, "write-1m-buffered", sizes.stream, rw="write", **at_end)
    forget(peer.path)  # some keep what was written through the cache, and would first have to drop it
    _streamed(run, peer, "write-1m-direct", sizes.stream, rw="write")
    peer.sync()


def redirect(run: Run, peer: Peer) -> None:
    """After a snapshot: overwrites of what it holds, which the host has in its cache, and reads of what came of it."""
    if not peer.has_snapshots:
        return
    sizes = run.sizes
    _warm(peer, sizes.area)
    peer.snapshot()
    much = {"io_size": str(sizes.redirected), "runtime": JOB_S_MAX}
    found = counted(run, peer, "redirect-4k", sizes.area, rw="randwrite", **DEPTH_16, **much)
    run.add("redirect-4k", peer, operations_a_second(found))
    run.add("redirect-bytes", peer, run.written["redirect-4k"][peer.key][-1])
    peer.evict()
    _streamed(run, peer, "fragments-cold", sizes.area // 2, rw="read", **BUFFERED)
    _streamed(run, peer, "fragments-direct", sizes.area // 2, rw="read")
    peer.restore()
    peer.sync()


WORKS: dict[str, Callable[[Run, Peer], None]] = {"read": read, "overwrite": overwrite, "redirect": redirect}


def _streamed(run: Run, peer: Peer, key: str, size: int, **options: str) -> None:
    run.add(key, peer, mib_a_second(job(peer.path, size, **(LARGE | {"runtime": JOB_S_MAX} | options))))


def _warm(peer: Peer, area: int) -> None:
    job(peer.path, area, rw="read", runtime=JOB_S_MAX, **LARGE)


def counted(run: Run, peer: Peer, key: str, size: int, **options: str) -> dict[str, Any]:
    """A job that writes; what of it, and of making it durable, went to the host and to the host's disk is noted."""
    peer.sync()
    written, device = peer.written_bytes(), device_written_bytes(run.directory)
    found = job(peer.path, size, **options)
    peer.sync()
    payload = found["io_bytes"]
    run.written[key][peer.key].append((peer.written_bytes() - written) / payload)
    if device is not None:
        run.device[key][peer.key].append(((device_written_bytes(run.directory) or 0) - device) / payload)
    return found


def device_written_bytes(directory: Path) -> int | None:
    """What the disk of the host was given to write so far, by everybody; None where no one disk is beneath."""
    number = os.stat(directory).st_dev
    stat = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    return int(stat.read_text().split()[6]) * 512 if stat.exists() else None
