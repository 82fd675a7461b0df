"""Branches joined: what one disk alone sees of another branch becomes its own, and is written in place from then on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rowfs.base.units import PAGE_BYTES
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.faults import Volatile
from tests.store.helpers import Home, P, assert_exact, blocks_held, disk_of, findings, fork, get, put

PAGES = 5
TEXTS = ["a", "b", "c"]


def redirects(pool: Pool, disk: Disk, blocks: int = len(TEXTS)) -> int:
    """How many blocks of each page writing to them moves to another place."""
    head = disk.head
    assert head is not None
    pages = range(disk.size_bytes // PAGE_BYTES)
    before = [pool.versions.page(head, index).addresses[:blocks] for index in pages]  # type: ignore[arg-type]
    for index in pages:
        put(pool, disk, index * P, *(f"probe {block}" for block in range(blocks)))
    after = [pool.versions.page(head, index).addresses[:blocks] for index in pages]  # type: ignore[arg-type]
    return sum(old != new for a, b in zip(before, after, strict=True) for old, new in zip(a, b, strict=True))


def versions(pool: Pool) -> int:
    """How many page versions the map has."""
    pool.commit()
    return sum(1 for _ in pool._map.items("pages"))


def large(pool: Pool, name: str = "d") -> Disk:
    """A disk with a few blocks in each of several pages."""
    disk = pool.create_disk(name, PAGES * PAGE_BYTES)
    for page in range(PAGES):
        put(pool, disk, page * P, *TEXTS)
    return disk


def rolled_back(pool: Pool) -> Disk:
    """A disk after a rollback, of which no snapshot is left."""
    disk = large(pool)
    target = pool.snapshot(disk, "s")
    put(pool, disk, 1, "later")
    kept = pool.rollback(disk, target)
    assert kept is not None
    pool.delete_snapshot(target)
    pool.delete_snapshot(kept)
    return disk


def clone_of_a_gone_disk(pool: Pool) -> Disk:
    """A clone whose origin is deleted with its chain."""
    disk = large(pool, "origin")
    (clone,) = fork(pool, disk, "clone")
    put(pool, disk, 1, "later")
    pool.delete_disk(disk)
    return clone


def clone_of_clones(pool: Pool) -> Disk:
    """The last of several, each of which was cloned of the one before and is gone; some wrote a little."""
    disk = large(pool, "0")
    for name in ("1", "2", "3"):
        (clone,) = fork(pool, disk, name)
        pool.delete_disk(disk)
        if name == "2":
            put(pool, clone, P, *TEXTS[:1])
        disk = clone
    return disk


def sibling_of_a_gone_clone(pool: Pool) -> Disk:
    """One of two clones, the other of which wrote, and is gone as their origin is."""
    disk = large(pool, "origin")
    one, two = fork(pool, disk, "one", "two")
    pool.delete_disk(disk)
    put(pool, two, 0, "of two")
    pool.reclaim()
    pool.delete_disk(two)
    return one


ALONE = [rolled_back, clone_of_a_gone_disk, clone_of_clones, sibling_of_a_gone_clone]


@pytest.mark.parametrize("make", ALONE)
def test_what_nobody_else_sees_is_written_in_place(home: Home, make: Callable[[Pool], Disk]) -> None:
    pool = home.open()
    disk = make(pool)
    assert blocks_held(pool) == PAGES * len(TEXTS)
    assert pool.reclaimer.joined_pages >= PAGES
    assert list(pool.catalog.branches) == [disk.branch], "the branches below are gone"
    assert versions(pool) == PAGES, "the map has no version more than it had"
    assert all(get(pool, disk, page * P, 3) == TEXTS for page in range(PAGES))
    assert redirects(pool, disk) == 0
    pool = home.reopen()
    assert redirects(pool, pool.catalog.disk(disk.name)) == 0


@pytest.mark.parametrize("make", ALONE)
def test_without_joining_each_first_write_is_redirected(pool: Pool, make: Callable[[Pool], Disk]) -> None:
    """What the others are held against: nothing was reclaimed yet."""
    assert redirects(pool, make(pool)) > 0


def test_a_snapshot_of_the_clone_itself_keeps_it_from_writing_in_place_and_no_longer(pool: Pool) -> None:
    disk = large(pool, "origin")
    (clone,) = fork(pool, disk, "clone")
    own = pool.snapshot(clone, "own")
    put(pool, clone, 0, "new")
    pool.delete_disk(disk)
    pool.reclaim()
    assert get(pool, own, 0, 3) == TEXTS and get(pool, clone, 0, 3) == ["new", "b", "c"]
    assert redirects(pool, clone) == PAGES * 3 - 1
    pool.delete_snapshot(own)
    assert blocks_held(pool) == PAGES * 3
    assert redirects(pool, clone) == 0


def test_what_a_snapshot_or_another_clone_sees_stays_where_it_is(pool: Pool) -> None:
    disk = large(pool, "origin")
    older = pool.snapshot(disk, "older")
    one, two = fork(pool, disk, "one", "two")
    pool.reclaim()
    before, joined = versions(pool), pool.reclaimer.joined_pages
    pool.delete_disk(disk)
    pool.delete_disk(two)
    pool.reclaim()
    assert (versions(pool), joined) == (before, pool.reclaimer.joined_pages)
    assert redirects(pool, one) == PAGES * 3
    assert get(pool, older, 0, 3) == TEXTS


def test_what_two_clones_see_is_joined_when_one_of_them_is_gone(pool: Pool) -> None:
    disk = large(pool, "origin")
    one, two = fork(pool, disk, "one", "two")
    pool.delete_disk(disk)
    assert blocks_held(pool) == PAGES * 3 and pool.reclaimer.joined_pages == 0
    assert all(get(pool, clone, page * P, 3) == TEXTS for clone in (one, two) for page in range(PAGES))
    pool.delete_disk(two)
    assert blocks_held(pool) == PAGES * 3 and pool.reclaimer.joined_pages == PAGES
    assert get(pool, one, P, 3) == TEXTS and redirects(pool, one) == 0


def test_what_a_live_origin_wrote_over_is_the_clones_when_that_is_all(pool: Pool) -> None:
    """As long as they share a block of a page, one version serves both."""
    disk = large(pool, "origin")
    (clone,) = fork(pool, disk, "clone")
    put(pool, disk, 0, "x", "y")
    pool.reclaim()
    assert pool.reclaimer.joined_pages == 0 and versions(pool) == PAGES + 1
    put(pool, disk, 2, "z")
    pool.reclaim()
    assert pool.reclaimer.joined_pages == 1 and versions(pool) == PAGES + 1
    assert get(pool, clone, 0, 3) == TEXTS and get(pool, disk, 0, 3) == ["x", "y", "z"]
    assert redirects(pool, clone) == (PAGES - 1) * 3


def test_joining_is_done_in_slices(pool: Pool) -> None:
    disk = clone_of_a_gone_disk(pool)
    pool.commit()
    seen = set()
    while pool.reclaimer.step(0):
        seen.add(pool.reclaimer.joined_pages)
    pool.commit()
    while pool.reclaimer.pending:
        while pool.reclaimer.step(0):
            seen.add(pool.reclaimer.joined_pages)
        pool.commit()
    assert seen >= set(range(1, PAGES + 1))
    assert redirects(pool, disk) == 0


@pytest.mark.parametrize("make", ALONE)
@pytest.mark.parametrize("power", [False, True])
def test_a_crash_after_any_step_loses_nothing_and_joining_goes_on(
    home: Home, make: Callable[[Pool], Disk], power: bool
) -> None:
    """Each step is tried: commit, some steps of joining, writes over what was joined, unsynced, and the crash."""
    pool = home.open(open_data=Volatile)
    name = make(pool).name
    pool.commit()
    steps = 0
    while True:
        disk = pool.catalog.disk(name)
        for number in range(steps):
            pool.reclaimer.step(0)
            if number == steps // 2:
                pool.commit()
        in_memory = redirects(pool, disk)  # some joined in memory alone: they are not written in place
        if power:
            assert isinstance(pool.data, Volatile)
            pool.data.lose_power()
        pool = home.crash(open_data=Volatile)
        disk = pool.catalog.disk(name)
        for page in range(PAGES):
            found = get(pool, disk, page * P, 3)
            for block, text in enumerate(found):
                assert text in (TEXTS[block], f"probe {block}"), "a write without a sync is there or not"
                assert not power or text == TEXTS[block]
        assert findings(pool) == []
        steps += 1
        if not in_memory:
            break
        assert steps < 100
    pool.reclaim()
    assert findings(pool) == []
    assert_exact(pool)
    assert redirects(pool, pool.catalog.disk(name)) == 0


def test_what_is_joined_and_not_durable_is_redirected_so_that_a_crash_finds_the_old_bytes(home: Home) -> None:
    pool = home.open()
    disk = clone_of_a_gone_disk(pool)
    pool.commit()
    while pool.reclaimer.step(0):
        pass
    assert pool.reclaimer.joined_pages > 0
    assert redirects(pool, disk) > 0
    pool = home.crash()
    assert all(get(pool, pool.catalog.disk("clone"), page * P, 3) == TEXTS for page in range(PAGES))


def test_a_head_that_has_the_page_in_memory_goes_on_with_what_it_was_handed(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b", name="origin")
    (clone,) = fork(pool, disk, "clone")
    assert get(pool, clone, 0, 2) == ["a", "b"]  # in memory, as inherited
    pool.delete_disk(disk)
    pool.reclaim()
    put(pool, clone, 1, "x")
    assert get(pool, clone, 0, 2) == ["a", "x"]
    assert blocks_held(pool) == 2
