"""A disk that ages: random overwrites beside snapshots that come and go, and what that does to who uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchlib.figures import Bench, environment, say
from benchlib.mounted import Mount, mounted
from benchlib.peers import forget
from rowfs.base.format import DATA_FILE
from rowfs.base.units import GIB, MIB
from rowfs.store.pool import init_pool

SNAPSHOT_MS_MAX, WRITE_MS_MAX, DEBT_WRITE_MS_MAX = 100, 50, 100
OWED_SHARE_MAX, AGED_READ_MIN = 0.1, 0.6
LOOK_S = 0.1
BESIDE_S = 0.05  # a write that ends so soon after a snapshot's answer counts as beside it
END_S = 60.0  # that a writer may take to end


@dataclass(frozen=True, slots=True)
class Ageing:
    """What is done to the disk."""

    size: int
    rate_mib_s: float
    seconds: float
    every_s: float
    keep: int
    direct: bool
    writers: int = 1
    rest_s: float = 0.0


@dataclass(slots=True)
class Watched:
    """What was seen while it was done: times in seconds, ratios to what the disk maps, which is all of it."""

    snapshots: list[tuple[float, float]] = field(default_factory=list)  # when asked for, how long it took
    owed_max: float = 0.0
    pool_max: float = 0.0
    error: BaseException | None = None


def age(bench: Bench, wanted: Ageing) -> dict[str, Any]:
    """Do it on a pool of its own, and add the figures."""
    pool = bench.directory / "pool"
    init_pool(str(pool))
    with mounted(pool) as mount:
        path = mount.point / "disk"
        mount.call("create", disk="disk", size_bytes=wanted.size)
        say(f"a disk of {wanted.size / GIB:.3g} GiB is written in sequence")
        _fill(path, wanted.size)
        fresh = _read_cold(mount, path)
        bench.note("cold read in sequence, fresh", f"{fresh:,.0f} MiB/s")
        say(f"random overwrites for {wanted.seconds:g} s beside snapshots")
        watched, writers = _overwritten(mount, path, wanted)
        aged = _read_cold(mount, path)
        found = _figures(bench, wanted, watched, writers)
        bench.above("cold read in sequence at once, of the fresh one's", AGED_READ_MIN, aged / fresh, "x")
        found |= {"fresh_mib_s": fresh, "aged_mib_s": aged}
        if wanted.rest_s:
            say(f"nothing for {wanted.rest_s:g} s")
            time.sleep(wanted.rest_s)
            rested = _read_cold(mount, path)
            bench.above(f"the same after {wanted.rest_s:g} s of rest", AGED_READ_MIN, rested / fresh, "x")
            found["rested_mib_s"] = rested
        bench.note("data file then, of what the disk maps", f"{mount.data_bytes() / wanted.size:.2f}x")
    return found


def _fill(path: Path, size: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    data = os.urandom(8 * MIB)
    try:
        for start in range(0, size, MIB):
            at = start * 7 % (7 * MIB)
            os.pwrite(fd, memoryview(data)[at : at + min(MIB, size - start)], start)
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_cold(mount: Mount, path: Path) -> float:
    """MiB a second of a read in sequence when neither the kernel nor the host holds anything of it."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    forget(mount.pool / DATA_FILE)
    buffer = bytearray(MIB)
    began = time.monotonic()
    size = 0
    while done := os.preadv(fd, [buffer], size):
        size += done
    taken = time.monotonic() - began
    os.close(fd)
    return size / MIB / taken


def _overwritten(mount: Mount, path: Path, wanted: Ageing) -> tuple[Watched, list[dict[str, Any]]]:
    watched = Watched()
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(mount, wanted.size, watched, over))
    writers = [_writer(path, wanted, number) for number in range(wanted.writers)]
    watcher.start()
    try:
        _take(mount, wanted, watched)
    finally:
        over.set()
        watcher.join()
        found = [_end(writer) for writer in writers]
    if watched.error is not None:
        raise watched.error
    return watched, found


