"""What is deleted: the name goes at once, snapshots stay or go along, and what is open lives on until it is closed."""

from __future__ import annotations

import pytest

from rowfs.base.errors import NotFoundError
from rowfs.base.format import TEMPORARY
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, Home, get, put, snapshot_of


def test_a_deleted_disk_keeps_its_snapshots(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    put(pool, disk, 0, "b")
    pool.delete_disk(disk)
    assert not list(pool.catalog.live())
    with pytest.raises(NotFoundError, match="only its snapshots are left"):
        pool.catalog.disk("d")
    pool = home.reopen()
    pool.reclaim()
    assert get(pool, snapshot_of(pool, "d", "s")) == ["a"]
    assert pool.space.allocated_blocks == 2


def test_a_temporary_snapshot_is_deleted_when_the_pool_is_opened(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "t", kind=TEMPORARY)
    pool.snapshot(disk, "s")
    put(pool, disk, 0, "b")
    pool.commit()
    home.abandon()
    pool = home.open(read_only=True)
    assert list(pool.catalog.disk("d").chain) == ["t", "s"]
    pool = home.reopen()
    assert list(pool.catalog.disk("d").chain) == ["s"]
    pool.reclaim()
    assert get(pool, snapshot_of(pool, "d", "s")) == ["a"]


def test_a_disk_made_anew_gets_its_chain_back_and_is_another_file(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    pool.delete_disk(disk)
    again = pool.create_disk("d", SIZE)
    assert (get(pool, again), list(again.chain), again.inode == disk.inode) == ([""], ["s"], False)
    pool = home.reopen()
    again = pool.catalog.disk("d")
    assert get(pool, again.chain["s"]) == ["a"]
    pool.rollback(again, again.chain["s"])
    assert get(pool, again) == ["a"]


def test_a_disk_renamed_to_a_deleted_one_takes_its_chain_over(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    pool.snapshot(disk, "s")
    pool.delete_disk(disk)
    pool.rename_disk(pool.create_disk("e", SIZE), "d")
    pool = home.reopen()
    assert list(pool.catalog.disk("d").chain) == ["s"]
    assert list(pool.catalog.disks) == ["d"]


def test_the_last_snapshot_of_a_deleted_disk_takes_its_name_along(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    for name in "st":
        pool.snapshot(disk, name)
    pool.delete_disk(disk)
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    assert "d" in pool.catalog.disks
    pool.delete_snapshot(snapshot_of(pool, "d", "t"))
    assert not pool.catalog.disks
    pool = home.reopen()
    assert not pool.catalog.disks


def test_a_disk_can_take_its_snapshots_along(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    for name in "st":
        put(pool, disk, 0, name)
        pool.snapshot(disk, name)
    pool.delete_disk(disk, keep_snapshots=False)
    assert not pool.catalog.disks
    pool.reclaim()
    assert pool.space.allocated_blocks == 1
    assert not home.reopen().catalog.disks


def test_a_deleted_disk_lives_on_until_it_is_closed(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    disk.handles += 1
    pool.delete_disk(disk)
    pool.reclaim()
    put(pool, disk, 1, "c", "d")
    assert get(pool, disk, 0, 3) == ["a", "c", "d"]
    new = pool.create_disk("d", SIZE)
    put(pool, new, 0, "new")
    pool.reclaim()
    assert (get(pool, disk), get(pool, new)) == (["a"], ["new"])
    disk.handles -= 1
    pool.reclaim()
    assert pool.space.allocated_blocks == 2


def test_a_deleted_snapshot_lives_on_until_it_is_closed(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    snapshot.handles += 1
    pool.delete_snapshot(snapshot)
    put(pool, disk, 0, "b")
    pool.reclaim()
    put(pool, disk, 0, "c")
    assert get(pool, snapshot) == ["a"]
    snapshot.handles -= 1
    pool.reclaim()
    assert pool.space.allocated_blocks == 2


def test_what_was_deleted_while_open_is_freed_after_a_crash(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    disk.handles += 1
    pool.delete_disk(disk)
    pool.reclaim()
    put(pool, disk, 1, "b")
    pool.commit()
    pool = home.crash()
    pool.reclaim()
    assert pool.space.allocated_blocks == 1
