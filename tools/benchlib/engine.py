"""Snapshot, clone, rollback, delete and reclaim of the engine alone: small and large disks, short and long chains."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from statistics import median

from benchlib.figures import SEED, Bench, child, ms, say, timed, timing
from benchlib.fill import BLOCK, base_pool, copy_pool, faults, lengthen_chain
from rowfs.base.units import BLOCK_BYTES, GIB, PAGE_BYTES, TIB
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool

OPERATION_MS_MAX = 10
RATIO_MAX = 2
WARM_UP = 3
CHAIN, CLONES = 10_000, 1_000
RECLAIM_PAGES = 500  # of the 512 that the smaller disk has, two blocks of each
VERBS = ("snapshot", "clone", "rollback", "delete")


class Corner:
    """An open pool whose disk is filled, with a chain of some length that ends in the snapshot `base`."""

    def __init__(self, path: Path, chain: int, clones: int = 0) -> None:
        self.pool = Pool(str(path))
        self.disk: Disk = self.pool.catalog.disk("disk")
        lengthen_chain(self.pool, self.disk, chain - 1)
        self.base: Snapshot = self.pool.snapshot(self.disk, "base")
        self.pool.commit()
        self.clones_s = timed(self.clone_many, clones) if clones else 0.0
        self.times: dict[str, list[float]] = defaultdict(list)
        self._random = random.Random(SEED)

    def clone_many(self, clones: int) -> None:
        """So many clones of `base`."""
        self.pool.clone(self.base, [f"clone-{number}" for number in range(clones)])
        self.pool.commit()

    def write(self) -> None:
        """One random block, durable."""
        block = self._random.randrange(self.disk.size_bytes // BLOCK_BYTES)
        self.pool.write(self.disk, block * BLOCK_BYTES, BLOCK)
        self.pool.commit()

    def point_in_time(self) -> None:
        """Snapshot, clone of it, and both deleted."""
        pool = self.pool
        self.write()
        with timing(self.times["snapshot"]):
            snapshot = pool.snapshot(self.disk, "now")
            pool.commit()
        with timing(self.times["clone"]):
            (clone,) = pool.clone(snapshot, ["clone"])
            pool.commit()
        pool.delete_disk(clone)
        pool.commit()
        self.write()
        with timing(self.times["delete"]):
            pool.delete_snapshot(snapshot)
            pool.commit()
        pool.reclaim()

    def roll_back(self) -> None:
        """Rollback to `base`, which keeps what was before and lets what was kept the last time go."""
        self.write()
        with timing(self.times["rollback"]):
            self.pool.rollback(self.disk, self.base)
            self.pool.commit()
        self.pool.reclaim()

    def forget(self) -> None:
        """The warm-up is over."""
        self.times.clear()

    def reclaim_ms_after(self, pages: int) -> float:
        """Milliseconds to reclaim a snapshot that alone holds two blocks in each of so many random pages."""
        chosen = self._random.sample(range(self.disk.size_bytes // PAGE_BYTES), pages)
        snapshots = []
        for name in ("older", "gone"):
            for index in chosen:
                self.pool.write(self.disk, index * PAGE_BYTES, BLOCK * 2)
            snapshots.append(self.pool.snapshot(self.disk, name))
        for index in chosen:
            self.pool.write(self.disk, index * PAGE_BYTES, BLOCK * 2)
        self.pool.commit()
        before = self.pool.reclaimer.freed_blocks
        self.pool.delete_snapshot(snapshots[1])
        self.pool.commit()
        elapsed = timed(self._reclaim)
        assert self.pool.reclaimer.freed_blocks - before == 2 * pages, "not what that snapshot alone changed"
        self.pool.delete_snapshot(snapshots[0])
        self.pool.reclaim()
        return elapsed * 1e3

    def _reclaim(self) -> None:
        while self.pool.reclaimer.step():
            pass
        self.pool.commit()


def run(bench: Bench) -> None:
    """All figures of this module."""
    say("filling the maps of 1 GiB and 1 TiB")
    small, large = base_pool(bench, GIB), base_pool(bench, TIB)
    say(f"chains of {CHAIN:,} snapshots, {CLONES:,} clones")
    corners = {
        "1 GiB": Corner(copy_pool(small, bench.directory / "1g-1"), 1),
        "1 TiB": Corner(copy_pool(large, bench.directory / "1t-1"), 1),
        "1 GiB, chain": Corner(copy_pool(small, bench.directory / "1g-chain"), CHAIN),
        "1 TiB, chain": Corner(copy_pool(large, bench.directory / "1t-chain"), CHAIN),
        "1 TiB, clones": Corner(copy_pool(large, bench.directory / "1t-clones"), 1, CLONES),
    }
    _reclaim_figures(bench, corners["1 GiB"], corners["1 TiB"])
    rounds = bench.some(60, 50)
    _rounds(corners, rounds)
    _operation_figures(bench, corners, rounds)
    bench.note(f"clone {CLONES:,} disks of one snapshot, 1 TiB", f"{corners['1 TiB, clones'].clones_s * 1e3:.0f} ms")
    for name in ("1 GiB", "1 GiB, chain"):
        found = faults(corners[name].pool)
        bench.below(f"faults that check finds afterwards ({name})", 1, found, "")
    corners["1 TiB, chain"].clone_many(CLONES)
    for corner in corners.values():
        corner.pool.close()
    path = str(bench.directory / "1t-chain")
    opened = median(child("open_after_crash", pool=path)["open_s"] for _ in range(3))
    bench.below(f"open with 1 TiB mapped, a chain of {CHAIN:,} and {CLONES:,} clones of its last", 1, opened, "s")


def _rounds(corners: dict[str, Corner], rounds: int) -> None:
    order = list(corners.values())
    shuffler = random.Random(SEED)
    for step in (Corner.point_in_time, Corner.roll_back):
        say(f"{rounds} rounds of {step.__name__}, the disks taking turns")
        for number in range(WARM_UP + rounds):
            shuffler.shuffle(order)
            for corner in order:
                step(corner)
                if number == WARM_UP - 1 and step is Corner.point_in_time:
                    corner.forget()
    for corner in order:
        corner.times["rollback"] = corner.times["rollback"][WARM_UP:]


def _operation_figures(bench: Bench, corners: dict[str, Corner], rounds: int) -> None:
    for verb in VERBS:
        medians = {name: ms(corner.times[verb]) for name, corner in corners.items()}
        worst = max(medians, key=lambda name: medians[name])
        bench.below(
            f"{verb} and its commit, median of {rounds}, slowest: {worst}",
            OPERATION_MS_MAX,
            medians[worst],
            "ms",
            medians_ms=medians,
        )
        sizes = max(medians["1 TiB"] / medians["1 GiB"], medians["1 TiB, chain"] / medians["1 GiB, chain"])
        chains = max(medians["1 GiB, chain"] / medians["1 GiB"], medians["1 TiB, chain"] / medians["1 TiB"])
        bench.below(f"{verb}: 1 TiB mapped to 1 GiB", RATIO_MAX, sizes, "x")
        bench.below(f"{verb}: {CHAIN:,} snapshots in the chain to 1", RATIO_MAX, chains, "x")
        bench.below(f"{verb}: {CLONES:,} clones to none", RATIO_MAX, medians["1 TiB, clones"] / medians["1 TiB"], "x")


def _reclaim_figures(bench: Bench, small: Corner, large: Corner) -> None:
    few = RECLAIM_PAGES // 10
    times: dict[tuple[Corner, int], list[float]] = defaultdict(list)
    for _ in range(bench.some(9, 3)):
        for corner in (small, large):
            for pages in (few, RECLAIM_PAGES):
                times[corner, pages].append(corner.reclaim_ms_after(pages) / 1e3)
    name = f"reclaim of {2 * RECLAIM_PAGES:,} blocks in {RECLAIM_PAGES} pages"
    in_small, in_large = ms(times[small, RECLAIM_PAGES]), ms(times[large, RECLAIM_PAGES])
    bench.note(f"{name}, 1 TiB", f"{in_large:.1f} ms, {in_large / RECLAIM_PAGES * 1e3:.0f} us a page")
    bench.below(f"{name}: 1 TiB mapped to 1 GiB", RATIO_MAX, in_large / in_small, "x")
    bench.note(f"the same to a tenth of it ({few} pages)", f"{in_large / ms(times[large, few]):.1f}x for 10x the pages")
