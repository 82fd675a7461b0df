"""Redirect-on-write: data under a snapshot is never touched, what a disk owns is overwritten."""

from __future__ import annotations

import pytest

from rowfs.base.units import PAGE_BYTES
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, B, Home, address, addresses_of, findings, get, put, stored


@pytest.fixture
def disk(pool: Pool) -> Disk:
    """A disk with three blocks at the first page's edge and beyond: 510 a, 511 b, 512 c."""
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 510, "a", "b", "c")
    return disk


def keys_put(pool: Pool) -> list[bytes]:
    """The keys that a commit now would change."""
    batch = pool.commits.freeze()
    pool.commits.write(batch)
    pool.commits.finish(batch)
    keys = list(batch.update.pages)
    for records in batch.update.records.values():
        keys += records
    return keys


def test_data_under_a_snapshot_is_never_overwritten(home: Home, pool: Pool, disk: Disk) -> None:
    snapshot = pool.snapshot(disk, "s")
    held = {at: stored(home, at) for at in addresses_of(snapshot, pool=pool)}
    assert len(held) == 3
    for n in range(20):
        put(pool, disk, 510, f"x{n}", f"y{n}", f"z{n}")
        pool.write(disk, 510 * B + 100, b"unaligned" * 600)
        pool.punch(disk, 511 * B, B)
        pool.commit()
    pool.reclaim()
    assert {at: stored(home, at) for at in held} == held
    assert get(pool, snapshot, 510, 3) == ["a", "b", "c"]


def test_the_first_write_after_a_snapshot_goes_elsewhere(pool: Pool, disk: Disk) -> None:
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 511, "new")
    assert address(pool, disk, 511) != address(pool, snapshot, 511)
    assert address(pool, disk, 510) == address(pool, snapshot, 510)


def test_the_next_write_of_the_same_block_stays_there(pool: Pool, disk: Disk) -> None:
    pool.snapshot(disk, "s")
    put(pool, disk, 511, "new")
    first = address(pool, disk, 511)
    for n in range(5):
        put(pool, disk, 511, f"newer{n}")
        pool.commit()
    assert address(pool, disk, 511) == first
    assert get(pool, disk, 511) == ["newer4"]


def test_a_disk_without_snapshots_is_overwritten_in_place(pool: Pool, disk: Disk) -> None:
    before = addresses_of(disk, pool=pool)
    put(pool, disk, 510, "x", "y", "z")
    pool.write(disk, 510 * B + 1, b"1")
    assert addresses_of(disk, pool=pool) == before


def test_it_is_overwritten_in_place_again_once_the_snapshot_is_gone(pool: Pool, disk: Disk) -> None:
    pool.delete_snapshot(pool.snapshot(disk, "s"))
    pool.reclaim()
    before = addresses_of(disk, pool=pool)
    put(pool, disk, 510, "x", "y", "z")
    assert addresses_of(disk, pool=pool) == before


def test_an_unaligned_write_keeps_the_rest_of_a_shared_block(pool: Pool, disk: Disk) -> None:
    before = bytes(pool.read(disk, 511 * B, B))
    snapshot = pool.snapshot(disk, "s")
    pool.write(disk, 511 * B + 1000, b"here")
    assert pool.read(disk, 511 * B, B) == before[:1000] + b"here" + before[1004:]
    assert pool.read(snapshot, 511 * B, B) == before


def test_a_write_over_owned_shared_and_unmapped_blocks_reads_right(pool: Pool, disk: Disk) -> None:
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 511, "owned")
    put(pool, disk, 509, *(f"n{n}" for n in range(6)))
    assert get(pool, disk, 508, 8) == ["", "n0", "n1", "n2", "n3", "n4", "n5", ""]
    assert get(pool, snapshot, 508, 8) == ["", "", "a", "b", "c", "", "", ""]
    assert disk.mapped_blocks == 6


