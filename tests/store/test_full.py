"""A full pool: writing fails with ENOSPC and loses nothing, deleting goes on, and then writing does."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NoReturn

import pytest

from rowfs.base.bitmap import CHUNK_BLOCKS
from rowfs.base.errors import NoSpaceError, StorageError, UsageError
from rowfs.base.units import BlockAddress
from rowfs.persist import datafile as datafile_module
from rowfs.persist import space as space_module
from rowfs.persist.datafile import DataFile
from rowfs.store.model import Disk
from rowfs.store.pool import Pool, init_pool
from tests.store.helpers import SIZE, B, Home, address, findings, get, put

CAPACITY = 1 << 20
ROOM = CAPACITY // B - 1  # blocks, beside the label


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A pool of 1 MiB."""
    place = Home(tmp_path / "small", CAPACITY)
    yield place
    place.finish()


def fill_up(pool: Pool, disk: Disk) -> list[str]:
    """Write until it is full, and what was written."""
    texts: list[str] = []
    with pytest.raises(NoSpaceError) as caught:
        while True:
            put(pool, disk, len(texts), f"t{len(texts)}")
            texts.append(f"t{len(texts)}")
    assert caught.value.errno == errno.ENOSPC
    return texts


def test_every_block_of_the_capacity_can_be_used(pool: Pool) -> None:
    assert pool.space.free_blocks() == ROOM
    assert len(fill_up(pool, pool.create_disk("d", SIZE))) == ROOM
    assert pool.space.free_blocks() == 0


def test_the_data_file_can_become_as_long_as_the_host_says(pool: Pool) -> None:
    last = pool.data.blocks_max() - 1
    pool.data.write(BlockAddress(last), b"x" * B)
    with pytest.raises(StorageError):
        pool.data.write(BlockAddress(last + 1), b"x" * B)


def test_a_host_that_cannot_tell_what_it_has_left_has_what_it_said_last(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "one")

    def fails(_: int) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fstatvfs", fails)
    pool.space.drop(disk.head.claim)
    put(pool, disk, 1, "two")
    assert pool.data.host_free_bytes() > 0


def test_a_pool_is_full_when_the_host_lets_the_data_file_become_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataFile, "blocks_max", lambda _: CHUNK_BLOCKS)
    home = Home(tmp_path / "short")
    pool = home.open()
    disk = pool.create_disk("d", 2 * CHUNK_BLOCKS * B)
    pool.write(disk, 0, b"x" * (CHUNK_BLOCKS - 1) * B)
    with pytest.raises(NoSpaceError):
        put(pool, disk, CHUNK_BLOCKS, "more")
    home.finish()


def test_on_a_host_that_keeps_what_is_freed_the_data_file_does_not_grow_before_crumbs_are_used(
    home: Home, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datafile_module, "_fallocate", lambda *_: errno.EOPNOTSUPP)
    disk = pool.create_disk("d", 2 * CHUNK_BLOCKS * B)
    pool.space.capacity_blocks = CHUNK_BLOCKS
    pool.write(disk, 0, b"x" * (CHUNK_BLOCKS - 1) * B)
    pool.punch(disk, 77 * B, B)
    pool.reclaim()
    pool = home.reopen()  # where nothing is freed yet
    pool.space.capacity_blocks, pool.space.run_blocks_min = 2 * CHUNK_BLOCKS, space_module.RUN_BLOCKS_MIN
    disk = pool.catalog.disk("d")
    put(pool, disk, CHUNK_BLOCKS, "more")
    assert address(pool, disk, CHUNK_BLOCKS) == 78


