"""The ring of events: what is told, and by whom; each is in the commit of what it tells of; what becomes of the old."""

from __future__ import annotations

import pytest

from rowfs.base.actor import Actor, acting
from rowfs.base.format import EVENTS, ID_KEY
from rowfs.store import events as events_module
from rowfs.store.check import check_pool
from rowfs.store.pool import Pool
from tests.store.damage import edit_record, tables
from tests.store.damage import put as put_record
from tests.store.helpers import Home, disk_of, journaled, put, share, snapshot_of


def told(pool: Pool, after: int = 0) -> list[str]:
    """The durable events in words."""
    return [
        " ".join(filter(None, (event.verb, event.disk or event.group, event.snapshot, event.text)))
        for event in pool.catalog.events.read(after)
    ]


def test_everything_that_is_done_to_disks_and_snapshots_is_told(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.clone(snapshot, ["c"])
    copy = pool.create_disk("copy", 0)
    share(pool, snapshot, 0, copy, 0, disk.size_bytes // 4096)
    pool.rename_snapshot(snapshot, "t")
    pool.rollback(disk, snapshot)
    pool.rename_disk(disk, "e")
    pool.marking.label(disk, {"env": "prod", "old": None})
    pool.marking.lock([snapshot], None)
    pool.marking.release([snapshot])
    group = pool.groups.snapshot([(disk, None), (copy, None)], "g")
    pool.groups.delete(group)
    pool.delete_snapshot(snapshot)
    pool.delete_disk(disk)
    assert told(pool) == []  # none of it is durable
    pool.commit()
    assert told(pool) == [
        "create d",
        "snapshot d s",
        "clone c of d@s",
        "create copy",
        "clone copy of d@s",
        "rename d s to t",
        "snapshot d before-rollback",
        "rollback d t",
        "rename d to e",
        "label e env=prod old-",
        "lock e t kept by a hold",
        "release e t kept by nothing",
        "snapshot e g",
        "snapshot copy g",
        "snapshot g of e, copy",
        "delete g of copy, e",
        "delete copy g",
        "delete e g",
        "delete e t",
        "delete e",
    ]


def test_an_event_says_when_who_and_how_large(pool: Pool) -> None:
    with acting(Actor(7, 4711, "rm")):
        disk = disk_of(pool, "a")
    pool.snapshot(disk, "s")
    pool.commit()
    created, taken = pool.catalog.events.read(0)
    assert (created.id, created.uid, created.pid, created.command) == (1, 7, 4711, "rm")
    assert (taken.id, taken.uid, taken.size_bytes, taken.failed) == (2, None, disk.size_bytes, False)
    assert created.time_ns <= taken.time_ns == snapshot_of(pool, "d", "s").created_ns or taken.time_ns > 0


def test_what_is_told_of_an_event_is_no_longer_than_a_line(pool: Pool) -> None:
    pool.catalog.events.add("limit", text="x" * (events_module.TEXT_CHARACTERS_MAX + 1))
    pool.commit()
    assert told(pool) == ["limit " + "x" * events_module.TEXT_CHARACTERS_MAX]


def test_what_comes_and_goes_with_an_export_is_not_told(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.delete_snapshot(pool.snapshot(disk, "x", kind="temporary"))
    pool.commit()
    assert told(pool) == ["create d"]


def test_numbers_go_on_after_the_pool_was_closed_and_after_a_crash(home: Home) -> None:
    pool = home.open()
    disk = disk_of(pool, "a")
    pool = home.reopen()
    pool.snapshot(pool.catalog.disk("d"), "lost")
    pool = home.crash()
    pool.snapshot(pool.catalog.disk("d"), "s")
    pool.commit()
    assert [event.id for event in pool.catalog.events.read(0)] == [1, 2]
    assert told(pool) == ["create d", "snapshot d s"]
    assert disk is not None


def test_the_oldest_go_and_who_asks_for_them_hears_how_many(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "EVENTS_KEPT", 10)
    pool = home.open()
    for number in range(7):
        pool.create_disk(f"a{number}", 0)
    pool.commit()
    for number in range(25):
        pool.create_disk(f"b{number}", 0)
    pool.commit()
    events = pool.catalog.events
    assert [event.id for event in events.read(0)] == list(range(23, 33))
    assert (events.lost(0), events.lost(20), events.lost(22), events.lost(32)) == (22, 2, 0, 0)
    pool = home.reopen()
    pool.create_disk("c", 0)
    pool.commit()
    assert [event.id for event in pool.catalog.events.read(30)] == [31, 32, 33]
    assert pool.catalog.events.last() == 33
    home.close()
    assert len(tables(home.path)[EVENTS]) == 10


def test_an_event_of_what_failed_makes_no_sync_a_commit_of_the_map(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    pool.commit()
    pool.catalog.events.add("delete", disk="d", failed=True, text="why")
    assert not pool.commits.needed and pool.commits.wanted
    put(pool, disk, 1, "b")
    assert journaled(pool)


def test_a_pool_from_before_there_were_events_begins_with_the_first(home: Home) -> None:
    home.open(read_only=True)
    assert home.pool is not None and home.pool.catalog.events.last() == 0 and home.pool.catalog.events.lost(0) == 0


def test_an_event_that_cannot_be_read_is_left_out_and_dropped_by_the_repair(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    pool = home.open()
    for name in "abc":
        pool.create_disk(name, 0)
    home.close()
    put_record(home.path, EVENTS, ID_KEY.pack(2), b"[]")
    put_record(home.path, EVENTS, b"\xff" * 9, b"{}")
    edit_record(home.path, EVENTS, ID_KEY.pack(3), uid="x")
    pool = home.open()
    assert pool.catalog.events.last() == 3
    assert told(pool)[:2] == ["create a", "create c"]
    assert "the event" in caplog.text
    home.close()
    found, mended = check_pool(str(home.path), repair=True)
    assert mended and len(found) == 3, found
    assert told(home.open()) == ["create a", "create c"]
