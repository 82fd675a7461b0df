"""Commits: what is durable when, in which order, and what may happen to a freed block before it is."""

from __future__ import annotations

import os
from errno import EMFILE
from typing import NoReturn

import pytest

from rowfs.persist import blockmap
from rowfs.store.commit import Batch
from rowfs.store.pool import Pool
from tests.store.faults import Scripted
from tests.store.helpers import SIZE, B, Home, address, findings, get, put, stored


def begin(pool: Pool) -> Batch:
    """Steps 1 to 3 of a commit: it is durable, and not finished."""
    batch = pool.commits.freeze()
    pool.commits.write(batch)
    return batch


def recycle(pool: Pool) -> int:
    """Step 5, as far as it may be done: how many blocks came back."""
    before = pool.space.allocated_blocks
    while (freed := pool.commits.unread()) is not None:
        pool.commits.recycle(freed)
    return before - pool.space.allocated_blocks


# What needs a commit


def test_a_fresh_pool_needs_no_second_commit(pool: Pool) -> None:
    pool.commit()
    assert not pool.commits.needed


def test_reading_needs_no_commit(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.commit()
    pool.read(disk, 0, SIZE)
    pool.read(snapshot, 0, SIZE)
    list(pool.io.extents(disk))
    assert not pool.commits.needed


def test_an_overwrite_in_place_syncs_the_data_and_leaves_the_map_alone(home: Home) -> None:
    pool = home.open(open_data=Scripted)
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    pool.data.calls.clear()
    put(pool, disk, 0, "b")
    assert pool.commits.needed
    batch = begin(pool)
    pool.commits.finish(batch)
    assert not batch.update
    assert pool.data.calls == ["write", "sync"]


@pytest.mark.parametrize(
    "change",
    [
        lambda pool, disk: pool.create_disk("e", 5),
        lambda pool, disk: pool.snapshot(disk, "t"),
        lambda pool, disk: pool.delete_snapshot(disk.chain["s"]),
        lambda pool, disk: pool.rename_snapshot(disk.chain["s"], "t"),
        lambda pool, disk: pool.rename_disk(disk, "e"),
        lambda pool, disk: pool.resize(disk, 5),
        lambda pool, disk: pool.clone(disk.chain["s"], ["e"]),
        lambda pool, disk: pool.rollback(disk, disk.chain["s"]),
        lambda pool, disk: pool.delete_disk(disk),
        lambda pool, disk: pool.punch(disk, 0, B),
        lambda pool, disk: pool.write(disk, 7, b"x"),
    ],
)
def test_every_change_needs_a_commit_and_is_gone_without_it(home: Home, pool: Pool, change: object) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    pool.commit()
    change(pool, disk)  # type: ignore[operator]
    assert pool.commits.needed
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert list(pool.catalog.disks) == ["d"]
    assert list(disk.chain) == ["s"]
    assert (disk.size_bytes, get(pool, disk), get(pool, disk.chain["s"])) == (SIZE, ["a"], ["a"])
    assert findings(pool) == []


# The order


def test_data_is_synced_before_the_map_says_where_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = home.open(open_data=Scripted)
    apply = pool.commits._map.apply
    seen: list[list[str]] = []

    def spy(update: object) -> None:
        seen.append(list(pool.data.calls))
        apply(update)

    monkeypatch.setattr(pool.commits._map, "apply", spy)
    disk = pool.create_disk("d", SIZE)
    for n in range(3):
        put(pool, disk, n, "a")
        pool.snapshot(disk, f"s{n}")
        pool.commit()
    assert len(seen) == 3
    assert all(calls[-1] == "sync" for calls in seen)


def test_what_is_written_while_a_commit_runs_is_in_the_next(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    batch = pool.commits.freeze()
    put(pool, disk, 1, "c", "d")
    pool.snapshot(disk, "s")
    pool.create_disk("e", SIZE)
    put(pool, disk, 2, "e")
    pool.commits.write(batch)
    pool.commits.finish(batch)
    assert findings(pool) == []
    assert get(pool, disk, 0, 3) == ["a", "c", "e"]
    pool.commit()
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert get(pool, disk, 0, 3) == ["a", "c", "e"]
    assert get(pool, disk.chain["s"], 0, 3) == ["a", "c", "d"]
    assert "e" in pool.catalog.disks


def test_a_crash_between_the_steps_leaves_the_one_or_the_other(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    put(pool, disk, 1, "b")
    pool.commits.freeze()
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert get(pool, disk, 0, 2) == ["a", ""]
    put(pool, disk, 1, "b")
    begin(pool)
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]
    assert findings(pool) == []


def test_there_is_one_commit_at_a_time(pool: Pool) -> None:
    pool.create_disk("d", SIZE)
    batch = begin(pool)
    pool.create_disk("e", SIZE)
    with pytest.raises(AssertionError):
        pool.commits.freeze()
    pool.commits.finish(batch)


# Freed blocks


def test_a_freed_block_comes_back_only_after_the_commit_that_freed_it(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    at = address(pool, disk, 0)
    pool.punch(disk, 0, B)
    assert stored(home, at).startswith(b"a.")
    batch = pool.commits.freeze()
    assert recycle(pool) == 0
    pool.commits.write(batch)
    assert recycle(pool) == 0
    assert stored(home, at).startswith(b"a.")
    pool.commits.finish(batch)
    assert recycle(pool) == 1
    assert stored(home, at).startswith(b"a."), "it is punched later"
    pool.puncher.run()
    assert stored(home, at) == bytes(B)


def test_what_is_freed_while_a_commit_runs_waits_for_the_next(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    put(pool, disk, 1, "b")
    batch = begin(pool)
    pool.punch(disk, 0, B)
    pool.commits.finish(batch)
    assert recycle(pool) == 0
    pool.commits.finish(begin(pool))
    assert recycle(pool) == 1


def test_freed_blocks_wait_for_reads_that_began_before(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    at = address(pool, disk, 0)
    early, earlier = pool.commits.begin_read(), pool.commits.begin_read()
    pool.punch(disk, 0, B)
    pool.commits.finish(begin(pool))
    late = pool.commits.begin_read()
    pool.commits.end_read(early)
    assert recycle(pool) == 0
    assert stored(home, at).startswith(b"a.")
    pool.commits.end_read(earlier)
    assert recycle(pool) == 1
    pool.commits.end_read(late)


def test_freed_blocks_are_given_back_to_the_host(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    pool.write(disk, 0, os.urandom(SIZE))
    pool.commit()
    full = pool.data.used_bytes()
    assert full >= SIZE
    pool.delete_disk(disk)
    pool.reclaim()
    assert pool.data.used_bytes() <= full - SIZE


def test_a_commit_goes_on_when_no_descriptor_is_left_to_have_blocks_ready_for_the_next(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> NoReturn:
        raise OSError(EMFILE, os.strerror(EMFILE))

    put(pool, pool.create_disk("d", 1 << 20), 0, "one")
    with monkeypatch.context() as patch:
        patch.setattr(blockmap, "preallocate", none_left)
        pool.keep_reserve()
        pool.commit()
    assert pool.read_only_reason is None
