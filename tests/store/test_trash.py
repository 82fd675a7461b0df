"""The trash: what is deleted stays to the byte, comes back, or goes for good; across crashes and other versions."""

from __future__ import annotations

import pytest

from rowfs.base.errors import ExistsError, LockedError, NotFoundError, UsageError
from rowfs.base.format import DISKS, ID_KEY, TRASH, TrashRecord
from rowfs.rules.times import DAY_NS
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.damage import edit_record, remove, tables
from tests.store.helpers import SIZE, Home, blocks_held, disk_of, findings, get, put, snapshot_of


def kept(pool: Pool) -> Disk:
    """A pool that keeps what is deleted for a day, and the disk d (now: new) with the snapshot s (old)."""
    pool.trash.set_keep(DAY_NS)
    disk = disk_of(pool, "old")
    pool.snapshot(disk, "s")
    put(pool, disk, 0, "new")
    return disk


def entries(pool: Pool) -> list[str]:
    """What is in the trash."""
    return [entry.name if entry.snapshot is None else f"{entry.name}@{entry.snapshot}" for entry in pool.trash]


def shown(pool: Pool) -> dict[str, list[str]]:
    """Disks and chains that there are."""
    return {disk.name: list(disk.chain) for disk in pool.catalog.disks.values()}


def test_without_a_trash_what_is_deleted_is_gone(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.trash.delete_snapshot(pool.snapshot(disk, "s"))
    pool.trash.delete_disk(disk)
    assert (entries(pool), shown(pool), blocks_held(pool)) == ([], {}, 0)


@pytest.mark.parametrize("how", ["open", "closed", "crash"])
def test_a_snapshot_goes_to_the_trash_and_comes_back(home: Home, how: str) -> None:
    pool = home.open()
    disk = kept(pool)
    pool.snapshot(disk, "t")
    pool.marking.label(snapshot_of(pool, "d", "s"), {"env": "prod"})
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    assert (entries(pool), shown(pool)) == (["d@s"], {"d": ["t"]})
    pool.commit()
    pool = {"open": lambda: pool, "closed": home.reopen, "crash": home.crash}[how]()
    assert (entries(pool), shown(pool)) == (["d@s"], {"d": ["t"]})
    assert blocks_held(pool) == 2 and findings(pool) == []
    pool.trash.restore(pool.trash.newest("d", "s"))
    snapshot = snapshot_of(pool, "d", "s")
    assert (get(pool, snapshot), snapshot.labels) == (["old"], {"env": "prod"})
    assert (entries(pool), shown(pool)) == ([], {"d": ["s", "t"]})  # at its place in the chain
    pool = home.reopen()
    assert shown(pool) == {"d": ["s", "t"]}


@pytest.mark.parametrize("with_chain", [False, True])
@pytest.mark.parametrize("how", ["open", "closed"])
def test_a_disk_goes_to_the_trash_and_comes_back(home: Home, with_chain: bool, how: str) -> None:
    pool = home.open()
    disk = kept(pool)
    disk.mode, disk.uid, created_ns = 0o600, 7, disk.created_ns
    pool.snapshot(disk, "head")
    pool.marking.label(disk, {"env": "prod"})
    pool.trash.delete_disk(disk, keep_snapshots=not with_chain)
    pool.commit()
    pool = home.reopen() if how == "closed" else pool
    assert (entries(pool), shown(pool)) == (["d"], {} if with_chain else {"d": ["s", "head"]})
    assert blocks_held(pool) == 2
    pool.trash.restore(pool.trash.newest("d", None))
    pool = home.reopen()
    disk = pool.catalog.disk("d")
    assert (get(pool, disk), get(pool, disk.chain["s"]), list(disk.chain)) == (["new"], ["old"], ["s", "head"])
    assert (disk.mode, disk.uid, disk.created_ns, disk.labels) == (0o600, 7, created_ns, {"env": "prod"})
    assert (entries(pool), blocks_held(pool)) == ([], 2)
    put(pool, disk, 0, "newer")
    assert get(pool, disk.chain["head"]) == ["new"]


def test_what_goes_for_good_is_freed(home: Home) -> None:
    pool = home.open()
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.trash.delete_disk(disk)
    assert blocks_held(pool) == 2
    for entry in list(pool.trash):
        pool.trash.purge(entry)
    assert blocks_held(pool) == 0
    home.close()
    assert tables(home.path)[TRASH] == tables(home.path)[DISKS] == []
    home.open()


def test_the_oldest_goes_first(pool: Pool) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.trash.delete_disk(disk)
    for left in (["d"], []):
        for entry in for_space(pool):
            pool.trash.purge(entry)
        assert entries(pool) == left
    assert for_space(pool) == []


def for_space(pool: Pool) -> list[TrashRecord]:
    """What would go for space."""
    pausing = pool.trash.for_space()
    while True:
        try:
            next(pausing)
        except StopIteration as found:
            return list(found.value)


def test_what_frees_nothing_does_not_go_for_space(pool: Pool) -> None:
    disk = kept(pool)
    for name in "abc":
        pool.snapshot(disk, name)  # of which the disk has all
        pool.trash.delete_snapshot(snapshot_of(pool, "d", name))
    assert for_space(pool) == [] and len(pool.trash) == 3
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    assert [entry.snapshot for entry in for_space(pool)] == ["s"]
    for name in "xyz":
        pool.snapshot(disk, name)
        pool.trash.delete_snapshot(snapshot_of(pool, "d", name))
    assert [entry.snapshot for entry in for_space(pool)] == ["s"]
    (entry,) = for_space(pool)
    pool.trash.purge(entry)
    assert for_space(pool) == []


def test_what_several_hold_together_goes_together(pool: Pool) -> None:
    disk = kept(pool)
    (clone,) = pool.clone(pool.snapshot(disk, "first"), ["clone"])
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "first"))  # of which the clone has all
    for name in ("one", "two", "three"):
        pool.snapshot(disk, name)
    put(pool, disk, 0, "newer")
    put(pool, clone, 0, "other")
    for name in ("one", "two", "three"):
        pool.trash.delete_snapshot(snapshot_of(pool, "d", name))
    assert [entry.snapshot for entry in for_space(pool)] == ["first", "one", "two", "three"]
    pool.snapshot(disk, "kept")
    pool.trash.delete_disk(disk)
    pool.trash.purge(pool.trash.newest("d", "two"))
    assert [entry.snapshot for entry in for_space(pool)] == ["first", "one", "three"]
    pool.trash.purge(pool.trash.newest("d", "first"))
    assert [entry.snapshot for entry in for_space(pool)] == ["one", "three"]


