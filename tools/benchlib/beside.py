"""rowfs alone: overwrites beside snapshots, in a long chain, and beside a delete, against the same without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from benchlib.fio import job, logged, mean_between, operations_a_second
from benchlib.peers import Rowfs
from benchlib.peerwork import DEPTH_16, LARGE, Run, lasting
from rowfs.base.units import BLOCK_BYTES, GIB

CHAIN = 1_000
SNAPSHOT_EVERY_S = 1.0
LOG_S = 0.05
SETTLED_S = 0.2  # from when on fio's first figures count


def run_all(run: Run, peers: Sequence[Rowfs]) -> None:
    """All rows of this module. The disk is in pieces afterwards: nothing else can be measured on it."""

    def snapshots(number: int) -> None:
        for peer in peers:
            _snapshots(run, peer, with_first=bool(number % 2))

    def others(number: int) -> None:
        for peer in peers:
            _chain(run, peer, number)
        for peer in peers:
            _deleting(run, peer)

    reserve_s = run.sizes.others_reserve_s * len(peers)
    if run.has_time("snapshots beside", run.sizes.snapshots_reserve_s / run.sizes.rounds):
        run.rounds("snapshots beside", reserve_s, snapshots)
    if not run.has_time("chain and delete", run.sizes.others_reserve_s / run.sizes.rounds):
        return
    for peer in peers:
        _lengthen(peer)
    run.rounds("chain and delete", 0, others)


def _lengthen(peer: Rowfs) -> None:
    """Clones of the disk: `long` with a chain in which each snapshot has a block of its own, and `short`."""
    call = peer.mount.call
    call("snapshot", disk="disk", snapshot="origin")
    call("clone", disk="disk", snapshot="origin", targets=["long", "short", "aside"])
    with open(peer.mount.point / "long", "r+b", buffering=0) as disk:
        for number in range(CHAIN):
            disk.seek(number * BLOCK_BYTES)
            disk.write(b"\x5a" * BLOCK_BYTES)
            call("snapshot", disk="long", snapshot=f"s{number}")


def _snapshots(run: Run, peer: Rowfs, with_first: bool) -> None:
    call = peer.mount.call
    seconds = lasting(run.sizes.beside_s)
    for taking in (with_first, not with_first):
        peer.evict()
        with ThreadPoolExecutor(1) as threads:
            working = threads.submit(job, peer.path, run.sizes.disk, rw="randwrite", **DEPTH_16, **seconds)
            taken = _take(peer, working) if taking else []
            run.add("snapshots" if taking else "no-snapshots", peer, operations_a_second(working.result()))
        if taken:
            call("delete", disk="disk", snapshots=taken, wait=True)


def _take(peer: Rowfs, working: Future[dict[str, Any]]) -> list[str]:
    """A snapshot of the disk every second until the work is done; their names."""
    taken: list[str] = []
    due = time.monotonic() + SNAPSHOT_EVERY_S / 2
    while wait([working], max(due - time.monotonic(), 0)).not_done:
        taken.append(f"at-work-{len(taken)}")
        peer.mount.call("snapshot", disk="disk", snapshot=taken[-1])
        due += SNAPSHOT_EVERY_S
    return taken


def _chain(run: Run, peer: Rowfs, number: int) -> None:
    for disk, key in (("long", "chain-1000"), ("short", "chain-1")):
        peer.mount.call("snapshot", disk=disk, snapshot=f"round-{number}")
        path = peer.mount.point / disk
        found = job(path, run.sizes.disk, rw="randwrite", **DEPTH_16, **run.sizes.for_some_time)
        run.add(key, peer, operations_a_second(found))
        peer.sync()


def _deleting(run: Run, peer: Rowfs) -> None:
    call, path = peer.mount.call, peer.mount.point / "aside"
    own = min(GIB, run.sizes.disk // 2)
    job(path, own, rw="write", **LARGE)
    call("snapshot", disk="aside", snapshot="doomed")
    job(path, own, rw="write", **LARGE)
    log = peer.directory / "log"
    options = {"write_iops_log": str(log), "log_avg_msec": f"{LOG_S * 1e3:.0f}", "log_unix_epoch": "1"}
    seconds = lasting(run.sizes.before_delete_s + run.sizes.delete_s)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(job, path, run.sizes.disk, rw="randwrite", **DEPTH_16, **seconds, **options)
        time.sleep(run.sizes.before_delete_s)
        began = time.time()
        call("delete", disk="aside", snapshots=["doomed"], wait=True)
        ended = time.time()
        found = working.result()
    (file,) = log.parent.glob("log_iops.*.log")
    samples = logged(file.read_text())
    file.unlink()
    first = samples[0][0] + SETTLED_S
    run.add("before-it", peer, mean_between(samples, first, began, LOG_S))
    run.add("deleting", peer, mean_between(samples, began, ended, LOG_S))
    run.add("deleting-slowest", peer, found["lat_ns"]["max"] / 1e6)
