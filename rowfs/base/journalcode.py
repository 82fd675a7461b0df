"""A record of the journal: what a small commit would put into the block map, and what was written, in one piece.

    4s   magic      "rwj1"
    u32  checksum   CRC-32 (zlib) of what follows, up to the last entry
    u64  commit     the id of the map's commit that it goes on from
    u32  number     1 for the first record after that commit
    u32  length     bytes of entries
    entries         u8 index in TABLES, u8 bytes of the key, u16 bytes of the value, key, value
    zeros           up to whole blocks, so that no write touches two records

The first entry is no change of the map: it says PLACE for its table, and

    key             u64, the nonce of the journal's first block: no data that a user writes can pass for a record
    value           u32, the last record of the same commit that was durable when this one was made
                    u32, the last one whose data was durable in the data file before this one was written

Entries that say COUNTS for their table are what writing changes in the record of a disk and in that of the branch it
writes on

    key             u64, the disk's id
    value           6 * i64: size_bytes, mapped_blocks, modified_ns, changed_ns of the disk; id, written_blocks of the
                    branch

The last entries say DATA for their table, and are blocks of the data file as they have to be

    key             u64, the block's address
    value           4,096 bytes

So a record that is damaged and one that was never written whole can be told apart: of the first, later ones know. A
rowfs that writes no such entries does not know them either, and opens no pool whose journal has one.

native/_record.c makes the same records, to the byte.

The journal begins with a block of its own:

    4s   magic      "rwjh"
    u32  checksum   CRC-32 of the nonce
    u64  nonce

Little-endian. A checksum that is right says that all of the record was written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from rowfs.base.errors import CorruptionError
from rowfs.base.format import TABLES
from rowfs.base.units import BLOCK_BYTES

MAGIC, FIRST_MAGIC = b"rwj1", b"rwjh"
HEADER = struct.Struct("<4sIQII")
ENTRY = struct.Struct("<BBH")
CHECKED_FROM = 8  # magic and checksum come before
COUNTS, DATA, PLACE = 253, 254, 255
NONCE = struct.Struct("<Q")
DURABLE = struct.Struct("<II")  # the record, its data
ADDRESS = struct.Struct("<Q")
DISK_ID = struct.Struct("<Q")
COUNTED = struct.Struct("<6q")

Entry = tuple[str, bytes, bytes]  # table, key, value
Block = tuple[int, bytes | memoryview]  # address, data


class Counts(NamedTuple):
    """What writing changes in the records of a disk and of its branch."""

    disk: int
    size_bytes: int
    mapped_blocks: int
    modified_ns: int
    changed_ns: int
    branch: int
    written_blocks: int


class JournalRecord(NamedTuple):
    """A record as it was read."""

    commit: int
    number: int
    entries: list[Entry]
    nonce: int | None = None  # None: an older rowfs wrote it, which told nothing of its place
    durable: int = 0
    home: int = 0  # data of records up to this one was durable in its place
    data: list[Block] = []  # noqa: RUF012
    blocks: int = 1  # it takes in the journal
    counts: list[Counts] = []  # noqa: RUF012


def encode(
    commit: int,
    number: int,
    entries: Iterable[Entry],
    nonce: int = 0,
    durable: int = 0,
    home: int = 0,
    data: Iterable[Block] = (),
    counts: Iterable[Counts] = (),
) -> bytes:
    """The record in whole blocks."""
    parts: list[bytes | memoryview] = [_entry(PLACE, NONCE.pack(nonce), DURABLE.pack(durable, home))]
    parts += [_entry(TABLES.index(table), key, value) for table, key, value in entries]
    parts += [_entry(COUNTS, DISK_ID.pack(disk), COUNTED.pack(*counted)) for disk, *counted in counts]
    for address, block in data:
        parts += [ENTRY.pack(DATA, ADDRESS.size, BLOCK_BYTES), ADDRESS.pack(address), block]
    body = b"".join(parts)
    checked = HEADER.pack(MAGIC, 0, commit, number, len(body))[CHECKED_FROM:] + body
    record = MAGIC + zlib.crc32(checked).to_bytes(4, "little") + checked
    return record + bytes(-len(record) % BLOCK_BYTES)


def _place_of(nonce: int) -> bytes:
    return ENTRY.pack(PLACE, NONCE.size, DURABLE.size) + NONCE.pack(nonce)


def _entry(table: int, key: bytes, value: bytes) -> bytes:
    return ENTRY.pack(table, len(key), len(value)) + key + value


def decode(data: memoryview, commit: int, nonce: int | None = None) -> JournalRecord | None:
    """The record that begins `data` and goes on from `commit`; None: there is none, or not all of it.

    With `nonce`, one that has it. Raises CorruptionError when one was written whole that cannot be understood. What is
    void need not be understood.
    """
    if len(data) < HEADER.size:
        return None
    magic, checksum, follows, number, length = HEADER.unpack_from(data)
    end = HEADER.size + length
    if magic != MAGIC or follows != commit or end > len(data) or zlib.crc32(data[CHECKED_FROM:end]) != checksum:
        return None
    if nonce is not None and data[HEADER.size : HEADER.size + ENTRY.size + NONCE.size] != _place_of(nonce):
        return None
    nonce, durable, home = None, 0, 0
    entries: list[Entry] = []
    blocks: list[Block] = []
    counts: list[Counts] = []
    for table, key, value in _entries(bytes(data[HEADER.size : end])):
        if table == PLACE and len(key) == NONCE.size and len(value) == DURABLE.size:
            (nonce,), (durable, home) = NONCE.unpack(key), DURABLE.unpack(value)
        elif table == DATA and len(key) == ADDRESS.size and len(value) == BLOCK_BYTES:
            blocks.append((ADDRESS.unpack(key)[0], value))
        elif table == COUNTS and len(key) == DISK_ID.size and len(value) == COUNTED.size:
            counts.append(Counts(*DISK_ID.unpack(key), *COUNTED.unpack(value)))
        elif table < len(TABLES):
            entries.append((TABLES[table], key, value))
        else:
            raise CorruptionError("a record of the journal has an entry that this rowfs does not know")
    return JournalRecord(commit, number, entries, nonce, durable, home, blocks, -(-end // BLOCK_BYTES), counts)


def _entries(body: bytes) -> Iterable[tuple[int, bytes, bytes]]:
    at = 0
    while at < len(body):
        if at + ENTRY.size > len(body):
            raise CorruptionError("a record of the journal ends amid an entry")
        table, key_bytes, value_bytes = ENTRY.unpack_from(body, at)
        at += ENTRY.size
        end = at + key_bytes + value_bytes
        if end > len(body):
            raise CorruptionError("a record of the journal ends amid an entry")
        yield table, body[at : at + key_bytes], body[at + key_bytes : end]
        at = end


def encode_first(nonce: int) -> bytes:
    """The journal's first block."""
    packed = NONCE.pack(nonce)
    return (FIRST_MAGIC + zlib.crc32(packed).to_bytes(4, "little") + packed).ljust(BLOCK_BYTES, b"\0")


def decode_first(data: memoryview) -> int | None:
    """The nonce in the journal's first block; None: it is none, as in the journals of older versions."""
    packed = bytes(data[CHECKED_FROM : CHECKED_FROM + NONCE.size])
    if data[: len(FIRST_MAGIC)] != FIRST_MAGIC or len(packed) < NONCE.size:
        return None
    if zlib.crc32(packed) != int.from_bytes(data[len(FIRST_MAGIC) : CHECKED_FROM], "little"):
        return None
    return int(NONCE.unpack(packed)[0])
