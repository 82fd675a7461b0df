"""The checker finds each kind of damage, and says which invariant it breaks and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rowfs.base.errors import BusyError, PoolError
from rowfs.base.format import (
    BRANCHES,
    CHANGES,
    CHUNK_KEY,
    DISKS,
    ID_KEY,
    PAGES,
    REGION_KEY,
    SHARES,
    SNAPSHOTS,
    SPACE,
    TABLES,
    page_key,
)
from rowfs.store.check import check_pool
from tests.store import damage
from tests.store.helpers import SIZE, B, Home, P, get, put, share

FREE = 5000  # an address nobody has


@dataclass
class Case:
    """A closed pool, and the keys of what is in it.

    The disk d wrote a and b into blocks 0 and 1 and e into page 1, where the next block shares it, was snapshotted as
    s, and wrote c over b. A clone of s wrote x over a.
    """

    path: Path
    first: bytes  # versions of page 0: owns a and b
    second: bytes  # owns c, and holds a
    clone: bytes  # owns x, and holds b
    a: int
    b: int
    c: int
    e: int
    disk: bytes
    copy: bytes
    snapshot: bytes
    branch: bytes


@pytest.fixture
def case(home: Home) -> Case:
    """The pool to damage. It is not checked at the end of the test."""
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    put(pool, disk, P, "e")
    assert share(pool, disk, P, disk, P + 1, 1) == B
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 1, "c")
    (clone,) = pool.clone(snapshot, ["clone"])
    put(pool, clone, 0, "x")
    assert disk.head is not None and clone.head is not None
    first, second, other = (page_key(disk.head.id, page, epoch) for page, epoch in ((0, 1), (0, 2), (1, 1)))
    keys = [ID_KEY.pack(thing.id) for thing in (disk, clone, snapshot, disk.head)]
    copied = page_key(clone.head.id, 0, 1)
    home.close()
    a, b = damage.page(home.path, first)[0][:2]
    c = damage.page(home.path, second)[0][1]
    e = damage.page(home.path, other)[0][0]
    return Case(home.path, first, second, copied, a, b, c, e, *keys)


def found(case: Case) -> set[str]:
    """The checks that found something."""
    findings, mended = check_pool(str(case.path))
    assert not mended
    return {finding.check for finding in findings}


def test_a_pool_in_order_has_no_findings(case: Case) -> None:
    assert found(case) == set()


def test_an_empty_pool_has_no_findings(home: Home) -> None:
    assert check_pool(str(home.path)) == ([], False)


def double(case: Case) -> None:
    """The clone owns c of the disk instead of its own x, and the bitmap knows."""
    x = damage.page(case.path, case.clone)[0][0]
    damage.set_slot(case.path, case.clone, 0, case.c, True)
    damage.set_allocated(case.path, x, False)


DAMAGES: dict[str, tuple[Callable[[Case], object], set[str]]] = {
    # names
    "a snapshot without its disk": (
        lambda case: damage.edit_record(case.path, SNAPSHOTS, case.snapshot, disk=99),
        {"names"},
    ),
    "a snapshot of an epoch to come": (
        lambda case: damage.edit_record(case.path, SNAPSHOTS, case.snapshot, epoch=2),
        {"names", "figures"},
    ),
    "a record that is no JSON": (lambda case: damage.put(case.path, DISKS, case.copy, b"{"), {"names"}),
    "two disks on one branch": (
        lambda case: damage.edit_record(case.path, DISKS, case.copy, branch=1, mapped_blocks=4),
        {"names"},
    ),
    "a branch that begins where its parent never was": (
        lambda case: damage.edit_record(case.path, BRANCHES, damage.keys(case.path, BRANCHES)[1], fork=2),
        {"names", "versions"},
    ),
    # versions
    "a flipped bit in a page version": (lambda case: damage.flip(case.path, PAGES, case.clone), {"versions", "space"}),
    "a page version cut short": (lambda case: damage.put(case.path, PAGES, case.clone, b"\1"), {"versions", "space"}),
    "a page version under another's key": (
        lambda case: damage.put(case.path, PAGES, case.second, dict(damage.tables(case.path)[PAGES])[case.clone]),
        {"versions", "space"},
    ),
    "an older page version is gone": (
        lambda case: damage.drop_version(case.path, case.first),
        {"versions", "space", "figures"},
    ),
    "a block owned by the successor as well": (
        lambda case: damage.set_slot(case.path, case.second, 0, case.a, True),
        {"owners", "figures"},
    ),
    "a block held that nothing before held": (
        lambda case: damage.set_slot(case.path, case.clone, 1, case.c, False),
        {"versions"},
    ),
    "a hole that is owned": (lambda case: damage.set_slot(case.path, case.clone, 9, 0, True), {"versions", "figures"}),
    # owners
    "an address in two places": (double, {"owners"}),
    "shares that are gone": (lambda case: damage.remove(case.path, SHARES, REGION_KEY.pack(0)), {"owners"}),
    "a block that is shared once more than it has owners": (
        lambda case: damage.set_further(case.path, case.e, 2),
        {"owners"},
    ),
    "a block that is said to be shared and has one owner": (
        lambda case: damage.set_further(case.path, case.a, 1),
        {"owners"},
    ),
    "shares of blocks that nobody has": (lambda case: damage.set_further(case.path, FREE, 1), {"owners"}),
    "a flipped bit in a record of shares": (
        lambda case: damage.flip(case.path, SHARES, REGION_KEY.pack(0)),
        {"owners"},
    ),
    "shares under a key that is none": (lambda case: damage.put(case.path, SHARES, b"xy", b""), {"owners"}),
    # space
    "the newest page version is gone": (lambda case: damage.drop_version(case.path, case.second), {"space", "figures"}),
    "a block in use that is marked free": (lambda case: damage.set_allocated(case.path, case.b, False), {"space"}),
    "the label marked free": (lambda case: damage.set_allocated(case.path, 0, False), {"space"}),
    "a free block that is marked in use": (lambda case: damage.set_allocated(case.path, FREE, True), {"space"}),
    "a bitmap that is gone": (lambda case: damage.remove(case.path, SPACE, CHUNK_KEY.pack(0)), {"space"}),
    "a flipped bit in a bitmap": (lambda case: damage.flip(case.path, SPACE, CHUNK_KEY.pack(0)), {"space"}),
    "a data file that is too short": (lambda case: os.truncate(case.path / "data", 2 * B), {"space"}),
    # changes
    "an entry of the change index that is gone": (
        lambda case: damage.remove(case.path, CHANGES, damage.keys(case.path, CHANGES)[0]),
        {"changes"},
    ),
    "a version that the change index does not list": (
        lambda case: damage.change_index(case.path, 1, 1, 0, False),
        {"changes"},
    ),
    "a version that only the change index lists": (
        lambda case: damage.change_index(case.path, 1, 2, 7, True),
        {"changes"},
    ),
    # figures
    "a wrong count of a disk": (
        lambda case: damage.edit_record(case.path, DISKS, case.disk, mapped_blocks=9),
        {"figures"},
    ),
    "a wrong count of a snapshot": (
        lambda case: damage.edit_record(case.path, SNAPSHOTS, case.snapshot, referenced_blocks=9),
        {"figures"},
    ),
    "a wrong count of what a snapshot wrote": (
        lambda case: damage.edit_record(case.path, SNAPSHOTS, case.snapshot, written_blocks=9),
        {"figures"},
    ),
    "a wrong count of what a branch wrote": (
        lambda case: damage.edit_record(case.path, BRANCHES, case.branch, written_blocks=9),
        {"figures"},
    ),
}
MENDABLE = {"owners", "space", "changes", "figures"}
# What is found follows from lost data.
LOST = {"the newest page version is gone", "a data file that is too short", "an address in two places"}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_by_the_check_that_is_meant(case: Case, name: str) -> None:
    damages, checks = DAMAGES[name]
    damages(case)
    assert found(case) == checks


def test_a_finding_says_where(case: Case) -> None:
    damage.set_allocated(case.path, case.b, False)
    ((finding,), _) = check_pool(str(case.path))
    assert f"address {case.b}" in str(finding)
    assert str(finding).startswith("space: ")


def test_a_finding_in_a_page_names_the_snapshot_that_sees_it(case: Case) -> None:
    damage.flip(case.path, PAGES, case.first)
    texts = [str(finding) for finding in check_pool(str(case.path))[0]]
    assert any("d@s" in text and "checksum" in text for text in texts)


# Repair


@pytest.mark.parametrize(
    "name", [name for name, (_, checks) in DAMAGES.items() if checks <= MENDABLE and name not in LOST]
)
def test_what_follows_from_the_pages_is_mended(case: Case, home: Home, name: str) -> None:
    DAMAGES[name][0](case)
    findings, mended = check_pool(str(case.path), repair=True)
    assert findings
    assert mended
    assert found(case) == set()
    pool = home.open()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["a", "c"]
    assert get(pool, pool.catalog.disk("clone"), 0, 2) == ["x", "b"]
    assert get(pool, pool.catalog.disk("d").chain["s"], 0, 2) == ["a", "b"]
    put(pool, pool.catalog.disk("d"), P, "f")
    assert get(pool, pool.catalog.disk("d"), P, 2) == ["f", "e"]


@pytest.mark.parametrize("name", [name for name, (_, checks) in DAMAGES.items() if not checks <= MENDABLE])
def test_what_would_have_to_be_guessed_is_left_alone(case: Case, name: str) -> None:
    DAMAGES[name][0](case)
    before = damage.tables(case.path)
    _, mended = check_pool(str(case.path), repair=True)
    assert not mended
    after = damage.tables(case.path)
    for table in (PAGES, "meta", "pending"):
        assert after[table] == before[table]
    assert [key for key, _ in after[DISKS]] == [key for key, _ in before[DISKS]]
    assert [key for key, _ in after[SNAPSHOTS]] == [key for key, _ in before[SNAPSHOTS]]


def test_blocks_of_a_version_that_cannot_be_read_are_not_made_free(case: Case) -> None:
    damage.flip(case.path, PAGES, case.clone)
    before = damage.tables(case.path)[SPACE]
    check_pool(str(case.path), repair=True)
    assert damage.tables(case.path)[SPACE] == before


def test_a_data_file_that_is_too_short_is_not_called_mended(case: Case) -> None:
    os.truncate(case.path / "data", 2 * B)
    findings, mended = check_pool(str(case.path), repair=True)
    assert findings
    assert not mended


def test_a_pool_in_order_is_not_touched_by_repair(case: Case) -> None:
    before = damage.tables(case.path)
    assert check_pool(str(case.path), repair=True) == ([], False)
    assert damage.tables(case.path) == before


# Pools that are no pools, and that are in use


def test_an_open_pool_is_checked_as_of_its_last_commit(home: Home) -> None:
    pool = home.open()
    put(pool, pool.create_disk("d", SIZE), 0, "a")
    pool.commit()
    put(pool, pool.catalog.disk("d"), 1, "b")
    script = (
        "from contextlib import nullcontext; from rowfs.store.check import check_pool;"
        f"print(check_pool({str(home.path)!r}, hold=nullcontext))"
    )
    release = pool.hold()
    for number in range(5):  # pages of the commit that is held are not used again
        put(pool, pool.catalog.disk("d"), 2, f"{number}")
        pool.commit()
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    release()
    assert done.stdout == "([], False)\n"


def test_a_pool_that_nobody_holds_for_the_checker_is_busy(home: Home) -> None:
    home.open()
    with pytest.raises(BusyError):
        check_pool(str(home.path))


def test_any_number_may_hold_a_commit(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    releases = [pool.hold() for _ in range(300)]  # LMDB has places for 126 readers
    put(pool, disk, 0, "a")
    pool.commit()
    for release in releases:
        release()
    assert get(pool, disk) == ["a"]


def test_what_was_held_is_as_it_was_however_many_commits_follow(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    release, seen = pool.hold(), pool.reader()
    before = {table: [(bytes(key), bytes(value)) for key, value in seen.items(table)] for table in TABLES}
    for number in range(20):
        put(pool, disk, number % 7, f"{number}")
        pool.commit()
    after = {table: [(bytes(key), bytes(value)) for key, value in seen.items(table)] for table in TABLES}
    seen.close()
    release()
    assert before == after


def test_an_open_pool_is_not_repaired(home: Home) -> None:
    home.open()
    with pytest.raises(BusyError):
        check_pool(str(home.path), repair=True)


def test_what_is_no_pool_is_not_checked(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="is not a rowfs pool"):
        check_pool(str(tmp_path))


def test_progress_is_told_up_to_the_end(case: Case) -> None:
    told: list[tuple[int, int]] = []
    check_pool(str(case.path), lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
