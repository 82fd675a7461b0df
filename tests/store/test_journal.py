"""The journal: what its records hold is there after a crash, and what a commit has made void is not."""

from __future__ import annotations

import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from rowfs.base import journalcode
from rowfs.base.errors import CorruptionError, PoolError, ReadOnlyError, StorageError
from rowfs.base.format import JOURNAL_FILE, PAGES, SPACE, TABLES
from rowfs.base.journalcode import Entry, encode
from rowfs.base.units import BLOCK_BYTES
from rowfs.persist import journal as journal_module
from rowfs.persist.blockmap import BlockMap
from rowfs.persist.datafile import DataFile
from rowfs.persist.journal import JOURNAL_BYTES, RECORD_BYTES_MAX, Journal, JournalError
from rowfs.store.check import check_pool
from rowfs.store.commit import RECORD_PAGES_MAX
from rowfs.store.diskio import RECENT_BLOCKS_MAX
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import B, Home, P, address, disk_of, findings, get, journaled, put, ready


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
    journal.write(place, encode(commit, number, [entry], journal.state.nonce, number - 1))


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


def test_records_are_placed_side_by_side(journal: Journal, tmp_path: Path) -> None:
    journal.prepare()
    assert journal.records(1) == ([], None) and not os.path.exists(tmp_path / "journal"), "nobody has wanted it"
    assert journal.place(3 * BLOCK_BYTES) is None
    journal.prepare()
    assert journal.place(3 * BLOCK_BYTES) is None, "the map does not say yet that it is there"
    journal.begin(1)
    places = [journal.place(3 * BLOCK_BYTES) for _ in range(342)]
    assert places[:341] == [BLOCK_BYTES + n * 3 * BLOCK_BYTES for n in range(341)] and places[341] is None
    journal.begin(7)
    assert journal.place(BLOCK_BYTES) == BLOCK_BYTES, "with each commit from the beginning"
    assert journal.place(RECORD_BYTES_MAX + BLOCK_BYTES) is None


