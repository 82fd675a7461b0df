"""What is measured in a process of its own: opening after a crash, and memory.

python -m benchlib.child FUNCTION JSON     prints what the function returns as JSON
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from benchlib.figures import SEED
from benchlib.fill import BLOCK
from rowfs.base.units import BLOCK_BYTES
from rowfs.store.pool import Pool

WRITES_A_TURN = 8  # between two looks at what else there is to do, as requests come off the kernel's queue


def die(pool: str, writes: int) -> None:
    """Write over all disks after snapshots of them, commit half of it, and end by kill -9 in the middle of the rest."""
    opened = Pool(pool)
    disks = list(opened.catalog.live())
    for disk in disks:
        opened.snapshot(disk, "before-the-crash")
    numbers = random.Random(SEED)
    for number in range(writes):
        disk = disks[number % len(disks)]
        opened.write(disk, numbers.randrange(disk.size_bytes // BLOCK_BYTES) * BLOCK_BYTES, BLOCK)
        if number == writes // 2:
            opened.commit()
    os.kill(os.getpid(), signal.SIGKILL)


def open_after_crash(pool: str) -> dict[str, Any]:
    """How long the pool takes to open; it is left as after a crash again."""
    start = time.perf_counter()
    opened = Pool(pool)
    elapsed = time.perf_counter() - start
    was_clean = opened.was_clean
    opened.abandon()
    return {"open_s": elapsed, "was_clean": was_clean}


def random_writes(pool: str, writes: int) -> dict[str, Any]:
    """Random 4 KiB writes over all disks, right after a snapshot of each, with the mount's own commits and throttle."""
    import trio

    from rowfs.process.daemon import SWITCH_INTERVAL_S
    from rowfs.service.service import Service

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    opened = Pool(pool)
    disks = list(opened.catalog.live())
    for disk in disks:
        opened.snapshot(disk, "before-the-writes")
    opened.commit()
    before_bytes = resident_bytes("VmRSS")
    numbers = random.Random(SEED)
    places = [(disks[numbers.randrange(len(disks))], numbers.random()) for _ in range(writes)]
    service = Service(opened, "/", lambda inode: None)

    async def run() -> float:
        async with trio.open_nursery() as nursery:
            await nursery.start(service.committer.run)
            start = time.perf_counter()
            for number, (disk, place) in enumerate(places):
                await service.write(disk, int(place * (disk.size_bytes // BLOCK_BYTES)) * BLOCK_BYTES, BLOCK)
                if number % WRITES_A_TURN == 0:
                    await trio.lowlevel.checkpoint()
            await service.committer.commit()
            elapsed = time.perf_counter() - start
            service.committer.stop()
        return elapsed

    elapsed = trio.run(run)
    found = {
        "write_us": elapsed / writes * 1e6,
        "peak_bytes": resident_bytes("VmHWM"),
        "before_bytes": before_bytes,
        "anonymous_bytes": resident_bytes("RssAnon"),
        "file_bytes": resident_bytes("RssFile"),
        "cache_pages": opened.versions.cached_pages_max,
    }
    opened.close()
    return found


def paced_writes(path: str, seconds: float, seed: int) -> dict[str, Any]:
    """Direct writes of 4 KiB to random blocks of a file, one a millisecond: how long they took."""
    block = mmap.mmap(-1, BLOCK_BYTES)
    block[:] = BLOCK
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    numbers = random.Random(seed)
    blocks = os.fstat(fd).st_size // BLOCK_BYTES
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        os.pwrite(fd, block, numbers.randrange(blocks) * BLOCK_BYTES)
        taken.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.001)
    os.close(fd)
    taken.sort()
    return {"writes": len(taken), "p99_ms": taken[len(taken) * 99 // 100], "max_ms": taken[-1]}


def resident_bytes(field: str) -> int:
    """A figure of /proc/self/status. (ru_maxrss is no good: a child begins with what its parent had.)"""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    work.__name__: work for work in (die, open_after_crash, random_writes, paced_writes)
}

if __name__ == "__main__":
    print(json.dumps(FUNCTIONS[sys.argv[1]](**json.loads(sys.argv[2]))))
