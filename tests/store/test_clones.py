"""Clones, rollbacks and forks: who shares a block, who owns it at last, and that nobody keeps what nobody sees."""

from __future__ import annotations

import pytest

from rowfs.base.errors import UsageError
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, Home, address, blocks_held, disk_of, fork, get, put


def test_a_clone_begins_as_the_snapshot_and_goes_its_own_way(home: Home, pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 0, "disk")
    (clone,) = pool.clone(snapshot, ["c"])
    assert address(pool, clone, 0) == address(pool, snapshot, 0)
    put(pool, clone, 1, "clone")
    assert (get(pool, disk, 0, 2), get(pool, clone, 0, 2)) == (["disk", "b"], ["a", "clone"])
    assert get(pool, snapshot, 0, 2) == ["a", "b"]
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("c"), 0, 2) == ["a", "clone"]


def test_fifty_clones_cost_no_block(pool: Pool) -> None:
    snapshot = pool.snapshot(disk_of(pool, "a", "b"), "s")
    clones = pool.clone(snapshot, [f"c{n}" for n in range(50)])
    assert len(clones) == 50
    assert blocks_held(pool) == 2
    assert all(get(pool, clone, 0, 2) == ["a", "b"] for clone in clones)


def test_a_clone_takes_the_owner_it_is_given(pool: Pool) -> None:
    snapshot = pool.snapshot(disk_of(pool, "a"), "s")
    (clone,) = pool.clone(snapshot, ["c"], (0o600, 7, 8))
    assert (clone.mode, clone.uid, clone.gid) == (0o600, 7, 8)


def test_clones_of_clones_of_clones_read_right_when_all_before_them_is_gone(home: Home, pool: Pool) -> None:
    disk = disk_of(pool, "d0", "d1", "d2", "d3", "d4")
    for n in range(1, 5):
        (clone,) = pool.clone(pool.snapshot(disk, "s"), [f"c{n}"])
        put(pool, clone, n, f"c{n}")
        pool.delete_disk(disk, keep_snapshots=False)
        disk = clone
        pool.reclaim()
    assert get(pool, disk, 0, 5) == ["d0", "c1", "c2", "c3", "c4"]
    assert blocks_held(pool) == 5
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("c4"), 0, 5) == ["d0", "c1", "c2", "c3", "c4"]


def test_deleting_the_middle_of_a_line_of_clones_leaves_both_ends(pool: Pool) -> None:
    first = disk_of(pool, "a", "b")
    (second,) = pool.clone(pool.snapshot(first, "s"), ["second"])
    put(pool, second, 0, "x")
    (third,) = pool.clone(pool.snapshot(second, "s"), ["third"])
    pool.delete_disk(second, keep_snapshots=False)
    assert blocks_held(pool) == 3
    assert (get(pool, first, 0, 2), get(pool, third, 0, 2)) == (["a", "b"], ["x", "b"])


@pytest.mark.parametrize("rewrite", [False, True])
def test_a_chain_of_rollbacks_collapses(pool: Pool, rewrite: bool) -> None:
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    for n in range(10):
        if rewrite:
            put(pool, disk, 1, f"r{n}")
        pool.rollback(disk, disk.chain["s"], discard=True)
    assert get(pool, disk, 0, 2) == ["a", "b"]
    assert blocks_held(pool) == 2
    assert len(pool.catalog.branches) == 2  # the one that the snapshot is on, and the head's


def test_rolling_back_to_and_fro_loses_nothing(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "a")
    put(pool, disk, 0, "b")
    pool.snapshot(disk, "b")
    for n in range(6):
        name = "ab"[n % 2]
        pool.rollback(disk, disk.chain[name], discard=True)
        assert get(pool, disk) == [name]
        assert (get(pool, disk.chain["a"]), get(pool, disk.chain["b"])) == (["a"], ["b"])
    assert blocks_held(pool) == 2


