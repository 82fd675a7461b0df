"""A data file that somebody cuts off while the pool is open: no block of it ever reads as zeros for that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import CorruptionError, ReadOnlyError
from rowfs.base.units import BlockAddress
from rowfs.store.check import check_pool
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import B, Home, address, disk_of, get, journaled, put

TEXTS = tuple("abcdefgh")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A new pool, that nobody can repair."""
    home = Home(tmp_path / "pool")
    yield home
    home.abandon()


def cut(home: Home, disk: Disk, block: int) -> int:
    """The data file ends before the block of a disk; where that is."""
    pool = home.pool
    assert pool is not None
    end = address(pool, disk, block) * B
    os.truncate(home.data_path, end)
    return end


def refused(pool: Pool, disk: Disk, size: int) -> None:
    """Nothing is written, nor durable, nor other than it was; and the file is left as it is."""
    with pytest.raises(ReadOnlyError, match="the data file was cut off"):
        put(pool, disk, 1, "no")
    assert pool.data.size_bytes() == size
    for block, text in enumerate(TEXTS[:4]):
        assert get(pool, disk, block) == [text]
    for block in range(4, len(TEXTS)):
        with pytest.raises(CorruptionError, match="the data file was cut off"):
            get(pool, disk, block)


@pytest.mark.parametrize("block", [1, 5, 7, 40], ids=["before", "behind", "the last", "a new one"])
def test_a_write_after_it_is_refused_and_hides_nothing(home: Home, block: int) -> None:
    pool = home.open()
    disk = disk_of(pool, *TEXTS)
    pool.resize(disk, 64 * B)
    pool.commit()
    size = cut(home, disk, 4)
    with pytest.raises(CorruptionError, match=f"the data file was cut off: it ends at byte {size}"):
        put(pool, disk, block, "new")
    refused(pool, disk, size)
    home.abandon()
    assert "the data file ends at byte" in str(home.open().versions.damage)
    home.abandon()
    assert "space" in {finding.check for finding in check_pool(str(home.path))[0]}


def test_a_read_of_what_is_gone_and_a_commit_see_it_too(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, *TEXTS)
    size = cut(home, disk, 4)
    with pytest.raises(CorruptionError, match="the data file was cut off"):
        pool.commit()
    refused(pool, disk, size)
    home.abandon()


def test_a_journal_is_not_replayed_over_what_is_gone(home: Home, tmp_path: Path) -> None:
    pool = home.open()
    disk = disk_of(pool, *TEXTS)
    pool.resize(disk, 64 * B)
    pool.commit()
    put(pool, disk, 60, "new")
    assert journaled(pool)
    home.abandon()
    shutil.copy(home.data_path, tmp_path / "whole")
    os.truncate(home.data_path, 4 * B)
    with pytest.raises(CorruptionError, match="the data file ends at byte .* the journal is not replayed"):
        home.open()
    assert os.stat(home.data_path).st_size == 4 * B
    home.open(read_only=True, recovery=False)
    home.abandon()
    os.replace(tmp_path / "whole", home.data_path)
    pool = home.open()
    assert get(pool, pool.catalog.disk(disk.name), 60) == ["new"], "what was acknowledged is still there"


def test_who_writes_while_another_thread_looks_cuts_nothing_off(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    data = home.open().data
    size_bytes = data.size_bytes

    def and_somebody_writes() -> int:
        size = size_bytes()
        data.write(BlockAddress(size // B), bytes(B))
        return size

    with monkeypatch.context() as patch:
        patch.setattr(data, "size_bytes", and_somebody_writes)
        data.check_whole()
    assert data.size_bytes() == data.reach[0]
