"""The journal: what its records hold is there after a crash, and what a commit has made void is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.base import journalcode
from rowfs.base.errors import CorruptionError, PoolError, StorageError
from rowfs.base.format import JOURNAL_FILE, PAGES, SPACE, TABLES
from rowfs.base.journalcode import Entry, encode
from rowfs.base.units import BLOCK_BYTES
from rowfs.persist.blockmap import BlockMap
from rowfs.persist.journal import JOURNAL_BYTES, RECORD_BYTES_MAX, Journal, JournalError
from rowfs.store.check import check_pool
from rowfs.store.commit import RECORD_PAGES_MAX
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import B, Home, P, disk_of, findings, get, journaled, put, ready


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal without a pool, which nobody has wanted yet."""
    made = Journal(str(tmp_path / "journal"))
    yield made
    made.close()


def write_record(journal: Journal, commit: int, number: int, entry: Entry) -> None:
    """Have a record with this entry in the journal."""
    place = journal.place(BLOCK_BYTES)
    assert place is not None
    journal.write(place, encode(commit, number, [entry]))


def committed(home: Home, *texts: str) -> tuple[Pool, Disk]:
    """An open pool with a disk of these blocks, all of it in the map."""
    pool = home.open()
    disk = disk_of(pool, *texts)
    pool.commit()
    return pool, disk


def recorded(home: Home) -> Pool:
    """An open pool with a disk of a, which is in the map, and b, which is in the journal alone."""
    pool, disk = committed(home, "a")
    put(pool, disk, 1, "b")
    assert journaled(pool)
    return pool


# The ring


def test_records_are_placed_side_by_side_until_half_of_the_ring_is_used(journal: Journal, tmp_path: Path) -> None:
    journal.prepare()
    assert journal.records(1) == [] and not os.path.exists(tmp_path / "journal"), "nobody has wanted it"
    assert journal.place(3 * BLOCK_BYTES) is None
    journal.prepare()
    places = [journal.place(3 * BLOCK_BYTES) for _ in range(171)]
    assert places[:170] == [n * 3 * BLOCK_BYTES for n in range(170)] and places[170] is None
    journal.begin()
    while (place := journal.place(RECORD_BYTES_MAX)) is not None:
        assert place + RECORD_BYTES_MAX <= JOURNAL_BYTES, "no record goes over the end of the ring"


def test_the_ring_goes_on_for_ever(journal: Journal) -> None:
    ready(journal)
    assert journal.place(RECORD_BYTES_MAX + BLOCK_BYTES) is None
    places = set()
    for number in range(40):
        journal.begin()
        place = journal.place(RECORD_BYTES_MAX - number % 7 * BLOCK_BYTES)
        assert place is not None, "whatever is left at the end of the ring"
        places.add(place)
    assert len(places) > 20


def test_records_are_those_of_one_commit_without_a_gap(journal: Journal) -> None:
    ready(journal)
    for commit, number in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 4)):
        write_record(journal, commit, number, (PAGES, bytes(12), b"x"))
    assert [record.number for record in journal.records(2)] == [1, 2]
    assert journal.records(3) == []


def test_a_host_without_space_has_no_journal(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    ready(journal)
    assert journal.place(BLOCK_BYTES) is None
    monkeypatch.undo()
    journal.prepare()
    assert journal.place(BLOCK_BYTES) == 0, "as soon as there is space"


def test_a_journal_that_cannot_be_opened_is_told(home: Home) -> None:
    home.open().close()
    os.mkdir(home.path / JOURNAL_FILE)
    with pytest.raises(PoolError, match="journal"):
        Pool(str(home.path))
    os.rmdir(home.path / JOURNAL_FILE)
    home.open()


# What goes into it


def test_what_was_written_and_trimmed_is_there_after_a_crash(home: Home) -> None:
    pool, disk = committed(home, "a", "b", "c")
    put(pool, disk, 5, "five", "six")
    pool.punch(disk, B, B)
    assert journaled(pool)
    put(pool, disk, 5, "FIVE")
    put(pool, disk, P + 1, "other page")
    assert journaled(pool)
    assert not pool.commits.map_changed and pool.commits.map_behind
    put(pool, disk, 7, "lost")
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert get(pool, disk, 0, 8) == ["a", "", "c", "", "", "FIVE", "six", ""]
    assert get(pool, disk, P + 1) == ["other page"]
    assert disk.mapped_blocks == 5 and findings(pool) == []


def test_a_disk_that_grew_has_grown(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", B)
    pool.commit()
    put(pool, disk, 3, "behind")
    assert journaled(pool)
    pool = home.crash()
    assert pool.catalog.disk("d").size_bytes == 4 * B
    assert get(pool, pool.catalog.disk("d"), 3) == ["behind"]


def test_what_a_snapshot_holds_stays(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "old")
    snapshot = pool.snapshot(disk, "s")
    assert not journaled(pool), "a name is the map's"
    pool.commit()
    put(pool, disk, 0, "new")
    assert journaled(pool)
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d")) == ["new"]
    assert get(pool, pool.catalog.snapshots[snapshot.id]) == ["old"]
    pool.delete_snapshot(pool.catalog.snapshots[snapshot.id])
    put(pool, pool.catalog.disk("d"), 1, "more")
    assert not journaled(pool), "a removal is the map's"


def test_a_commit_makes_records_void(home: Home) -> None:
    pool = recorded(home)
    pool.punch(pool.catalog.disk("d"), B, B)
    pool.commit()
    assert pool.commits.journal.records(pool._map.commit) == []
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", ""]


def test_a_commit_without_anything_new_takes_the_records_along(home: Home) -> None:
    pool = recorded(home)
    assert pool.commits.wanted
    pool.commit()
    assert not pool.commits.wanted
    os.unlink(home.path / JOURNAL_FILE)
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]


def test_freed_blocks_are_not_used_again_before_a_commit(home: Home) -> None:
    pool, disk = committed(home, "a")
    used = pool.space.allocated_blocks
    for text in "bcd":
        pool.punch(disk, 0, B)
        put(pool, disk, 0, text)
        assert journaled(pool)
    assert pool.space.allocated_blocks == used + 3
    pool.commit()
    assert pool.space.allocated_blocks == used


def test_much_is_committed(home: Home) -> None:
    pool, disk = committed(home)
    for page in range(RECORD_PAGES_MAX):
        put(pool, disk, page * P, "x")
    assert journaled(pool)
    for page in range(RECORD_PAGES_MAX + 1):
        put(pool, disk, page * P + 1, "x")
    assert not journaled(pool)
    pool.commit()


def test_a_ring_that_is_half_full_asks_for_a_commit(home: Home) -> None:
    pool, disk = committed(home)
    count = 0
    put(pool, disk, 0, "x")
    while journaled(pool):
        count += 1
        put(pool, disk, count % 400, f"{count}")
        pool.punch(disk, count % 400 * B, B)
    assert count >= 500
    pool.commit()
    put(pool, disk, 0, "y")
    assert journaled(pool)


# Replay


def test_replay_can_be_cut_off_and_begun_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = recorded(home)
    pool.abandon()
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise StorageError("the host is gone")

        patch.setattr(BlockMap, "apply", fail)
        with pytest.raises(StorageError):
            Pool(str(home.path))
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]