def test_a_journal_that_was_too_small_grows(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOURNAL_BYTES_MAX", 4 * JOURNAL_BYTES)
    ready(journal)
    sizes = []
    for _ in range(4):
        journal.begin(7)
        while (place := journal.place(RECORD_BYTES_MAX)) is not None:
            assert place + RECORD_BYTES_MAX <= os.path.getsize(tmp_path / "journal")
        sizes.append(os.path.getsize(tmp_path / "journal") // JOURNAL_BYTES)
        journal.prepare()
    assert sizes == [1, 2, 4, 4]


def test_records_are_those_of_one_commit(journal: Journal) -> None:
    ready(journal)
    for commit, number in ((1, 1), (1, 2), (1, 3)):
        write_record(journal, commit, number, (PAGES, bytes(12), b"x"))
    journal.begin(7)
    for commit, number in ((2, 1), (2, 2)):
        write_record(journal, commit, number, (PAGES, bytes(12), b"x"))
    assert [record.number for record in journal.records(2).records] == [1, 2]
    assert journal.records(2).damage is None
    assert journal.records(3) == ([], None)


# Damage


def ten_records(journal: Journal, durable: int | None = None) -> None:
    """Ten records of a block, each durable before the next was made, or only so many of all."""
    ready(journal)
    for number in range(1, 11):
        place = journal.place(BLOCK_BYTES)
        assert place is not None
        known = number - 1 if durable is None else min(durable, number - 1)
        journal.write(place, encode(7, number, [(PAGES, bytes(12), b"x")], journal.state.nonce, known))


def damage(path: Path, number: int, byte: int = 50) -> None:
    """Change a byte of a record of a block."""
    with open(path, "r+b") as file:
        file.seek(number * BLOCK_BYTES + byte)
        old = file.read(1)
        file.seek(number * BLOCK_BYTES + byte)
        file.write(bytes([old[0] ^ 0x10]))


@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("byte", [0, 5, 9, 17, 30, 45, 55])
def test_damage_in_a_record_that_was_durable_is_known_by_later_ones(
    journal: Journal, tmp_path: Path, number: int, byte: int
) -> None:
    ten_records(journal)
    damage(tmp_path / "journal", number, byte)
    records, told = journal.records(7)
    assert len(records) == number - 1
    assert told is not None and f"record {number} is damaged, and {10 - number} that" in told and "up to 10" in told


def test_the_last_record_may_be_torn(journal: Journal, tmp_path: Path) -> None:
    ten_records(journal)
    damage(tmp_path / "journal", 10)
    records, told = journal.records(7)
    assert (len(records), told) == (9, None)


def test_of_records_that_were_written_together_any_may_be_missing(journal: Journal, tmp_path: Path) -> None:
    ten_records(journal, durable=6)
    damage(tmp_path / "journal", 7)
    damage(tmp_path / "journal", 9)
    assert [record.number for record in journal.records(7).records] == [1, 2, 3, 4, 5, 6]
    assert journal.records(7).damage is None
    damage(tmp_path / "journal", 6)
    assert journal.records(7).damage is not None


def test_damage_of_the_first_block_hides_no_record(journal: Journal, tmp_path: Path) -> None:
    ten_records(journal)
    damage(tmp_path / "journal", 0, 9)
    records, told = journal.records(7)
    assert records == [] and told is not None and "first block is damaged, and 10 records" in told


def test_data_that_looks_like_a_record_is_none(journal: Journal) -> None:
    ten_records(journal, durable=0)
    for number, text in ((12, "x"), (13, "another nonce")):
        place = journal.place(BLOCK_BYTES)
        assert place is not None
        entry = (PAGES, bytes(12), text.encode())
        journal.write(place, encode(7, number, [entry], journal.state.nonce ^ 1, number - 1))
    assert len(journal.records(7).records) == 10 and journal.records(7).damage is None


def test_a_damaged_journal_leaves_the_pool_read_only_and_is_not_emptied(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    pool, disk = committed(home, "a")
    for number in range(1, 6):
        put(pool, disk, number, f"{number}")
        assert journaled(pool)
    home.abandon()
    path = home.path / JOURNAL_FILE
    damage(path, 3)  # each takes two blocks
    held = path.read_bytes()
    with caplog.at_level(logging.CRITICAL):
        for read_only in (False, True):
            pool = home.open(read_only=read_only)
            disk = pool.catalog.disk("d")
            assert get(pool, disk, 0, 2) == ["a", ""]
            assert "record 2 is damaged" in str(pool.read_only_reason) and "--repair" in str(pool.read_only_reason)
            with pytest.raises(ReadOnlyError, match="journal"):
                pool.write(disk, 0, b"x")
            home.close()
            assert path.read_bytes() == held
    (finding,), mended = check_pool(str(home.path))
    assert "journal" in str(finding) and "record 2" in str(finding) and not mended
    assert path.read_bytes() == held
    (finding,), mended = check_pool(str(home.path), repair=True)
    assert "record 2" in str(finding) and mended
    assert (home.path / "journal.damaged").read_bytes() == held
    assert check_pool(str(home.path)) == ([], False)
    pool = home.open()
    disk = pool.catalog.disk("d")
    assert get(pool, disk, 0, 6) == ["a", "1", "", "", "", ""]
    pool.commit()
    put(pool, disk, 2, "goes on")
    assert journaled(pool)
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "1", "goes on"]


def named(home: Home) -> Pool:
    """A journal that the map names, as commits have made it, with a record of block 2."""
    pool, disk = committed(home, "a")
    assert pool.commits.begin_record() is None  # there is nothing to record
    put(pool, disk, 1, "later")
    assert pool.commits.begin_record() is None  # nor a journal for it: it is wanted from now on
    pool.commit()
    put(pool, disk, 2, "b")
    appended = pool.commits.begin_record()
    assert appended is not None
    pool.commits.append(appended)
    pool.commits.end_record()
    return pool


def cut(size_bytes: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size_bytes)


def exchange(path: Path) -> None:
    """The journal of another pool."""
    path.unlink()
    other = ready(Journal(str(path)))
    other.close()


def spoil(path: Path) -> None:
    """Nothing of it is left, but its size."""
    path.write_bytes(bytes(path.stat().st_size))


LOSSES: dict[str, tuple[Callable[[Path], None], str, str]] = {  # and what is said of it, and what is left of block 2
    "removed": (Path.unlink, "it is missing", ""),
    "emptied": (cut(0), "it ends at byte 0", ""),
    "cut before the record": (cut(BLOCK_BYTES), "it ends at byte 4096", ""),
    "cut behind the record": (cut(3 * BLOCK_BYTES), "it ends at byte 12288", "b"),
    "another one": (exchange, "it is another one", ""),
    "zeros": (spoil, "its first block is damaged", ""),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_journal_that_is_not_what_the_map_says_is_damage(
    home: Home, caplog: pytest.LogCaptureFixture, loss: str
) -> None:
    lose, said, left = LOSSES[loss]
    named(home)
    home.abandon()
    path = home.path / JOURNAL_FILE
    lose(path)
    held = path.read_bytes() if path.exists() else None
    with caplog.at_level(logging.CRITICAL):
        for options in ({}, {"read_only": True}, {"read_only": True, "recovery": False}):
            pool = home.open(**options)
            assert said in str(pool.read_only_reason) and get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "later", ""]
            home.close()
    assert (path.read_bytes() if path.exists() else None) == held
    (finding,), mended = check_pool(str(home.path))
    assert str(finding).startswith("journal: ") and said in str(finding) and not mended
    (finding,), mended = check_pool(str(home.path), repair=True)
    assert said in str(finding) and mended
    assert (home.path / "journal.damaged").exists() == (held is not None) and not path.exists()
    assert check_pool(str(home.path)) == ([], False)
    pool = home.crash()
    assert pool.read_only_reason is None and get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "later", left]


def test_a_journal_that_the_map_names_is_replayed_and_named_no_more(home: Home) -> None:
    pool = named(home)
    assert pool.catalog.pool.journal == f"{pool.commits.journal.state.nonce:016x}"
    assert pool.catalog.pool.journal_bytes == JOURNAL_BYTES
    home.abandon()
    pool = home.open(read_only=True)  # which puts its records into the map, and empties it
    assert pool.catalog.pool.journal is None
    for _ in range(2):  # there is none now, whatever happens before the next commit
        pool = home.crash()
        assert get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "later", "b"] and pool.read_only_reason is None


