"""Labels and locks: they are kept, they go with what they are of, and a locked snapshot is deleted by nothing."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

import pytest

from rowfs.base.errors import CorruptionError, LockedError, RowfsError, UsageError
from rowfs.base.format import ID_KEY, LABELS, LOCKS
from rowfs.rules.locks import UNLOCKED
from rowfs.rules.times import DAY_NS
from rowfs.store.check import check_pool
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool
from tests.store.damage import edit_record, tables, writing
from tests.store.helpers import Home, disk_of, get, put, snapshot_of


def one(pool: Pool) -> tuple[Disk, Snapshot]:
    """The disk d and its snapshot s."""
    disk = disk_of(pool, "a")
    return disk, pool.snapshot(disk, "s")


# Labels


def test_labels_of_disks_and_snapshots_are_kept(home: Home) -> None:
    pool = home.open()
    disk, snapshot = one(pool)
    pool.marking.label(disk, {"env": "prod", "owner": "db"})
    pool.marking.label(snapshot, {"env": "test"})
    pool = home.reopen()
    pool.marking.label(pool.catalog.disk("d"), {"owner": None, "tier": "1"})
    pool = home.reopen()
    assert pool.catalog.disk("d").labels == {"env": "prod", "tier": "1"}
    assert snapshot_of(pool, "d", "s").labels == {"env": "test"}


def test_labels_that_are_not_committed_are_gone_after_a_crash(home: Home) -> None:
    pool = home.open()
    disk, _ = one(pool)
    pool.commit()
    pool.marking.label(disk, {"env": "prod"})
    assert home.crash().catalog.disk("d").labels == {}


def test_labels_go_with_what_they_are_of(home: Home) -> None:
    pool = home.open()
    disk, snapshot = one(pool)
    other = pool.create_disk("other", 0)
    for thing in (disk, snapshot, other):
        pool.marking.label(thing, {"env": "prod"})
    pool.delete_disk(disk)
    pool.delete_disk(other)
    with pytest.raises(UsageError, match="is deleted"):
        pool.marking.label(pool.catalog.chain("d"), {"env": "prod"})
    assert pool.create_disk("d", 0).labels == {}
    pool = home.reopen()
    assert pool.catalog.disk("d").labels == {}
    pool.delete_snapshot(snapshot_of(pool, "d", "s"))
    home.close()
    assert tables(home.path)[LABELS] == []


def test_a_disk_that_takes_over_a_chain_keeps_its_own_labels(home: Home) -> None:
    pool = home.open()
    disk, _ = one(pool)
    pool.marking.label(disk, {"env": "old"})
    pool.delete_disk(disk)
    other = pool.create_disk("other", 0)
    pool.marking.label(other, {"env": "new"})
    pool.commit()
    pool.rename_disk(other, "d")
    pool = home.reopen()
    assert pool.catalog.disk("d").labels == {"env": "new"}
    assert "s" in pool.catalog.disk("d").chain


def test_a_clone_has_no_labels_and_a_rolled_back_disk_keeps_its_own(pool: Pool) -> None:
    disk, snapshot = one(pool)
    pool.marking.label(disk, {"env": "prod"})
    pool.marking.label(snapshot, {"env": "test"})
    assert pool.clone(snapshot, ["c"])[0].labels == {}
    pool.rollback(disk, snapshot)
    assert disk.labels == {"env": "prod"}


# Locks


def test_locks_are_kept(home: Home) -> None:
    pool = home.open()
    disk, snapshot = one(pool)
    until = time.time_ns() + DAY_NS
    pool.marking.lock([snapshot], None, reason="audit")
    pool.marking.lock([snapshot], until, compliance=True)
    lock = snapshot_of(home.reopen(), "d", "s").lock
    assert (lock.hold, lock.until_ns, lock.compliance, lock.reason) == (True, until, True, "audit")


Deletion = Callable[[Pool, Disk, Snapshot], object]
WAYS: list[Deletion] = [
    lambda pool, disk, snapshot: pool.delete_snapshot(snapshot),
    lambda pool, disk, snapshot: pool.delete_disk(disk, keep_snapshots=False),
    lambda pool, disk, snapshot: pool.groups.delete(pool.catalog.groups.find("g")),
]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_deletes_a_locked_snapshot_nor_what_would_go_together_with_it(pool: Pool, way: Deletion) -> None:
    disk, _ = one(pool)
    other = disk_of(pool, "b", name="other")
    pool.groups.snapshot([(disk, None), (other, None)], "g")
    snapshot = snapshot_of(pool, "d", "g")
    pool.marking.lock([snapshot], None, reason="audit")
    with pytest.raises(
        LockedError, match=r"d@g is kept by a hold \(audit\): release it with rowfs lock --release"
    ) as it:
        way(pool, disk, snapshot)
    assert it.value.errno == errno.EPERM
    assert list(disk.chain) == ["s", "g"] and list(other.chain) == ["g"]
    put(pool, disk, 0, "still written")
    assert get(pool, disk) == ["still written"]
    pool.marking.release([snapshot])
    way(pool, disk, snapshot)
    assert "g" not in disk.chain


def test_a_disk_may_go_when_its_locked_snapshots_stay(pool: Pool) -> None:
    disk, snapshot = one(pool)
    pool.marking.lock([snapshot], None)
    pool.delete_disk(disk)
    assert get(pool, snapshot) == ["a"]
    with pytest.raises(LockedError):
        pool.delete_snapshot(snapshot)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_rollback_does_not_replace_a_locked_snapshot(pool: Pool, grouped: bool) -> None:
    disk, snapshot = one(pool)
    kept = pool.rollback(disk, snapshot)
    assert kept is not None
    pool.marking.lock([kept], None)
    put(pool, disk, 0, "later")
    group = pool.groups.snapshot([(disk, None)], "g")

    def again(discard: bool) -> None:
        if grouped:
            pool.groups.rollback(group, discard)
        else:
            pool.rollback(disk, snapshot, discard)

    with pytest.raises(LockedError, match="before-rollback, which would be replaced, is kept by a hold"):
        again(False)
    assert get(pool, disk) == ["later"]
    again(True)
    pool.rename_snapshot(kept, "kept")
    again(False)
    assert list(disk.chain)[-1] == "before-rollback" and "kept" in disk.chain


def test_a_date_that_is_over_keeps_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, snapshot = one(pool)
    now = time.time_ns()
    pool.marking.lock([snapshot], now + DAY_NS, compliance=True)
    monkeypatch.setattr("rowfs.store.pool.now_ns", lambda: now + DAY_NS - 1)
    with pytest.raises(LockedError, match="a compliance lock until .*: wait for that"):
        pool.delete_snapshot(snapshot)
    monkeypatch.setattr("rowfs.store.pool.now_ns", lambda: now + DAY_NS)
    pool.delete_snapshot(snapshot)


def test_a_compliance_lock_is_neither_released_nor_made_shorter_but_its_hold_may_go(pool: Pool) -> None:
    disk, snapshot = one(pool)
    now = time.time_ns()
    pool.marking.lock([snapshot], now + 2 * DAY_NS, compliance=True)
    pool.marking.lock([snapshot], None)
    with pytest.raises(LockedError, match="d@s: its compliance lock lasts until"):
        pool.marking.lock([snapshot], now + DAY_NS)
    pool.marking.release([snapshot])
    assert not snapshot.lock.hold and snapshot.lock.until_ns == now + 2 * DAY_NS
    with pytest.raises(LockedError, match="d@s: it has a compliance lock until .*: nobody can release that before"):
        pool.marking.release([snapshot])
    pool.marking.lock([snapshot], now + 3 * DAY_NS)
    assert snapshot.lock.compliance


def test_several_snapshots_are_locked_or_released_all_or_none(pool: Pool) -> None:
    disk, first = one(pool)
    second = pool.snapshot(disk, "t")
    now = time.time_ns()
    pool.marking.lock([second], now + 2 * DAY_NS, compliance=True)
    with pytest.raises(LockedError):
        pool.marking.lock([first, second], now + DAY_NS)
    assert first.lock == UNLOCKED
    pool.marking.lock([first], None)
    with pytest.raises(LockedError):
        pool.marking.release([first, second])
    assert first.lock.hold


def test_a_temporary_snapshot_cannot_be_locked(pool: Pool) -> None:
    disk, _ = one(pool)
    with pytest.raises(UsageError, match="is temporary"):
        pool.marking.lock([pool.snapshot(disk, "t", kind="temporary")], None)


def test_what_an_older_rowfs_deleted_leaves_no_labels_or_locks(home: Home) -> None:
    pool = home.open()
    _, snapshot = one(pool)
    pool.marking.label(snapshot, {"env": "prod"})
    pool.marking.lock([snapshot], None)
    home.close()
    with writing(home.path) as cursors:
        for table in (LABELS, LOCKS):
            stored = cursors[table].get(ID_KEY.pack(snapshot.id))
            cursors[table].put(ID_KEY.pack(1), stored.replace(b'"id":%d' % snapshot.id, b'"id":1'))
    assert check_pool(str(home.path)) == ([], False)
    home.open()
    home.close()
    assert [len(tables(home.path)[table]) for table in (LABELS, LOCKS)] == [1, 1]


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        (LABELS, {"labels": {"a b": "x", "env": "prod"}}, "a label is left out"),
        (LOCKS, {"hold": 1}, "hold is 1: True stands for it"),
        (LOCKS, {"until_ns": -1}, "until_ns is -1: 0 stands for it"),
        (LOCKS, {"until_ns": "x", "hold": False}, "until_ns is 'x'"),
        (LOCKS, {"compliance": True}, "a hold stands for it"),
        (LOCKS, {"hold": False, "compliance": True}, "a hold stands for it"),
        (LOCKS, {"reason": None}, "reason is None"),
    ],
)
def test_what_nobody_could_have_set_is_named_and_mended_and_a_lock_keeps(
    home: Home, caplog: pytest.LogCaptureFixture, table: str, changes: dict[str, object], message: str
) -> None:
    pool = home.open()
    _, snapshot = one(pool)
    pool.marking.label(snapshot, {"env": "prod"})
    pool.marking.lock([snapshot], None)
    home.close()
    edit_record(home.path, table, ID_KEY.pack(snapshot.id), **changes)
    ((found,), _) = check_pool(str(home.path))
    assert message in str(found)
    snapshot = snapshot_of(home.open(read_only=True), "d", "s")
    assert message in caplog.text
    assert snapshot.labels == {"env": "prod"} and snapshot.lock.keeps(time.time_ns())
    home.close()
    assert check_pool(str(home.path), repair=True)[1]
    assert snapshot_of(home.open(), "d", "s").lock == snapshot.lock


@pytest.mark.parametrize(("table", "changes"), [(LABELS, {"labels": {"a": 1}}), (LABELS, {"labels": []})])
def test_labels_that_are_none_are_damage(home: Home, table: str, changes: dict[str, object]) -> None:
    pool = home.open()
    _, snapshot = one(pool)
    pool.marking.label(snapshot, {"env": "prod"})
    home.close()
    edit_record(home.path, table, ID_KEY.pack(snapshot.id), **changes)
    with pytest.raises(CorruptionError, match="labels is"):
        home.open()
    ((found,), _) = check_pool(str(home.path))
    assert "labels is" in str(found)


@pytest.mark.parametrize("verb", ["label", "lock", "release"])
def test_a_pool_that_is_read_only_is_not_marked(home: Home, verb: str) -> None:
    one(home.open())
    pool = home.reopen(read_only=True)
    snapshot = snapshot_of(pool, "d", "s")
    with pytest.raises(RowfsError, match="read-only") as caught:
        match verb:
            case "label":
                pool.marking.label(snapshot, {"env": "prod"})
            case "lock":
                pool.marking.lock([snapshot], None)
            case _:
                pool.marking.release([snapshot])
    assert caught.value.errno == errno.EROFS
