"""What lies past the end of a disk is zeros when it grows, also after a cut and after a write that found no space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import NoSpaceError
from tests.store.helpers import B, Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "pool")
    home.open()
    yield home
    home.finish()


def test_growing_after_a_crash_shows_nothing_that_was_not_committed(home: Home) -> None:
    pool = home.pool
    assert pool is not None
    disk = pool.create_disk("disk", 0)
    pool.write(disk, 0, b"a" * 100)
    pool.commit()
    pool.write(disk, 0, b"b" * B)  # in place, and the disk grows, which is not committed
    pool = home.crash()
    disk = pool.catalog.disk("disk")
    assert disk.size_bytes == 100
    pool.resize(disk, B)
    assert bytes(pool.read(disk, 100, B)) == bytes(B - 100)


def test_growing_after_a_full_pool_shows_nothing_of_the_write_that_failed(home: Home) -> None:
    pool = home.pool
    assert pool is not None
    pool.space.capacity_blocks = 8
    disk = pool.create_disk("disk", 0)
    with pytest.raises(NoSpaceError):
        pool.write(disk, 0, b"a" * 16 * B)
    size = disk.size_bytes
    pool.resize(disk, 16 * B)
    assert bytes(pool.read(disk, size, 16 * B)) == bytes(16 * B - size)
