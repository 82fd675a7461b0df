"""When the data file fails: a failed write leaves the disk as it was, a failed commit keeps everything in memory."""

from __future__ import annotations

import pytest

from rowfs.base.errors import NoSpaceError, ReadOnlyError, StorageError
from rowfs.persist.blockmap import BlockMap
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.faults import Scripted
from tests.store.helpers import SIZE, B, Home, addresses_of, findings, get, put


@pytest.fixture
def pool(home: Home) -> Pool:
    """A pool over a data file that can be told to fail."""
    return home.open(open_data=Scripted)


@pytest.fixture
def disk(pool: Pool) -> Disk:
    """A disk with three blocks."""
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b", "c")
    pool.commit()
    return disk


def mend(pool: Pool) -> None:
    pool.data.fails = {}


# Writes


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("offset", [5 * B, 5 * B + 7, 0, 7])
def test_a_failed_redirect_leaves_the_disk_as_it_was(pool: Pool, disk: Disk, full: bool, offset: int) -> None:
    pool.snapshot(disk, "s")
    before, figures = bytes(pool.read(disk, 0, SIZE)), (disk.mapped_blocks, disk.head.written_blocks)
    allocated, held = pool.space.allocated_blocks, addresses_of(disk, pool=pool)
    pool.data.fails, pool.data.full = {"write": 0}, full
    with pytest.raises(NoSpaceError if full else StorageError):
        pool.write(disk, offset, b"x" * B)
    mend(pool)
    assert pool.read(disk, 0, SIZE) == before
    assert (disk.mapped_blocks, disk.head.written_blocks) == figures
    assert addresses_of(disk, pool=pool) == held
    assert pool.space.allocated_blocks == allocated


def test_what_was_written_before_a_failure_stays(pool: Pool, disk: Disk) -> None:
    put(pool, disk, 511, "edge")
    pool.data.fails = {"write": 1}
    with pytest.raises(StorageError):
        put(pool, disk, 510, "x", "y", "z")
    mend(pool)
    assert get(pool, disk, 510, 3) == ["x", "edge", ""]


def test_a_failed_write_past_the_end_does_not_make_the_disk_larger(pool: Pool) -> None:
    disk = pool.create_disk("e", 10)
    pool.data.fails = {"write": 0}
    with pytest.raises(StorageError):
        pool.write(disk, 5 * B, b"x" * B)
    mend(pool)
    assert disk.size_bytes == 10


def test_writing_goes_on_after_a_failure_and_no_block_is_lost(pool: Pool, disk: Disk) -> None:
    for n in range(5):
        pool.data.fails = {"write": 0}
        with pytest.raises(StorageError):
            put(pool, disk, 10 + n, "x")
        mend(pool)
        put(pool, disk, 10 + n, f"y{n}")
    assert get(pool, disk, 10, 5) == [f"y{n}" for n in range(5)]
    pool.reclaim()
    assert findings(pool) == []
    assert pool.space.allocated_blocks == 1 + 8


def test_a_read_that_fails_while_a_piece_is_written_changes_nothing(pool: Pool, disk: Disk) -> None:
    pool.snapshot(disk, "s")
    pool.data.fails = {"read": 0}
    with pytest.raises(StorageError):
        pool.write(disk, 7, b"x")
    mend(pool)
    assert get(pool, disk, 0, 3) == ["a", "b", "c"]


# Commits


def fail_commit(pool: Pool, disk: Disk) -> None:
    """Change things; then the commit fails."""
    pool.snapshot(disk, "s")
    put(pool, disk, 1, "dirty")
    pool.data.fails = {"sync": 0}
    with pytest.raises(StorageError):
        pool.commit()
    mend(pool)


