"""Disks come, get names and go; what cannot be done changes nothing."""

from __future__ import annotations

import errno
import itertools

import pytest

from rowfs.base.errors import ExistsError, NotFoundError, RowfsError, UsageError
from rowfs.base.units import DISK_BYTES_MAX
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.damage import edit_record, tables
from tests.store.helpers import SIZE, Home, address, get, put, snapshot_of


def names(pool: Pool) -> list[str]:
    return sorted(disk.name for disk in pool.catalog.live())


@pytest.mark.parametrize("name", ["", "a/b", "a@b", "a\0b", ".hidden", "..", "x" * 256])
def test_a_bad_name_is_refused_everywhere_and_changes_nothing(pool: Pool, name: str) -> None:
    disk = pool.create_disk("d", SIZE)
    snapshot = pool.snapshot(disk, "s")
    pool.commit()
    for action in (
        lambda: pool.create_disk(name, SIZE),
        lambda: pool.rename_disk(disk, name),
        lambda: pool.snapshot(disk, name),
        lambda: pool.rename_snapshot(snapshot, name),
        lambda: pool.clone(snapshot, ["fine", name]),
    ):
        with pytest.raises(UsageError):
            action()
    assert not pool.commits.needed
    assert (names(pool), list(disk.chain)) == (["d"], ["s"])


@pytest.mark.parametrize("size_bytes", [-1, DISK_BYTES_MAX + 1])
def test_a_bad_size_is_refused_everywhere_and_changes_nothing(pool: Pool, size_bytes: int) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.commit()
    for action in (
        lambda: pool.create_disk("e", size_bytes),
        lambda: pool.resize(disk, size_bytes),
        lambda: pool.set_size(disk, size_bytes),
    ):
        with pytest.raises(UsageError):
            action()
    assert not pool.commits.needed
    assert (names(pool), disk.size_bytes, get(pool, disk)) == (["d"], SIZE, ["a"])


def test_a_name_that_is_taken_is_refused_everywhere_and_changes_nothing(pool: Pool) -> None:
    one, two = pool.create_disk("one", SIZE), pool.create_disk("two", SIZE)
    snapshot, other = pool.snapshot(one, "s"), pool.snapshot(one, "t")
    pool.commit()
    for action in (
        lambda: pool.create_disk("two", SIZE),
        lambda: pool.rename_disk(one, "two"),
        lambda: pool.snapshot(one, "s"),
        lambda: pool.rename_snapshot(other, "s"),
        lambda: pool.clone(snapshot, ["new", "two"]),
    ):
        with pytest.raises(ExistsError) as caught:
            action()
        assert caught.value.errno == errno.EEXIST
    with pytest.raises(UsageError, match="twice"):
        pool.clone(snapshot, ["new", "new"])
    assert not pool.commits.needed
    assert (names(pool), list(one.chain)) == (["one", "two"], ["s", "t"])
    assert two.chain == {}


