"""Consistency groups: all disks or none, across crashes too; what becomes of a group that loses members."""

from __future__ import annotations

import errno
import random

import lmdb
import pytest

from rowfs.base.errors import ExistsError, NotFoundError, RowfsError, UsageError
from rowfs.base.format import GROUPS, ID_KEY, TABLES
from rowfs.store.check import check_pool
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store.damage import edit_record, remove, writing
from tests.store.damage import put as put_record
from tests.store.helpers import B, Home, checks, disk_of, findings, get, put, snapshot_of


def two(pool: Pool) -> list[tuple[Disk, str | None]]:
    """The disks db and log, with a block each."""
    return [(disk_of(pool, f"{name}0", name=name), None) for name in ("db", "log")]


def texts(pool: Pool, *names: str) -> list[str]:
    """The first block of each disk."""
    return [get(pool, pool.catalog.disk(name))[0] for name in names]


def test_a_group_is_a_snapshot_of_each_disk_at_one_time(pool: Pool) -> None:
    wanted = two(pool)
    group = pool.groups.snapshot(wanted, "g", description="why")
    for disk, _ in wanted:
        put(pool, disk, 0, "later")
    db, log = pool.groups.members(group)
    assert (db.owner.name, log.owner.name) == ("db", "log")
    assert [get(pool, item)[0] for item in (db, log)] == ["db0", "log0"]
    assert db.created_ns == log.created_ns == group.created_ns
    assert (db.name, db.description, group.description) == ("g", "why", "why")


def test_a_group_outlives_the_pool_being_closed(home: Home) -> None:
    pool = home.open()
    group = pool.groups.snapshot(two(pool), "g")
    again = home.reopen().catalog.groups.find("g")
    assert (again.id, again.members, again.created_ns) == (group.id, group.members, group.created_ns)


@pytest.mark.parametrize("committed", [False, True])
def test_after_a_crash_a_group_is_there_whole_or_not_at_all(home: Home, committed: bool) -> None:
    pool = home.open()
    wanted = two(pool)
    pool.commit()
    pool.groups.snapshot(wanted, "g")
    if committed:
        pool.commit()
    pool = home.crash()
    assert len(pool.catalog.groups) == committed
    assert len(pool.catalog.snapshots) == 2 * committed


def test_snapshots_of_a_group_may_have_names_of_their_own(pool: Pool) -> None:
    (db, _), (log, _) = two(pool)
    pool.groups.snapshot([(db, "own"), (log, None)], "g")
    assert (list(db.chain), list(log.chain)) == (["own"], ["g"])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda pool, db, log: pool.snapshot(log, "g"), ExistsError, "log has a snapshot g already"),
        (lambda pool, db, log: pool.delete_disk(log), NotFoundError, "log was deleted"),
        (lambda pool, db, log: pool.groups.snapshot([(db, "x")], "g"), ExistsError, "there is a group g already"),
    ],
)
def test_a_group_of_which_one_member_cannot_be_is_not_there_at_all(
    pool: Pool, spoil: object, error: type[Exception], message: str
) -> None:
    wanted = two(pool)
    spoil(pool, wanted[0][0], wanted[1][0])  # type: ignore[operator]
    before = {item.name for item in pool.catalog.snapshots.values()}
    with pytest.raises(error, match=message):
        pool.groups.snapshot(wanted, "g")
    assert {item.name for item in pool.catalog.snapshots.values()} == before


@pytest.mark.parametrize("name", ["", "a/b", "a@b", ".x", "before-rollback"])
def test_what_no_group_may_be_called_is_refused(pool: Pool, name: str) -> None:
    with pytest.raises(UsageError):
        pool.groups.snapshot(two(pool), name)
    assert not pool.catalog.snapshots


def test_a_disk_is_in_a_group_once_and_64_are_the_most(pool: Pool) -> None:
    disks = [(pool.create_disk(f"d{number}", B), None) for number in range(65)]
    with pytest.raises(UsageError, match="1 to 64 disks, this one has 65"):
        pool.groups.snapshot(disks, "g")
    with pytest.raises(UsageError, match="1 to 64 disks, this one has 0"):
        pool.groups.snapshot([], "g")
    with pytest.raises(UsageError, match="named twice"):
        pool.groups.snapshot([disks[0], disks[0]], "g")
    assert not pool.catalog.snapshots
    assert len(pool.groups.members(pool.groups.snapshot(disks[:64], "g"))) == 64


# Losing members


def test_a_group_that_lost_a_member_says_which_and_goes_with_the_last(pool: Pool) -> None:
    group = pool.groups.snapshot(two(pool), "g")
    pool.delete_snapshot(snapshot_of(pool, "log", "g"))
    assert (pool.groups.lost(group), len(pool.groups.members(group))) == (["log"], 1)
    with pytest.raises(RowfsError, match="the snapshot of log was deleted"):
        pool.groups.rollback(group)
    with pytest.raises(NotFoundError, match="its snapshot of log was deleted"):
        pool.groups.clone(group, "{}-test")
    assert texts(pool, "db", "log") == ["db0", "log0"]
    pool.delete_snapshot(snapshot_of(pool, "db", "g"))
    assert pool.catalog.groups.named("g") is None


