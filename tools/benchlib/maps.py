"""The block map at scale: opening it after a crash, memory while it is written over, its size, what it can tell."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

from benchlib.figures import Bench, child, say, timed
from benchlib.fill import base_pool, copy_pool, new_pool, write_all
from rowfs.base.format import MAP_DIR
from rowfs.base.units import GIB, MIB, TIB
from rowfs.store.figures import finish
from rowfs.store.pool import Pool

OPEN_S_MAX = 1
RESIDENT_MIB_MAX = 300
FREED_S_MAX = 1
SEQUENTIAL_PERCENT_MAX, RANDOM_PERCENT_MAX = 0.01, 0.3
PASSES = 3
OPENINGS = 5
MANY_DISKS = 100


def crash(bench: Bench) -> None:
    """Opening after kill -9, and memory while random writes go over everything."""
    writes = bench.some(200_000, 30_000)
    path = copy_pool(base_pool(bench, TIB), bench.directory / "crash")
    say("kill -9, and opening")
    _die(str(path))
    opened = [child("open_after_crash", pool=str(path)) for _ in range(OPENINGS)]
    assert not any(found["was_clean"] for found in opened), "the pool was closed, not killed"
    bench.below("open with 1 TiB mapped, after kill -9", OPEN_S_MAX, median(found["open_s"] for found in opened), "s")
    say("random writes over 1 TiB")
    _memory(bench, f"{writes:,} random 4 KiB writes over 1 TiB, after a snapshot", path, writes)
    _many_disks(bench, writes)


def _die(path: str) -> None:
    try:
        child("die", pool=path, writes=10_000)
    except RuntimeError as error:
        assert "-9" in str(error), error
    else:
        raise AssertionError("the process should have ended by kill -9")


def _memory(bench: Bench, name: str, path: Path, writes: int) -> float:
    found = child("random_writes", pool=str(path), writes=writes)
    peak = found["peak_bytes"] / MIB
    bench.below(f"{name}: peak resident memory", RESIDENT_MIB_MAX, peak, "MiB", **found)
    anonymous, mapped = found["anonymous_bytes"] / MIB, found["file_bytes"] / MIB
    bench.note("  of it at the end", f"{anonymous:.0f} MiB of our own, {mapped:.0f} MiB of files (map, libraries)")
    bench.note("  a write, with its share of all commits", f"{found['write_us']:.0f} us")
    return float(found["write_us"])


def _many_disks(bench: Bench, writes: int) -> None:
    say(f"random writes over {MANY_DISKS} disks")
    size = bench.some(1024, 100) * MIB
    one = new_pool(bench.directory / "one", {"disk": size * MANY_DISKS})
    many = new_pool(bench.directory / "many", {f"disk-{number}": size for number in range(MANY_DISKS)})
    total = f"{size * MANY_DISKS / GIB:.3g} GiB"
    of_one = _memory(bench, f"the same over one disk of {total}", one, writes)
    of_many = _memory(bench, f"the same over {MANY_DISKS} disks of {total} together", many, writes)
    bench.below(f"write over {MANY_DISKS} disks to over one", 2, of_many / of_one, "x")


def sizes(bench: Bench) -> None:
    """The map in percent of the data that it maps."""
    size = bench.some(16, 2) * GIB
    say("maps in sequence and at random")
    path = base_pool(bench, TIB)
    _size(bench, "map of 1 TiB written in sequence", SEQUENTIAL_PERCENT_MAX, path, TIB)
    path = new_pool(bench.directory / "random", {"disk": size}, scattered=True)
    _size(bench, f"map of {size // GIB} GiB written at random", RANDOM_PERCENT_MAX, path, size)
    pool = Pool(str(path))
    for _ in range(1, PASSES):
        disk = pool.catalog.disk("disk")
        pool.resize(disk, 0)
        pool.set_size(disk, size)
        pool.reclaim()
        pool.close()
        write_all(path, ["disk"], scattered=True)
        pool = Pool(str(path))
    pool.close()
    _size(bench, f"the same when emptied and written anew {PASSES - 1} times", RANDOM_PERCENT_MAX, path, size)


def _size(bench: Bench, name: str, limit: float, path: Path, data_bytes: int) -> None:
    taken = os.stat(path / MAP_DIR / "data.mdb").st_blocks * 512
    bench.below(name, limit, 100 * taken / data_bytes, "%", map_bytes=taken, data_bytes=data_bytes)


def freed(bench: Bench) -> None:
    """What deleting a snapshot would free, when the disk was randomly overwritten throughout before and after it."""
    size = bench.some(100, 5) * GIB
    say(f"two generations of {size // GIB} GiB at random")
    path = new_pool(bench.directory / "freed", {"disk": size}, scattered=True)
    pool = Pool(str(path))
    pool.snapshot(pool.catalog.disk("disk"), "first")
    pool.close()
    write_all(path, ["disk"], scattered=True)
    pool = Pool(str(path))
    snapshot = pool.catalog.snapshot(pool.catalog.disk("disk"), "first")
    times = []
    for _ in range(3):
        times.append(timed(lambda: finish(pool.figures.freed_by([snapshot]))))
    assert finish(pool.figures.freed_if_deleted(snapshot)) == size, "everything was overwritten"
    again = timed(lambda: finish(pool.figures.freed_if_deleted(snapshot)))
    pages = size // (2 * MIB)
    bench.below(
        f"what deleting one would free, {size // GIB} GiB all overwritten",
        FREED_S_MAX,
        median(times),
        "s",
        page_us=median(times) / pages * 1e6,
    )
    bench.note("  a page of it; and when asked again", f"{median(times) / pages * 1e6:.0f} us; {again * 1e6:.0f} us")
    pool.close()
