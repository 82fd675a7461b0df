"""The on-disk format. The bytes written out here are those of format 1: when a test fails, old pools break."""

from __future__ import annotations

import json
from array import array
from dataclasses import MISSING, fields

import pytest

from rowfs.base import bitmap, pagecode
from rowfs.base.errors import CorruptionError, PoolError
from rowfs.base.format import (
    CHANGE_KEY,
    CHUNK_KEY,
    EPOCH_MAX,
    FORMAT_PLAIN,
    FORMAT_SEALED,
    FORMAT_VERSION,
    ID_KEY,
    PENDING_KEY,
    PENDING_REMOVAL,
    PENDING_REVISIT,
    POOL_KEY,
    TABLES,
    BranchRecord,
    DiskRecord,
    EventRecord,
    GroupRecord,
    LabelsRecord,
    LimitsRecord,
    LockRecord,
    PolicyRecord,
    PoolRecord,
    Record,
    RemovalRecord,
    SnapshotRecord,
    TrashRecord,
    check_format,
    pack_label,
    page_key,
    unpack_label,
)
from rowfs.base.units import BLOCK_BYTES, PAGE_BLOCKS
from rowfs.store.model import Branch, Disk

UUID = bytes(range(16))

EXAMPLES: list[tuple[Record, str]] = [
    (
        PoolRecord(format=1, uuid="00" * 16, created_ns=5, capacity_bytes=None, next_id=7, clean=True),
        '{"format":1,"uuid":"00000000000000000000000000000000","created_ns":5,"capacity_bytes":null,"next_id":7,'
        '"clean":true,"trash_keep_ns":null,"limit_snapshots":null,"limit_disks":null,"limit_provisioned_percent":null,'
        '"limit_hook":null,"clock_seen_ns":null,"clock_leapt_from_ns":null,"clock_leapt_to_ns":null,"sealed_blocks":0,'
        '"journal":null,"journal_bytes":0}',
    ),
    (
        DiskRecord(id=1, name="vm\u00e4", size_bytes=4096, branch=2, created_ns=3, modified_ns=4, inode=1),
        '{"id":1,"name":"vm\\u00e4","size_bytes":4096,"branch":2,"created_ns":3,"modified_ns":4,"inode":1,"mode":420,'
        '"uid":0,"gid":0,"mapped_blocks":0,"changed_ns":0}',
    ),
    (
        SnapshotRecord(id=3, disk=1, name="s", branch=2, epoch=1, size_bytes=4096, created_ns=9),
        '{"id":3,"disk":1,"name":"s","branch":2,"epoch":1,"size_bytes":4096,"created_ns":9,"mode":292,"uid":0,"gid":0,'
        '"kind":"user","consistency":"crash","description":"","referenced_blocks":0,"written_blocks":0,'
        '"changed_ns":0,"policy":null,"due_ns":null,"failed":false}',
    ),
    (
        PolicyRecord(id=5, rule={"name": "nightly"}, runs={"since_ns": 9}),
        '{"id":5,"rule":{"name":"nightly"},"runs":{"since_ns":9},"outcome":null}',
    ),
    (
        BranchRecord(id=2, parent=None, fork=0, epoch=1),
        '{"id":2,"parent":null,"fork":0,"epoch":1,"written_blocks":0,"sealed":0}',
    ),
    (RemovalRecord(id=8, branch=2, epoch=EPOCH_MAX), '{"id":8,"branch":2,"epoch":4294967295}'),
    (
        GroupRecord(id=9, name="g", created_ns=5, members={"db": 3}),
        '{"id":9,"name":"g","created_ns":5,"members":{"db":3},"kind":"user","description":""}',
    ),
    (
        EventRecord(id=1, time_ns=5, verb="create", disk="d", uid=0, pid=7, command="rowfs"),
        '{"id":1,"time_ns":5,"verb":"create","disk":"d","snapshot":null,"group":null,"size_bytes":null,"uid":0,"pid":7,'
        '"command":"rowfs","failed":false,"text":""}',
    ),
    (
        TrashRecord(id=4, name="d", disk=1, snapshot="s", deleted_ns=9, created_ns=5),
        '{"id":4,"name":"d","disk":1,"snapshot":"s","head":null,"deleted_ns":9,"created_ns":5,"mode":420,"uid":0,"gid":0,'
        '"labels":{}}',
    ),
    (
        LimitsRecord(id=3, snapshots=64, space_bytes=8192),
        '{"id":3,"snapshots":64,"space_bytes":8192,"reserve_bytes":0}',
    ),
    (LabelsRecord(id=3, labels={"env": "prod"}), '{"id":3,"labels":{"env":"prod"}}'),
    (
        LockRecord(id=3, hold=True, until_ns=9, reason="audit"),
        '{"id":3,"hold":true,"until_ns":9,"compliance":false,"reason":"audit"}',
    ),
]