def test_who_deletes_the_group_of_a_time_does_not_meet_its_successor(pool: Pool) -> None:
    wanted = two(pool)
    old = pool.groups.snapshot(wanted, "g")
    pool.groups.delete(old)
    new = pool.groups.snapshot(wanted, "g")
    with pytest.raises(NotFoundError, match=f"has the id {new.id}, not {old.id}"):
        pool.catalog.groups.find("g", old.id)
    assert pool.catalog.groups.find("g", new.id) is new


def test_deleting_a_group_deletes_its_snapshots_and_no_others(home: Home) -> None:
    pool = home.open()
    wanted = two(pool)
    pool.snapshot(wanted[0][0], "single")
    pool.groups.delete(pool.groups.snapshot(wanted, "g"))
    pool = home.reopen()
    assert [item.name for item in pool.catalog.snapshots.values()] == ["single"]
    assert not len(pool.catalog.groups)


def test_renamed_disks_and_snapshots_stay_in_their_group(pool: Pool) -> None:
    group = pool.groups.snapshot(two(pool), "g")
    pool.rename_disk(pool.catalog.disk("log"), "log2")
    pool.rename_snapshot(snapshot_of(pool, "db", "g"), "h")
    put(pool, pool.catalog.disk("log2"), 0, "later")
    pool.groups.rollback(group)
    assert texts(pool, "db", "log2") == ["db0", "log0"]


# Rolling back


def test_a_rollback_takes_all_disks_back_and_can_be_taken_back(pool: Pool) -> None:
    wanted = two(pool)
    group = pool.groups.snapshot(wanted, "g")
    for disk, _ in wanted:
        put(pool, disk, 0, "later")
    kept = pool.groups.rollback(group)
    assert texts(pool, "db", "log") == ["db0", "log0"]
    assert kept is not None and kept.name == "before-rollback"
    again = pool.groups.rollback(kept)
    assert texts(pool, "db", "log") == ["later", "later"]
    assert again is not None and again.id != kept.id
    assert pool.catalog.groups.find("before-rollback") is again


def test_a_rollback_without_a_way_back_keeps_nothing(pool: Pool) -> None:
    group = pool.groups.snapshot(two(pool), "g")
    assert pool.groups.rollback(group, discard=True) is None
    assert len(pool.catalog.groups) == 1


def test_another_groups_rollback_leaves_the_snapshots_that_the_last_one_kept(pool: Pool) -> None:
    wanted = two(pool)
    pool.groups.rollback(pool.groups.snapshot(wanted, "g"))
    other = disk_of(pool, "other", name="other")
    kept = pool.groups.rollback(pool.groups.snapshot([(other, None)], "o"))
    assert kept is not None and list(kept.members) == ["other"]
    assert "before-rollback" in pool.catalog.disk("db").chain


def test_a_rollback_after_a_disk_was_deleted_changes_nothing(pool: Pool) -> None:
    wanted = two(pool)
    group = pool.groups.snapshot(wanted, "g")
    put(pool, wanted[0][0], 0, "later")
    pool.delete_disk(wanted[1][0])
    with pytest.raises(RowfsError, match="the disk log was deleted; nothing was rolled back"):
        pool.groups.rollback(group)
    assert texts(pool, "db") == ["later"]


@pytest.mark.parametrize("committed", [False, True])
def test_after_a_crash_all_disks_are_rolled_back_or_none(home: Home, committed: bool) -> None:
    pool = home.open()
    wanted = two(pool)
    group = pool.groups.snapshot(wanted, "g")
    for disk, _ in wanted:
        put(pool, disk, 0, "later")
    pool.commit()
    pool.groups.rollback(group)
    if committed:
        pool.commit()
    assert texts(home.crash(), "db", "log") == (["db0", "log0"] if committed else ["later", "later"])


# Cloning


def test_clones_of_a_group_are_called_by_the_pattern(pool: Pool) -> None:
    wanted = two(pool)
    group = pool.groups.snapshot(wanted, "g")
    for disk, _ in wanted:
        put(pool, disk, 0, "later")
    made = pool.groups.clone(group, "test-{}")
    assert [disk.name for disk in made] == ["test-db", "test-log"]
    assert texts(pool, "test-db", "test-log") == ["db0", "log0"]