def test_a_failed_commit_makes_the_pool_read_only_and_says_why(pool: Pool, disk: Disk) -> None:
    fail_commit(pool, disk)
    assert "sync of the data file failed" in (pool.read_only_reason or "")
    for action in (
        lambda: pool.write(disk, 0, b"x" * B),
        lambda: pool.punch(disk, 0, B),
        lambda: pool.resize(disk, 5),
        lambda: pool.create_disk("e", SIZE),
        lambda: pool.snapshot(disk, "t"),
        lambda: pool.delete_snapshot(disk.chain["s"]),
        lambda: pool.rename_snapshot(disk.chain["s"], "t"),
        lambda: pool.rollback(disk, disk.chain["s"]),
        lambda: pool.clone(disk.chain["s"], ["c"]),
        lambda: pool.rename_disk(disk, "e"),
        lambda: pool.delete_disk(disk),
    ):
        with pytest.raises(ReadOnlyError, match="sync of the data file failed"):
            action()


def test_nothing_is_committed_after_a_failed_commit(pool: Pool, disk: Disk) -> None:
    fail_commit(pool, disk)
    calls = len(pool.data.calls)
    with pytest.raises(ReadOnlyError):
        pool.commit()
    assert "sync" not in pool.data.calls[calls:]  # a second one could report success for what the kernel has dropped


def test_reads_go_on_after_a_failed_commit_and_see_what_was_not_saved(pool: Pool, disk: Disk) -> None:
    fail_commit(pool, disk)
    assert get(pool, disk, 0, 3) == ["a", "dirty", "c"]
    assert get(pool, disk.chain["s"], 0, 3) == ["a", "b", "c"]


def test_a_pool_whose_commit_failed_comes_back_as_it_was_last_committed(home: Home, pool: Pool, disk: Disk) -> None:
    fail_commit(pool, disk)
    pool = home.reopen()
    assert not pool.was_clean
    disk = pool.catalog.disk("d")
    assert (get(pool, disk, 0, 3), list(disk.chain)) == (["a", "b", "c"], [])
    assert findings(pool) == []


def test_a_map_that_cannot_be_written_fails_the_commit(
    home: Home, pool: Pool, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: BlockMap, update: object) -> None:
        raise NoSpaceError("the file system that holds the pool is full")

    put(pool, disk, 5, "x")
    with monkeypatch.context() as patch:
        patch.setattr(BlockMap, "apply", broken)
        with pytest.raises(NoSpaceError):
            pool.commit()
    assert "is full" in (pool.read_only_reason or "")
    assert get(pool, disk, 5) == ["x"]
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("d"), 5) == [""]


def test_a_commit_that_fails_in_the_worker_keeps_the_frozen_pages_readable(pool: Pool, disk: Disk) -> None:
    put(pool, disk, 5, "x")
    batch = pool.commits.freeze()
    put(pool, disk, 6, "y")
    pool.data.fails = {"sync": 0}
    with pytest.raises(StorageError) as caught:
        pool.commits.write(batch)
    pool.commits.fail(caught.value)
    mend(pool)
    assert get(pool, disk, 5, 2) == ["x", "y"]
    with pytest.raises(ReadOnlyError):
        put(pool, disk, 7, "z")


def test_closing_a_pool_whose_last_commit_fails_raises_and_lets_go_of_it(home: Home, pool: Pool, disk: Disk) -> None:
    put(pool, disk, 5, "x")
    pool.data.fails = {"sync": 0}
    with pytest.raises(StorageError):
        home.close()
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 6) == ["a", "b", "c", "", "", ""]


def test_a_punch_that_fails_is_logged_and_loses_neither_the_commit_nor_the_blocks(
    pool: Pool, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    pool.punch(disk, 0, B)
    pool.data.fails = {"punch": 0}
    pool.commit()
    pool.puncher.run()
    mend(pool)
    assert "not given back to the host" in caplog.text
    assert not pool.read_only_reason
    assert pool.space.allocated_blocks == 1 + 2
    put(pool, disk, 5, "x")
    assert get(pool, disk, 0, 6) == ["", "b", "c", "", "", "x"]
