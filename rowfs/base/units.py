"""The units every other module counts in, and the sizes people type.

A number's unit is its type or the last word of its name: `size_bytes`, `timeout_s`, `BlockIndex`.
"""

from __future__ import annotations

import re
from typing import NewType

from rowfs.base.errors import UsageError

BlockIndex = NewType("BlockIndex", int)  # which block of a disk
BlockAddress = NewType("BlockAddress", int)  # which block of the data file; HOLE: none
PageIndex = NewType("PageIndex", int)  # which page (512 blocks) of a disk
Epoch = NewType("Epoch", int)  # a moment of a branch; counts up from 1
BranchId = NewType("BranchId", int)

BLOCK_BITS = 12
BLOCK_BYTES = 1 << BLOCK_BITS  # the guest's page and file-system block: aligned writes never read first
PAGE_BLOCKS = 512
PAGE_BYTES = PAGE_BLOCKS * BLOCK_BYTES  # 2 MiB

HOLE = BlockAddress(0)  # block 0 of the data file is its label, so no disk ever holds it

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
DISK_BYTES_MAX = 16 * TIB
SECTOR_BYTES = 512
CAPACITY_BYTES_MAX = 1 << 60  # of a pool: an address has 48 bits

SIZE_CHARACTERS_MAX = 40
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGTP])(i?B)?|B)?\s*", re.IGNORECASE | re.ASCII)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def parse_size(text: str) -> int:
    """The bytes that `text` names: `512`, `64K`, `1.5G`, `20GiB` (powers of 1024, as truncate and qemu-img read them).

    Raises UsageError when it is no number of bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None or len(text) > SIZE_CHARACTERS_MAX:
        shown = text[:SIZE_CHARACTERS_MAX]
        raise UsageError(f"{shown!r} is not a size: write a number of bytes, or one with K, M, G or T, as in 20G")
    number, power, _ = match.groups()
    scale = 1024 ** _POWERS[power.upper()] if power else 1
    size = float(number) * scale if "." in number else int(number) * scale
    if size != int(size):
        raise UsageError(f"{text!r} is not a whole number of bytes")
    return int(size)


def check_disk_size(size_bytes: int) -> int:
    """`size_bytes`, if a disk may have it. Raises UsageError otherwise."""
    if size_bytes < 0:
        raise UsageError(f"a disk cannot have {_shown(size_bytes)}: sizes are 0 to 16 TiB")
    if size_bytes > DISK_BYTES_MAX:
        raise UsageError(f"{_shown(size_bytes)} is more than the largest disk, 16 TiB")
    return size_bytes


def _shown(size_bytes: int) -> str:
    """A size that somebody asked for, be it absurd."""
    return format_size(size_bytes) if abs(size_bytes) < 1 << 70 else f"a number of {size_bytes.bit_length()} bits"


def left_out_bytes(size_bytes: int) -> int:
    """How many bytes at the end of a file of this size a loop device does not show: it has whole sectors."""
    return size_bytes % SECTOR_BYTES


def format_size(size_bytes: int) -> str:
    """`size_bytes` for people: at most four characters and a unit, powers of 1024, as `ls -h` prints them."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes}B"
    size = float(size_bytes)
    for unit in "KMGTPE":
        size /= 1024
        if abs(size) < 999.5:
            return f"{size:.1f}{unit}" if abs(size) < 9.95 else f"{size:.0f}{unit}"
    return f"{size:.0f}E"
