"""A record of the journal: what a small commit would put into the block map, in one piece.

    4s   magic      "rwj1"
    u32  checksum   CRC-32 (zlib) of what follows, up to the last entry
    u64  commit     the id of the map's commit that it goes on from
    u32  number     1 for the first record after that commit
    u32  length     bytes of entries
    entries         u8 index in TABLES, u8 bytes of the key, u16 bytes of the value, key, value
    zeros           up to whole blocks, so that no write touches two records

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

MAGIC = b"rwj1"
HEADER = struct.Struct("<4sIQII")
ENTRY = struct.Struct("<BBH")
CHECKED_FROM = 8  # magic and checksum come before

Entry = tuple[str, bytes, bytes]  # table, key, value


class JournalRecord(NamedTuple):
    """A record as it was read."""

    commit: int
    number: int
    entries: list[Entry]


def encode(commit: int, number: int, entries: Iterable[Entry]) -> bytes:
    """The record in whole blocks."""
    body = b"".join(
        ENTRY.pack(TABLES.index(table), len(key), len(value)) + key + value for table, key, value in entries
    )
    checked = HEADER.pack(MAGIC, 0, commit, number, len(body))[CHECKED_FROM:] + body
    record = MAGIC + zlib.crc32(checked).to_bytes(4, "little") + checked
    return record + bytes(-len(record) % BLOCK_BYTES)


def decode(data: memoryview, commit: int) -> JournalRecord | None:
    """The record that begins `data` and goes on from `commit`; None: there is none, or not all of it.

    Raises CorruptionError when one was written whole that cannot be understood. What is void need not be understood.
    """
    if len(data) < HEADER.size:
        return None
    magic, checksum, follows, number, length = HEADER.unpack_from(data)
    end = HEADER.size + length
    if magic != MAGIC or follows != commit or end > len(data) or zlib.crc32(data[CHECKED_FROM:end]) != checksum:
        return None
    return JournalRecord(commit, number, list(_entries(bytes(data[HEADER.size : end]))))


def _entries(body: bytes) -> Iterable[Entry]:
    at = 0
    while at < len(body):
        if at + ENTRY.size > len(body):
            raise CorruptionError("a record of the journal ends amid an entry")
        table, key_bytes, value_bytes = ENTRY.unpack_from(body, at)
        at += ENTRY.size
        end = at + key_bytes + value_bytes
        if table >= len(TABLES) or end > len(body):
            raise CorruptionError("a record of the journal has an entry that this rowfs does not know")
        yield TABLES[table], body[at : at + key_bytes], body[at + key_bytes : end]
        at = end
