"""What has to be there: records that say where they belong, and names with checksums."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

B = 4096
HEADER = struct.Struct("<8sIIQ")
MAGIC = b"rowfsREC"


class Lost(Exception):
    """Raised when something is not as it was promised."""


def record(disk: str, block: int, number: int) -> bytes:
    """The block that says where it belongs."""
    header = HEADER.pack(MAGIC, sum(disk.encode()), block, number)
    body = hashlib.sha256(header).digest()
    return header + (body * (B // len(body)))[: B - len(header)]


def number_of(disk: str, block: int, found: bytes) -> int:
    """Which record of this block it is; 0: none yet."""
    if found == bytes(B):
        return 0
    number = int(HEADER.unpack_from(found)[3])
    if found != record(disk, block, number):
        raise Lost(f"block {block} of {disk} holds what nobody wrote there: {found[:24].hex()}")
    return number


def checksum(data: bytes) -> str:
    """Of a whole disk or snapshot."""
    return hashlib.blake2b(
        data, digest_size=16
    ).hexdigest()  # faster than SHA-256 where the processor has no help for it


@dataclass
class Records:
    """What one writer's disk has to hold."""

    number: int = 0
    acknowledged: dict[int, int] = field(default_factory=dict)  # by block
    since: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def synced(self, written: list[tuple[int, int]]) -> None:
        """An fsync returned after these."""
        for block, number in written:
            self.acknowledged[block] = max(number, self.acknowledged.get(block, 0))

    def verify(self, disk: str, data: bytes) -> None:
        """Hold the disk against it, and take over what it is."""
        for block in range(len(data) // B):
            found = number_of(disk, block, data[block * B : (block + 1) * B])
            right = self.acknowledged.get(block, 0)
            if found != right and not (found > right and found in self.since[block]):
                raise Lost(f"block {block} of {disk} holds record {found}, acknowledged was {right}")
            self.acknowledged[block] = found
        self.since.clear()


@dataclass
class Names:
    """Snapshots or clones: their checksums (None: not known), and of which it is open whether they are there."""

    sums: dict[tuple[str, str], str | None] = field(default_factory=dict)
    open: set[tuple[str, str]] = field(default_factory=set)

    def any(self, rng: random.Random) -> tuple[str, str] | None:
        """One of them."""
        return rng.choice(list(self.sums)) if self.sums else None

    def settle(self, found: set[tuple[str, str]], what: str) -> None:
        """Hold the names that are there against it."""
        lost = self.sums.keys() - self.open - found
        strange = found - self.sums.keys()
        if lost or strange:
            raise Lost(f"{what}: lost {sorted(lost)}, come back or never made {sorted(strange)}")
        self.sums = {key: value for key, value in self.sums.items() if key in found}
        self.open.clear()

    @contextlib.contextmanager
    def changing(self, key: tuple[str, str]) -> Iterator[None]:
        """While the daemon makes or deletes it. If it dies meanwhile, either is right."""
        self.open.add(key)
        yield
        self.open.discard(key)