@pytest.mark.parametrize(
    ("pattern", "error"), [("test-log", UsageError), ("{}", ExistsError), ("x/{}", UsageError), ("t-{}", ExistsError)]
)
def test_no_clone_is_made_when_one_cannot_be(pool: Pool, pattern: str, error: type[Exception]) -> None:
    group = pool.groups.snapshot(two(pool), "g")
    pool.create_disk("t-log", 0)
    with pytest.raises(error):
        pool.groups.clone(group, pattern)
    assert set(pool.catalog.disks) == {"db", "log", "t-log"}


# Pools of others


def test_a_pool_from_before_there_were_groups_opens_and_gets_some(home: Home) -> None:
    home.open()
    home.close()
    with lmdb.open(str(home.path / "map"), max_dbs=len(TABLES), map_size=1 << 30) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(GROUPS.encode(), txn=txn, create=False))
    pool = home.open()
    pool.groups.snapshot(two(pool), "g")
    assert len(home.reopen().catalog.groups) == 1


def test_a_member_that_an_older_rowfs_deleted_is_lost_and_a_group_without_any_goes(home: Home) -> None:
    pool = home.open()
    (db, _), (log, _) = two(pool)
    lone = pool.groups.snapshot([(db, "lone")], "lone")
    group = pool.groups.snapshot([(db, None), (log, None)], "g")
    home.close()
    edit_record(home.path, GROUPS, ID_KEY.pack(lone.id), members={"db": lone.id})
    edit_record(home.path, GROUPS, ID_KEY.pack(group.id), members={"db": group.id, "log": group.members["log"]})
    pool = home.open()
    assert [item.name for item in pool.catalog.groups] == ["g"]
    assert pool.groups.lost(pool.catalog.groups.find("g")) == ["db"]
    assert findings(pool) == []
    assert [item.name for item in home.reopen().catalog.groups] == ["g"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ["x"]}, "members is"),
        ({"members": {"db": "x"}}, "members is"),
        ({"members": {"db": 0}}, "an id that is none"),
        ({"members": {"db": True}}, "members is"),
        ({"id": 1 << 31}, "says that its id is|cannot be the one with id"),
    ],
)
def test_a_damaged_group_is_named_and_keeps_the_pool_from_being_opened(
    home: Home, changes: dict[str, object], message: str
) -> None:
    pool = home.open()
    group = pool.groups.snapshot(two(pool), "g")
    pool.commit()
    key = ID_KEY.pack(group.id)
    home.close()
    stored = dict(_table(home))[key]
    edit_record(home.path, GROUPS, key, **changes)
    with pytest.raises(RowfsError, match=message) as caught:
        home.open()
    assert caught.value.errno == errno.EIO
    put_record(home.path, GROUPS, key, stored)


def _table(home: Home) -> list[tuple[bytes, bytes]]:
    with writing(home.path) as cursors:
        return [(bytes(key), bytes(value)) for key, value in cursors[GROUPS]]


def test_the_checker_finds_two_groups_of_one_name_and_a_snapshot_in_two(home: Home) -> None:
    pool = home.open()
    (db, _), (log, _) = two(pool)
    first, second = (pool.groups.snapshot([(disk, None)], name) for disk, name in ((db, "a"), (log, "b")))
    home.close()
    edit_record(home.path, GROUPS, ID_KEY.pack(second.id), name="a", members=first.members)
    with pytest.raises(RowfsError, match="two groups a"):
        home.open()
    texts_found = [str(item) for item in check_pool(str(home.path))[0]]
    assert texts_found == ["names: two groups have one name", "names: a snapshot is in two groups, or twice in one"]
    remove(home.path, GROUPS, ID_KEY.pack(second.id))
    assert checks(home.open()) == set()


# The order of writes


def violations(pool: Pool, grouped: bool) -> int:
    """How often a commit record is in a snapshot of one disk without its data in the one of the other.

    The writer writes data, and then its record; the snapshots are taken before, between and after the two.
    """
    rng = random.Random(1)
    data, log = (pool.create_disk(name, 64 * B) for name in ("data", "log"))
    found = 0
    for number in range(60):
        places = [rng.randrange(3)] * 2 if grouped else [0, 2]
        for place in range(3):
            if place == 1:
                put(pool, data, number, f"n{number}")
            elif place == 2:
                put(pool, log, 0, f"n{number}")
            if grouped and place == places[0]:
                pool.groups.snapshot([(data, None), (log, None)], f"g{number}")
            elif not grouped and place in places:
                pool.snapshot(data if place == 0 else log, f"g{number}")
        said = get(pool, snapshot_of(pool, "log", f"g{number}"))[0]
        held = get(pool, snapshot_of(pool, "data", f"g{number}"), int(said[1:] or 0))[0]
        found += bool(said and held != said)
    return found


def test_a_group_never_holds_a_write_without_the_one_that_it_waited_for(pool: Pool) -> None:
    assert violations(pool, grouped=True) == 0


def test_single_snapshots_one_after_the_other_do(pool: Pool) -> None:
    assert violations(pool, grouped=False) > 0