def test_the_tables_have_these_names() -> None:
    first = ("meta", "disks", "snapshots", "branches", "pages", "changes", "space", "pending", "shares")
    later = ("groups", "labels", "locks", "events", "trash", "limits", "policies", "sums", "accounts")
    assert (*first, *later) == TABLES
    assert POOL_KEY == b"pool"
    assert (FORMAT_PLAIN, FORMAT_SEALED, FORMAT_VERSION) == (1, 2, 2)


@pytest.mark.parametrize(
    ("key", "golden"),
    [
        (page_key(1, 0x203, 0x405), "00000001 00000203 00000405"),
        (page_key(0xFFFFFFFF, 0, 1), "ffffffff 00000000 00000001"),
        (CHANGE_KEY.pack(1, 0x203, 0x405), "00000001 00000203 0405"),
        (CHUNK_KEY.pack(0x10203), "00010203"),
        (ID_KEY.pack(0x10203), "0000000000010203"),
        (PENDING_KEY.pack(PENDING_REMOVAL, 5, 0, 0), "01 00000005 00000000 00000000"),
        (PENDING_KEY.pack(PENDING_REVISIT, 5, 6, 7), "02 00000005 00000006 00000007"),
    ],
)
def test_keys_are_big_endian(key: bytes, golden: str) -> None:
    assert key == bytes.fromhex(golden)


def test_keys_sort_as_their_numbers_do() -> None:
    keys = [page_key(b, p, e) for b in (1, 255, 256) for p in (0, 1, 256) for e in (1, 256)]
    assert keys == sorted(keys)


def test_the_label_is_magic_version_and_uuid() -> None:
    label = pack_label(UUID)
    assert len(label) == BLOCK_BYTES
    assert label[:28] == b"rowfsPL\n" + b"\1\0\0\0" + UUID
    assert not any(label[28:])
    assert unpack_label(label) == UUID


@pytest.mark.parametrize(
    "label", [b"", b"rowfsPL\n", bytes(BLOCK_BYTES), b"QFI\xfb" + bytes(BLOCK_BYTES), pack_label(UUID)[:27]]
)
def test_what_is_no_label_is_refused(label: bytes) -> None:
    with pytest.raises(PoolError):
        unpack_label(label)


def test_a_newer_format_is_refused_by_number() -> None:
    with pytest.raises(PoolError, match="format 3, this rowfs knows formats up to 2"):
        check_format(3)
    check_format(2)
    with pytest.raises(PoolError, match="format 258"):
        unpack_label(b"rowfsPL\n" + b"\2\1\0\0" + UUID)
    check_format(1)


