"""Damages the block map of a closed pool, by writing into LMDB directly. Each function does one thing wrong."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np

from rowfs.base import bitmap, pagecode, sharecode
from rowfs.base.format import CHANGE_KEY, CHANGES, CHUNK_KEY, PAGE_KEY, PAGES, REGION_KEY, SHARES, SPACE, TABLES

Items = list[tuple[bytes, bytes]]


@contextmanager
def writing(pool: Path) -> Iterator[dict[str, lmdb.Cursor]]:
    """A cursor for each table, in one transaction."""
    env = lmdb.open(str(pool / "map"), max_dbs=len(TABLES) + 8, map_size=1 << 30)
    try:
        databases = {name: env.open_db(name.encode(), create=False) for name in TABLES}
        with env.begin(write=True) as txn:
            cursors = {name: txn.cursor(database) for name, database in databases.items()}
            yield cursors
            for cursor in cursors.values():
                cursor.close()
    finally:
        env.close()


def tables(pool: Path) -> dict[str, Items]:
    """Everything that is in the map."""
    with writing(pool) as cursors:
        return {name: [(bytes(key), bytes(value)) for key, value in cursor] for name, cursor in cursors.items()}


def put(pool: Path, table: str, key: bytes, value: bytes) -> None:
    """Put one value."""
    with writing(pool) as cursors:
        cursors[table].put(key, value)


def remove(pool: Path, table: str, key: bytes) -> None:
    """Remove one value, which must be there."""
    with writing(pool) as cursors:
        assert cursors[table].set_key(key)
        cursors[table].delete()


def edit_record(pool: Path, table: str, key: bytes, **changes: object) -> None:
    """Change fields of a record."""
    with writing(pool) as cursors:
        record = json.loads(cursors[table].get(key))
        cursors[table].put(key, json.dumps({**record, **changes}).encode())


def keys(pool: Path, table: str) -> list[bytes]:
    """The keys of a table."""
    return [key for key, _ in tables(pool)[table]]


# Page versions


def page(pool: Path, key: bytes) -> tuple[array[int], bytearray]:
    """The addresses and owned flags of a page version."""
    return pagecode.decode(key, dict(tables(pool)[PAGES])[key])


def put_page(pool: Path, key: bytes, addresses: array[int], owned: bytearray) -> None:
    """Store a page version."""
    put(pool, PAGES, key, pagecode.encode(key, addresses, owned))


def set_slot(pool: Path, key: bytes, slot: int, address: int, owned: bool) -> None:
    """Have a page version hold something else."""
    addresses, flags = page(pool, key)
    addresses[slot], flags[slot] = address, owned
    put_page(pool, key, addresses, flags)


def drop_version(pool: Path, key: bytes) -> None:
    """Remove a page version, and what the change index says of it."""
    branch, index, epoch = PAGE_KEY.unpack(key)
    remove(pool, PAGES, key)
    change_index(pool, branch, epoch, index, False)


def change_index(pool: Path, branch: int, epoch: int, index: int, listed: bool) -> None:
    """List a page version in the change index, or do not."""
    key = CHANGE_KEY.pack(branch, epoch, index // 512)
    bits = int.from_bytes(dict(tables(pool)[CHANGES]).get(key, b""), "little")
    bits = bits | 1 << index % 512 if listed else bits & ~(1 << index % 512)
    if bits:
        put(pool, CHANGES, key, bits.to_bytes(64, "little"))
    else:
        remove(pool, CHANGES, key)


# Space


def set_allocated(pool: Path, address: int, allocated: bool) -> None:
    """Mark a block as allocated, or as free."""
    chunk, block = divmod(address, bitmap.CHUNK_BLOCKS)
    key = CHUNK_KEY.pack(chunk)
    bits = bitmap.decode(key, dict(tables(pool)[SPACE])[key])
    (bitmap.set_range if allocated else bitmap.clear_range)(bits, block, 1)
    put(pool, SPACE, key, bitmap.encode(key, bits))


def set_further(pool: Path, address: int, further: int) -> None:
    """Say that a block has so many owners beside the first."""
    region, block = divmod(address, sharecode.REGION_BLOCKS)
    key = REGION_KEY.pack(region)
    stored = dict(tables(pool)[SHARES]).get(key)
    counts = np.zeros(sharecode.REGION_BLOCKS, np.uint16) if stored is None else sharecode.decode(key, stored)
    counts[block] = further
    put(pool, SHARES, key, sharecode.encode(key, counts))


def flip(pool: Path, table: str, key: bytes, byte: int = -1) -> None:
    """Flip a bit of a value."""
    value = bytearray(dict(tables(pool)[table])[key])
    value[byte] ^= 1
    put(pool, table, key, bytes(value))