def test_what_was_kept_for_its_time_is_overdue(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    deleted_ns = next(iter(pool.trash)).deleted_ns
    monkeypatch.setattr("rowfs.store.trash.now_ns", lambda: deleted_ns + DAY_NS - 1)
    pool.trash.delete_disk(disk)
    assert pool.trash.overdue(deleted_ns + DAY_NS - 1) == []
    assert [entry.snapshot for entry in pool.trash.overdue(deleted_ns + DAY_NS)] == ["s"]
    pool.trash.set_keep(None)
    assert pool.trash.overdue(deleted_ns + DAY_NS) == [] and len(pool.trash) == 2


def test_a_name_that_is_taken_is_refused_and_another_offered(pool: Pool) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.snapshot(disk, "s")
    with pytest.raises(ExistsError, match="rowfs undelete can call it s-restored"):
        pool.trash.restore(pool.trash.newest("d", "s"))
    pool.trash.restore(pool.trash.newest("d", "s"), "s-restored")
    assert get(pool, snapshot_of(pool, "d", "s-restored")) == ["old"]
    assert list(disk.chain) == ["s-restored", "s"]
    pool.trash.delete_disk(disk)
    disk_of(pool, "other", name="d")
    with pytest.raises(ExistsError, match="can call it d-restored"):
        pool.trash.restore(pool.trash.newest("d", None))
    pool.trash.restore(pool.trash.newest("d", None), "e")
    assert get(pool, pool.catalog.disk("e")) == ["new"]


def test_a_disk_whose_snapshots_names_are_taken_changes_nothing(pool: Pool) -> None:
    pool.trash.delete_disk(kept(pool), keep_snapshots=False)
    left = disk_of(pool, "x")
    pool.snapshot(left, "s")
    pool.delete_disk(left)
    with pytest.raises(ExistsError, match="has a snapshot s already"):
        pool.trash.restore(pool.trash.newest("d", None))
    assert entries(pool) == ["d"]
    pool.trash.restore(pool.trash.newest("d", None), "e")
    assert shown(pool) == {"d": ["s"], "e": ["s"]}


def test_a_snapshot_whose_disk_is_gone_or_renamed_finds_its_chain(pool: Pool) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.rename_disk(disk, "e")
    pool.trash.restore(pool.trash.newest("d", "s"))
    assert shown(pool) == {"e": ["s"]}
    pool.trash.delete_snapshot(snapshot_of(pool, "e", "s"))
    pool.delete_disk(disk)
    assert shown(pool) == {}
    pool.trash.restore(pool.trash.newest("e", "s"))
    assert shown(pool) == {"e": ["s"]}
    assert get(pool, snapshot_of(pool, "e", "s")) == ["old"]


def test_of_several_of_one_name_the_last_is_meant_or_that_with_the_id(pool: Pool) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    pool.trash.delete_snapshot(pool.snapshot(disk, "s"))
    first, second = pool.trash
    assert pool.trash.newest("d", "s") is second and pool.trash.find(first.id) is first
    for wrong in (
        lambda: pool.trash.newest("d", "x"),
        lambda: pool.trash.newest("d", None),
        lambda: pool.trash.find(1),
    ):
        with pytest.raises(NotFoundError, match="rowfs trash list"):
            wrong()


def test_a_locked_snapshot_and_what_would_go_with_it_stay(pool: Pool) -> None:
    disk = kept(pool)
    pool.marking.lock([snapshot_of(pool, "d", "s")], None)
    with pytest.raises(LockedError):
        pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    with pytest.raises(LockedError, match="the disk d is not deleted"):
        pool.trash.delete_disk(disk, keep_snapshots=False)
    assert (entries(pool), shown(pool)) == ([], {"d": ["s"]})


def test_what_comes_and_goes_by_itself_is_not_kept(pool: Pool) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(pool.snapshot(disk, "x", kind="temporary"))
    snapshot = snapshot_of(pool, "d", "s")
    pool.rollback(disk, snapshot)
    pool.rollback(disk, snapshot)
    assert entries(pool) == []


def test_a_disk_that_another_takes_the_place_of_is_kept(pool: Pool) -> None:
    kept(pool)
    pool.rename_disk(disk_of(pool, "other", name="o"), "d", replace=True)
    assert entries(pool) == ["d"]
    pool.trash.restore(pool.trash.newest("d", None), "e")
    assert get(pool, pool.catalog.disk("e")) == ["new"]


def test_members_of_a_group_are_lost_to_it_while_they_are_in_the_trash(home: Home) -> None:
    pool = home.open()
    disk = kept(pool)
    other = disk_of(pool, "b", name="o")
    group = pool.groups.snapshot([(disk, None), (other, None)], "g")
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "g"))
    pool = home.reopen()
    group = pool.catalog.groups.find("g")
    assert pool.groups.lost(group) == ["d"]
    pool.trash.restore(pool.trash.newest("d", "g"))
    assert pool.groups.lost(group) == []
    pool.groups.delete(group)
    assert entries(pool) == ["d@g", "o@g"] and not len(pool.catalog.groups)


