"""fio: one job at a time, and what it tells as JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

TIME_LIMIT_S = 300


def job(path: Path, size: int, **options: str) -> dict[str, Any]:
    """One job over the first `size` bytes of a file or device: fio's figures of reading, if it reads, else of writing.

    Direct I/O and a queue (libaio), unless `options` say otherwise. A thread, not a process: it ends with fio.
    """
    options = {
        "name": "job",
        "filename": str(path),
        "size": str(size),
        "direct": "1",
        "ioengine": "libaio",
        "thread": "1",
        "eta": "never",
        "disk_util": "0",  # it looks for the device of a file, and complains
    } | options
    command = ["fio", "--output-format=json", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIME_LIMIT_S)
    found: dict[str, Any] = json.loads(done.stdout)["jobs"][0]["read" if "read" in options["rw"] else "write"]
    return found


def operations_a_second(found: dict[str, Any]) -> float:
    """What a job did in a second, an fsync at its end included."""
    return float(found["total_ios"]) / _elapsed_s(found)


def mib_a_second(found: dict[str, Any]) -> float:
    """MiB that a job read or wrote in a second, an fsync at its end included."""
    return float(found["io_bytes"]) / (1 << 20) / _elapsed_s(found)


def _elapsed_s(found: dict[str, Any]) -> float:
    return max(float(found["runtime"]), 1.0) / 1e3


def logged(text: str) -> list[tuple[float, float]]:
    """Seconds (Unix time) and value of each line of a log of fio: `milliseconds, value, …`."""
    rows = (line.split(",") for line in text.splitlines() if line.strip())
    return [(int(row[0]) / 1e3, float(row[1])) for row in rows]


def mean_between(samples: list[tuple[float, float]], start_s: float, end_s: float, interval_s: float) -> float:
    """The mean of the samples whose interval, which ends at the time they bear, meets a span of time.

    Raises ValueError when there is none.
    """
    held = [value for at, value in samples if at > start_s and at - interval_s < end_s]
    if not held:
        raise ValueError("fio logged nothing in that time")
    return sum(held) / len(held)
