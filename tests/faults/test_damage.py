"""Damage of every kind: the checks meant for it report it and no others; repair removes nothing that is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rowfs.base.errors import CorruptionError
from rowfs.base.units import PAGE_BYTES
from rowfs.store.check import check_pool
from rowfs.store.pool import Pool
from tests.faults.damage import DAMAGE, change_map
from tests.store.helpers import B, Home, get, put, share, snapshot_of

SUBPROCESS_S = 60.0
GARBAGE_SEEDS = "0:20"
LOOK = """
import sys
from rowfs.base.errors import RowfsError
from rowfs.store.check import check_pool
from rowfs.store.pool import Pool
try:
    findings, _ = check_pool(sys.argv[1])
    print("findings", *{finding.check for finding in findings})
except RowfsError as error:
    print(type(error).__name__)
try:
    pool = Pool(sys.argv[1])
    for disk in pool.catalog.live():
        try:
            pool.read(disk, 0, 1 << 21)
        except RowfsError as error:
            print(type(error).__name__)
    pool.abandon()
except RowfsError as error:
    print(type(error).__name__)
print("over")
"""


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    home = Home(tmp_path / "pool")
    pool = home.open()
    disk = pool.create_disk("disk", 2 * PAGE_BYTES)
    put(pool, disk, 0, "a", "b", "c")
    pool.snapshot(disk, "s")
    put(pool, disk, 1, "d")
    other = pool.create_disk("other", 4 * B)
    put(pool, other, 0, "e", "f")
    share(pool, other, 0, other, 2, 1)
    home.close()
    return home.path


def _checks(path: Path, repair: bool = False) -> tuple[set[str], bool]:
    findings, mended = check_pool(str(path), repair=repair)
    return {finding.check for finding in findings}, mended


def test_what_is_not_damaged_is_clean(pool_path: Path) -> None:
    assert _checks(pool_path) == (set(), False)


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_check_that_is_meant_for_it_reports_it(pool_path: Path, kind: str) -> None:
    damage, reported, mendable = DAMAGE[kind]
    damage(pool_path)
    assert _checks(pool_path) == (reported, False)
    found, mended = _checks(pool_path, repair=True)
    assert (found, mended) == (reported, mendable)
    if mendable:
        assert _checks(pool_path) == (set(), False)
        _assert_whole(pool_path)


def _assert_whole(path: Path) -> None:
    pool = Pool(str(path))
    try:
        assert get(pool, pool.catalog.disk("disk"), 0, 3) == ["a", "d", "c"]
        assert get(pool, snapshot_of(pool, "disk", "s"), 0, 3) == ["a", "b", "c"]
        other = pool.catalog.disk("other")
        assert get(pool, other, 0, 3) == ["e", "f", "e"]
        put(pool, pool.catalog.disk("disk"), 5, "new")
        put(pool, other, 0, "g")
        pool.reclaim()
        assert get(pool, other, 0, 3) == ["g", "f", "e"]
    finally:
        pool.close()
    assert _checks(path) == (set(), False)


def test_the_rest_of_a_pool_with_an_unreadable_page_reads_on_and_nothing_is_written(pool_path: Path) -> None:
    DAMAGE["a bit flips in a page version"][0](pool_path)
    pool = Pool(str(pool_path))
    try:
        with pytest.raises(CorruptionError):
            get(pool, snapshot_of(pool, "disk", "s"))
        assert pool.read_only_reason and "damaged" in pool.read_only_reason
        assert get(pool, pool.catalog.disk("other"), 0, 2) == ["e", "f"]
        assert get(pool, pool.catalog.disk("disk"), 0, 3) == ["a", "d", "c"]
    finally:
        pool.abandon()


def test_a_pool_without_damage_elsewhere_is_unharmed_by_repair(pool_path: Path) -> None:
    assert _checks(pool_path, repair=True) == (set(), False)
    _assert_whole(pool_path)


# LMDB's own file. In another process: what LMDB does with garbage may end it.


def _look(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SUBPROCESS_S,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr[-2000:]}"
    assert done.stdout.endswith("over\n") and "Traceback" not in done.stderr
    return done.stdout


def _told(output: str) -> bool:
    return output.startswith(("PoolError", "CorruptionError", "findings pages"))


@pytest.mark.parametrize("kept", [0, 100, 4096, 8192, 12288, 0.5, 0.9])
def test_a_truncated_map_is_told(pool_path: Path, kept: float) -> None:
    path = pool_path / "map/data.mdb"
    size = path.stat().st_size
    os.truncate(path, int(size * kept) if 0 < kept < 1 else int(kept))
    assert _told(_look(pool_path))


@pytest.mark.parametrize("kind", ["pages", "records"])
def test_garbage_in_the_map_never_ends_a_process_nor_gets_out_as_anything_but_an_error(kind: str) -> None:
    # Thousands of seeds by hand: python -m tests.faults.garbage --kind pages --seeds 0:5000
    command = [sys.executable, "-m", "tests.faults.garbage", "--kind", kind, "--seeds", GARBAGE_SEEDS]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=10 * SUBPROCESS_S, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def test_a_copy_of_another_pools_map_is_refused(pool_path: Path, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    shutil.copy(other.path / "map/data.mdb", pool_path / "map/data.mdb")
    assert _look(pool_path).startswith("PoolError")


def test_damage_tool_changes_what_it_says(pool_path: Path) -> None:
    change_map(pool_path, "meta", lambda key, value: value)
    assert _checks(pool_path) == (set(), False)
