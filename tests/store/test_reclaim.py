"""Reclaiming: in slices, beside other work, resumed after a crash at any point, exact in the end."""

from __future__ import annotations

import random

import pytest

from rowfs.base.units import PAGE_BYTES
from rowfs.store import reclaim as reclaim_module
from rowfs.store.pool import Pool
from tests.store.helpers import B, Home, assert_exact, blocks_held, disk_of, findings, fork, get, put

PAGES = 12


def deleted_history(pool: Pool) -> None:
    """A disk, a clone and deleted snapshots between, over many pages; durable, and nothing reclaimed yet."""
    disk = pool.create_disk("d", PAGES * PAGE_BYTES)
    for n in range(3):
        for page in range(PAGES):
            pool.write(disk, page * PAGE_BYTES + n * B, bytes([65 + n]) * (2 * B))
        pool.snapshot(disk, f"s{n}")
    (clone,) = pool.clone(disk.chain["s1"], ["c"])
    for page in range(0, PAGES, 2):
        pool.write(clone, page * PAGE_BYTES, b"c" * B)
    for n in range(3):
        pool.delete_snapshot(disk.chain[f"s{n}"])
    pool.commit()


def contents(pool: Pool) -> list[bytes]:
    return [bytes(pool.read(pool.catalog.disk(name), 0, PAGES * PAGE_BYTES)) for name in "dc"]


def steps_needed(pool: Pool) -> int:
    count = 0
    while pool.reclaimer.step(0):
        count += 1
        assert count < 10000
    return count


def test_a_slice_is_bounded_and_there_are_many(home: Home) -> None:
    pool = home.open()
    deleted_history(pool)
    assert steps_needed(pool) > PAGES