def test_a_pool_that_is_opened_to_be_read_has_all_of_it(home: Home) -> None:
    pool = recorded(home)
    pool.abandon()
    pool = Pool(str(home.path), read_only=True)
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]
    pool.close()
    home.open()


def test_repair_keeps_what_is_in_the_journal(home: Home) -> None:
    pool = recorded(home)
    pool.abandon()
    assert check_pool(str(home.path)) == ([], False)
    assert check_pool(str(home.path), repair=True) == ([], False)
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]


def test_a_record_that_contradicts_the_map_is_damage(home: Home) -> None:
    pool, _ = committed(home, "a")
    ready(pool.commits.journal)
    write_record(pool.commits.journal, pool._map.commit, 1, (PAGES, bytes(12), b"nonsense"))
    pool.abandon()
    with pytest.raises(CorruptionError):
        Pool(str(home.path))
    os.unlink(home.path / JOURNAL_FILE)
    home.open()


@pytest.mark.parametrize("table", [PAGES, SPACE])
def test_damage_in_the_map_of_what_a_record_changes_is_no_obstacle(home: Home, table: str) -> None:
    pool = recorded(home)
    ((_, value),) = ((key, bytes(value)) for key, value in pool._map.items(table))
    pool.abandon()
    held = (home.path / "map" / "data.mdb").read_bytes()
    damaged = value[:-1] + bytes([value[-1] ^ 0x55])
    (home.path / "map" / "data.mdb").write_bytes(held.replace(value, damaged))
    found, mended = check_pool(str(home.path), repair=True)
    assert mended if table == SPACE else not found
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]


def test_a_write_to_the_journal_that_fails_is_told(tmp_path: Path) -> None:
    journal = ready(Journal(str(tmp_path / "journal")))
    place = journal.place(BLOCK_BYTES)
    assert place is not None
    os.close(journal.fileno())
    with pytest.raises(JournalError, match="journal failed"):
        journal.write(place, bytes(BLOCK_BYTES))
    with pytest.raises(StorageError, match="cannot be read"):
        journal.records(1)


def test_an_fsync_waits_for_a_record_on_its_way_that_grows_a_disk_alone(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", B)
    ready(pool.commits.journal)
    pool.commit()
    pool.write(disk, B, bytes(B))  # a hole: no data is written
    assert pool.commits.begin_record() is not None, "by the C extension, whose worker writes it"
    assert pool.commits.appending and pool.commits.needed, "or the next fsync would be answered before it is durable"


def test_a_void_record_need_not_be_understood(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = committed(home, "a")
    ready(pool.commits.journal)
    with monkeypatch.context() as patch:  # a rowfs to come, with one more sub-database
        patch.setattr(journalcode, "TABLES", (*TABLES, "hints"))
        write_record(pool.commits.journal, pool._map.commit, 1, ("hints", b"key", b"value"))
    home.close()
    pool = home.open()
    assert get(pool, pool.catalog.disk("d")) == ["a"]


def test_records_of_another_life_of_the_pool_are_gone(home: Home, tmp_path: Path) -> None:
    pool = home.open()
    disk_of(pool, "a")
    home.close()
    backup = tmp_path / "backup"
    shutil.copytree(home.path, backup)
    assert not (backup / JOURNAL_FILE).exists()
    pool = home.open()
    pool.commit()
    put(pool, pool.catalog.disk("d"), 0, "another life")
    pool.punch(pool.catalog.disk("d"), 0, B)
    put(pool, pool.catalog.disk("d"), 1, "another life")
    assert journaled(pool)
    home.close()
    shutil.copytree(backup, home.path, dirs_exist_ok=True)  # the journal stays
    pool = home.open()
    pool.commit()
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", ""]
