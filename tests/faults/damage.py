"""Each kind of damage, done to a pool that nobody has open. What does it is LMDB itself, beneath the engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import lmdb

from rowfs.base import bitmap, pagecode, sharecode
from rowfs.base.format import BRANCHES, CHANGES, DISKS, PAGES, SHARES, SNAPSHOTS, SPACE, TABLES

Change = Callable[[bytes, bytes], bytes | None]  # key and value to the new value; None: gone
DATA_BLOCK = 4096


def change_map(pool: Path, table: str, change: Change, which: int = 0) -> None:
    """Change one record."""
    with lmdb.open(str(pool / "map"), max_dbs=len(TABLES), map_size=1 << 30) as env:
        database = env.open_db(table.encode(), create=False)
        with env.begin(write=True, db=database) as txn:
            key, value = list(txn.cursor())[which]
            new = change(key, value)
            if new is None:
                txn.delete(key)
            else:
                txn.put(key, new)


def _flip(key: bytes, value: bytes) -> bytes:
    middle = len(value) // 2
    return value[:middle] + bytes([value[middle] ^ 4]) + value[middle + 1 :]


def _field(name: str, value: object) -> Change:
    return lambda _key, record: json.dumps(json.loads(record) | {name: value}).encode()


def _owns(address: Callable[[int, int], int], owned: int = 1) -> Change:
    """A page version with a right checksum, in which the first mapped slots are changed."""

    def change(key: bytes, value: bytes) -> bytes:
        addresses, flags = pagecode.decode(key, value)
        slots = [slot for slot in range(len(addresses)) if addresses[slot]]
        addresses[slots[0]] = address(addresses[slots[0]], addresses[slots[1]])
        flags[slots[0]] = owned
        return pagecode.encode(key, addresses, flags)

    return change


def _bits(mark: Callable[[bytearray], None]) -> Change:
    def change(key: bytes, value: bytes) -> bytes | None:
        bits = bitmap.decode(key, value)
        mark(bits)
        return bitmap.encode(key, bits)

    return change


def _shared_once_more(key: bytes, value: bytes) -> bytes | None:
    counts = sharecode.decode(key, value)
    counts[counts > 0] += 1
    return sharecode.encode(key, counts)


def _gone(_key: bytes, _value: bytes) -> None:
    return None


def _no_such_branch(_key: bytes, record: bytes) -> bytes:
    return json.dumps(json.loads(record) | {"branch": 999}).encode()


def _clear_low(bits: bytearray) -> None:
    bits[0] &= 1  # the label alone


def truncate_data(pool: Path) -> None:
    """The data file ends before what it holds."""
    os.truncate(pool / "data", DATA_BLOCK)


# What is done, the checks that have to report it and no other, and whether it can be mended. What follows is reported
# too: blocks of a version that cannot be read seem to leak, what belongs to a lost snapshot counts for its branch.
DAMAGE: dict[str, tuple[Callable[[Path], None], set[str], bool]] = {
    "a bit flips in a page version": (lambda pool: change_map(pool, PAGES, _flip), {"versions", "space"}, False),
    "a page version is cut off": (
        lambda pool: change_map(pool, PAGES, lambda k, v: v[:3]),
        {"versions", "space"},
        False,
    ),
    "two slots own one address": (
        lambda pool: change_map(pool, PAGES, _owns(lambda a, b: b)),
        {"owners", "space", "versions"},
        False,
    ),
    "blocks leak": (
        lambda pool: change_map(pool, SPACE, _bits(lambda b: bitmap.set_range(b, 9000, 5))),
        {"space"},
        True,
    ),
    "blocks in use are marked as free": (lambda pool: change_map(pool, SPACE, _bits(_clear_low)), {"space"}, True),
    "a bit flips in a bitmap": (lambda pool: change_map(pool, SPACE, _flip), {"space"}, True),
    "a bitmap is lost": (lambda pool: change_map(pool, SPACE, _gone), {"space"}, True),
    "a block is shared with fewer than is counted": (
        lambda pool: change_map(pool, SHARES, _shared_once_more),
        {"owners"},
        True,
    ),
    "a bit flips in a record of shares": (lambda pool: change_map(pool, SHARES, _flip), {"owners"}, True),
    "a record of shares is lost": (lambda pool: change_map(pool, SHARES, _gone), {"owners"}, True),
    "an entry of the change index is lost": (lambda pool: change_map(pool, CHANGES, _gone), {"changes"}, True),
    "the change index lists other pages": (
        lambda pool: change_map(pool, CHANGES, lambda k, v: bytes([v[0] ^ 6]) + v[1:]),
        {"changes"},
        True,
    ),
    "a disk's figure is wrong": (lambda pool: change_map(pool, DISKS, _field("mapped_blocks", 7)), {"figures"}, True),
    "a snapshot's figure is wrong": (
        lambda pool: change_map(pool, SNAPSHOTS, _field("referenced_blocks", 7)),
        {"figures"},
        True,
    ),
    "a branch's figure is wrong": (
        lambda pool: change_map(pool, BRANCHES, _field("written_blocks", 77)),
        {"figures"},
        True,
    ),
    "a snapshot is of no branch": (
        lambda pool: change_map(pool, SNAPSHOTS, _no_such_branch),
        {"names", "figures"},
        False,
    ),
    "a snapshot's record is no record": (
        lambda pool: change_map(pool, SNAPSHOTS, lambda k, v: b"{"),
        {"names", "figures"},
        False,
    ),
    "the data file is cut off": (truncate_data, {"space"}, False),
}
