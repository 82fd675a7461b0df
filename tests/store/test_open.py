"""Opening a pool: what is none, of a newer format, in pieces or in use is refused with the reason, and unharmed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rowfs.base.errors import BusyError, CorruptionError, PoolError, ReadOnlyError
from rowfs.persist import blockmap as blockmap_module
from rowfs.store.check import check_pool
from rowfs.store.pool import Pool, init_pool, is_pool
from tests.store.damage import edit_record, remove, tables
from tests.store.damage import put as put_record
from tests.store.helpers import SIZE, Home, get, put

HOLD = """
import sys
from rowfs.store.pool import Pool
pool = Pool(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
pool.abandon()
"""


def files(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# Making one


def test_a_new_pool_has_its_files_and_nothing_else(tmp_path: Path) -> None:
    init_pool(str(tmp_path / "deep" / "pool"))
    assert files(tmp_path / "deep" / "pool") == {"data", "map"}
    assert (tmp_path / "deep" / "pool" / "data").stat().st_mode & 0o777 == 0o600
    assert is_pool(str(tmp_path / "deep" / "pool"))


def test_an_empty_directory_becomes_a_pool(tmp_path: Path) -> None:
    init_pool(str(tmp_path))
    Pool(str(tmp_path)).close()


def test_a_pool_is_not_made_over_anything(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(PoolError, match="is not empty"):
        init_pool(str(tmp_path))
    assert files(tmp_path) == {"precious"}


def test_a_pool_is_not_made_over_a_pool(home: Home) -> None:
    put(home.open(), home.pool.create_disk("d", SIZE), 0, "a")
    home.close()
    with pytest.raises(PoolError, match="is a pool already"):
        init_pool(str(home.path))
    assert get(home.open(), home.pool.catalog.disk("d")) == ["a"]


def test_a_pool_is_not_made_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PoolError, match="file is not a directory: give a new or an empty one"):
        init_pool(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_of_a_pool_that_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    def broken(path: str, uuid: bytes) -> None:
        Path(path).write_bytes(b"half")
        raise PoolError("no space")

    monkeypatch.setattr("rowfs.store.pool.DataFile.create", broken)
    target = tmp_path / "pool"
    if exists:
        target.mkdir()
    with pytest.raises(PoolError, match="no space"):
        init_pool(str(target))
    assert target.exists() == exists
    assert not exists or files(target) == set()


# What is none


def test_what_nobody_lets_us_look_into_is_not_said_to_be_no_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(path: str, **options: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(PoolError, match="may not be looked into"):
        Pool(str(tmp_path / "hidden"))
    with pytest.raises(PoolError, match="may not be looked into"):
        check_pool(str(tmp_path / "hidden"))


@pytest.mark.parametrize("name", ["missing", "empty", "file", "half"])
def test_what_is_no_pool_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "half" / "map").mkdir(parents=True)
    with pytest.raises(PoolError, match="is not a rowfs pool") as caught:
        Pool(str(tmp_path / name))
    assert caught.value.errno == errno.EINVAL
    assert files(tmp_path) == {"empty", "file", "half"}
    assert files(tmp_path / "empty") == set()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: overwrite(path / "data", 0, b"QFI\xfb"), "does not begin with the label"),
        (lambda path: os.truncate(path / "data", 10), "too short"),
        (lambda path: overwrite(path / "data", 8, b"\3"), "format 3, this rowfs knows formats up to 2"),
        (lambda path: overwrite(path / "data", 12, b"\xee" * 16), "different pools"),
        (lambda path: os.unlink(path / "map" / "data.mdb"), "cannot open the block map"),
        (lambda path: overwrite(path / "map" / "data.mdb", 0, bytes(8192)), "block map"),
        (lambda path: edit_record(path, "meta", b"pool", format=9), "format 9, this rowfs knows formats up to 2"),
    ],
)
def test_a_pool_in_pieces_or_of_a_newer_format_is_refused(
    home: Home, damage: Callable[[Path], None], message: str
) -> None:
    damage(home.path)
    with pytest.raises(PoolError, match=message):
        home.open()


def test_a_map_without_its_tables_is_refused(home: Home) -> None:
    shutil.rmtree(home.path / "map")
    (home.path / "map").mkdir()
    env = blockmap_module.lmdb.open(str(home.path / "map"), max_dbs=1)
    env.close()
    with pytest.raises(PoolError, match="incomplete"):
        home.open()


def test_a_map_without_its_pool_record_is_corrupt(home: Home) -> None:
    remove(home.path, "meta", b"pool")
    with pytest.raises(CorruptionError, match="no pool record"):
        home.open()


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("disks", {"branch": 99}),
        ("snapshots", {"branch": 99}),
        ("snapshots", {"disk": 99}),
        ("branches", {"parent": 99}),
        ("branches", {"id": 99}),
        ("branches", {"epoch": "2"}),
        ("branches", {"epoch": -1}),
        ("branches", {"fork": 1 << 40}),
        ("disks", {"id": 99}),
        ("snapshots", {"id": 99}),
        ("snapshots", {"epoch": 7}),
        ("snapshots", {"epoch": 0}),
    ],
)
def test_records_that_contradict_each_other_are_corrupt(home: Home, table: str, changes: dict[str, int]) -> None:
    pool = home.open()
    pool.snapshot(pool.create_disk("d", SIZE), "s")
    home.close()
    key = next(key for key, _ in tables(home.path)[table])
    edit_record(home.path, table, key, **changes)
    with pytest.raises(CorruptionError):
        home.open()


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("disks", {"name": "d"}),
        ("disks", {"branch": 1}),
        ("snapshots", {"name": "s"}),
        ("snapshots", {"epoch": 1}),
        ("branches", {"parent": 5, "fork": 1}),
    ],
)
def test_what_two_records_cannot_both_have_is_corrupt(home: Home, table: str, change: dict[str, object]) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    for name in "st":
        pool.snapshot(disk, name)
    pool.clone(disk.chain["s"], ["clone"])
    pool.clone(disk.chain["s"], ["clone2"])
    home.close()
    key = next(
        key
        for key, value in reversed(tables(home.path)[table])
        if any(json.loads(value)[f] != v for f, v in change.items())
    )
    if table == "branches":
        change = {"parent": json.loads(dict(tables(home.path)[table])[key])["id"], "fork": 1}
    edit_record(home.path, table, key, **change)
    with pytest.raises(CorruptionError):
        home.open()
    assert {finding.check for finding in check_pool(str(home.path))[0]} >= {"names"}


@pytest.mark.parametrize("table", ["disks", "snapshots", "branches", "pages", "changes", "space", "pending"])
def test_a_key_that_is_none_is_told(home: Home, table: str) -> None:
    put_record(home.path, table, b"odd", b"{}")
    assert [finding.check for finding in check_pool(str(home.path))[0]] == [
        {"pages": "versions", "changes": "changes", "space": "space"}.get(table, "names")
    ]
    if table in ("pages", "changes"):  # what is read is found without it
        home.open()
        home.abandon()
        return
    with pytest.raises(CorruptionError):
        home.open()


def test_an_entry_of_the_change_index_that_is_too_long_fails_the_commit_that_adds_to_it(home: Home) -> None:
    put(home.open(), home.pool.create_disk("d", SIZE), 0, "a")
    home.close()
    ((key, value),) = tables(home.path)["changes"]
    put_record(home.path, "changes", key, value + b"\1")
    pool = home.open()
    put(pool, pool.catalog.disk("d"), 1, "b")
    with pytest.raises(CorruptionError, match="too long"):
        pool.commit()
    assert pool.read_only_reason and get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "b"]
    home.abandon()
    assert [finding.check for finding in check_pool(str(home.path), repair=True)[0]] == ["changes"]
    home.open()


def test_a_refused_pool_can_be_opened_once_it_is_mended(home: Home) -> None:
    label = (home.path / "data").read_bytes()[:28]
    overwrite(home.path / "data", 0, b"x")
    for _ in range(2):
        with pytest.raises(PoolError):
            home.open()
    overwrite(home.path / "data", 0, label)
    home.open()


def test_fields_of_a_newer_rowfs_are_ignored(home: Home) -> None:
    home.open().create_disk("d", SIZE)
    home.close()
    key = next(key for key, _ in tables(home.path)["disks"])
    edit_record(home.path, "disks", key, encryption={"cipher": "x"})
    assert home.open().catalog.disk("d").size_bytes == SIZE


# In use


def test_a_pool_in_use_is_refused_naming_the_holder(home: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"in use by process {holder.pid}") as caught:
            home.open()
        assert caught.value.errno == errno.EBUSY
        holder.communicate()
    assert holder.returncode == 0
    home.open()


def test_a_pool_whose_holder_was_killed_can_be_opened(home: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    assert home.open().was_clean  # it never committed


def test_a_pool_in_use_by_this_process_is_refused_as_well(home: Home) -> None:
    home.open()
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        Pool(str(home.path))


# Clean, dirty, read-only


def test_a_closed_pool_is_clean_and_a_crashed_one_is_not(home: Home) -> None:
    assert home.open().was_clean
    assert home.reopen().was_clean
    home.pool.commit()
    assert not home.crash().was_clean
    assert home.reopen().was_clean


def test_a_read_only_pool_reads_and_changes_nothing(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    home.close()
    before = tables(home.path)
    pool = home.open(read_only=True)
    disk = pool.catalog.disk("d")
    assert (get(pool, disk), get(pool, disk.chain["s"])) == (["a"], ["a"])
    for action in (lambda: put(pool, disk, 0, "b"), lambda: pool.snapshot(disk, "t"), lambda: pool.delete_disk(disk)):
        with pytest.raises(ReadOnlyError):
            action()
    home.close()
    assert tables(home.path) == before


def test_an_unknown_map_table_is_left_alone(home: Home) -> None:
    env = blockmap_module.lmdb.open(str(home.path / "map"), max_dbs=20)
    with env.begin(write=True) as txn:
        txn.put(b"k", b"v", db=env.open_db(b"checksums", txn=txn))
    env.close()
    home.open().create_disk("d", SIZE)
    home.close()
    env = blockmap_module.lmdb.open(str(home.path / "map"), max_dbs=20)
    with env.begin() as txn:
        assert txn.get(b"k", db=env.open_db(b"checksums", txn=txn)) == b"v"
    env.close()
    assert json.loads(dict(tables(home.path)["meta"])[b"pool"])["clean"] is True