def test_the_work_is_proportional_to_what_the_snapshot_alone_changed(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", 100 * PAGE_BYTES)
    for page in range(100):
        put(pool, disk, page * 512, "a")
    pool.snapshot(disk, "s0")
    for n in range(1, 6):
        put(pool, disk, n * 512, f"b{n}")
        pool.snapshot(disk, f"s{n}")
    for page in range(100):
        put(pool, disk, page * 512, "c")
    pool.delete_snapshot(disk.chain["s3"])
    pool.commit()
    assert steps_needed(pool) <= 3


def test_there_is_nothing_to_do_without_deletions(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", B)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    pool.commit()
    assert not pool.reclaimer.pending
    assert not pool.reclaimer.ready
    assert not pool.reclaimer.step(1.0)


@pytest.mark.parametrize("steps", range(0, 60, 3))
@pytest.mark.parametrize("committed", [False, True])
def test_reclaim_cut_short_by_a_crash_is_finished_to_the_block(home: Home, steps: int, committed: bool) -> None:
    pool = home.open()
    deleted_history(pool)
    before = contents(pool)
    for _ in range(steps):
        pool.reclaimer.step(0)
    if committed:
        pool.commit()
        assert findings(pool) == []
    pool = home.crash()
    assert contents(pool) == before
    pool.reclaim()
    assert contents(pool) == before
    assert findings(pool) == []
    assert_exact(pool)
    assert not pool.reclaimer.pending


def test_crashing_again_and_again_gets_there_all_the_same(home: Home) -> None:
    pool = home.open()
    deleted_history(pool)
    before = contents(pool)
    lives = 0
    while pool.reclaimer.pending:
        lives += 1
        assert lives < 100
        for _ in range(lives):
            pool.reclaimer.step(0)
        pool.commit()
        pool = home.crash()
        assert contents(pool) == before
    assert lives > 5
    assert_exact(pool)


def test_writing_and_snapshots_between_slices_lose_nothing(home: Home) -> None:
    pool = home.open()
    deleted_history(pool)
    disk, clone = pool.catalog.disk("d"), pool.catalog.disk("c")
    for n in range(30):
        pool.reclaimer.step(0)
        put(pool, disk, (n % PAGES) * 512 + n % 5, f"d{n}")
        put(pool, clone, (n % PAGES) * 512 + n % 4, f"c{n}")
        if n % 5 == 0:
            pool.snapshot(disk, f"n{n}")
        if n % 7 == 0:
            pool.commit()
            assert findings(pool) == []
    expected = contents(pool)
    pool.reclaim()
    assert contents(pool) == expected
    assert findings(pool) == []
    assert_exact(pool)


def test_what_clones_let_go_of_before_a_crash_is_freed_after_it(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b")
    (clone,) = fork(pool, disk, "c")
    pool.reclaim()
    put(pool, disk, 0, "x")
    put(pool, clone, 0, "y")
    pool.commit()
    pool = home.crash()
    assert pool.reclaimer.pending
    assert blocks_held(pool) == 3


def test_deleting_more_while_a_reclaim_is_under_way_is_exact(home: Home) -> None:
    pool = home.open()
    deleted_history(pool)
    disk = pool.catalog.disk("d")
    pool.snapshot(disk, "later")
    for _ in range(5):
        pool.reclaimer.step(0)
    pool.delete_snapshot(disk.chain["later"])
    pool.delete_disk(pool.catalog.disk("c"))
    pool.reclaim()
    assert pool.space.allocated_blocks == 1 + disk.mapped_blocks


def test_reclaim_waits_for_a_commit_when_much_is_freed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaim_module, "FREED_BLOCKS_MAX", 8)
    pool = home.open()
    deleted_history(pool)
    while pool.reclaimer.step(0):
        pass
    assert pool.reclaimer.pending
    assert pool.reclaimer.needs_commit
    assert 8 < pool.space.freed_blocks <= 8 + 6
    batch = pool.commits.freeze()
    pool.commits.write(batch)
    pool.commits.finish(batch)
    assert not pool.reclaimer.step() and pool.reclaimer.pending, "what was freed is not recycled"
    assert not pool.reclaimer.needs_commit, "another commit would not help"
    pool.reclaim()
    assert not pool.reclaimer.pending
    assert_exact(pool)


def test_reclaim_waits_for_a_commit_when_much_is_changed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaim_module, "CHANGED_PAGES_MAX", 4)
    pool = home.open()
    deleted_history(pool)
    while pool.reclaimer.step(0):
        pass
    assert pool.reclaimer.needs_commit
    assert len(pool.versions.dirty) <= 4 + 3
    pool.reclaim()
    assert_exact(pool)


def test_the_reclaimer_says_how_much_it_freed(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", B * 10)
    put(pool, disk, 0, "a", "b", "c")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 0, "x", "y")
    pool.delete_snapshot(snapshot)
    pool.reclaim()
    assert pool.reclaimer.freed_blocks == 2


def test_what_waits_for_an_open_file_holds_nothing_else_up(home: Home) -> None:
    pool = home.open()
    one, two = pool.create_disk("one", B), pool.create_disk("two", B)
    put(pool, one, 0, "1")
    put(pool, two, 0, "2")
    one.handles += 1
    pool.delete_disk(one)
    pool.delete_disk(two)
    pool.reclaim()
    assert pool.space.allocated_blocks == 2
    assert get(pool, one) == ["1"]
    assert pool.reclaimer.pending
    one.handles -= 1
    pool.reclaim()
    assert pool.space.allocated_blocks == 1


def test_what_is_owed_for_a_snapshot_is_what_the_next_one_does_not_hold(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", PAGE_BYTES)
    pool.write(disk, 0, b"a" * (100 * B))
    pool.snapshot(disk, "s0")
    put(pool, disk, 7, "b")
    pool.snapshot(disk, "s1")
    pool.delete_snapshot(disk.chain["s0"])
    assert pool.reclaimer.owed_blocks == 1
    pool.write(disk, 0, b"c" * (100 * B))
    pool.delete_snapshot(disk.chain["s1"])  # what was written for s0 is its own by now, as far as it sees it
    assert pool.reclaimer.owed_blocks == 101
    pool.commit()
    steps_needed(pool)
    assert (pool.reclaimer.freed_blocks, pool.reclaimer.owed_blocks) == (101, 101)
    pool.commit()
    assert pool.reclaimer.owed_blocks == 0
    assert_exact(pool)


@pytest.mark.parametrize("seed", range(12))
def test_never_more_comes_back_than_was_said_to_be_owed(home: Home, seed: int) -> None:
    pool, numbers = home.open(), random.Random(seed)
    disk = pool.create_disk("d", 2 * PAGE_BYTES)
    for step in range(40):
        at, count = numbers.randrange(1000), numbers.randint(1, 20)
        kind = numbers.choice(["write", "write", "punch", "snapshot", "delete", "delete", "clone", "reclaim"])
        if kind == "write":
            pool.write(disk, at * B, bytes([step + 1]) * (count * B))
        elif kind == "punch":
            for _ in pool.io.punch(disk, at * B, count * B):
                pass
        elif kind == "snapshot":
            pool.snapshot(disk, f"s{step}")
        elif kind == "clone" and disk.chain:
            pool.clone(numbers.choice(list(disk.chain.values())), [f"c{step}"])
        elif kind == "delete" and disk.chain:
            pool.delete_snapshot(numbers.choice(list(disk.chain.values())))
        elif kind == "reclaim":
            pool.commit()
            owed = sum(removal.blocks for removal in pool.catalog.removals.values())
            freed = pool.reclaimer.freed_blocks
            steps_needed(pool)
            assert pool.reclaimer.freed_blocks - freed <= owed, f"seed {seed}, step {step}"
    pool.commit()
