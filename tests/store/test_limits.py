"""Limits: what is refused at which, ENOSPC for one disk alone, and a reservation that holds in a full pool."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rowfs.base.errors import DiskFullError, LimitError, NoSpaceError, UsageError
from rowfs.base.format import ID_KEY, LIMITS
from rowfs.base.units import MIB
from rowfs.rules.limits import DiskLimits, PoolLimits
from rowfs.store.check import check_pool
from rowfs.store.model import UNLIMITED, Disk
from rowfs.store.pool import Pool
from tests.store.damage import edit_record, tables
from tests.store.helpers import B, Home, disk_of, get, put, share, snapshot_of

BLOCKS = 256  # of the small pool


@pytest.fixture
def small(tmp_path: Path) -> object:
    """A pool of 1 MiB, checked in the end."""
    home = Home(tmp_path / "small", MIB)
    yield home.open()
    home.finish()


def filled(pool: Pool, disk: Disk, blocks: int = BLOCKS) -> int:
    """How many blocks of a disk can be written, one after the other."""
    for block in range(blocks):
        try:
            put(pool, disk, block, f"{disk.name}{block}")
        except NoSpaceError:
            return block
    return blocks


def big(pool: Pool, name: str) -> Disk:
    """A disk as large as the pool."""
    return pool.create_disk(name, BLOCKS * B)


# Kept


def test_limits_are_kept_and_go_with_their_disk(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a")
    limits = DiskLimits(snapshots=3, space_bytes=20 * B, reserve_bytes=5 * B)
    pool.limits.set_disk(disk, limits)
    pool.limits.set_pool(PoolLimits(snapshots=7, disks=9, provisioned_percent=300))
    pool = home.reopen()
    assert pool.catalog.disk("d").limits == limits
    assert pool.limits.of_pool == PoolLimits(snapshots=7, disks=9, provisioned_percent=300)
    assert pool.clone(pool.snapshot(pool.catalog.disk("d"), "s"), ["c"])[0].limits == UNLIMITED
    pool.delete_disk(pool.catalog.disk("d"))
    assert pool.create_disk("d", 0).limits == UNLIMITED
    home.close()
    assert tables(home.path)[LIMITS] == []
    home.open()


def test_limits_that_nobody_could_have_set_are_named_mended_and_none(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a")
    pool.limits.set_disk(disk, DiskLimits(space_bytes=5 * B))
    home.close()
    edit_record(home.path, LIMITS, ID_KEY.pack(disk.id), reserve_bytes=9 * B)
    assert "no limits stand for them" in str(check_pool(str(home.path))[0][0])
    assert home.open().catalog.disk("d").limits == UNLIMITED
    home.close()
    assert check_pool(str(home.path), repair=True)[1]
    home.open()


# Numbers


def test_a_chain_takes_no_more_snapshots_than_its_limit_or_the_pools(pool: Pool) -> None:
    disk, other = disk_of(pool, "a"), disk_of(pool, "b", name="o")
    pool.limits.set_pool(PoolLimits(snapshots=1))
    pool.limits.set_disk(disk, DiskLimits(snapshots=2))
    pool.snapshot(disk, "a")
    pool.snapshot(disk, "b")
    pool.snapshot(other, "a")
    for full, named in ((disk, "its limit is 2"), (other, "the pool's limit for a chain is 1")):
        with pytest.raises(LimitError, match=named) as caught:
            pool.snapshot(full, "c")
        assert caught.value.errno == errno.EDQUOT
    with pytest.raises(LimitError):
        pool.groups.snapshot([(disk, None), (other, None)], "g")
    pool.rollback(disk, snapshot_of(pool, "d", "a"))  # what it keeps does not count against it
    pool.delete_snapshot(snapshot_of(pool, "o", "a"))
    pool.snapshot(other, "c")


def test_a_pool_takes_no_more_disks_and_no_larger_ones_than_its_limits(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.limits.set_pool(PoolLimits(disks=2))
    with pytest.raises(LimitError, match="has 1 disks, and its limit is 2"):
        pool.clone(snapshot, ["c", "e"])
    pool.clone(snapshot, ["c"])
    with pytest.raises(LimitError, match="its limit is 2"):
        pool.create_disk("e", 0)
    assert set(pool.catalog.disks) == {"d", "c"}


def test_disks_together_get_no_larger_than_their_share_of_the_capacity(small: Pool) -> None:
    small.limits.set_pool(PoolLimits(provisioned_percent=200))
    first = small.create_disk("a", MIB)
    empty = small.create_disk("b", 0)
    grown: list[Callable[[], object]] = [
        lambda: small.create_disk("c", MIB + 1),
        lambda: small.resize(first, 2 * MIB + 1),
        lambda: small.clone(small.snapshot(first, "s"), ["c", "e"]),
    ]
    for grow in grown:
        with pytest.raises(LimitError, match="the pool's limit is 200 %"):
            grow()
    share(small, first, 0, empty, 0, BLOCKS)
    small.resize(first, 0)
    assert sum(disk.size_bytes for disk in small.catalog.live()) <= 2 * MIB


# Space


def test_a_disk_at_its_limit_gets_enospc_alone(small: Pool) -> None:
    limited, other = big(small, "limited"), big(small, "other")
    small.limits.set_disk(limited, DiskLimits(space_bytes=40 * B))
    assert filled(small, limited) == 40
    with pytest.raises(DiskFullError, match="its limit is 160K: delete snapshots, or raise it") as caught:
        put(small, limited, 50, "x")
    assert caught.value.errno == errno.ENOSPC
    put(small, limited, 39, "in place")
    assert filled(small, other, 100) == 100
    small.limits.set_disk(limited, DiskLimits(space_bytes=60 * B))
    assert filled(small, limited) == 60


def test_what_snapshots_hold_counts_and_comes_back(small: Pool) -> None:
    disk = big(small, "d")
    small.limits.set_disk(disk, DiskLimits(space_bytes=30 * B))
    assert filled(small, disk, 20) == 20
    snapshot = small.snapshot(disk, "s")
    assert filled(small, disk, 20) == 10  # written anew beside what the snapshot holds
    assert small.limits.held_bytes(disk) == 30 * B
    small.delete_snapshot(snapshot)
    small.reclaim()
    assert small.limits.held_bytes(disk) == 20 * B
    assert filled(small, disk, 20) == 20


def test_a_claim_that_was_taken_before_is_no_way_around_a_limit(small: Pool) -> None:
    disk = big(small, "d")
    put(small, disk, 0, "x")  # claims more than it needs
    small.limits.set_disk(disk, DiskLimits(space_bytes=3 * B))
    assert filled(small, disk) == 3


@pytest.mark.parametrize("how", ["before", "reopened", "rolled back"])
def test_a_limit_follows_the_disk(tmp_path: Path, how: str) -> None:
    home = Home(tmp_path / "small", MIB)
    pool = home.open()
    disk = big(pool, "d")
    snapshot = pool.snapshot(disk, "s")
    pool.limits.set_disk(disk, DiskLimits(space_bytes=9 * B))
    if how == "reopened":
        pool = home.reopen()
    elif how == "rolled back":
        pool.rollback(disk, snapshot, discard=True)
    assert filled(pool, pool.catalog.disk("d")) == 9
    home.finish()


# Reservations


def test_a_reservation_holds_in_a_full_pool(small: Pool) -> None:
    kept, other = big(small, "kept"), big(small, "other")
    put(small, other, 0, "x")  # has a claim
    small.limits.set_disk(kept, DiskLimits(reserve_bytes=100 * B))
    there = filled(small, other)
    assert there == BLOCKS - 1 - 100
    with pytest.raises(NoSpaceError, match="is reserved for other disks than other"):
        put(small, other, there, "x")
    assert filled(small, kept) == 100
    with pytest.raises(NoSpaceError):
        put(small, kept, 100, "x")


def test_a_reservation_is_kept_for_the_disk_and_its_chain(small: Pool) -> None:
    kept, other = big(small, "kept"), big(small, "other")
    small.limits.set_disk(kept, DiskLimits(reserve_bytes=100 * B))
    assert filled(small, kept, 60) == 60
    small.snapshot(kept, "s")
    assert filled(small, other) == BLOCKS - 1 - 100
    assert filled(small, kept, 60) == 40


def test_what_is_neither_free_nor_promised_cannot_be_reserved(small: Pool) -> None:
    first, second = big(small, "a"), big(small, "b")
    small.limits.set_disk(first, DiskLimits(reserve_bytes=200 * B))
    with pytest.raises(LimitError, match="cannot be reserved for b"):
        small.limits.set_disk(second, DiskLimits(reserve_bytes=100 * B))
    assert second.limits == UNLIMITED
    small.limits.set_disk(second, DiskLimits(reserve_bytes=50 * B))
    with pytest.raises(UsageError, match="is more than the"):
        small.limits.set_disk(first, DiskLimits(reserve_bytes=20 * B, space_bytes=10 * B))


@pytest.mark.parametrize("seed", range(4))
def test_a_reservation_holds_whatever_others_do(small: Pool, seed: int) -> None:
    rng = random.Random(seed)
    kept = big(small, "kept")
    small.limits.set_disk(kept, DiskLimits(reserve_bytes=80 * B))
    others = [big(small, f"o{number}") for number in range(3)]
    for step in range(400):
        disk = rng.choice([*others, kept])
        try:
            match rng.randrange(12):
                case 0:
                    small.snapshot(disk, f"s{step}") if disk is not kept else None
                case 1 if small.catalog.snapshots:
                    small.delete_snapshot(rng.choice(list(small.catalog.snapshots.values())))
                case 2:
                    small.reclaim()
                case _:
                    put(small, disk, rng.randrange(80 if disk is kept else BLOCKS), f"{step}")
        except NoSpaceError:
            assert disk is not kept or small.limits.held_bytes(kept) >= 80 * B
    assert filled(small, kept, 80) == 80
    assert get(small, kept, 79) == ["kept79"]
