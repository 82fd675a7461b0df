"""What each snapshot goes on from, through rollbacks, clones and deletions."""

from __future__ import annotations

from rowfs.rules.times import DAY_NS
from rowfs.store.history import clones, history
from rowfs.store.model import Disk, address
from rowfs.store.pool import Pool
from tests.store.helpers import disk_of, put


def told(pool: Pool, disk: Disk) -> list[tuple[str, str | None, bool]]:
    return [
        (address(step.thing), None if step.after is None else address(step.after), step.rolled_back)
        for step in history(pool.catalog, disk)
    ]


def test_a_chain_goes_on_from_snapshot_to_snapshot_and_a_rollback_begins_a_branch(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    first = pool.snapshot(disk, "s1")
    pool.snapshot(disk, "s2")
    pool.rollback(disk, first)
    put(pool, disk, 0, "b")
    pool.snapshot(disk, "s3")
    assert told(pool, disk) == [
        ("d@s1", None, False),
        ("d@s2", "d@s1", False),
        ("d@before-rollback", "d@s2", False),
        ("d@s3", "d@s1", True),
        ("d", "d@s3", False),
    ]
    pool.delete_snapshot(first)
    pool.delete_snapshot(disk.chain["s3"])
    assert told(pool, disk) == [("d@s2", None, False), ("d@before-rollback", "d@s2", False), ("d", None, False)]


def test_a_clone_goes_on_from_what_it_was_made_of_and_is_told_there(pool: Pool) -> None:
    disk = disk_of(pool, "a")
    first, second = pool.snapshot(disk, "s1"), pool.snapshot(disk, "s2")
    clone, other = pool.clone(second, ["c", "o"])
    pool.snapshot(clone, "own")
    assert told(pool, clone) == [("c@own", "d@s2", False), ("c", "c@own", False)]
    found = [item for item in clones(pool.catalog, disk) if item is not None]
    assert [(item.name, address(after)) for item, after in found] == [("c", "d@s2"), ("o", "d@s2")]
    pool.delete_snapshot(second)
    assert told(pool, other) == [("o", "d@s1", False)]
    pool.trash.set_keep(DAY_NS)
    pool.trash.delete_snapshot(first)
    assert told(pool, other) == [("o", None, False)]
    assert list(filter(None, clones(pool.catalog, disk))) == []