@pytest.mark.parametrize(("record", "golden"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_a_record_is_this_json(record: Record, golden: str) -> None:
    assert record.pack().decode() == golden


@pytest.mark.parametrize(("record", "golden"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_a_record_comes_back(record: Record, golden: str) -> None:
    again = type(record).unpack(golden.encode())
    assert all(getattr(again, field.name) == getattr(record, field.name) for field in fields(record))


@pytest.mark.parametrize(("record", "golden"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_what_a_newer_rowfs_added_to_a_record_is_ignored(record: Record, golden: str) -> None:
    stored = {**json.loads(golden), "encryption": {"cipher": "x"}, "sums": [1]}
    assert type(record).unpack(json.dumps(stored).encode()).pack().decode() == golden


@pytest.mark.parametrize(("record", "golden"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_what_an_older_rowfs_left_out_gets_its_default(record: Record, golden: str) -> None:
    stored = json.loads(golden)
    optional = {field.name: field.default for field in fields(record) if field.default is not MISSING}
    short = {name: value for name, value in stored.items() if name not in optional}
    again = type(record).unpack(json.dumps(short).encode())
    assert all(getattr(again, name) == value for name, value in optional.items())


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *((value, "its bytes are not a JSON object") for value in (b"", b"{", b"null", b"[]", b"7", b"\xff\xfe")),
        (b"[" * 100_000, "its bytes are not a JSON object"),
        (b"{}", "it has no id, parent, fork, epoch"),
        (b'{"id":1,"parent":null,"fork":0}', "it has no epoch"),
        (b'{"id":0,"parent":null,"fork":0,"epoch":1}', "id is 0"),
        (b'{"id":1,"parent":"x","fork":0,"epoch":1}', "parent is 'x'"),
    ],
)
def test_what_is_no_record_is_corruption(value: bytes, why: str) -> None:
    with pytest.raises(CorruptionError) as caught:
        BranchRecord.unpack(value)
    assert str(caught.value) == f"the record of a branch is damaged: {why}"


def test_what_is_only_in_memory_is_not_stored() -> None:
    branch = Branch(id=2, parent=None, fork=0, epoch=1, has_head=True, watched=True)
    assert branch.pack() == BranchRecord(id=2, parent=None, fork=0, epoch=1).pack()
    disk = Disk(id=1, name="d", size_bytes=0, branch=2, created_ns=0, modified_ns=0, inode=1, head=branch, handles=3)
    assert set(json.loads(disk.pack())) == {field.name for field in fields(DiskRecord)}


def test_a_page_in_sequence_is_these_bytes() -> None:
    addresses, owned = array("q", range(0x30201, 0x30201 + PAGE_BLOCKS)), bytearray(b"\1" * PAGE_BLOCKS)
    assert pagecode.encode(page_key(1, 2, 3), addresses, owned).hex(" ") == "01 03 ce 67 91 ff 07 01 02 03 00 00 00"


def test_a_page_with_a_hole_is_these_bytes() -> None:
    addresses, owned = array("q", [9, 10, 0]), bytearray([1, 0, 0])
    addresses.extend(range(100, 100 + PAGE_BLOCKS - 3))
    owned += bytes(PAGE_BLOCKS - 3)
    value = pagecode.encode(page_key(1, 2, 3), addresses, owned)
    heads, firsts = "00 06 00 04 00 00 fc 05", "09 00 00 00 00 00 0a 00 00 00 00 00 64 00 00 00 00 00"
    assert value[5:].hex(" ") == f"{heads} {firsts}"


def test_a_scattered_page_is_plain() -> None:
    addresses, owned = array("q", range(1, 2 * PAGE_BLOCKS, 2)), bytearray([1, 0] * (PAGE_BLOCKS // 2))
    value = pagecode.encode(page_key(1, 2, 3), addresses, owned)
    assert value[0] == 2
    assert value[5:17].hex(" ") == "01 00 00 00 00 00 03 00 00 00 00 00"
    assert value[-64:] == b"\x55" * 64


def test_a_bitmap_of_runs_is_these_bytes() -> None:
    bits = bytearray(bitmap.CHUNK_BYTES)
    bitmap.set_range(bits, 0, 1)
    bitmap.set_range(bits, 0x102, 0x305)
    value = bitmap.encode(CHUNK_KEY.pack(0), bits)
    assert value is not None
    assert value.hex(" ") == "01 44 b8 b1 58 05 03 00 00 00 00 02 01 04 03"
