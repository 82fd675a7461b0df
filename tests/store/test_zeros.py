"""What is written is data, zeros too; they become holes when they stayed zeros, when space is short, or when asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowfs.base.errors import NoSpaceError
from rowfs.base.units import PAGE_BYTES
from rowfs.persist.datafile import DataFile
from rowfs.store import zeros as zeros_module
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from rowfs.store.zeros import GENERATIONS
from tests.store.helpers import SIZE, B, Home, P, address, findings, get, put


@pytest.fixture
def disk(pool: Pool) -> Disk:
    """A disk of two pages."""
    return pool.create_disk("d", SIZE)


def settle(pool: Pool) -> int:
    """Make holes of what is due; how many."""
    holes = 0
    while (piece := pool.io.zeros.take()) is not None:
        done = pool.trim.empty(piece, wait=True)
        assert done is not None
        holes += done.holes
    return holes


def trim(pool: Pool, disk: Disk) -> tuple[int, int]:
    """Make holes of all zeros of a disk: how many, and how many blocks came back."""
    holes = freed = 0
    for piece in pool.trim.pieces(disk):
        spans = pool.trim.spans(piece)
        data = memoryview(bytearray(sum(span.length_bytes for span in spans)))
        pool.data.read(spans, data)
        done = pool.trim.empty(pool.trim.zeros(piece, data), wait=True)
        assert done is not None
        holes, freed = holes + done.holes, freed + done.freed
    return holes, freed


def test_zeros_are_written_as_data(pool: Pool, disk: Disk) -> None:
    pool.write(disk, 0, bytes(20 * B))
    pool.write(disk, P * B, b"x" * B + bytes(B) + b"y" * B)
    assert disk.mapped_blocks == 23
    assert address(pool, disk, P + 1)
    assert get(pool, disk, 0, 20) == [""] * 20


def test_a_write_of_zeros_over_data_changes_no_map(pool: Pool, disk: Disk) -> None:
    put(pool, disk, 0, "a", "b", "c")
    pool.commit()
    held = [address(pool, disk, block) for block in range(3)]
    pool.write(disk, B, bytes(B))
    pool.write(disk, 0, b"x" * B + bytes(2 * B))
    assert not pool.commits.map_changed
    assert [address(pool, disk, block) for block in range(3)] == held
    pool.write(disk, 0, b"y" * (3 * B))  # as a database writes its log: zeros first
    assert not pool.commits.map_changed


def test_zeros_under_a_snapshot_go_to_a_new_place(pool: Pool, disk: Disk) -> None:
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    pool.write(disk, 0, bytes(B))
    assert (get(pool, disk, 0, 2), get(pool, snapshot, 0, 2)) == (["", "b"], ["a", "b"])
    assert address(pool, disk, 0)


def test_zeros_become_holes_once_they_stayed_zeros_long_enough(pool: Pool, disk: Disk) -> None:
    put(pool, disk, 0, "a", "b", "c")
    pool.write(disk, 0, bytes(2 * B))
    pool.write(disk, PAGE_BYTES - B, bytes(2 * B))
    for _ in range(GENERATIONS - 1):
        pool.io.zeros.age()
        assert not pool.io.zeros.due
    pool.io.zeros.age()
    assert settle(pool) == 4
    assert (disk.mapped_blocks, get(pool, disk, 0, 3)) == (1, ["", "", "c"])
    pool.commit()
    assert pool.space.allocated_blocks == 2
    assert findings(pool) == []


def test_almost_zeros_stay(pool: Pool, disk: Disk) -> None:
    for block in range(4):
        pool.write(disk, block * B, bytes(B - 1) + b"\1")
    pool.write(disk, 4 * B, bytes(8) + b"\1" + bytes(2 * B - 9))
    assert trim(pool, disk) == (1, 1)
    assert pool.read(disk, 4 * B - 1, 1) == pool.read(disk, 4 * B + 8, 1) == b"\1"


def test_what_was_written_over_stays(pool: Pool, disk: Disk) -> None:
    pool.write(disk, 0, bytes(3 * B))
    put(pool, disk, 1, "b")
    pool.io.zeros.hurry()
    assert settle(pool) == 2
    assert get(pool, disk, 0, 3) == ["", "b", ""]


def test_zeros_that_come_again_stay_as_long_again(pool: Pool, disk: Disk) -> None:
    pool.write(disk, 0, bytes(2 * B))
    pool.io.zeros.age()
    pool.write(disk, B, bytes(B))
    for _ in range(GENERATIONS - 1):
        pool.io.zeros.age()
    assert settle(pool) == 1
    assert (address(pool, disk, 0), bool(address(pool, disk, 1))) == (0, True)
    pool.io.zeros.age()
    assert settle(pool) == 1


def test_a_frozen_block_of_zeros_becomes_a_hole_in_what_comes_after(home: Home, pool: Pool, disk: Disk) -> None:
    pool.write(disk, 0, bytes(2 * B))
    snapshot = pool.snapshot(disk, "s")
    frozen = [address(pool, snapshot, block) for block in range(2)]
    pool.io.zeros.hurry()
    assert settle(pool) == 2
    assert [address(pool, snapshot, block) for block in range(2)] == frozen
    assert (address(pool, disk, 0), disk.mapped_blocks, pool.space.freed_blocks) == (0, 0, 0)
    pool.delete_snapshot(snapshot)
    pool.reclaim()
    assert pool.space.allocated_blocks == 1
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["", ""]


def test_what_a_clone_or_a_rolled_back_disk_holds_is_looked_at_anew(pool: Pool, disk: Disk) -> None:
    put(pool, disk, 0, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    pool.write(disk, 0, bytes(2 * B))
    pool.rollback(disk, snapshot)
    pool.io.zeros.hurry()
    assert settle(pool) == 0
    assert get(pool, disk, 0, 2) == ["a", "b"]


def test_a_deleted_disk_is_forgotten(pool: Pool, disk: Disk) -> None:
    pool.write(disk, 0, bytes(B))
    pool.delete_disk(disk)
    pool.io.zeros.hurry()
    assert pool.io.zeros.take() is None


def test_what_is_remembered_has_a_bound(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeros_module, "PAGES_MAX", 3)
    big = pool.create_disk("big", 100 * PAGE_BYTES)
    for page in range(10):
        pool.write(big, page * PAGE_BYTES, bytes(B))
        pool.io.zeros.age() if page % 3 == 2 else None
    pool.io.zeros.hurry()
    assert settle(pool) == 3
    assert big.mapped_blocks == 7, "what was forgotten is data"
    assert trim(pool, big) == (7, 7)


def test_zeros_that_a_crash_forgot_stay_data_until_the_disk_is_trimmed(home: Home, pool: Pool, disk: Disk) -> None:
    put(pool, disk, 0, "a")
    pool.write(disk, B, bytes(5 * B))
    pool.commit()
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert not pool.io.zeros.noted
    assert disk.mapped_blocks == 6
    assert trim(pool, disk) == (5, 5)
    assert (get(pool, disk, 0, 6), disk.mapped_blocks) == (["a", "", "", "", "", ""], 1)
    assert trim(pool, disk) == (0, 0)


def test_trim_leaves_what_snapshots_and_other_disks_hold(pool: Pool, disk: Disk) -> None:
    pool.write(disk, 0, bytes(4 * B))
    snapshot = pool.snapshot(disk, "s")
    (clone,) = pool.clone(snapshot, ["c"])
    put(pool, disk, 3, "x")
    assert trim(pool, disk) == (3, 0)
    assert trim(pool, clone) == (4, 0)
    assert get(pool, snapshot, 0, 4) == ["", "", "", ""]
    assert address(pool, snapshot, 0)


class Cold(DataFile):
    """A data file of which the host has nothing in memory."""

    def read_cached(self, spans: object, buffer: object) -> bool:
        """Nothing is."""
        return False


def test_what_the_host_has_not_in_memory_is_not_waited_for(home: Home) -> None:
    pool = home.open(open_data=Cold)
    disk = pool.create_disk("d", SIZE)
    pool.write(disk, 0, bytes(B))
    pool.io.zeros.hurry()
    piece = pool.io.zeros.take()
    assert piece is not None
    assert pool.trim.empty(piece) is None
    assert disk.mapped_blocks == 1
    assert pool.trim.empty(piece, wait=True) == (1, 1)


@pytest.mark.parametrize("owned", [True, False])
def test_a_full_pool_takes_zeros(tmp_path: Path, owned: bool) -> None:
    home = Home(tmp_path / "small", 1 << 20)
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    with pytest.raises(NoSpaceError):
        for block in range(P):
            put(pool, disk, block, "x")
    full = disk.mapped_blocks
    if not owned:
        pool.snapshot(disk, "s")
    pool.write(disk, 0, bytes(20 * B))
    pool.write(disk, 2 * full * B, bytes(20 * B))
    assert disk.mapped_blocks == full - 20
    assert get(pool, disk, 19, 2) == ["", "x"]
    home.finish()


def test_a_full_pool_takes_the_zeros_of_a_write_and_refuses_the_rest(tmp_path: Path) -> None:
    home = Home(tmp_path / "small", 1 << 20)
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    with pytest.raises(NoSpaceError):
        pool.write(disk, 0, b"x" * SIZE)
    pool.snapshot(disk, "s")
    with pytest.raises(NoSpaceError):
        pool.write(disk, 0, bytes(B) + b"y" * B)
    assert pool.read(disk, 0, 2 * B) == bytes(B) + b"x" * B
    home.finish()


def test_where_space_is_short_zeros_are_holes_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "small", 1 << 22)
    pool = home.open()
    disk = pool.create_disk("d", 4 * PAGE_BYTES)
    pool.write(disk, 0, b"x" * (B * 980))
    assert pool.space.shortage
    pool.write(disk, 0, bytes(5 * B))
    assert disk.mapped_blocks == 975
    pool.write(disk, 0, b"".join([b"x" * B, bytes(B)]))
    assert disk.mapped_blocks == 976
    pool.punch(disk, 0, 600 * B)
    pool.reclaim()
    assert not pool.space.shortage
    pool.write(disk, 0, bytes(5 * B))
    assert disk.mapped_blocks == 385
    home.finish()