def test_a_snapshot_of_a_large_map_changes_a_bounded_number_of_records(pool: Pool, disk: Disk) -> None:
    for page in range(2, 40):
        pool.write(disk, page * PAGE_BYTES, b"x" * B)
    pool.commit()
    counts = []
    for n in range(3):
        pool.snapshot(disk, f"s{n}")
        counts.append(len(keys_put(pool)))
    assert counts[0] == counts[1] == counts[2] <= 4  # snapshot, branch, pool; a chain's length does not matter


def test_clone_and_rollback_of_a_large_map_change_a_bounded_number_of_records(pool: Pool, disk: Disk) -> None:
    for page in range(2, 40):
        pool.write(disk, page * PAGE_BYTES, b"x" * B)
    snapshot = pool.snapshot(disk, "s")
    pool.commit()
    pool.clone(snapshot, ["c"])
    assert len(keys_put(pool)) <= 5  # disk, branch, pool, event, account
    pool.rollback(disk, snapshot)
    assert len(keys_put(pool)) <= 8  # disk, two branches, before-rollback, removal, pool, two events


def test_deleting_a_large_disk_changes_a_bounded_number_of_records_at_once(pool: Pool, disk: Disk) -> None:
    for page in range(2, 40):
        pool.write(disk, page * PAGE_BYTES, b"x" * B)
    pool.commit()
    pool.delete_disk(disk)
    assert len(keys_put(pool)) <= 5  # disk, removal, pool, event, account


def test_a_write_after_a_snapshot_copies_one_page_of_the_map(pool: Pool, disk: Disk) -> None:
    for page in range(2, 40):
        pool.write(disk, page * PAGE_BYTES, b"x" * B)
    pool.snapshot(disk, "s")
    pool.commit()
    put(pool, disk, 0, "x")
    batch = pool.commits.freeze()
    pool.commits.write(batch)
    pool.commits.finish(batch)
    assert len(batch.update.pages) == 1


def test_a_punch_where_nothing_is_changes_nothing(pool: Pool, disk: Disk) -> None:
    pool.commit()
    pool.punch(disk, 0, 100 * B)
    assert not pool.commits.needed


def test_trim_under_a_snapshot_hides_the_old_data(home: Home, pool: Pool, disk: Disk) -> None:
    snapshot = pool.snapshot(disk, "s")
    pool.punch(disk, 0, SIZE)
    assert get(pool, disk, 510, 3) == ["", "", ""]
    assert get(pool, snapshot, 510, 3) == ["a", "b", "c"]
    assert (disk.mapped_blocks, pool.space.allocated_blocks) == (0, 4)
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("d"), 510, 3) == ["", "", ""]
    assert findings(pool) == []


def test_trim_of_a_clone_hides_what_it_began_with(home: Home, pool: Pool, disk: Disk) -> None:
    (clone,) = pool.clone(pool.snapshot(disk, "s"), ["c"])
    pool.punch(clone, 511 * B, B)
    assert get(pool, clone, 510, 3) == ["a", "", "c"]
    pool = home.reopen(cache_bytes=0)
    assert get(pool, pool.catalog.disk("c"), 510, 3) == ["a", "", "c"]
    assert get(pool, pool.catalog.disk("d"), 510, 3) == ["a", "b", "c"]


def test_punching_part_of_a_block_zeroes_just_that(pool: Pool, disk: Disk) -> None:
    before = bytes(pool.read(disk, 510 * B, 3 * B))
    pool.punch(disk, 510 * B + 100, 2 * B)
    assert pool.read(disk, 510 * B, 3 * B) == before[:100] + bytes(2 * B) + before[100 + 2 * B :]
    assert disk.mapped_blocks == 2  # the whole block between is a hole


def test_punching_ends_where_the_disk_does(pool: Pool, disk: Disk) -> None:
    pool.punch(disk, 512 * B, 1 << 50)
    assert disk.size_bytes == SIZE
    assert get(pool, disk, 510, 3) == ["a", "b", ""]
    pool.punch(disk, SIZE + 100, 100)
    pool.punch(disk, 511 * B, 0)
    assert get(pool, disk, 510, 3) == ["a", "b", ""]
