"""Resizing: what is cut off is gone from the disk and reads as zeros when it grows again; snapshots keep their size."""

from __future__ import annotations

import pytest

from rowfs.base.units import DISK_BYTES_MAX
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, B, Home, P, findings, get, put


def full_disk(pool: Pool, size_bytes: int) -> Disk:
    disk = pool.create_disk("d", size_bytes)
    pool.write(disk, 0, b"x" * size_bytes)
    return disk


@pytest.mark.parametrize("size", [1, B - 1, B, B + 1, P * B - 1, P * B, P * B + 5])
def test_what_is_cut_off_reads_as_zeros_when_the_disk_grows_again(home: Home, pool: Pool, size: int) -> None:
    disk = full_disk(pool, 2 * P * B)
    pool.resize(disk, size)
    assert pool.read(disk, 0, 2 * P * B) == b"x" * size
    pool.resize(disk, 2 * P * B)
    assert pool.read(disk, 0, 2 * P * B) == b"x" * size + bytes(2 * P * B - size)
    pool = home.reopen()
    assert pool.read(pool.catalog.disk("d"), 0, 2 * P * B) == b"x" * size + bytes(2 * P * B - size)


@pytest.mark.parametrize("old", [B, B + 1, 2 * B - 1, 3 * B + 100, P * B + 7])
@pytest.mark.parametrize("new", [0, 1, B - 1, B])
def test_a_cut_gives_back_every_block_past_the_new_end(pool: Pool, old: int, new: int) -> None:
    disk = full_disk(pool, old)
    pool.resize(disk, min(new, old))
    assert disk.mapped_blocks == -(-min(new, old) // B)
    pool.reclaim()
    assert pool.space.allocated_blocks == 1 + disk.mapped_blocks


@pytest.mark.parametrize("old", [B + 1, 3 * B + 100])
def test_a_cut_under_a_snapshot_gives_back_every_block_past_the_new_end(pool: Pool, old: int) -> None:
    disk = full_disk(pool, old)
    snapshot = pool.snapshot(disk, "s")
    pool.resize(disk, B)
    assert disk.mapped_blocks == 1
    assert pool.read(snapshot, 0, old) == b"x" * old


def test_punching_up_to_an_uneven_end_gives_the_last_block_back(pool: Pool) -> None:
    disk = full_disk(pool, B + 100)
    pool.punch(disk, B, 100)
    assert disk.mapped_blocks == 1


def test_growing_costs_nothing(pool: Pool) -> None:
    disk = full_disk(pool, B + 100)
    pool.commit()
    before = pool.space.allocated_blocks
    pool.resize(disk, DISK_BYTES_MAX)
    assert pool.space.allocated_blocks == before
    assert pool.read(disk, B, 2 * B) == b"x" * 100 + bytes(2 * B - 100)


def test_a_snapshot_keeps_its_own_size(home: Home, pool: Pool) -> None:
    disk = full_disk(pool, 3 * B + 10)
    large = pool.snapshot(disk, "large")
    pool.resize(disk, B)
    small = pool.snapshot(disk, "small")
    pool.resize(disk, SIZE)
    assert (large.size_bytes, small.size_bytes) == (3 * B + 10, B)
    assert pool.read(large, 0, SIZE) == b"x" * (3 * B + 10)
    assert pool.read(small, 0, SIZE) == b"x" * B
    pool = home.reopen()
    chain = pool.catalog.disk("d").chain
    assert {name: snapshot.size_bytes for name, snapshot in chain.items()} == {"large": 3 * B + 10, "small": B}
    assert pool.read(chain["large"], 0, SIZE) == b"x" * (3 * B + 10)


def test_a_clone_and_a_rollback_have_the_size_of_the_snapshot(pool: Pool) -> None:
    disk = full_disk(pool, 3 * B + 10)
    snapshot = pool.snapshot(disk, "s")
    pool.resize(disk, B)
    (clone,) = pool.clone(snapshot, ["c"])
    pool.rollback(disk, snapshot)
    assert clone.size_bytes == disk.size_bytes == 3 * B + 10
    assert pool.read(disk, 0, SIZE) == pool.read(clone, 0, SIZE) == b"x" * (3 * B + 10)
    assert disk.chain["before-rollback"].size_bytes == B


def test_a_disk_cut_to_nothing_is_empty_and_keeps_its_snapshots(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 1, "b")
    pool.resize(disk, 0)
    assert (disk.size_bytes, disk.mapped_blocks, pool.read(disk, 0, 1)) == (0, 0, b"")
    pool.resize(disk, SIZE)
    put(pool, disk, 1, "c")
    assert get(pool, disk, 0, 2) == ["", "c"]
    assert get(pool, snapshot, 0, 2) == ["a", ""]
    pool = home.reopen()
    pool.reclaim()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["", "c"]
    assert pool.space.allocated_blocks == 3


def test_a_cut_to_nothing_that_was_not_committed_is_undone_by_a_crash(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    pool.resize(disk, 0)
    pool.resize(disk, SIZE)
    put(pool, disk, 0, "b")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d")) == ["a"]
    assert findings(pool) == []


def test_the_partial_last_block_is_stored_once_and_whole(pool: Pool) -> None:
    disk = pool.create_disk("d", B + 100)
    pool.write(disk, B, b"y" * 100)
    assert disk.mapped_blocks == 1
    pool.resize(disk, B + 50)
    pool.write(disk, B + 60, b"z")
    assert pool.read(disk, B, B) == b"y" * 50 + bytes(10) + b"z"
