"""The page cache: bounded whatever is done, and never the reason for a wrong answer."""

from __future__ import annotations

import random

from rowfs.base.units import PAGE_BYTES
from rowfs.store.pool import Pool
from rowfs.store.versions import EVICTION_TURNS
from tests.store.helpers import B, Home, P, findings, get, put

PAGES = 300
PAGES_MAX = 64  # what a cache of 0 bytes gets


def cached(pool: Pool) -> int:
    """How many pages are in memory, in whatever role; a page that two points see counts twice."""
    points = [*pool.catalog.branches.values(), *(snapshot.point for snapshot in pool.catalog.snapshots.values())]
    return sum(len(point.pages) for point in points)


def write_everywhere(pool: Pool, name: str, text: str) -> None:
    disk = pool.catalog.disk(name)
    for index in range(PAGES):
        put(pool, disk, index * P + index % P, f"{text}{index}")


def assert_reads(pool: Pool, disk: str, text: str) -> None:
    target = pool.catalog.disk(disk)
    for index in random.Random(7).sample(range(PAGES), PAGES):
        assert get(pool, target, index * P + index % P) == [f"{text}{index}"]


def test_reading_far_more_than_the_cache_holds_stays_bounded_and_right(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", PAGES * PAGE_BYTES)
    write_everywhere(pool, "d", "a")
    pool.snapshot(disk, "s")
    write_everywhere(pool, "d", "b")
    pool = home.reopen(cache_bytes=0)
    snapshot = pool.catalog.disk("d").chain["s"]
    for _ in range(2):
        assert_reads(pool, "d", "b")
        assert cached(pool) <= PAGES_MAX + EVICTION_TURNS
        for index in range(PAGES):
            assert get(pool, snapshot, index * P + index % P) == [f"a{index}"]
            assert cached(pool) <= PAGES_MAX + EVICTION_TURNS


def test_changed_pages_stay_until_the_commit_and_make_room_after_it(home: Home) -> None:
    pool = home.open(cache_bytes=0)
    disk = pool.create_disk("d", PAGES * PAGE_BYTES)
    write_everywhere(pool, "d", "a")
    assert pool.versions.dirty_pages == cached(pool) == PAGES
    snapshot = pool.snapshot(disk, "s")
    pool.commit()
    assert pool.versions.dirty_pages == 0
    for index in range(PAGES):
        assert get(pool, snapshot, index * P + index % P) == [f"a{index}"]
    assert cached(pool) <= PAGES_MAX + EVICTION_TURNS
    assert_reads(pool, "d", "a")


def test_pages_that_leave_while_a_commit_takes_them_come_back_right(home: Home) -> None:
    pool = home.open(cache_bytes=0)
    pool.create_disk("d", PAGES * PAGE_BYTES)
    write_everywhere(pool, "d", "a")
    batch = pool.commits.freeze()
    write_everywhere(pool, "d", "b")
    pool.commits.write(batch)
    assert_reads(pool, "d", "b")
    pool.commits.finish(batch)
    assert_reads(pool, "d", "b")
    pool.commit()
    assert findings(pool) == []
    assert_reads(home.crash(cache_bytes=0), "d", "b")


def test_snapshots_and_clones_of_more_than_the_cache_holds_are_reclaimed_right(home: Home) -> None:
    pool = home.open(cache_bytes=0)
    disk = pool.create_disk("d", PAGES * PAGE_BYTES)
    write_everywhere(pool, "d", "a")
    snapshot = pool.snapshot(disk, "s")
    pool.clone(snapshot, ["c"])
    write_everywhere(pool, "d", "b")
    pool.delete_snapshot(snapshot)
    pool.reclaim()
    assert_reads(pool, "c", "a")
    assert_reads(pool, "d", "b")
    pool.delete_disk(pool.catalog.disk("c"))
    pool.reclaim()
    assert pool.space.allocated_blocks == 1 + PAGES


def test_a_large_cache_keeps_what_was_read(home: Home) -> None:
    pool = home.open(cache_bytes=64 << 20)
    pool.create_disk("d", PAGES * PAGE_BYTES)
    write_everywhere(pool, "d", "a")
    pool = home.reopen(cache_bytes=64 << 20)
    assert_reads(pool, "d", "a")
    assert cached(pool) == PAGES


def test_a_snapshot_that_is_closed_can_be_forgotten(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", PAGES * PAGE_BYTES)
    write_everywhere(pool, "d", "a")
    snapshot = pool.snapshot(disk, "s")
    assert pool.read(snapshot, 0, B)
    assert snapshot.point.pages
    pool.versions.forget(snapshot.point)
    assert not snapshot.point.pages
    assert get(pool, snapshot) == ["a0"]
