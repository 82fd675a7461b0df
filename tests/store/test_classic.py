"""The five steps of the classic example: a disk, two snapshots, and blocks that both share stored once.

1 d1 and d2 are written   2 s1   3 d3 is added and d2 becomes d4   4 s2   5 both snapshots and the disk are read
"""

from __future__ import annotations

import pytest

from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, Home, address, findings, get, put, snapshot_of, stored


def play(pool: Pool) -> Disk:
    disk = pool.create_disk("vm1", SIZE)
    put(pool, disk, 0, "d1", "d2")
    pool.snapshot(disk, "s1")
    put(pool, disk, 2, "d3")
    put(pool, disk, 1, "d4")
    pool.snapshot(disk, "s2")
    return disk


def test_both_snapshots_and_the_disk_read_right(pool: Pool) -> None:
    disk = play(pool)
    assert get(pool, snapshot_of(pool, "vm1", "s1"), 0, 3) == ["d1", "d2", ""]
    assert get(pool, snapshot_of(pool, "vm1", "s2"), 0, 3) == ["d1", "d4", "d3"]
    assert get(pool, disk, 0, 3) == ["d1", "d4", "d3"]


def test_shared_blocks_are_stored_once(pool: Pool) -> None:
    disk = play(pool)
    assert pool.space.allocated_blocks == 1 + 4  # the label, d1 d2 d3 d4
    s1, s2 = snapshot_of(pool, "vm1", "s1"), snapshot_of(pool, "vm1", "s2")
    assert address(pool, s1, 0) == address(pool, s2, 0) == address(pool, disk, 0)
    assert address(pool, s2, 1) == address(pool, disk, 1) != address(pool, s1, 1)
    assert address(pool, s1, 2) == 0


def test_a_snapshot_costs_no_block(pool: Pool) -> None:
    disk = play(pool)
    before = pool.space.allocated_blocks
    for n in range(20):
        pool.snapshot(disk, f"n{n}")
    assert pool.space.allocated_blocks == before


def test_the_figures_say_what_is_mapped_and_what_was_written(pool: Pool) -> None:
    disk = play(pool)
    s1, s2 = snapshot_of(pool, "vm1", "s1"), snapshot_of(pool, "vm1", "s2")
    assert (s1.referenced_blocks, s1.written_blocks) == (2, 2)
    assert (s2.referenced_blocks, s2.written_blocks) == (3, 2)
    assert disk.mapped_blocks == 3
    pool.commit()
    assert findings(pool) == []


def test_all_of_it_survives_a_crash_after_the_commit(home: Home) -> None:
    play(home.open())
    home.pool.commit()
    pool = home.crash()
    assert get(pool, snapshot_of(pool, "vm1", "s1"), 0, 3) == ["d1", "d2", ""]
    assert get(pool, snapshot_of(pool, "vm1", "s2"), 0, 3) == ["d1", "d4", "d3"]
    assert get(pool, pool.catalog.disk("vm1"), 0, 3) == ["d1", "d4", "d3"]


@pytest.mark.parametrize(("gone", "left"), [("s1", 1 + 3), ("s2", 1 + 4)])
def test_deleting_one_snapshot_frees_what_it_alone_held(pool: Pool, gone: str, left: int) -> None:
    disk = play(pool)
    pool.delete_snapshot(snapshot_of(pool, "vm1", gone))
    pool.reclaim()
    assert pool.space.allocated_blocks == left
    assert get(pool, disk, 0, 3) == ["d1", "d4", "d3"]


def test_deleting_both_leaves_the_disk_alone(pool: Pool) -> None:
    disk = play(pool)
    for name in ("s1", "s2"):
        pool.delete_snapshot(snapshot_of(pool, "vm1", name))
    pool.reclaim()
    assert pool.space.allocated_blocks == 1 + 3
    assert get(pool, disk, 0, 3) == ["d1", "d4", "d3"]


def test_rolling_back_brings_d2_back_and_keeps_the_newer_snapshot(pool: Pool) -> None:
    disk = play(pool)
    pool.rollback(disk, snapshot_of(pool, "vm1", "s1"), discard=True)
    assert get(pool, disk, 0, 3) == ["d1", "d2", ""]
    assert get(pool, snapshot_of(pool, "vm1", "s2"), 0, 3) == ["d1", "d4", "d3"]


def test_the_data_file_holds_each_block_where_the_map_says(home: Home) -> None:
    pool = home.open()
    disk = play(pool)
    pool.commit()
    for block, text in enumerate(["d1", "d4", "d3"]):
        assert stored(home, address(pool, disk, block)).startswith(text.encode() + b".")