def test_a_punch_that_pauses_leaves_what_a_rollback_brought_back(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    put(pool, disk, 512, "b")
    pool.snapshot(disk, "s")
    punching = pool.io.punch(disk, 0, SIZE)
    next(punching)
    pool.rollback(disk, disk.chain["s"])
    assert list(punching) == []
    assert (get(pool, disk), get(pool, disk, 512)) == (["a"], ["b"])


def test_what_was_before_a_rollback_is_kept_once(home: Home, pool: Pool) -> None:
    disk = disk_of(pool, "a")
    snapshot = pool.snapshot(disk, "s")
    for text in ("b", "c"):
        put(pool, disk, 0, text)
        kept = pool.rollback(disk, snapshot)
        assert (kept.name, kept.kind, get(pool, kept)) == ("before-rollback", "rollback", [text])
    assert list(disk.chain) == ["s", "before-rollback"]
    assert blocks_held(pool) == 2
    pool = home.reopen()
    disk = pool.catalog.disk("d")
    pool.rollback(disk, disk.chain["before-rollback"])
    assert get(pool, disk) == ["c"]
    assert get(pool, disk.chain["before-rollback"]) == ["a"]


def test_a_snapshot_of_ones_own_that_is_called_before_rollback_is_never_replaced(home: Home, pool: Pool) -> None:
    disk = disk_of(pool, "a")
    base = pool.snapshot(disk, "base")
    put(pool, disk, 0, "mine")
    pool.snapshot(disk, "before-rollback", description="mine")
    for text in ("b", "c"):
        put(pool, disk, 0, text)
        kept = pool.rollback(disk, base)
        assert kept is not None and (kept.name, kept.kind, get(pool, kept)) == ("before-rollback-2", "rollback", [text])
    assert get(pool, disk.chain["before-rollback"]) == ["mine"]
    assert list(disk.chain) == ["base", "before-rollback", "before-rollback-2"]
    pool.delete_snapshot(disk.chain["before-rollback"])
    pool.rollback(disk, base)
    assert list(disk.chain) == ["base", "before-rollback-2"]  # one is kept, as ever
    pool.rename_snapshot(disk.chain["before-rollback-2"], "precious")  # which makes it somebody's own
    pool.rollback(disk, base)
    disk = home.reopen().catalog.disk("d")
    assert list(disk.chain) == ["base", "precious", "before-rollback"]


def test_a_disk_is_not_rolled_back_to_another_ones_snapshot(pool: Pool) -> None:
    one, two = disk_of(pool, "1", name="one"), disk_of(pool, "2", name="two")
    snapshot = pool.snapshot(one, "s")
    with pytest.raises(UsageError, match="is a snapshot of one, not of two"):
        pool.rollback(two, snapshot)
    assert get(pool, two) == ["2"]
    assert not two.chain


def test_a_fork_without_a_name_is_freed_once_its_children_have_written(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    (clone,) = fork(pool, disk, "c")
    assert blocks_held(pool) == 2
    put(pool, disk, 0, "x")
    put(pool, clone, 0, "y")
    assert blocks_held(pool) == 3  # b is shared, a is seen by nobody; nobody asked for it
    put(pool, clone, 1, "z")
    assert blocks_held(pool) == 4
    put(pool, disk, 1, "w")
    assert blocks_held(pool) == 4


@pytest.mark.parametrize("first", ["d", "c"])
def test_whoever_lets_go_last_the_block_comes_back(pool: Pool, first: str) -> None:
    disk = disk_of(pool, "a", "b")
    clones = {"d": disk, "c": fork(pool, disk, "c")[0]}
    pool.reclaim()
    last = clones.pop(first)
    (other,) = clones.values()
    put(pool, last, 0, "x")
    assert blocks_held(pool) == 3
    put(pool, other, 0, "y")
    assert blocks_held(pool) == 3


def test_what_a_gone_snapshot_saw_through_to_the_origin_comes_back(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    (clone,) = fork(pool, disk, "c")
    pool.delete_disk(disk)
    pool.reclaim()
    snapshot = pool.snapshot(clone, "s")
    put(pool, clone, 0, "b")
    assert blocks_held(pool) == 2
    pool.delete_snapshot(snapshot)
    assert blocks_held(pool) == 1


def test_a_parents_write_over_a_nameless_fork_frees_what_the_child_gave_up(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    (clone,) = fork(pool, disk, "c")
    pool.punch(clone, 0, 4096)
    assert blocks_held(pool) == 2
    put(pool, disk, 0, "x")
    pool.snapshot(disk, "s")  # comes between the write and the reclaimer's look
    put(pool, disk, 0, "y")
    assert blocks_held(pool) == 3


def test_branches_without_anything_are_dropped(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    for n in range(5):
        (clone,) = fork(pool, disk, f"c{n}")
        pool.delete_disk(disk)
        disk = clone
    assert blocks_held(pool) == 1
    put(pool, disk, 0, "b")
    assert blocks_held(pool) == 1
    assert len(pool.catalog.branches) == 1


def test_a_clone_of_an_untouched_disk_is_all_holes(pool: Pool) -> None:
    (clone,) = fork(pool, pool.create_disk("d", SIZE), "c")
    assert get(pool, clone, 0, 3) == ["", "", ""]
    put(pool, clone, 1, "x")
    assert get(pool, clone, 0, 3) == ["", "x", ""]
    assert blocks_held(pool) == 1
