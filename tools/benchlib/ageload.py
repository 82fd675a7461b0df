"""A writer in a process of its own: random overwrites of 4 to 64 KiB at a given rate, each of them timed.

python -m benchlib.ageload PATH SIZE MIB_A_SECOND [direct|buffered] SEED     until SIGTERM; then its figures as JSON
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
from types import FrameType

from rowfs.base.units import BLOCK_BYTES, MIB

BLOCKS_MAX = 16  # 64 KiB
SLOW_S = 0.005  # writes that took longer are told one by one
BEHIND_S_MAX = 0.25  # what could not be written in time is not made up for beyond this


def write(path: str, size: int, rate_bytes_s: float, direct: bool, seed: int) -> dict[str, object]:
    """Overwrite places of a file until SIGTERM: how many bytes, when it was slow, and all times in microseconds."""
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    numbers = random.Random(seed)
    source = mmap.mmap(-1, 4 * MIB)  # aligned, as direct writes ask for
    source.write(os.urandom(len(source)))
    view = memoryview(source)
    fd = os.open(path, os.O_WRONLY | (os.O_DIRECT if direct else 0))
    slow: list[tuple[float, float]] = []
    counts: dict[int, int] = {}  # of writes by their time, in steps of an eighth of a power of two
    blocks, source_blocks = size // BLOCK_BYTES, len(source) // BLOCK_BYTES
    began = due = time.monotonic()
    written = 0
    print("ready", flush=True)
    while not ended:
        count = numbers.randint(1, BLOCKS_MAX)
        at, start = numbers.randrange(blocks - count + 1), numbers.randrange(source_blocks - count)
        before = time.monotonic()
        os.pwrite(fd, view[start * BLOCK_BYTES : (start + count) * BLOCK_BYTES], at * BLOCK_BYTES)
        after = time.monotonic()
        taken = after - before
        if taken > SLOW_S:
            slow.append((before, taken))
        step = int(taken * 1e6)
        step = step >> max(0, step.bit_length() - 4) << max(0, step.bit_length() - 4)
        counts[step] = counts.get(step, 0) + 1
        written += count * BLOCK_BYTES
        due = max(due + count * BLOCK_BYTES / rate_bytes_s, after - BEHIND_S_MAX)
        if due > after:
            time.sleep(due - after)
    elapsed = time.monotonic() - began
    os.close(fd)
    return {"bytes": written, "seconds": elapsed, "slow": slow, "times_us": sorted(counts.items())}


if __name__ == "__main__":
    path, size, rate, kind, seed = sys.argv[1:]
    print(json.dumps(write(path, int(size), float(rate) * MIB, kind == "direct", int(seed))), flush=True)
