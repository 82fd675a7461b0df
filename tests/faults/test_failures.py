"""Calls that fail: who asked hears of it, nothing acknowledged is lost, nothing leaks, nothing is tried into a lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from rowfs.base.errors import NoSpaceError, ReadOnlyError, RowfsError, StorageError
from rowfs.persist import blockmap
from rowfs.persist.blockmap import BlockMap, MapUpdate
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.faults.device import Device, Error, eio, enospc
from tests.store.helpers import B, Home, fill, findings, get, put, snapshot_of

FAILURES = pytest.mark.parametrize("failure", [eio, enospc])


class Machine:
    """A pool on a device that fails."""

    def __init__(self, path: Path) -> None:
        self.home = Home(path)
        self.device = Device()
        self.pool = self.open()
        self.disk = self.pool.create_disk("disk", 8 * B)
        put(self.pool, self.disk, 0, "a", "b", "c")
        self.pool.snapshot(self.disk, "s")
        put(self.pool, self.disk, 1, "d")
        self.pool.commit()

    def open(self) -> Pool:
        """Open the pool."""
        self.pool = self.home.open(open_data=self.device.open)
        return self.pool

    def after_crash(self, blocks: int) -> list[str]:
        """What the disk holds after a crash."""
        disk = self.crash()
        return get(self.pool, disk, 0, blocks)

    def crash(self) -> Disk:
        """Leave the pool as it is, and open it again: the disk."""
        self.home.abandon()
        return self.open().catalog.disk("disk")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "pool")
    yield machine
    machine.device.script.clear()
    if machine.pool.commits.failed:
        machine.crash()
    machine.home.finish()


# Writes


@FAILURES
@pytest.mark.parametrize("block", [0, 1, 5], ids=["redirected", "owned", "hole"])
def test_a_write_that_fails_leaves_the_disk_as_it_was(
    machine: Machine, failure: Callable[[str], Error], block: int
) -> None:
    pool, disk = machine.pool, machine.disk
    before, allocated = get(pool, disk, 0, 8), pool.space.allocated_blocks
    machine.device.fail("write", failure)
    with pytest.raises(type(failure("write"))):
        put(pool, disk, block, "lost")
    assert get(pool, disk, 0, 8) == before
    assert pool.space.allocated_blocks == allocated
    assert pool.read_only_reason is None
    put(pool, disk, block, "later")
    pool.commit()
    assert machine.after_crash(8)[block] == "later"


@FAILURES
def test_a_piece_that_fails_leaves_the_block_as_it_was(machine: Machine, failure: Callable[[str], Error]) -> None:
    pool, disk = machine.pool, machine.disk
    for call in ("read", "write"):
        machine.device.fail(call, failure)
        with pytest.raises(type(failure(call))):
            pool.write(disk, 100, b"piece")
    assert get(pool, disk, 0, 2) == ["a", "d"]
    assert get(pool, snapshot_of(pool, "disk", "s"), 0, 3) == ["a", "b", "c"]


@FAILURES
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_of_a_long_write_that_fails_each_block_is_old_or_new(
    machine: Machine, failure: Callable[[str], Error], count: int
) -> None:
    pool, disk = machine.pool, machine.disk
    before = get(pool, disk, 0, 8)
    machine.device.fail("write", failure, count)
    with pytest.raises(type(failure("write"))):
        put(pool, disk, 0, "w", "x", "y", "z")
    after = get(pool, disk, 0, 8)
    written = ["w", "x", "y", "z", *before[4:]]
    assert all(new in choice for new, *choice in zip(after, before, written, strict=True))
    assert get(pool, snapshot_of(pool, "disk", "s"), 0, 3) == ["a", "b", "c"]


def test_a_read_that_fails_changes_nothing(machine: Machine) -> None:
    machine.device.fail("read", eio)
    with pytest.raises(StorageError):
        get(machine.pool, machine.disk)
    assert get(machine.pool, machine.disk, 0, 3) == ["a", "d", "c"]


# Commits


def _assert_read_only(pool: Pool, disk: Disk) -> None:
    assert pool.read_only_reason and "a commit failed" in pool.read_only_reason
    with pytest.raises(ReadOnlyError):
        put(pool, disk, 3, "refused")
    for change in (
        lambda: pool.create_disk("other", B),
        lambda: pool.snapshot(disk, "other"),
        lambda: pool.delete_disk(disk),
        lambda: pool.resize(disk, B),
        lambda: pool.punch(disk, 0, B),
    ):
        with pytest.raises(ReadOnlyError):
            change()


@FAILURES
def test_an_fdatasync_that_failed_is_never_tried_again(machine: Machine, failure: Callable[[str], Error]) -> None:
    pool, disk = machine.pool, machine.disk
    put(pool, disk, 0, "lost")
    put(pool, disk, 5, "lost too")
    machine.device.fail("sync", failure)
    with pytest.raises(type(failure("sync"))):
        pool.commit()
    syncs = machine.device.calls["sync"]
    _assert_read_only(pool, disk)
    with contextlib.suppress(RowfsError):
        pool.commit()  # a second fdatasync would report success
    assert machine.device.calls["sync"] == syncs
    assert get(pool, disk, 0, 6) == ["lost", "d", "c", "", "", "lost too"]
    assert get(pool, snapshot_of(pool, "disk", "s"), 0, 3) == ["a", "b", "c"]
    disk = machine.crash()
    assert get(machine.pool, disk, 0, 6) == ["a", "d", "c", "", "", ""]


def test_a_commit_after_one_that_failed_is_refused(machine: Machine) -> None:
    put(machine.pool, machine.disk, 5, "lost")
    machine.device.fail("sync", eio)
    with pytest.raises(StorageError):
        machine.pool.commit()
    with pytest.raises(ReadOnlyError):
        machine.pool.commit()


def test_close_after_a_failed_commit_does_not_commit(machine: Machine) -> None:
    pool = machine.pool
    put(pool, machine.disk, 5, "lost")
    machine.device.fail("sync", eio)
    with pytest.raises(StorageError):
        pool.commit()
    machine.home.close()
    machine.open()
    assert not machine.pool.was_clean
    assert get(machine.pool, machine.pool.catalog.disk("disk"), 5) == [""]


@pytest.mark.parametrize("error", [StorageError("LMDB: I/O error"), NoSpaceError("full"), MemoryError("none")])
def test_an_apply_that_fails_makes_the_pool_read_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pool, disk = machine.pool, machine.disk
    pool.snapshot(disk, "never")
    put(pool, disk, 0, "lost")

    def failing(self: BlockMap, update: MapUpdate) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(BlockMap, "apply", failing)
        with pytest.raises(type(error)):
            pool.commit()
    _assert_read_only(pool, disk)
    assert get(pool, disk) == ["lost"]
    disk = machine.crash()
    assert list(disk.chain) == ["s"]
    assert get(machine.pool, disk, 0, 3) == ["a", "d", "c"]


def test_an_lmdb_that_fails_amid_a_transaction_leaves_the_map_as_it_was(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, disk = machine.pool, machine.disk
    pool.snapshot(disk, "never")

    def failing(*args: object) -> None:
        raise lmdb.Error("mdb_put: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(blockmap, "_put_records", failing)
        with pytest.raises(StorageError, match="Input/output error"):
            pool.commit()
    assert list(machine.crash().chain) == ["s"]


def test_a_map_that_is_full_is_grown(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.home.close()
    original = BlockMap.__init__

    def small(self: BlockMap, path: str, read_only: bool = False) -> None:
        original(self, path, read_only, 16 * B)

    monkeypatch.setattr(BlockMap, "__init__", small)
    pool = machine.open()
    for number in range(400):
        pool.create_disk(f"{number:0100}", B)
    pool.commit()
    pool.commit()
    assert pool.commits.failed is None
    assert findings(pool) == []
    monkeypatch.undo()
    machine.home.close()
    assert len(list(machine.open().catalog.live())) == 401


def test_a_punch_that_fails_loses_nothing(machine: Machine) -> None:
    pool, disk = machine.pool, machine.disk
    pool.delete_snapshot(snapshot_of(pool, "disk", "s"))
    machine.device.fail("punch", eio)
    pool.reclaim()
    assert pool.read_only_reason is None
    assert findings(pool) == []
    put(pool, disk, 0, "on")
    pool.commit()
    assert machine.after_crash(3) == ["on", "d", "c"]


# A full pool


def test_a_full_pool_can_delete_and_then_goes_on(machine: Machine) -> None:
    pool, disk = machine.pool, machine.disk
    pool.space.capacity_blocks = pool.space.allocated_blocks
    pool.space.drop(disk.head.claim)  # type: ignore[union-attr]
    with pytest.raises(NoSpaceError):
        put(pool, disk, 5, "no")
    put(pool, disk, 1, "in place")
    pool.commit()
    pool.snapshot(disk, "while full")
    pool.commit()
    pool.delete_snapshot(snapshot_of(pool, "disk", "s"))
    pool.delete_snapshot(snapshot_of(pool, "disk", "while full"))
    pool.reclaim()
    put(pool, disk, 5, "yes")
    pool.commit()
    assert machine.after_crash(6) == ["a", "in place", "c", "", "", "yes"]


def test_every_call_in_turn_may_fail(machine: Machine) -> None:
    """Whatever fails: what was acknowledged is there after a crash, and no block leaks."""
    for call in ("write", "read", "sync"):
        for count in range(1, 6):
            disk = machine.crash()
            pool = machine.pool
            machine.device.fail(call, eio, count)
            wanted = get(machine.pool, disk, 0, 8) if call != "read" else None
            try:
                for block in range(4):
                    text = f"{call}{count}{block}"
                    put(pool, disk, block, text)
                    pool.write(disk, block * B + 16, fill(text)[16:32])
                    pool.commit()
                    if wanted is not None:
                        wanted[block] = text
            except RowfsError:
                pass
            machine.device.script.clear()
            disk = machine.crash()
            pool = machine.pool
            if wanted is not None:
                found = get(pool, disk, 0, 8)
                differing = [at for at in range(8) if found[at] != wanted[at]]
                assert all(found[at] == f"{call}{count}{at}" for at in differing)  # written, not acknowledged
            assert get(pool, snapshot_of(pool, "disk", "s"), 0, 3) == ["a", "b", "c"]
            assert findings(pool) == []
