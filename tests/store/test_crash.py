"""Crashes: a snapshot is what it was, a disk is what it was or became, nobody sees what another wrote."""

from __future__ import annotations

import pytest

from rowfs.store.pool import Pool
from tests.store.faults import Volatile
from tests.store.helpers import SIZE, B, Home, address, assert_exact, findings, get, put


def reclaim_in_memory(pool: Pool) -> None:
    """Everything the reclaimer can do without a commit."""
    while pool.reclaimer.step(0):
        pass


@pytest.mark.parametrize("written_since", [False, True])
def test_a_deleted_snapshot_that_a_crash_brings_back_reads_as_before_to_the_byte(
    home: Home, written_since: bool
) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    if written_since:
        put(pool, disk, 1, "c")
    pool.commit()
    before = bytes(pool.read(snapshot, 0, SIZE))
    pool.delete_snapshot(snapshot)
    reclaim_in_memory(pool)
    for n in range(3):
        put(pool, disk, 0, f"x{n}", f"y{n}", f"z{n}")
    pool.write(disk, 100, b"unaligned")
    pool = home.crash()
    assert pool.read(pool.catalog.disk("d").chain["s"], 0, SIZE) == before
    assert findings(pool) == []


def test_a_deletion_in_a_commit_that_is_not_finished_freezes_the_snapshot_still(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    pool.commit()
    pool.delete_snapshot(snapshot)
    pool.commits.freeze()
    reclaim_in_memory(pool)
    put(pool, disk, 0, "x", "y")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d").chain["s"], 0, 2) == ["a", "b"]


def test_a_snapshot_is_durable_with_its_commit_and_gone_without(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "kept")
    pool.commit()
    put(pool, disk, 0, "b")
    pool.snapshot(disk, "lost")
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert (list(disk.chain), get(pool, disk)) == (["kept"], ["a"])


@pytest.mark.parametrize("giver", ["c", "d"])
def test_a_block_passes_to_one_disk_only_when_the_other_let_go_of_it_durably(home: Home, giver: str) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.clone(snapshot, ["c"])
    pool.delete_snapshot(snapshot)
    for name in "dc":
        put(pool, pool.catalog.disk(name), 1, f"own of {name}")
    pool.reclaim()
    (taker,) = {"c", "d"} - {giver}
    put(pool, pool.catalog.disk(giver), 0, "given up")  # not durable
    reclaim_in_memory(pool)
    put(pool, pool.catalog.disk(taker), 0, "taken over")
    pool = home.crash()
    assert get(pool, pool.catalog.disk(giver)) in (["a"], ["given up"])
    assert get(pool, pool.catalog.disk(taker)) in (["a"], ["taken over"])


def test_a_block_passes_over_a_deleted_snapshot_only_when_the_redirect_is_durable(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    (clone,) = pool.clone(snapshot, ["c"])
    put(pool, disk, 1, "x")
    put(pool, clone, 1, "y")
    pool.delete_snapshot(snapshot)
    pool.commit()
    put(pool, clone, 0, "given up")
    reclaim_in_memory(pool)
    put(pool, disk, 0, "taken over")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("c")) in (["a"], ["given up"])


def test_what_one_disk_gave_up_durably_the_other_overwrites_in_place(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    (clone,) = pool.clone(snapshot, ["c"])
    pool.delete_snapshot(snapshot)
    put(pool, disk, 1, "x")
    put(pool, clone, 1, "y")
    put(pool, clone, 0, "given up")
    pool.reclaim()
    at = address(pool, disk, 0)
    put(pool, disk, 0, "b")
    assert address(pool, disk, 0) == at


def test_after_a_power_cut_only_what_no_commit_followed_is_missing(home: Home) -> None:
    pool = home.open(open_data=Volatile)
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    pool.commit()
    put(pool, disk, 1, "lost")  # in place
    put(pool, disk, 2, "lost")  # somewhere new
    pool.data.lose_power()
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "b", ""]
    assert findings(pool) == []


def test_freed_blocks_hold_their_data_until_the_commit_is_durable(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, *(f"a{n}" for n in range(50)))
    pool.commit()
    pool.punch(disk, 0, 50 * B)
    put(pool, disk, 100, *(f"b{n}" for n in range(600)))  # which take other places
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 50) == [f"a{n}" for n in range(50)]


def test_blocks_written_for_a_lost_commit_are_free_again(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    pool.commit()
    put(pool, disk, 0, *(f"a{n}" for n in range(600)))
    pool = home.crash()
    assert pool.space.allocated_blocks == 1
    put(pool, pool.catalog.disk("d"), 0, "b")
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["b", ""]


def test_a_rollback_that_was_not_committed_is_undone(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    put(pool, disk, 0, "b")
    pool.commit()
    pool.rollback(disk, disk.chain["s"])
    put(pool, disk, 0, "c")
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert (get(pool, disk), list(disk.chain)) == (["b"], ["s"])


def test_a_clone_that_was_not_committed_leaves_nothing(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.commit()
    (clone,) = pool.clone(snapshot, ["c"])
    put(pool, clone, 0, "b")
    pool = home.crash()
    assert list(pool.catalog.disks) == ["d"]
    assert len(pool.catalog.branches) == 1
    pool.reclaim()
    assert_exact(pool)


def test_ids_are_not_used_again_after_a_crash(home: Home) -> None:
    pool = home.open()
    pool.create_disk("d", SIZE)
    pool.commit()
    inode = pool.catalog.disk("d").inode
    pool = home.crash()
    assert pool.create_disk("e", SIZE).inode > inode
