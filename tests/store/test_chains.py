"""Deleting snapshots of a chain: each one frees exactly what it alone held, and the others read on unchanged."""

from __future__ import annotations

from itertools import permutations

import pytest

from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, Home, address, addresses_of, assert_exact, findings, get, put

# Blocks of the disk at each snapshot. 0 never changes, 1 changes at each, 2 with s2, 3 comes with s2 and goes with s3.
STATES = {
    "s1": ["a", "b1", "c1", ""],
    "s2": ["a", "b2", "c2", "d"],
    "s3": ["a", "b3", "c2", ""],
    "disk": ["a", "b4", "c2", "e"],
}
ALONE = {"s1": 2, "s2": 2, "s3": 1}  # s1: b1 c1, s2: b2 d, s3: b3


def build(pool: Pool) -> Disk:
    disk = pool.create_disk("d", SIZE)
    now = [""] * 4
    for name, state in STATES.items():
        for block, (old, new) in enumerate(zip(now, state, strict=True)):
            if new and new != old:
                put(pool, disk, block, new)
            elif old and not new:
                pool.punch(disk, block * 4096, 4096)
        now = state
        if name != "disk":
            pool.snapshot(disk, name)
    return disk


def read_all(pool: Pool, disk: Disk) -> dict[str, list[str]]:
    found = {name: get(pool, snapshot, 0, 4) for name, snapshot in disk.chain.items()}
    return {**found, "disk": get(pool, disk, 0, 4)}


def delete(pool: Pool, disk: Disk, *names: str) -> int:
    """How many blocks come back when these are deleted."""
    pool.reclaim()
    before = pool.space.allocated_blocks
    for name in names:
        pool.delete_snapshot(disk.chain[name])
    pool.reclaim()
    assert findings(pool) == []
    assert_exact(pool)
    return before - pool.space.allocated_blocks


@pytest.mark.parametrize("name", ["s1", "s2", "s3"])
def test_the_first_middle_or_last_one_frees_what_it_alone_held(pool: Pool, name: str) -> None:
    disk = build(pool)
    assert delete(pool, disk, name) == ALONE[name]
    assert read_all(pool, disk) == {key: state for key, state in STATES.items() if key != name}


def test_two_neighbours_free_what_they_shared_as_well(pool: Pool) -> None:
    disk = build(pool)
    assert delete(pool, disk, "s2", "s3") == 2 + 1  # d was only in s2, c2 is still in the disk
    assert delete(pool, disk, "s1") == 2


@pytest.mark.parametrize("order", list(permutations(["s1", "s2", "s3"])))
@pytest.mark.parametrize("reopen", [False, True])
def test_in_any_order_all_comes_back(home: Home, pool: Pool, order: tuple[str, ...], reopen: bool) -> None:
    disk = build(pool)
    for name in order:
        delete(pool, disk, name)
        assert all(STATES[key] == state for key, state in read_all(pool, disk).items())
        if reopen:
            pool = home.reopen()
            disk = pool.catalog.disk("d")
    assert pool.space.allocated_blocks == 1 + 4


@pytest.mark.parametrize("order", list(permutations(["s1", "s2", "s3"])))
def test_in_any_order_without_a_commit_in_between_all_comes_back(pool: Pool, order: tuple[str, ...]) -> None:
    disk = build(pool)
    delete(pool, disk, *order)
    assert pool.space.allocated_blocks == 1 + 4
    assert read_all(pool, disk) == {"disk": STATES["disk"]}


def test_a_deleted_name_can_be_used_again_at_once(pool: Pool) -> None:
    disk = build(pool)
    pool.delete_snapshot(disk.chain["s2"])
    pool.snapshot(disk, "s2")
    assert list(disk.chain) == ["s1", "s3", "s2"]
    assert get(pool, disk.chain["s2"], 0, 4) == STATES["disk"]
    pool.reclaim()
    assert get(pool, disk.chain["s2"], 0, 4) == STATES["disk"]


def test_nothing_is_freed_before_the_deletion_is_durable(pool: Pool) -> None:
    disk = build(pool)
    pool.commit()
    before = pool.space.allocated_blocks
    pool.delete_snapshot(disk.chain["s2"])
    assert not pool.reclaimer.step(1.0)
    assert not pool.space.freed_now
    assert pool.reclaimer.pending
    assert pool.space.allocated_blocks == before


def test_what_only_a_deleted_snapshot_wrote_counts_for_the_next(pool: Pool) -> None:
    disk = build(pool)
    delete(pool, disk, "s1")
    assert disk.chain["s2"].written_blocks == 4  # a b2 c2 d
    delete(pool, disk, "s2")
    assert disk.chain["s3"].written_blocks == 3  # a b3 c2
    delete(pool, disk, "s3")
    assert disk.head.written_blocks == 4


def test_the_heir_of_a_block_overwrites_it_in_place(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 1, "c")
    held = address(pool, disk, 0)
    pool.delete_snapshot(snapshot)
    pool.reclaim()
    put(pool, disk, 0, "x")
    assert address(pool, disk, 0) == held
    assert pool.space.allocated_blocks == 3


def test_writing_over_an_heirloom_at_once_loses_nothing(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 1, "c")
    pool.delete_snapshot(snapshot)
    pool.commit()
    while pool.reclaimer.step(0):
        pass
    put(pool, disk, 0, "x")  # inherited, and not yet durable
    pool.punch(disk, 4096, 4096)
    assert get(pool, disk, 0, 2) == ["x", ""]
    pool.commit()
    assert pool.space.allocated_blocks == 2
    assert findings(pool) == []
    assert get(home.reopen(), home.pool.catalog.disk("d"), 0, 2) == ["x", ""]


def test_a_long_chain_of_small_changes_goes_without_a_trace(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    for n in range(60):
        put(pool, disk, n % 7, f"v{n}")
        pool.snapshot(disk, f"s{n}")
        if n % 10 == 0:
            pool.commit()
    assert len(addresses_of(*disk.chain.values(), pool=pool)) == 60
    for n in (*range(1, 60, 2), *range(0, 60, 4), *range(2, 60, 4)):
        pool.delete_snapshot(disk.chain[f"s{n}"])
        if n % 7 == 0:
            pool.reclaim()
            assert_exact(pool)
    pool.reclaim()
    assert pool.space.allocated_blocks == 1 + 7
