"""Keepers: versions that no disk or snapshot sees, kept while several others share what they own.

Every case says what is left to the block, and that the last holder of a block owns it: it is overwritten in place.
"""

from __future__ import annotations

import pytest

from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, address, blocks_held, disk_of, fork, get, put


def owns(pool: Pool, disk: Disk, block: int) -> bool:
    """Whether writing to the block now overwrites it in place."""
    before = address(pool, disk, block)
    put(pool, disk, block, "probe")
    return address(pool, disk, block) == before


@pytest.mark.parametrize("how", ["write", "punch", "delete"])
def test_a_keeper_holds_what_several_clones_share_until_the_last_lets_go(pool: Pool, how: str) -> None:
    disk = disk_of(pool, "a", "b")
    clones = fork(pool, disk, "c1", "c2", "c3")
    pool.delete_disk(disk)
    for clone in clones:
        put(pool, clone, 1, f"own of {clone.name}")  # each has a version now, and what they began with is seen by none
    assert blocks_held(pool) == 1 + 3
    for left in (2, 1, 0):
        clone = clones.pop(0)
        if how == "write":
            put(pool, clone, 0, "x")
        elif how == "punch":
            pool.punch(clone, 0, 4096)
        else:
            pool.delete_disk(clone)
        shared = 1 if left else 0
        own = {"write": 3 + (3 - left), "punch": 3, "delete": left}[how]
        assert blocks_held(pool) == shared + own
        assert all(get(pool, other) == ["a"] for other in clones)


def test_the_last_holder_of_a_kept_block_owns_it_and_overwrites_it_in_place(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    one, two = fork(pool, disk, "one", "two")
    pool.delete_disk(disk)
    put(pool, one, 1, "x")
    put(pool, two, 1, "y")
    pool.reclaim()
    put(pool, one, 0, "z")
    pool.reclaim()
    at = address(pool, two, 0)
    put(pool, two, 0, "w")
    assert address(pool, two, 0) == at
    assert blocks_held(pool) == 4


def test_a_keeper_that_a_keeper_passes_a_block_to_passes_it_on(pool: Pool) -> None:
    disk = disk_of(pool, "b0")
    base = pool.snapshot(disk, "base")
    (child,) = pool.clone(base, ["child"])
    put(pool, child, 1, "c1")
    one, two = fork(pool, child, "one", "two")
    put(pool, child, 0, "x", "x")
    put(pool, one, 2, "o")  # holds on to b0
    put(pool, two, 0, "z")
    pool.reclaim()  # a version of the child is kept for c1; it holds b0 as well
    put(pool, disk, 0, "w")
    pool.delete_snapshot(base)
    assert blocks_held(pool) == 7  # w, x x, o, z, c1, b0
    assert get(pool, one, 0, 3) == ["b0", "c1", "o"]
    assert owns(pool, one, 0)


def test_two_keepers_do_not_hold_a_block_for_each_other(pool: Pool) -> None:
    disk = disk_of(pool, "a0")
    base = pool.snapshot(disk, "base")
    for name in ("one", "two"):
        (child,) = pool.clone(base, [name])
        put(pool, child, 1, f"{name}1")
        for grandchild in fork(pool, child, f"{name}-a", f"{name}-b"):
            put(pool, grandchild, 0, "own")
        put(pool, child, 0, "own", "own")
    pool.reclaim()  # both children have a keeper for block 1, that holds a0 for nobody
    put(pool, disk, 0, "own")
    pool.delete_snapshot(base)
    assert blocks_held(pool) == 1 + 2 * (1 + 2 + 2)


def test_a_deleted_snapshot_that_shared_a_kept_block_leaves_it_to_the_other(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    (clone,) = fork(pool, disk, "c")
    put(pool, disk, 1, "x")
    snapshot = pool.snapshot(disk, "s")
    put(pool, clone, 1, "y")
    put(pool, disk, 0, "z")
    assert blocks_held(pool) == 4  # a is kept for s and the clone
    pool.delete_snapshot(snapshot)
    assert blocks_held(pool) == 4
    assert owns(pool, clone, 0)


def test_a_deleted_snapshot_that_alone_shared_a_kept_block_frees_it(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    (clone,) = fork(pool, disk, "c")
    put(pool, disk, 1, "x")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 0, "z")
    put(pool, clone, 0, "y", "y")
    assert blocks_held(pool) == 5
    pool.delete_snapshot(snapshot)
    assert blocks_held(pool) == 4


def test_a_grandchild_that_wrote_before_its_forks_name_went_is_not_forgotten(pool: Pool) -> None:
    disk = pool.create_disk("a", SIZE)
    put(pool, disk, 0, "a")
    (child,) = fork(pool, disk, "b")
    pool.delete_disk(disk)
    put(pool, child, 512, "kept")  # in another page: the child's line stays for its sake
    snapshot = pool.snapshot(child, "t")
    (grandchild,) = pool.clone(snapshot, ["d"])
    put(pool, grandchild, 0, "own")
    pool.delete_disk(child)
    assert blocks_held(pool) == 3
    pool.delete_snapshot(snapshot)
    assert blocks_held(pool) == 2
    assert (get(pool, grandchild), get(pool, grandchild, 512)) == (["own"], ["kept"])


def test_what_a_keeper_lets_go_of_is_looked_at_further_below(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    child, other = fork(pool, disk, "child", "other")
    pool.delete_disk(disk)
    put(pool, child, 1, "c1")
    grandchildren = fork(pool, child, "one", "two")
    put(pool, child, 0, "x", "x")
    for grandchild in grandchildren:
        put(pool, grandchild, 2, "own")
    put(pool, other, 1, "own")
    assert blocks_held(pool) == 7  # a is kept for the grandchildren, through the keeper of c1, and for the other
    for grandchild in grandchildren:
        put(pool, grandchild, 0, "own")
    assert blocks_held(pool) == 9
    assert get(pool, other) == ["a"]
    assert owns(pool, other, 0)
