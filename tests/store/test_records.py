"""A value in a record that cannot be: the pool opens, something stands for it, `check` names it, `--repair` mends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rowfs.base.errors import UsageError
from rowfs.base.names import DESCRIPTION_BYTES_MAX
from rowfs.base.units import CAPACITY_BYTES_MAX, DISK_BYTES_MAX
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from tests.store.damage import edit_record, tables
from tests.store.helpers import SIZE, Home, get, put

VALUES: list[tuple[str, dict[str, Any]]] = [
    ("disks", {"modified_ns": 10413792000 * 10**9}),  # touch -d 2300-01-01, with rowfs 0.1
    ("disks", {"modified_ns": 253402300800 * 10**9, "created_ns": -(10**30)}),
    ("disks", {"created_ns": None}),
    ("disks", {"name": "a/b"}),
    ("disks", {"name": 5}),
    ("disks", {"size_bytes": None}),
    ("disks", {"size_bytes": 1 << 50}),
    ("disks", {"mode": True}),
    ("disks", {"uid": -1, "gid": "users"}),
    ("disks", {"mapped_blocks": -1}),
    ("snapshots", {"name": ""}),
    ("snapshots", {"description": "\ud800"}),
    ("snapshots", {"description": ["x"]}),
    ("snapshots", {"created_ns": 1 << 80, "kind": 7, "consistency": None}),
    ("snapshots", {"size_bytes": -5, "written_blocks": "many"}),
    ("branches", {"written_blocks": None}),
    ("groups", {"name": "a/b", "created_ns": 1 << 70, "kind": None, "description": "\ud800"}),
    ("meta", {"capacity_bytes": 1 << 63}),
    ("meta", {"created_ns": "now", "clean": "yes"}),
]


@pytest.mark.parametrize(("table", "changes"), VALUES)
def test_a_value_that_cannot_be_never_is_the_end_of_the_pool(
    home: Home, caplog: pytest.LogCaptureFixture, table: str, changes: dict[str, Any]
) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a")
    pool.groups.snapshot([(disk, "s")], "g")
    home.close()
    key = next(key for key, _ in tables(home.path)[table])
    edit_record(home.path, table, key, **changes)

    pool = home.open()
    assert [line for line in caplog.messages if "stands for it" in line and "--repair" in line]
    (disk,) = pool.catalog.live()
    (snapshot,) = disk.chain.values()
    assert get(pool, disk) == ["a"]
    assert get(pool, snapshot) == (["a"] if snapshot.size_bytes else [])
    home.abandon()

    findings, mended = check_pool(str(home.path), repair=True)
    assert mended
    for name in changes:
        assert [finding for finding in findings if finding.check == "names" and name in finding.text]
    assert check_pool(str(home.path))[0] == []
    caplog.clear()
    home.open()
    assert caplog.messages == []


def test_what_stands_for_a_value_is_stored_with_the_next_change_of_its_record(home: Home) -> None:
    home.open().create_disk("d", SIZE)
    home.close()
    ((key, _),) = tables(home.path)["disks"]
    edit_record(home.path, "disks", key, size_bytes=1 << 50)
    pool = home.open()
    pool.rename_disk(pool.catalog.disk("d"), "e")
    home.close()
    assert json.loads(dict(tables(home.path)["disks"])[key])["size_bytes"] == DISK_BYTES_MAX


@pytest.mark.parametrize("description", ["\ud800", "x" * (DESCRIPTION_BYTES_MAX + 1)])
def test_a_description_that_could_not_be_read_back_takes_no_snapshot(home: Home, description: str) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    with pytest.raises(UsageError):
        pool.snapshot(disk, "s", description=description)
    assert not disk.chain


def test_a_pool_is_not_made_with_a_capacity_that_it_could_not_have(tmp_path: Any) -> None:
    for capacity in (CAPACITY_BYTES_MAX + 1, 1 << 90):
        with pytest.raises(UsageError, match="at most 1.0E"):
            init_pool(str(tmp_path / "pool"), capacity)
    assert not (tmp_path / "pool").exists()
