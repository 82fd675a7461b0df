"""Fields of records: what they may hold, and what stands for the rest. No record is unreadable for what describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowfs.base.errors import CorruptionError, UsageError
from rowfs.base.fields import RANGES, STAND_INS
from rowfs.base.format import DiskRecord, PoolRecord, Record, SnapshotRecord
from rowfs.base.names import DESCRIPTION_BYTES_MAX, check_description
from rowfs.base.times import TIME_NS_MAX, TIME_NS_MIN, clamped, rfc3339
from rowfs.base.units import CAPACITY_BYTES_MAX, DISK_BYTES_MAX

RECORDS: list[Record] = [
    PoolRecord(format=1, uuid="00" * 16, created_ns=5, capacity_bytes=1 << 30),
    DiskRecord(id=7, name="vm", size_bytes=4096, branch=2, created_ns=3, modified_ns=4, inode=1, mode=0o640, uid=5),
    SnapshotRecord(id=9, disk=7, name="s", branch=2, epoch=1, size_bytes=4096, created_ns=9, description="why"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
DESCRIBING = [(record, name) for record in RECORDS for name in STAND_INS if hasattr(record, name)]


def changed(record: Record, **values: Any) -> bytes:
    return json.dumps({**json.loads(record.pack()), **values}).encode()


@given(st.sampled_from(DESCRIBING), JSON)
def test_whatever_describes_is_read_as_something_that_may_be_stored(of: tuple[Record, str], item: Any) -> None:
    record, name = of
    wrong: list[str] = []
    read = type(record).unpack(changed(record, **{name: item}), wrong)
    again: list[str] = []
    assert type(record).unpack(read.pack(), again).pack() == read.pack()
    assert again == []
    value = getattr(read, name)
    assert wrong or (type(value) is type(item) and value == item)


@pytest.mark.parametrize(
    ("field", "item", "stands"),
    [
        ("modified_ns", 10**19, TIME_NS_MAX),
        ("modified_ns", -(10**19), TIME_NS_MIN),
        ("created_ns", "yesterday", 0),
        ("created_ns", 1e30, 0),
        ("size_bytes", 1 << 50, DISK_BYTES_MAX),
        ("size_bytes", -1, 0),
        ("size_bytes", None, DISK_BYTES_MAX),
        ("mode", 0o100644, 0o600),
        ("mode", True, 0o600),
        ("uid", 1 << 32, 0),
        ("uid", "alice", 0),
        ("name", "a/b", "recovered-7"),
        ("name", 5, "recovered-7"),
        ("name", "\ud800", "recovered-7"),
        ("mapped_blocks", -1, 0),
    ],
)
def test_the_nearest_stands_for_what_cannot_be(field: str, item: Any, stands: Any) -> None:
    wrong: list[str] = []
    read = DiskRecord.unpack(changed(RECORDS[1], **{field: item}), wrong)
    assert getattr(read, field) == stands
    assert len(wrong) == 1 and wrong[0].endswith(f": {stands!r} stands for it")


def test_what_is_missing_and_only_describes_is_told_too() -> None:
    stored = json.loads(RECORDS[1].pack())
    del stored["modified_ns"], stored["name"]
    wrong: list[str] = []
    read = DiskRecord.unpack(json.dumps(stored).encode(), wrong)
    assert (read.name, read.modified_ns) == ("recovered-7", 0)
    assert wrong == ["it has no name: 'recovered-7' stands for it", "it has no modified_ns: 0 stands for it"]


def test_a_capacity_that_cannot_be_is_the_hosts_or_the_largest() -> None:
    assert PoolRecord.unpack(changed(RECORDS[0], capacity_bytes="1G")).capacity_bytes is None
    assert PoolRecord.unpack(changed(RECORDS[0], capacity_bytes=1 << 70)).capacity_bytes == CAPACITY_BYTES_MAX


@pytest.mark.parametrize("name", sorted(RANGES.keys() - STAND_INS.keys()))
def test_nothing_stands_for_what_refers_to_others(name: str) -> None:
    for record in RECORDS:
        if hasattr(record, name):
            with pytest.raises(CorruptionError, match=name):
                type(record).unpack(changed(record, **{name: "x"}))


# Descriptions


@pytest.mark.parametrize("text", ["", "why \u00fc", "two\nlines", "\udcff is a byte", "x" * DESCRIPTION_BYTES_MAX])
def test_a_description_is_any_text(text: str) -> None:
    assert check_description(text) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "x" * (DESCRIPTION_BYTES_MAX + 1), "\u00fc" * 40_000])
def test_a_description_that_could_not_be_read_back_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="description"):
        check_description(text)


@pytest.mark.parametrize("text", ["why \ud800", "\u00fc" * 40_000])
def test_a_description_that_is_there_already_is_kept_as_far_as_it_can_be(text: str) -> None:
    read = SnapshotRecord.unpack(changed(RECORDS[2], description=text))
    assert check_description(read.description)[:4] == text[:4]


# Times


@given(st.integers())
def test_any_time_has_a_nearest_that_can_be_told(time_ns: int) -> None:
    assert TIME_NS_MIN <= clamped(time_ns) <= TIME_NS_MAX
    assert "1677-09-21T00:12:43.145224Z" <= rfc3339(time_ns) <= "2262-04-11T23:47:16.854775Z"
