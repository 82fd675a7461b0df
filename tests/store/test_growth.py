"""The block map grows when its address space is full, and opens again whatever size it has become."""

from __future__ import annotations

import pytest

from rowfs.base.units import PAGE_BYTES
from rowfs.persist.blockmap import BlockMap, MapFullError, MapUpdate
from rowfs.store.pool import Pool
from tests.store.helpers import B, Home, findings

START_BYTES = 1 << 20


class SmallMap(BlockMap):
    """A map that is opened with next to no room for growth."""

    grown = 0

    def __init__(self, path: str, read_only: bool = False) -> None:
        super().__init__(path, read_only, START_BYTES)

    def grow(self) -> None:
        """As BlockMap.grow."""
        SmallMap.grown += 1
        super().grow()


@pytest.fixture
def home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A pool whose map has little room."""
    monkeypatch.setattr("rowfs.store.replay.BlockMap", SmallMap)
    monkeypatch.setattr(SmallMap, "grown", 0)
    return home


def scatter(pool: Pool, pages: int, blocks: int = 256) -> None:
    """Write every other block of many pages: each page takes some 1.5 KB of the map."""
    disk = pool.create_disk("d", pages * PAGE_BYTES)
    data = (b"x" * B + bytes(B)) * blocks
    for page in range(pages):
        pool.space.shortage = True  # zeros become holes at once
        pool.write(disk, page * PAGE_BYTES, data)


def test_a_commit_that_does_not_fit_makes_the_map_grow(home: Home) -> None:
    pool = home.open()
    scatter(pool, 600)
    pool.commit()
    assert SmallMap.grown > 0
    assert findings(pool) == []
    disk = pool.catalog.disk("d")
    assert pool.read(disk, 599 * PAGE_BYTES, 2 * B) == b"x" * B + bytes(B)


def test_a_map_that_grew_opens_again_and_grows_on(home: Home) -> None:
    scatter(home.open(), 600)
    pool = home.reopen()
    disk = pool.catalog.disk("d")
    assert disk.mapped_blocks == 600 * 256
    pool.snapshot(disk, "s")
    for page in range(600):
        pool.write(disk, page * PAGE_BYTES, b"y" * B)
    pool.commit()
    assert findings(pool) == []


def test_the_map_grows_in_a_commit_with_steps_as_well(home: Home) -> None:
    pool = home.open()
    scatter(pool, 600)
    batch = pool.commits.freeze()
    full = 0
    while True:
        try:
            pool.commits.write(batch)
            break
        except MapFullError:
            full += 1
            assert pool.read(pool.catalog.disk("d"), 0, B) == b"x" * B
            pool.commits.grow()
    pool.commits.finish(batch)
    assert full > 0
    assert not pool.read_only_reason
    assert findings(pool) == []


def test_what_does_not_fit_changes_nothing(home: Home) -> None:
    pool = home.open()
    pool.create_disk("d", B)
    pool.write(pool.catalog.disk("d"), 0, b"x" * B)
    pool.commit()
    update = MapUpdate()
    update.put("meta", b"pool", b"damaged")
    for number in range(5000):
        update.put("disks", b"%08d" % number, bytes(1000))
    with pytest.raises(MapFullError):
        pool.commits._map.apply(update)
    assert findings(pool) == []


def test_the_map_of_data_in_sequence_is_small(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", 64 * PAGE_BYTES)
    for page in range(64):
        pool.write(disk, page * PAGE_BYTES, b"x" * PAGE_BYTES)
    pool.commit()
    reader = pool.reader()
    values = [len(value) for _, value in reader.items("pages")]
    reader.close()
    assert len(values) == 64
    assert sum(values) < 64 * PAGE_BYTES * 0.0001 / 4  # and LMDB's own overhead on top