def test_a_journal_without_records_that_count_is_emptied_only_when_the_map_names_it_no_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = named(home)
    pool.commit()
    home.abandon()

    def fails(_: Journal) -> NoReturn:
        raise StorageError("the machine stops here")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "clear", fails)
        with pytest.raises(StorageError):
            home.open()
    (home.path / JOURNAL_FILE).unlink()
    pool = home.open()
    assert pool.read_only_reason is None and get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "later", "b"]


def test_after_an_orderly_end_no_journal_is_missed(home: Home) -> None:
    named(home)
    home.close()
    (home.path / JOURNAL_FILE).unlink()
    assert check_pool(str(home.path)) == ([], False)
    pool = home.open()
    assert pool.read_only_reason is None
    pool = home.crash()  # it was not clean, and had no journal yet
    assert pool.read_only_reason is None and get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "later", "b"]


def test_a_pool_whose_map_does_not_name_its_journal_opens(home: Home) -> None:
    pool = recorded(home)  # as an older rowfs has it
    assert pool.catalog.pool.journal is None
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"] and pool.read_only_reason is None


def test_there_are_no_records_in_what_the_map_does_not_name_yet(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = named(home)
    disk = pool.catalog.disk("d")
    monkeypatch.setattr(journal_module, "RECORD_BYTES_MAX", 3 * JOURNAL_BYTES)
    assert pool.commits.journal.place(JOURNAL_BYTES) is None  # it has to grow
    put(pool, disk, 3, "c")
    batch = pool.commits.freeze()
    pool.commits.write(batch)
    assert (home.path / JOURNAL_FILE).stat().st_size == 2 * JOURNAL_BYTES
    assert pool.commits.journal.place(JOURNAL_BYTES) is None
    pool.commits.finish(batch)
    assert pool.catalog.pool.journal_bytes == 2 * JOURNAL_BYTES
    assert pool.commits.journal.place(JOURNAL_BYTES) == BLOCK_BYTES
    os.truncate(home.path / JOURNAL_FILE, JOURNAL_BYTES)
    home.abandon()
    (finding,), _ = check_pool(str(home.path))
    assert f"the map says that it has {2 * JOURNAL_BYTES}" in str(finding)
    check_pool(str(home.path), repair=True)


# Journals of older versions


def older(commit: int, number: int, entries: list[Entry]) -> bytes:
    """A record as it was when it told nothing of its place."""
    body = b"".join(
        journalcode.ENTRY.pack(TABLES.index(table), len(key), len(value)) + key + value for table, key, value in entries
    )
    checked = journalcode.HEADER.pack(b"rwj1", 0, commit, number, len(body))[8:] + body
    record = b"rwj1" + zlib.crc32(checked).to_bytes(4, "little") + checked
    return record.ljust(-(-len(record) // B) * B, b"\0")


def test_an_older_journal_is_read_wherever_its_records_are(home: Home, tmp_path: Path) -> None:
    pool, disk = committed(home, "a")
    assert disk.head is not None
    counts = []  # which were whole records then
    for block, text in enumerate("bc", 1):
        put(pool, disk, block, text)
        counts.append([*pool.catalog.entries([disk, disk.head])])
        assert journaled(pool)
    found = pool.commits.journal.records(pool._map.commit).records
    pool.data.sync()
    home.abandon()
    one, two = (
        older(record.commit, record.number, record.entries + entries)
        for record, entries in zip(found, counts, strict=True)
    )
    (home.path / JOURNAL_FILE).write_bytes(two.ljust(3 * B, b"\0") + one + bytes(5 * B))
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "b", "c"]


def test_a_gap_in_an_older_journal_is_damage(journal: Journal, tmp_path: Path) -> None:
    entry = (PAGES, bytes(12), b"x")
    (tmp_path / "older").write_bytes(older(2, 1, [entry]) + older(2, 2, [entry]) + older(2, 4, [entry]))
    one = Journal(str(tmp_path / "older"))
    records, told = one.records(2)
    one.close()
    assert len(records) == 2 and told is not None and "record 3 is damaged" in told


def test_a_host_without_space_has_no_journal(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    ready(journal)
    assert journal.place(BLOCK_BYTES) is None
    monkeypatch.undo()
    assert ready(journal).place(BLOCK_BYTES) == BLOCK_BYTES, "as soon as there is space"


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
    assert not pool.commits._unrecorded and pool.commits.map_behind
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
    assert pool.commits.journal.records(pool._map.commit) == ([], None)
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


def test_a_journal_that_is_full_asks_for_a_commit(home: Home) -> None:
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


# Data


def forget(home: Home, pool: Pool, disk: Disk, *blocks: int) -> None:
    """What a power cut may do to blocks that were never synced in their place."""
    places = [address(pool, disk, block) for block in blocks]
    home.abandon()
    with open(home.data_path, "r+b") as file:
        for place in places:
            file.seek(place * B)
            file.write(b"\xee" * B)


def test_what_was_written_is_durable_in_the_journal_alone(home: Home) -> None:
    pool, disk = committed(home, "a", "b")
    put(pool, disk, 4, "new", "newer")
    put(pool, disk, 1, "over")
    pool.write(disk, B // 2, b"a piece")
    assert journaled(pool)
    put(pool, disk, 4, "newest")
    assert pool.commits.map_changed, "a sync of the data file would be undone by replay"
    assert journaled(pool)
    expected = bytes(pool.read(disk, 0, 6 * B))
    forget(home, pool, disk, 0, 1, 4, 5)
    pool = home.open()
    assert pool.read(pool.catalog.disk("d"), 0, 6 * B) == expected


def test_where_nothing_changed_but_data_the_journal_is_left_alone(home: Home) -> None:
    pool, disk = committed(home, "a")
    ready(pool.commits.journal)
    put(pool, disk, 0, "b")
    assert not pool.commits.map_changed and pool.commits.needed


def test_much_data_is_synced_in_its_place_and_what_was_there_before_not_replayed(home: Home) -> None:
    pool, disk = committed(home, "a")
    put(pool, disk, 1, "old")
    assert journaled(pool)
    put(pool, disk, 1, "new")
    pool.write(disk, 10 * B, b"m" * (B * (RECENT_BLOCKS_MAX + 1)))
    ready(pool.commits.journal)
    appended = pool.commits.begin_record()
    assert appended is not None and appended.data_first
    pool.commits.append(appended)
    pool.commits.end_record()
    put(pool, disk, 2, "later")
    assert journaled(pool)
    forget(home, pool, disk, 2)
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "new", "later"]


def test_a_commit_that_has_nothing_else_to_do_makes_data_in_the_journal_void(home: Home) -> None:
    pool, disk = committed(home, "a", "b")
    put(pool, disk, 2, "c")
    assert journaled(pool)
    pool.commit()
    put(pool, disk, 2, "d")
    assert not pool.commits.map_changed
    put(pool, disk, 3, "e")
    assert journaled(pool)
    pool.commit()
    number = pool._map.commit
    put(pool, disk, 0, "A")
    pool.commit()
    assert pool._map.commit == number, "nothing but data"
    put(pool, disk, 3, "E")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 4) == ["A", "b", "d", "E"]


def test_each_sync_is_a_record_until_a_commit_makes_them_void(home: Home) -> None:
    pool, disk = committed(home, "a", "b")
    put(pool, disk, 2, "c")
    assert journaled(pool)
    pool.commit()
    put(pool, disk, 3, "d")
    assert journaled(pool)
    put(pool, disk, 3, "D")
    number = pool._map.commit
    assert pool.commits.wanted and pool.commits.map_changed
    pool.commit()
    assert pool._map.commit > number
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 4) == ["a", "b", "c", "D"]


def test_data_whose_record_was_lost_is_committed(home: Home) -> None:
    pool, disk = committed(home, "a", "b")
    put(pool, disk, 2, "c")
    assert journaled(pool)
    put(pool, disk, 2, "C")
    assert pool.commits.begin_record() is not None
    pool.commits.record_lost()
    pool.commits.end_record()
    assert pool.commits.needed and pool.commits.map_changed and pool.commits.begin_record() is None
    pool.commit()
    pool = home.crash()
    assert get(pool, pool.catalog.disk("d"), 0, 3) == ["a", "b", "C"]


def test_an_address_that_there_is_not_is_damage(home: Home) -> None:
    pool, _ = committed(home, "a")
    journal = ready(pool.commits.journal)
    for number in (0, 1 << 60):
        journal.begin(7)
        place = journal.place(2 * B)
        assert place is not None
        journal.write(place, encode(pool._map.commit, 1, [], journal.state.nonce, data=[(number, b"x" * B)]))
        pool.abandon()
        with pytest.raises(CorruptionError, match="address"):
            Pool(str(home.path))
        label = home.data_path.read_bytes()[:8]
        assert label == b"rowfsPL\n"
        os.unlink(home.path / JOURNAL_FILE)
        pool = home.open()
        pool.commit()
        journal = ready(pool.commits.journal)


def test_a_replay_of_data_that_is_cut_off_is_begun_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = recorded(home)
    forget(home, pool, pool.catalog.disk("d"), 1)
    with monkeypatch.context() as patch:
        patch.setattr(DataFile, "sync", fails)
        with pytest.raises(StorageError):
            Pool(str(home.path))
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]


def fails(*_: object) -> None:
    """As any call when the host's disk fails."""
    raise StorageError("Input/output error")


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
    os.close(journal.state.fd)
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