def test_a_failed_write_leaves_the_disk_as_it_was(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    texts = fill_up(pool, disk)
    assert get(pool, disk, 0, ROOM) == texts
    assert get(pool, disk, ROOM) == [""]
    assert disk.mapped_blocks == ROOM


def test_nothing_is_lost_over_a_reopen(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    texts = fill_up(pool, disk)
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("d"), 0, ROOM) == texts
    with pytest.raises(NoSpaceError):
        put(pool, pool.catalog.disk("d"), ROOM, "more")


def test_what_the_disk_owns_can_still_be_overwritten(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    fill_up(pool, disk)
    put(pool, disk, 3, "new")
    pool.write(disk, 4 * B + 7, b"x")
    assert get(pool, disk, 3) == ["new"]


def test_a_large_write_keeps_what_fitted(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    with pytest.raises(NoSpaceError):
        put(pool, disk, 0, *(f"t{n}" for n in range(ROOM + 100)))
    assert disk.mapped_blocks == ROOM
    assert get(pool, disk, 0, ROOM) == [f"t{n}" for n in range(ROOM)]


def test_a_write_that_failed_past_the_end_did_not_make_the_disk_larger(pool: Pool) -> None:
    fill_up(pool, pool.create_disk("d", SIZE))
    other = pool.create_disk("e", 0)
    with pytest.raises(NoSpaceError):
        put(pool, other, 5, "x")
    assert other.size_bytes == 0


@pytest.mark.parametrize("left", [0, 1, 2, 100])
@pytest.mark.parametrize("size", [0, 7, B, 3 * B + 1])
def test_whatever_is_left_a_write_that_cannot_grow_the_disk_takes_nothing(pool: Pool, left: int, size: int) -> None:
    disk = pool.create_disk("d", 0)
    pool.write(disk, 0, b"d" * size)
    put(pool, pool.create_disk("others", SIZE), 0, *("x" for _ in range(pool.space.free_blocks() - left)))
    figures = disk.mapped_blocks, disk.head.written_blocks, pool.space.allocated_blocks
    for offset, gap in product((size, -(-size // B) * B, SIZE // 2 - 3 * B), (0, 7, B - 1)):
        for zeros in (b"", bytes(B)):  # a hole before what does not fit
            with pytest.raises(NoSpaceError):
                pool.write(disk, offset + gap, b"x" * B + zeros + b"x" * (left + 1) * B)
            assert (disk.mapped_blocks, disk.head.written_blocks, pool.space.allocated_blocks) == figures
            assert bytes(pool.read(disk, 0, SIZE)) == b"d" * size
    pool.commit()
    assert findings(pool) == []
    pool.write(disk, 10 * B, b"x" * left * B)
    assert pool.space.free_blocks() == 0


def test_snapshots_clones_commits_and_rollbacks_work_at_100_percent(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    fill_up(pool, disk)
    snapshot = pool.snapshot(disk, "s")
    pool.clone(snapshot, ["c"])
    pool.rollback(disk, snapshot)
    pool.commit()
    assert findings(pool) == []
    pool = home.crash()
    assert get(pool, pool.catalog.disk("c"), 7) == ["t7"]


def test_deleting_a_snapshot_makes_room_for_exactly_what_it_held(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, *(f"t{n}" for n in range(100)))
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 0, *(f"u{n}" for n in range(100)))
    with pytest.raises(NoSpaceError):
        put(pool, disk, 100, *(f"v{n}" for n in range(100)))
    pool.delete_snapshot(snapshot)
    pool.reclaim()
    assert pool.space.free_blocks() == 100
    put(pool, disk, ROOM - 100, *(f"w{n}" for n in range(100)))
    assert get(pool, disk, 0, 2) == ["u0", "u1"]
    assert pool.space.free_blocks() == 0


def test_two_writers_share_the_last_blocks(pool: Pool) -> None:
    one, two = pool.create_disk("one", SIZE), pool.create_disk("two", SIZE)
    written = 0
    with pytest.raises(NoSpaceError):
        for n in range(ROOM):
            put(pool, one, n, f"1-{n}")
            written += 1
            put(pool, two, n, f"2-{n}")
            written += 1
    assert written == ROOM
    assert one.mapped_blocks + two.mapped_blocks == ROOM


def test_a_full_host_is_told_apart_and_commits_go_on(home: Home, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.space.drop(disk.head.claim)
    monkeypatch.setattr(space_module, "HOST_RESERVE_BYTES", 1 << 60)
    with pytest.raises(NoSpaceError, match="file system that holds the pool"):
        put(pool, disk, 0, "b")
    assert pool.space.free_blocks() == 0
    pool.delete_snapshot(snapshot)
    pool.reclaim()
    put(pool, disk, 0, "in place")
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("d")) == ["in place"]


@pytest.mark.parametrize("capacity", [0, -1, CAPACITY - 1])
def test_a_capacity_too_small_is_refused_and_makes_nothing(tmp_path: Path, capacity: int) -> None:
    with pytest.raises(UsageError, match="at least 1M"):
        init_pool(str(tmp_path / "p"), capacity)
    assert not (tmp_path / "p").exists()