def test_what_is_not_there_is_not_found(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    for action in (
        lambda: pool.catalog.disk("e"),
        lambda: pool.catalog.chain("e"),
        lambda: pool.catalog.snapshot(disk, "s"),
    ):
        with pytest.raises(NotFoundError) as caught:
            action()
        assert caught.value.errno == errno.ENOENT


def test_a_renamed_disk_is_the_same_disk(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("old", SIZE)
    put(pool, disk, 0, "a")
    pool.snapshot(disk, "s")
    inode = disk.inode
    pool.rename_disk(disk, "new")
    pool.rename_disk(disk, "new")
    assert names(pool) == ["new"]
    pool = home.reopen()
    disk = pool.catalog.disk("new")
    assert (disk.inode, get(pool, disk), list(disk.chain)) == (inode, ["a"], ["s"])
    assert "old" not in pool.catalog.disks


def test_renaming_over_a_disk_replaces_it(home: Home, pool: Pool) -> None:
    one, two = pool.create_disk("one", SIZE), pool.create_disk("two", SIZE)
    put(pool, one, 0, "1")
    put(pool, two, 0, "2")
    pool.rename_disk(one, "two", replace=True)
    assert (names(pool), get(pool, pool.catalog.disk("two"))) == (["two"], ["1"])
    pool = home.reopen()
    pool.reclaim()
    assert get(pool, pool.catalog.disk("two")) == ["1"]
    assert pool.space.allocated_blocks == 2


def test_renaming_over_a_disk_keeps_its_snapshots_under_the_name(home: Home, pool: Pool) -> None:
    one, two = pool.create_disk("one", SIZE), pool.create_disk("two", SIZE)
    put(pool, two, 0, "2")
    pool.snapshot(two, "s")
    pool.rename_disk(one, "two", replace=True)
    pool = home.reopen()
    assert get(pool, snapshot_of(pool, "two", "s")) == ["2"]
    assert snapshot_of(pool, "two", "s").owner is pool.catalog.disk("two")


def test_two_chains_are_never_mixed(pool: Pool) -> None:
    one, two = pool.create_disk("one", SIZE), pool.create_disk("two", SIZE)
    pool.snapshot(one, "s")
    pool.snapshot(two, "t")
    for replace in (False, True):
        with pytest.raises(ExistsError):
            pool.rename_disk(one, "two", replace)
    pool.delete_disk(two)
    with pytest.raises(ExistsError, match="both one and two have snapshots"):
        pool.rename_disk(one, "two")
    assert names(pool) == ["one"]


def test_a_renamed_snapshot_keeps_its_place_in_the_chain(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    for name in "abc":
        pool.snapshot(disk, name)
    pool.rename_snapshot(disk.chain["b"], "z")
    pool.rename_snapshot(disk.chain["c"], "c")
    assert list(disk.chain) == ["a", "z", "c"]
    pool = home.reopen()
    assert list(pool.catalog.disk("d").chain) == ["a", "z", "c"]


def test_a_snapshot_without_a_name_is_called_by_its_disk_and_time(pool: Pool) -> None:
    disk = pool.create_disk("vm1", SIZE)
    first, second = pool.snapshot(disk), pool.snapshot(disk)
    assert first.name.startswith("vm1-20")
    assert first.name != second.name
    assert list(disk.chain) == [first.name, second.name]


def test_no_error_is_left_without_an_errno(pool: Pool) -> None:
    def classes(kind: type[RowfsError]) -> set[type[RowfsError]]:
        return {kind}.union(*(classes(child) for child in kind.__subclasses__()))

    assert all(kind("x").errno > 0 for kind in classes(RowfsError))


def test_a_disk_becomes_what_another_holds_without_copying(home: Home, pool: Pool) -> None:
    source = pool.create_disk("d", SIZE)
    put(pool, source, 0, "a", "b")
    copy = pool.create_disk("copy", 0)
    pool.become(copy, source)
    assert (get(pool, copy, 0, 2), copy.size_bytes) == (["a", "b"], SIZE)
    assert address(pool, copy, 0) == address(pool, source, 0)
    put(pool, source, 0, "x")
    put(pool, copy, 1, "y")
    pool = home.reopen()
    pool.reclaim()
    assert get(pool, pool.catalog.disk("d"), 0, 2) == ["x", "b"]
    assert get(pool, pool.catalog.disk("copy"), 0, 2) == ["a", "y"]
    assert pool.space.allocated_blocks == 5


def test_a_disk_becomes_what_a_snapshot_holds(pool: Pool) -> None:
    source = pool.create_disk("d", SIZE)
    put(pool, source, 0, "a")
    snapshot = pool.snapshot(source, "s")
    put(pool, source, 0, "b")
    copy: Disk = pool.create_disk("copy", 0)
    pool.become(copy, snapshot)
    assert get(pool, copy) == ["a"]


# Who owns it, and when it changed


def test_a_deleted_disk_whose_snapshots_stay_keeps_its_owner_and_mode(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE, (0o640, 7, 8))
    pool.snapshot(disk, "s")
    disk.mode, disk.uid = 0o600, 9
    pool.delete_disk(disk)
    for left in (pool.catalog.chain("d"), home.reopen().catalog.chain("d")):
        assert (left.mode, left.uid, left.gid) == (0o600, 9, 8)


def test_of_a_disk_that_rowfs_0_1_deleted_the_newest_snapshot_knows_the_owner(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE, (0o600, 7, 8))
    for name, mode in (("older", 0o644), ("newer", 0o640)):
        disk.mode = mode
        pool.snapshot(disk, name)
    pool.delete_disk(disk)
    home.close()
    ((key, _),) = tables(home.path)["disks"]
    edit_record(home.path, "disks", key, mode=0o644, uid=0, gid=0, changed_ns=0)
    left = home.open().catalog.chain("d")
    assert (left.mode, left.uid, left.gid) == (0o440, 7, 8)


def test_the_time_of_change_goes_forward_and_is_kept(home: Home, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = pool.create_disk("d", SIZE)
    clock = itertools.count(disk.changed_ns + 1)
    monkeypatch.setattr("rowfs.store.pool.stamp_ns", lambda: next(clock))
    snapshot = pool.snapshot(disk, "s")
    seen = [disk.changed_ns]
    for action in (
        lambda: pool.resize(disk, 2 * SIZE),
        lambda: pool.rename_disk(disk, "e"),
        lambda: pool.rollback(disk, snapshot, discard=True),
        lambda: pool.rename_snapshot(snapshot, "t"),
    ):
        action()
        seen.append(max(disk.changed_ns, snapshot.changed_ns))
    assert seen == sorted(set(seen))
    disk.note_change(5)
    assert disk.changed_ns == seen[3]
    disk.modified_ns = 5  # utimensat(2)
    pool.catalog.touch(disk)
    again = home.reopen().catalog.disk("e")
    assert (again.modified_ns, again.changed_ns, again.chain["t"].changed_ns) == (5, seen[3], seen[4])


def test_a_disk_of_rowfs_0_1_has_changed_when_it_was_modified(home: Home, pool: Pool) -> None:
    pool.create_disk("d", SIZE).modified_ns = 77
    home.close()
    ((key, _),) = tables(home.path)["disks"]
    edit_record(home.path, "disks", key, changed_ns=0)
    assert home.open().catalog.disk("d").changed_ns == 77
