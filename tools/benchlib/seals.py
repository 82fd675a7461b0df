"""What checksums cost: reads of what is sealed, and writers beside the sealer, each in turn with the same without."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from statistics import median

from benchlib.figures import Bench, say
from benchlib.fio import job, mib_a_second, operations_a_second
from benchlib.mounted import Mount, can_mount, mounted, rowfs
from rowfs.base.units import GIB
from rowfs.store.pool import init_pool

AT_LEAST = 0.95
SEALED_S_MAX = 600.0
RANDOM = {"bs": "4k", "iodepth": "16"}


def run(bench: Bench) -> None:
    """Two pools alike, but that one has snapshots; they take turns."""
    if not can_mount(bench):
        return
    if not shutil.which("fio"):
        bench.note("skipped", "no fio (tools/setup --bench installs it)")
        return
    size, rounds, seconds = bench.some(2, 1) * GIB, bench.some(7, 5), bench.some(4, 2)
    with contextlib.ExitStack() as stack:
        sealed, plain = (stack.enter_context(mounted(_pool(bench.directory / name))) for name in ("sealed", "plain"))
        for mount in (sealed, plain):
            say("fio fills two disks")
            for disk in ("disk", "other"):
                rowfs("create", mount.point / disk, str(size))
                job(mount.point / disk, size, rw="write", bs="1M", iodepth="4")
        rowfs("snapshot", f"{sealed.point / 'disk'}@s")
        _writers(bench, sealed, plain, size, rounds, seconds)
        say("what the snapshot holds is sealed")
        began, before = time.monotonic(), _sealed(sealed)
        while sealed.call("info")["sealing"] and time.monotonic() - began < SEALED_S_MAX:
            time.sleep(0.2)
        rate = (_sealed(sealed) - before) / max(time.monotonic() - began, 1e-3)
        bench.note("  sealed without requests", f"{rate / (1 << 20):,.0f} MiB/s")
        _readers(bench, sealed, plain, size, rounds, seconds)


def _pool(path: Path) -> Path:
    init_pool(str(path))
    return path


def _sealed(mount: Mount) -> int:
    return int(mount.call("info")["sealed_bytes"])


def _writers(bench: Bench, sealed: Mount, plain: Mount, size: int, rounds: int, seconds: int) -> None:
    say("fio overwrites the other disk while the first is sealed")
    found: dict[Mount, list[float]] = {sealed: [], plain: []}
    before = _sealed(sealed)
    for number in range(rounds):
        for mount in (sealed, plain) if number % 2 else (plain, sealed):
            done = job(mount.point / "other", size, rw="randwrite", runtime=str(seconds), time_based="1", **RANDOM)
            found[mount].append(operations_a_second(done))
    name = "4 KiB random overwrite, direct, queue depth 16, while blocks are sealed, to without"
    bench.above(name, AT_LEAST, median(found[sealed]) / median(found[plain]), "x", sealed=found[sealed])
    bench.note("  IOPS; sealed meanwhile", f"{median(found[sealed]):,.0f}; {(_sealed(sealed) - before) >> 20} MiB")


def _readers(bench: Bench, sealed: Mount, plain: Mount, size: int, rounds: int, seconds: int) -> None:
    for what, measure, options in (
        ("4 KiB random read, direct, queue depth 16", operations_a_second, {"rw": "randread", **RANDOM}),
        ("1 MiB sequential read, direct", mib_a_second, {"rw": "read", "bs": "1M", "iodepth": "4"}),
    ):
        say(f"fio reads what is sealed: {what}")
        found: dict[Mount, list[float]] = {sealed: [], plain: []}
        for mount in (sealed, plain):  # what it reads is in memory
            job(mount.point / "disk", size, rw="read", bs="1M", iodepth="4")
        for number in range(rounds):
            for mount in (sealed, plain) if number % 2 else (plain, sealed):
                done = job(mount.point / "disk", size, runtime=str(seconds), time_based="1", **options)
                found[mount].append(measure(done))
        ratio = median(found[sealed]) / median(found[plain])
        bench.above(
            f"{what}, of what is sealed, to the same of what is not", AT_LEAST, ratio, "x", **{"sealed": found[sealed]}
        )
        bench.note("  of what is sealed; of what is not", f"{median(found[sealed]):,.0f}; {median(found[plain]):,.0f}")
