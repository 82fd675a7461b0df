"""Sealed blocks: they are verified, never written in place, and their sums end when they are free."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from proof_seals import prove
from rowfs.base.errors import BlockDamagedError, NoSpaceError, PoolError
from rowfs.base.format import FORMAT_PLAIN, FORMAT_SEALED, STRETCH_KEY, SUMS
from rowfs.base.sumcode import STRETCH_BLOCKS
from rowfs.base.units import PageIndex
from rowfs.persist.blockmap import MapUpdate
from rowfs.seal.crc32c import block_sums
from rowfs.store.check import check_pool
from rowfs.store.model import OWNED, SEALED
from rowfs.store.pool import Pool
from rowfs.store.sightings import sightings
from tests.store.faults import Volatile
from tests.store.helpers import (
    SIZE,
    B,
    Home,
    address,
    checks,
    disk_of,
    findings,
    get,
    journaled,
    put,
    share,
    snapshot_of,
    stored,
)


def damage(home: Home, at: int, byte: int = 100) -> None:
    """Flip one bit of a block in the data file."""
    with open(home.data_path, "r+b") as file:
        file.seek(at * B + byte)
        value = file.read(1)[0]
        file.seek(at * B + byte)
        file.write(bytes([value ^ 8]))


def sum_of(pool: Pool, at: int) -> int:
    """The sum of the block at an address; 0: it is not sealed."""
    return int(pool.io.sums.of(np.array([at]))[0])


def owned(pool: Pool, disk: str, block: int) -> int:
    """What the head's page says of a block."""
    head = pool.catalog.disk(disk).head
    return pool.versions.page(head, PageIndex(0)).owned[block]


