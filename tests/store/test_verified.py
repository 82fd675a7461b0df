"""Reading LMDB's file past LMDB: it says what LMDB says, and nothing that is not what was written."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from rowfs.base.errors import CorruptionError, ReadOnlyError, RowfsError
from rowfs.base.format import TABLES
from rowfs.base.units import PAGE_BYTES
from rowfs.persist import mapcheck
from rowfs.persist.mappages import ROOT, MapPages, Root
from rowfs.persist.verified import DamagedError, VerifiedMap
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.helpers import B, Home, fill

pytestmark = pytest.mark.skipif(os.environ.get("ROWFS_NATIVE") == "0", reason="there is no C extension to be tested")
PAGE = 4096
DISK_PAGES = 30
Damage = Callable[[int], None]


def used_pages(path: Path, whole: bool = True) -> list[int]:
    """The pages that the last commit has in its trees, counted by the check at open."""
    pages = MapPages(str(path))
    meta = max(pages.metas(), key=lambda meta: meta.commit)
    check = mapcheck._Check(pages, meta, TABLES, mapcheck.ALL_PAGES)
    assert check.run() == [] or not whole
    pages.close()
    return [int(number) for number in np.flatnonzero(check._used)]


# The cursor


def test_a_cursor_says_what_lmdb_says(tmp_path: Path) -> None:
    rng = random.Random(7)
    with lmdb.open(str(tmp_path), map_size=1 << 26, max_dbs=len(TABLES)) as env:
        table = env.open_db(TABLES[0].encode())
        for _ in range(4):
            with env.begin(write=True, db=table) as txn:
                for _ in range(1500):
                    txn.put(_key(rng), rng.randbytes(rng.choice((0, 1, 30, 300, 2500, 9000))))
                for key in rng.sample([bytes(key) for key, _ in txn.cursor()], 300):
                    txn.delete(key)
        verified = VerifiedMap.open(str(tmp_path / "data.mdb"))
        assert verified is not None
        with env.begin(db=table) as txn, txn.cursor() as theirs:
            ours = verified.view(txn.id()).cursor(TABLES[0])
            assert ours.first() and theirs.first()
            for _ in range(20000):
                step, key = rng.choice(("next", "prev", "first", "last", "set_range", "set_key")), _key(rng)
                arguments = (key,) if step.startswith("set") else ()
                found = getattr(ours, step)(*arguments)
                assert found == getattr(theirs, step)(*arguments)
                if found:
                    assert (ours.key(), ours.value()) == (theirs.key(), theirs.value())
                else:  # where it is then, is nobody's business
                    assert ours.key() == b""
                    assert ours.first() and theirs.first()
        verified.close()


def _key(rng: random.Random) -> bytes:
    return rng.choice((b"a", b"b", b"")) + struct.pack(">H", rng.randrange(3000)) + b"x" * rng.choice((0, 0, 1, 9))


def test_a_table_that_is_empty_has_nothing(home: Home) -> None:
    blockmap = home.open()._map
    assert blockmap.get("snapshots", b"x") is None and blockmap.last_key("snapshots") is None
    assert list(blockmap.items("snapshots")) == [] and blockmap.entries("snapshots") == 0


# From commit to commit


def _change(rng: random.Random, pool: Pool, turn: int) -> None:
    disks = list(pool.catalog.live())
    if len(disks) < 6:
        pool.create_disk(f"d{turn}", DISK_PAGES * PAGE_BYTES)
    for disk in rng.sample(disks, min(2, len(disks))):
        for block in rng.sample(range(DISK_PAGES * 512), rng.choice((1, 20, 300))):
            pool.write(disk, block * B, fill(f"{turn} {block}"))
        if rng.random() < 0.7:
            pool.snapshot(disk, f"s{turn}")
        if disk.chain and rng.random() < 0.4:
            pool.delete_snapshot(next(iter(disk.chain.values())))
    if len(disks) > 4 and rng.random() < 0.3:
        pool.delete_disk(disks[0], keep_snapshots=False)


def test_which_pages_are_in_use_is_known_after_every_commit(home: Home) -> None:
    rng, pool, most = random.Random(3), home.open(), 0
    verified = pool._map._verified
    assert verified is not None
    for turn in range(40):
        _change(rng, pool, turn)
        (pool.reclaim if turn % 5 == 4 else pool.commit)()
        known = [number for number, state in enumerate(verified._pages.states()) if state]
        assert known == used_pages(home.path / "map/data.mdb")
        most = max(most, len(known))
    assert most > 50


def test_what_is_not_read_when_the_map_is_opened_is_known_from_the_first_look_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(home)
    home.close()
    monkeypatch.setattr("rowfs.persist.verified.PAGES_MAX", 3)
    pool = home.open()
    verified = pool._map._verified
    assert verified is not None
    states = verified._pages.states()
    assert 1 in states and sum(map(bool, states)) < len(used_pages(home.path / "map/data.mdb"))
    _hold(pool)
    assert sum(state == 2 for state in verified._pages.states()) > sum(state == 2 for state in states)
    rng = random.Random(4)
    for turn in range(10):
        _change(rng, pool, turn)
        pool.commit()
        assert not pool.versions.damage


# Damage


def _filled(home: Home) -> Pool:
    pool = home.open(cache_bytes=0)
    for name in ("one", "two"):
        disk = pool.create_disk(name, DISK_PAGES * PAGE_BYTES)
        for page in range(DISK_PAGES):
            for block in range(0, 512, 2) if page == 7 else (0, 5):  # a version that has a page of its own
                pool.write(disk, page * PAGE_BYTES + block * B, fill(f"{name} {page}"))
            if page in (10, 20):
                pool.snapshot(disk, f"s{page}")
                pool.commit()
    pool.delete_snapshot(pool.catalog.disk("one").chain["s10"])
    pool.commit()
    return pool


def _hold(pool: Pool) -> int:
    """What can be read is right; how much cannot."""
    failed = 0
    for disk in list(pool.catalog.live()):
        assert disk.head is not None
        pool.versions.forget(disk.head)
        for page in range(DISK_PAGES):
            try:
                found = pool.read(disk, page * PAGE_BYTES, B)
            except CorruptionError as error:
                assert "damaged" in str(error) and "\n" not in str(error)
                failed += 1
            else:
                assert found == fill(f"{disk.name} {page}")
    return failed


def _overwrite(path: Path, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """Change a page; what it was."""
    with open(path, "r+b") as file:
        file.seek(number * PAGE)
        before = file.read(PAGE)
        file.seek(number * PAGE)
        file.write(change(before))
    return before


def _older(page: bytes) -> bytes:
    """Only one bit: as little as may be, where no structure tells."""
    at = PAGE - 9
    return page[:at] + bytes([page[at] ^ 4]) + page[at + 1 :]


@pytest.mark.parametrize("change", [_older, lambda page: bytes(PAGE), lambda page: random.Random(5).randbytes(PAGE)])
def test_any_page_may_be_damaged_and_nothing_wrong_is_read_or_committed(
    home: Home, change: Callable[[bytes], bytes]
) -> None:
    verified = _filled(home)._map._verified
    assert verified is not None
    root = verified.view(verified.meta.commit).tables["pages"].page
    home.abandon()
    path, failed = home.path / "map/data.mdb", 0
    intact = path.read_bytes()
    for number in {0, 1, root, *used_pages(path)[::4]}:
        pool = home.open(cache_bytes=0)
        before = _overwrite(path, number, change)
        failed += _hold(pool)
        with pytest.raises((CorruptionError, ReadOnlyError)) if pool.versions.damage else _perhaps():
            pool.write(pool.catalog.disk("one"), 3 * B, fill("new"))
            pool.commit()
        home.abandon()
        _overwrite(path, number, lambda page, before=before: before)  # type: ignore[misc]
        if path.read_bytes()[: len(intact)] != intact:  # it was committed, past the damage
            path.write_bytes(intact)
    assert failed


class _perhaps:
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is None or issubclass(kind, RowfsError)


@pytest.mark.parametrize("length", [0, 1, PAGE, 2 * PAGE, 3 * PAGE + 100])
def test_a_file_cut_off_while_it_is_open_ends_nothing(home: Home, length: int) -> None:
    pool = _filled(home)
    shutil.copy(home.path / "map/data.mdb", home.path / "kept")
    os.truncate(home.path / "map/data.mdb", length)
    with pytest.raises(CorruptionError, match="the block map is damaged"):
        pool.write(pool.catalog.disk("one"), 0, fill("one 0"))
        pool.commit()
    assert _hold(pool)
    with pytest.raises(ReadOnlyError):
        pool.write(pool.catalog.disk("one"), 0, fill("no"))
    home.abandon()
    os.replace(home.path / "kept", home.path / "map/data.mdb")
    assert _hold(home.open()) == 0


def test_damage_after_a_commit_has_begun_is_not_seen_by_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _filled(home)
    path = home.path / "map/data.mdb"
    prepare, kept = VerifiedMap.prepare, path.read_bytes()

    def then_damaged(self: VerifiedMap, keys: object) -> None:
        prepare(self, keys)  # type: ignore[arg-type]
        for number in used_pages(path):
            _overwrite(path, number, lambda page: b"\xff" * PAGE)

    monkeypatch.setattr(VerifiedMap, "prepare", then_damaged)
    pool.write(pool.catalog.disk("one"), PAGE_BYTES, fill("new"))
    pool.commit()
    assert "the block map: page" in str(pool.versions.damage), "which it finds when it reads back what it wrote"
    home.abandon()
    content = path.read_bytes()
    pages = (content[at : at + PAGE] for at in range(0, len(content), PAGE))
    path.write_bytes(
        b"".join(kept[n * PAGE : (n + 1) * PAGE] if page == b"\xff" * PAGE else page for n, page in enumerate(pages))
    )
    pool = home.open()
    assert pool.read(pool.catalog.disk("one"), PAGE_BYTES, B) == fill("new"), "the commit is whole"


def test_what_lmdb_meets_unprepared_is_not_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _filled(home)
    path = home.path / "map/data.mdb"
    verified = pool._map._verified
    assert verified is not None
    root = verified.view(verified.meta.commit).tables["pages"].page
    pool.read(pool.catalog.disk("one"), 0, B)
    before = _overwrite(path, root, lambda page: bytes(PAGE))
    monkeypatch.setattr(VerifiedMap, "prepare", lambda self, keys: None)
    content = path.read_bytes()
    pool.write(pool.catalog.disk("one"), 0, fill("one 0"))
    with pytest.raises(CorruptionError, match=f"page {root} was damaged while a commit needed it"):
        pool.commit()
    assert path.read_bytes() == content
    home.abandon()
    _overwrite(path, root, lambda page: before)


def test_the_tables_that_are_read_are_those_of_the_free_list_too(home: Home) -> None:
    pool = _filled(home)
    verified = pool._map._verified
    assert verified is not None
    free = Root._make(ROOT.unpack(verified.meta.free))
    assert free.depth, "there is a free list"
    before = _overwrite(home.path / "map/data.mdb", free.page, _older)
    pool.write(pool.catalog.disk("one"), 0, fill("one 0"))
    with pytest.raises(CorruptionError, match=f"page {free.page} is not what was written"):
        pool.commit()
    home.abandon()
    _overwrite(home.path / "map/data.mdb", free.page, lambda page: before)


def test_a_damaged_page_is_told_by_its_number(tmp_path: Path) -> None:
    home = Home(tmp_path / "pool")
    disk: Disk = _filled(home).catalog.disk("one")
    assert disk.head is not None
    verified = home.pool._map._verified if home.pool else None
    assert verified is not None
    root = verified.view(verified.meta.commit).tables["pages"]
    _overwrite(home.path / "map/data.mdb", root.page, _older)
    with pytest.raises(DamagedError, match=f"page {root.page} is not what was written"):
        verified.view(verified.meta.commit).cursor("pages").first()
    home.abandon()


# SIGBUS


def _in_a_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_meta_page_that_is_cut_off_between_two_looks_is_no_sigbus(home: Home) -> None:
    home.open()
    home.close()
    code = """
import os, sys
from rowfs.store.pool import Pool
pool = Pool(sys.argv[1])
os.truncate(sys.argv[1] + "/map/data.mdb", 0)
pool._map._env.info()
print(pool._map._verified._pages.struck(), flush=True)
os._exit(0)
"""
    done = _in_a_process(code, str(home.path))
    assert (done.returncode, done.stdout) in [(0, "0\n"), (0, "1\n")], done.stderr


def test_control_sigbus_elsewhere_still_ends_the_process_and_is_told(home: Home, tmp_path: Path) -> None:
    home.open()
    home.close()
    code = """
import faulthandler, mmap, os, sys
from rowfs.store.pool import Pool
faulthandler.enable()
pool = Pool(sys.argv[1])
with open(sys.argv[2], "w+b") as file:
    file.truncate(8192)
    mapped = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    print(mapped[5000])
"""
    done = _in_a_process(code, str(home.path), str(tmp_path / "file"))
    assert done.returncode == -signal.SIGBUS and "Bus error" in done.stderr and not done.stdout