def _writer(path: Path, wanted: Ageing, number: int) -> subprocess.Popen[str]:
    rate = wanted.rate_mib_s / wanted.writers
    kind = "direct" if wanted.direct else "buffered"
    words = [str(path), str(wanted.size), str(rate), kind, str(number)]
    command = [sys.executable, "-m", "benchlib.ageload", *words]
    writer = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    return writer


def _end(writer: subprocess.Popen[str]) -> dict[str, Any]:
    writer.send_signal(signal.SIGTERM)
    text, _ = writer.communicate(timeout=END_S)
    if writer.returncode:
        raise RuntimeError(f"a writer ended with {writer.returncode}")
    found: dict[str, Any] = json.loads(text)
    return found


def _take(mount: Mount, wanted: Ageing, watched: Watched) -> None:
    kept: list[str] = []
    end = time.monotonic() + wanted.seconds
    due = time.monotonic() + wanted.every_s
    while due < end and watched.error is None:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + wanted.every_s, time.monotonic())
        name = f"s{len(watched.snapshots)}"
        began = time.monotonic()
        mount.call("snapshot", disk="disk", snapshot=name)
        watched.snapshots.append((began, time.monotonic() - began))
        kept.append(name)
        if len(kept) > wanted.keep:
            mount.call("delete", disk="disk", snapshots=[kept.pop(0)])
    time.sleep(max(0.0, end - time.monotonic()))


def _watch(mount: Mount, size: int, watched: Watched, over: threading.Event) -> None:
    try:
        while not over.wait(LOOK_S):
            watched.owed_max = max(watched.owed_max, mount.call("info")["owed_bytes"] / size)
            watched.pool_max = max(watched.pool_max, mount.data_bytes() / size)
    except BaseException as error:
        watched.error = error


def _figures(bench: Bench, wanted: Ageing, watched: Watched, writers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    written = sum(writer["bytes"] / writer["seconds"] for writer in writers) / MIB
    bench.note(f"overwritten, {'direct' if wanted.direct else 'buffered'}", f"{written:,.0f} MiB/s")
    took = sorted(seconds * 1e3 for _, seconds in watched.snapshots)
    if took:
        bench.below(f"a snapshot's answer, slowest of {len(took)}", SNAPSHOT_MS_MAX, took[-1], "ms")
        bench.note("  99th percentile; median", f"{percentile(took, 0.99):.1f} ms; {percentile(took, 0.5):.1f} ms")
    slow = [tuple(item) for writer in writers for item in writer["slow"]]
    beside = [taken for at, taken in slow if any(_meet(at, taken, *snapshot) for snapshot in watched.snapshots)]
    bench.below("slowest write beside a snapshot", WRITE_MS_MAX, max(beside, default=0.0) * 1e3, "ms")
    bench.below("slowest write of all", DEBT_WRITE_MS_MAX, max((taken for _, taken in slow), default=0.0) * 1e3, "ms")
    times = _merged(writers)
    bench.note("  99.9th percentile; median", f"{_at(times, 0.999) / 1e3:.2f} ms; {_at(times, 0.5) / 1e3:.2f} ms")
    bench.below("debt at most, of what the disk maps", OWED_SHARE_MAX, watched.owed_max, "x")
    bench.note("data file at most, of what the disk maps", f"{watched.pool_max:.2f}x")
    return {
        "wanted": asdict(wanted),
        "written_mib_s": written,
        "snapshots_ms": took,
        "slow": slow,
        "snapshots": watched.snapshots,
        "owed_max": watched.owed_max,
        "pool_max": watched.pool_max,
        "times_us": times,
    }


def _meet(at: float, taken: float, asked: float, took: float) -> bool:
    return at < asked + took + BESIDE_S and at + taken > asked


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value that `part` of the others do not exceed."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _merged(writers: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    counts: dict[int, int] = {}
    for writer in writers:
        for step, count in writer["times_us"]:
            counts[step] = counts.get(step, 0) + count
    return sorted(counts.items())


def _at(times: Sequence[tuple[int, int]], part: float) -> float:
    left = part * sum(count for _, count in times)
    for step, count in times:
        left -= count
        if left <= 0:
            return step
    return 0.0