def test_what_a_snapshot_holds_is_sealed_and_what_is_written_since_is_not(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b", "c")
    pool.snapshot(disk, "s")
    put(pool, disk, 1, "d")
    assert pool.sealer.pending
    assert pool.sealer.run() == 3
    assert not pool.sealer.pending
    assert pool.io.sums.blocks == 3
    for block, text in enumerate("abc"):
        at = address(pool, snapshot_of(pool, "d", "s"), block)
        assert (
            sum_of(pool, at)
            == block_sums(text.encode().ljust(1, b".") and bytes(pool.read(snapshot_of(pool, "d", "s"), block * B, B)))[
                0
            ]
        )
    assert sum_of(pool, address(pool, disk, 1)) == 0


def test_a_disk_without_snapshots_has_nothing_to_seal(pool: Pool) -> None:
    disk_of(pool, "a", "b")
    assert not pool.sealer.pending
    assert pool.sealer.run() == 0


@pytest.mark.parametrize("byte", [0, 1, 2047, B - 1])
def test_a_flipped_bit_is_an_error_for_its_block_alone(home: Home, byte: int) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b", "c")
    snapshot = pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.commit()
    damage(home, address(pool, disk, 1), byte)
    for target in (disk, snapshot):
        assert get(pool, target, 0) == ["a"]
        assert get(pool, target, 2) == ["c"]
        with pytest.raises(BlockDamagedError) as caught:
            pool.read(target, 0, 3 * B)
        assert caught.value.addresses == [address(pool, disk, 1)]
        with pytest.raises(BlockDamagedError):  # a part of it is no better
            pool.read(target, B + 700, 10)
        assert bytes(pool.read(target, 700, 10)) == bytes(pool.read(target, 0, B))[700:710]
    assert pool.damage.counts() == {disk: 1, snapshot: 1}
    assert len(pool.damage) == 1
    damage(home, address(pool, disk, 1), byte)


def test_writing_a_part_of_a_damaged_block_does_not_make_it_whole(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    damage(home, address(pool, disk, 1))
    with pytest.raises(BlockDamagedError):
        pool.write(disk, B + 5, b"new")
    put(pool, disk, 1, "c")  # all of it is
    assert get(pool, disk, 0, 2) == ["a", "c"]
    assert pool.damage.counts() == {}  # the disk has it no more, and nobody read the snapshot
    assert len(pool.damage) == 1


def test_zeros_that_damage_made_do_not_become_a_hole(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    at = address(pool, disk, 0)
    with open(home.data_path, "r+b") as file:
        file.seek(at * B)
        file.write(bytes(B))
    piece = next(iter(pool.trim.pieces(disk)))
    with pytest.raises(BlockDamagedError):
        pool.trim.empty(piece, wait=True)
    assert address(pool, disk, 0) == at


def test_a_shared_range_carries_its_seals_along(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    pool.sealer.run()
    other = pool.create_disk("e", SIZE)
    share(pool, snapshot, 0, other, 4, 2)
    pool.commit()
    damage(home, address(pool, disk, 1))
    with pytest.raises(BlockDamagedError):
        get(pool, other, 5)
    assert get(pool, other, 4) == ["a"]


def test_a_sealed_block_is_not_written_in_place_when_its_snapshot_is_gone(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.reclaim()
    was = address(pool, disk, 0)
    assert owned(pool, "d", 0) == SEALED
    put(pool, disk, 0, "c")
    assert address(pool, disk, 0) != was
    assert sum_of(pool, was) == 0
    assert get(pool, disk, 0, 2) == ["c", "b"]
    put(pool, disk, 0, "d")
    assert owned(pool, "d", 0) == OWNED
    assert pool.io.sums.blocks == 1


def test_what_is_written_to_a_version_that_was_sealed_is_sealed_with_the_next_snapshot(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.reclaim()
    put(pool, disk, 0, "c")
    pool.snapshot(disk, "t")
    pool = home.crash() if journaled(pool) else home.reopen()
    assert pool.sealer.run() == 1
    assert pool.io.sums.blocks == 2


def test_a_block_that_inherits_before_it_was_looked_at_is_sealed(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    first = pool.snapshot(disk, "s")
    put(pool, disk, 0, "c")
    pool.snapshot(disk, "t")
    second = disk.head
    assert second is not None
    second.sealed = second.floor  # as if all had been looked at but the version of s
    second.sealed = first.epoch
    pool.delete_snapshot(first)
    pool.reclaim()
    pool.sealer.run()
    assert sum_of(pool, address(pool, disk, 1))
    assert sum_of(pool, address(pool, disk, 0))


def test_freeing_forgets_the_sum_in_the_same_commit(home: Home) -> None:
    pool = home.open(open_data=Volatile)
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.commit()
    at = address(pool, disk, 0)
    pool.delete_disk(disk, keep_snapshots=False)
    pool.commit()
    while pool.reclaimer.step():
        pass
    assert sum_of(pool, at) == 0
    pool = home.crash()  # the commit that frees them never came
    assert sum_of(pool, at)
    assert get(pool, disk_of(pool, "x", name="n"), 0) == ["x"]
    pool.reclaim()
    assert pool.io.sums.blocks == 0
    pool = home.crash()
    assert pool.catalog.pool.sealed_blocks == 0
    again = disk_of(pool, *"mnopq", name="again")  # where the others were
    assert get(pool, again, 0, 5) == list("mnopq")


def test_replay_forgets_the_sums_of_what_a_record_let_go_of(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.reclaim()
    was = address(pool, disk, 0)
    put(pool, disk, 0, "c")
    assert journaled(pool)
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["c", "b"]
    assert sum_of(pool, was) == 0
    assert pool.io.sums.blocks == 1
    assert findings(pool) == []


def test_sealing_stops_where_a_floor_sank_meanwhile(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "s")
    piece = pool.sealer.next()
    assert piece is not None
    old = block_sums(bytes(pool.read(disk, 0, B)))
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.reclaim()
    put(pool, disk, 0, "b")  # in place
    pool.snapshot(disk, "t")
    assert pool.sealer.record(piece, old) == 0
    pool.sealer.run()
    assert get(pool, disk) == ["b"]
    assert sum_of(pool, address(pool, disk, 0)) == block_sums(bytes(pool.read(disk, 0, B)))[0]


def test_what_was_freed_while_it_was_summed_up_is_not_sealed(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "s")
    put(pool, disk, 0, "b")
    piece = pool.sealer.next()
    assert piece is not None
    sinks = pool.versions.sinks
    pool.delete_disk(disk, keep_snapshots=False)
    pool.reclaim()
    piece.sinks = pool.versions.sinks
    assert sinks <= piece.sinks
    assert pool.sealer.record(piece, np.array([7], np.uint32)) == 0
    assert pool.io.sums.blocks == 0


def test_the_first_sum_makes_the_pool_one_of_the_newer_format(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "s")
    pool.commit()
    assert pool.catalog.pool.format == FORMAT_PLAIN
    pool.sealer.run()
    pool = home.reopen()
    assert pool.catalog.pool.format == FORMAT_SEALED
    assert pool.io.sums.blocks == 1


def test_an_older_rowfs_refuses_a_pool_with_sums(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = home.open()
    pool.snapshot(disk_of(pool, "a"), "s")
    pool.sealer.run()
    home.close()
    monkeypatch.setattr("rowfs.base.format.FORMAT_VERSION", 1)
    with pytest.raises(PoolError, match="the pool has format 2, this rowfs knows formats up to 1: use a newer rowfs"):
        home.open()


def test_sealing_alone_makes_no_sync_wait_for_a_commit_of_the_map(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "s")
    put(pool, disk, 1, "b")
    pool.commit()
    pool.sealer.run()
    assert not pool.commits.needed
    assert pool.commits.wanted
    put(pool, disk, 1, "c")  # in place
    assert not pool.commits.map_changed
    put(pool, disk, 2, "d")
    assert journaled(pool)


def test_sums_go_beyond_one_stretch(home: Home) -> None:
    pool = home.open(cache_bytes=0)
    disk = pool.create_disk("d", 4 * STRETCH_BLOCKS * B)
    for start in range(0, 3 * STRETCH_BLOCKS, 64):
        put(pool, disk, start, *(f"{start + n}" for n in range(64)))
    pool.snapshot(disk, "s")
    assert pool.sealer.run() == 3 * STRETCH_BLOCKS
    pool = home.reopen(cache_bytes=0)
    assert pool.catalog.pool.sealed_blocks == 3 * STRETCH_BLOCKS
    disk = pool.catalog.disk("d")
    assert get(pool, disk, STRETCH_BLOCKS - 5, 10) == [f"{STRETCH_BLOCKS - 5 + n}" for n in range(10)]
    assert findings(pool) == []


def test_the_checker_tells_of_sums_that_cannot_be_and_drops_them(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    free = np.array([STRETCH_BLOCKS - 1])
    pool.io.sums.add(free, np.array([5], np.uint32))
    pool.commit()
    assert checks(pool) == {"seals"}
    home.close()
    found, mended = check_pool(str(home.path), repair=True)
    assert mended and len(found) == 1
    pool = home.open()
    assert sum_of(pool, int(free[0])) == 0
    assert pool.catalog.pool.sealed_blocks == 2
    update = MapUpdate()
    update.put(SUMS, STRETCH_KEY.pack(0), b"\1damaged")
    pool.commits.sync()
    pool._map.apply(update)
    home.abandon()
    found, mended = check_pool(str(home.path), repair=True)
    assert mended and {finding.check for finding in found} == {"seals"}
    pool = home.open()
    assert pool.sealer.run() == 2  # anew


def test_check_with_data_tells_who_sees_a_damaged_block(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a", "b", "c")
    snapshot = pool.snapshot(disk, "s")
    pool.clone(snapshot, ["twin"])
    put(pool, disk, 1, "d")
    pool.sealer.run()
    pool.commit()
    at = address(pool, snapshot, 1)
    assert [str(seen) for seen in sightings(pool._map, [at])[at]] == ["d@s at byte 4096", "twin at byte 4096"]
    home.close()
    assert check_pool(str(home.path), data=True) == ([], False)
    damage(home, at)
    found, mended = check_pool(str(home.path), data=True)
    assert not mended
    assert [str(finding) for finding in found] == [
        f"data: the block at address {at} is not what was sealed: d@s at byte 4096, twin at byte 4096"
    ]
    damage(home, at)
    assert stored(home, at)


def test_every_flipped_bit_is_found_and_put_right(tmp_path: Path) -> None:
    outcome = prove(tmp_path / "pool", 30, random.Random(7))  # tools/proof_seals.py: 1,000
    assert outcome.pop("wrong bytes") == outcome.pop("left") == 0
    assert set(outcome.values()) == {30}


def test_a_full_pool_is_written_over_all_the_same(home: Home) -> None:
    """What was sealed for a snapshot that is gone needs no new place where there is none."""
    pool = home.open()
    disk = disk_of(pool, "a", "b", "c")
    pool.snapshot(disk, "s")
    pool.sealer.run()
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.reclaim()
    damage(home, address(pool, disk, 2))
    pool.space.capacity_blocks = pool.space.allocated_blocks
    pool.space.drop_all()
    with pytest.raises(NoSpaceError):
        put(pool, disk, 0, "d")
    was = address(pool, disk, 0)
    assert pool.io.unseal(disk, 0, 3 * B) == 2
    with pytest.raises(NoSpaceError):  # a crash would bring the sum back
        put(pool, disk, 0, "d")
    pool.commit()
    put(pool, disk, 0, "d")
    assert (address(pool, disk, 0), get(pool, disk, 0, 2)) == (was, ["d", "b"])
    with pytest.raises(BlockDamagedError):
        get(pool, disk, 2)
    pool.space.capacity_blocks = None
