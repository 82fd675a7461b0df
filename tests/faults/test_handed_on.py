"""A shared block gets one owner when the others let go of it. It may be written in place only once that is durable.

A crash brings back who let go; so the new owner must not have written into the block until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import Home, get, put


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "pool")
    home.open()
    yield home
    home.finish()


def _forked(pool: Pool) -> tuple[Disk, Disk]:
    """A disk and a clone of it that share block 0; no snapshot names what they share, and all of it is durable."""
    disk = pool.create_disk("disk", 8192)
    put(pool, disk, 0, "shared", "other")
    snapshot = pool.snapshot(disk, "s")
    (clone,) = pool.clone(snapshot, ["clone"])
    pool.delete_snapshot(snapshot)
    put(pool, disk, 1, "own")
    pool.reclaim()
    return disk, clone


def _hand_on(pool: Pool, clone: Disk) -> None:
    """The clone lets go of block 0, not durably, and the reclaimer hands it on to the disk."""
    put(pool, clone, 0, "lost")
    while pool.reclaimer.step():
        pass


def test_who_lets_go_gets_the_block_back_in_a_crash(home: Home) -> None:
    pool = home.pool
    assert pool is not None
    disk, clone = _forked(pool)
    _hand_on(pool, clone)
    put(pool, disk, 0, "written")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("clone"), 0, 2) == ["shared", "other"]
    assert get(pool, pool.catalog.disk("disk"), 0, 2)[0] in ("shared", "written")


def test_zeros_over_a_block_that_was_just_handed_on(home: Home) -> None:
    pool = home.pool
    assert pool is not None
    disk, clone = _forked(pool)
    _hand_on(pool, clone)
    pool.punch(disk, 0, 4096)
    put(pool, disk, 0, "written")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("clone"), 0, 2) == ["shared", "other"]


def test_a_commit_that_began_before_it_was_handed_on_does_not_count(home: Home) -> None:
    pool = home.pool
    assert pool is not None
    disk, clone = _forked(pool)
    put(pool, clone, 1, "unrelated")
    batch = pool.commits.freeze()
    _hand_on(pool, clone)
    pool.commits.write(batch)
    pool.commits.finish(batch)
    put(pool, disk, 0, "written")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("clone"), 0, 2) == ["shared", "unrelated"]


def test_a_durable_block_is_written_in_place_by_its_new_owner(home: Home) -> None:
    pool = home.pool
    assert pool is not None
    disk, clone = _forked(pool)
    _hand_on(pool, clone)
    pool.commit()
    used = pool.space.allocated_blocks
    put(pool, disk, 0, "written")
    assert pool.space.allocated_blocks == used
    assert get(pool, disk, 0, 2) == ["written", "own"]
    assert get(pool, clone, 0, 2) == ["lost", "other"]
