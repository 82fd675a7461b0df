"""What figures depend on: the machine, its load, versions, and how fast the host makes a block durable."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from benchlib.figures import ms, timing
from rowfs.persist.hostfs import file_system_type

LIBRARIES = ("pyfuse3", "trio", "lmdb", "numpy")
SYNCS = 30


def describe(directory: Path, libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpus": f"{os.cpu_count()} x {_cpu_name()}",
        "kernel": platform.release(),
        "host file system": file_system_type(str(directory)),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
        "4 KiB pwrite + fdatasync": f"{_sync_ms(directory):.2f} ms",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def _cpu_name() -> str:
    with open("/proc/cpuinfo") as cpus:
        for line in cpus:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _sync_ms(directory: Path) -> float:
    """What the host takes to make one block durable: every commit waits for it twice or three times."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for number in range(SYNCS):
            with timing(times):
                os.pwrite(file.fileno(), bytes(4096), number * 4096)
                os.fdatasync(file.fileno())
    return ms(times)