def test_who_has_a_disk_open_goes_on_and_it_comes_back_as_it_was_deleted(pool: Pool) -> None:
    disk = kept(pool)
    disk.handles = 1
    pool.trash.delete_disk(disk)
    put(pool, disk, 0, "after")
    assert get(pool, disk) == ["after"]
    disk.handles = 0
    pool.reclaim()
    pool.trash.restore(pool.trash.newest("d", None))
    assert get(pool, pool.catalog.disk("d")) == ["new"]


@pytest.mark.parametrize("keep_ns", [0, 1, -1, 1 << 65])
def test_a_time_that_nothing_can_be_kept_for_is_refused(pool: Pool, keep_ns: int) -> None:
    with pytest.raises(UsageError):
        pool.trash.set_keep(keep_ns)
    assert pool.trash.keep_ns is None


def test_the_name_that_holds_an_entry_is_nobody_elses(pool: Pool) -> None:
    disk = kept(pool)
    pool.trash.delete_snapshot(snapshot_of(pool, "d", "s"))
    name = next(iter(pool.trash.snapshots(next(iter(pool.trash))))).owner.name
    with pytest.raises(ExistsError):
        pool.create_disk(name, SIZE)
    with pytest.raises(ExistsError):
        pool.rename_disk(disk, name)


@pytest.mark.parametrize("what", ["its record", "the record of the head"])
def test_what_an_older_rowfs_left_of_an_entry_is_shown(home: Home, what: str) -> None:
    pool = home.open()
    pool.trash.delete_disk(kept(pool), keep_snapshots=False)
    entry = next(iter(pool.trash))
    home.close()
    if what == "its record":
        remove(home.path, TRASH, ID_KEY.pack(entry.id))
    else:
        edit_record(home.path, TRASH, ID_KEY.pack(entry.id), head=1)
    pool = home.open()
    ((name, chain),) = shown(pool).items()
    assert (entries(pool), name.startswith("trash-"), chain) == ([], True, ["s", "head"])
    assert get(home.reopen(), snapshot_of(home.pool, name, "s")) == ["old"]  # type: ignore[arg-type]
