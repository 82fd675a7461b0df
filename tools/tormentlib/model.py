"""What disks and snapshots may hold: now, and after whatever ends the daemon."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rowfs.base.errors import RowfsError
from soaklib.records import B, Lost, number_of, record

K = TypeVar("K")
LABEL = "torment"  # of all records: blocks wander from disk to disk
FIRST_NUMBER = 1000  # what is there at the start has lower ones
Blocks = dict[int, set[int]]  # which records a block may hold; none said: zeros (0)


def block_of(block: int, number: int) -> bytes:
    """Its bytes."""
    return record(LABEL, block, number) if number else bytes(B)


@dataclass
class Image:
    """A disk or a snapshot."""

    sizes: set[int]
    live: Blocks = field(default_factory=dict)
    safe: Blocks = field(default_factory=dict)
    sure: bool = True  # that it is there

    def put(self, block: int, numbers: set[int], done: bool) -> None:
        """A block was written, or perhaps."""
        self.live[block] = numbers | (set() if done else self.live.get(block, {0}))
        self.safe[block] = numbers | self.safe.get(block, {0})

    def synced(self) -> None:
        """All that was written is durable."""
        self.safe = copy.deepcopy(self.live)

    def or_else(self, other: Image) -> Image:
        """Either of both."""
        both = Image(self.sizes | other.sizes)
        for mine, its, joint in ((self.live, other.live, both.live), (self.safe, other.safe, both.safe)):
            for block in {*mine, *its}:
                joint[block] = mine.get(block, {0}) | its.get(block, {0})
        return both

    def hold(self, what: str, data: bytes, safe: bool) -> None:
        """Raises Lost unless it may hold this."""
        if len(data) not in self.sizes:
            raise Lost(f"{what} has {len(data)} bytes, not {sorted(self.sizes)}")
        for block in range(len(data) // B):
            found = number_of(LABEL, block, data[block * B : (block + 1) * B])
            allowed = (self.safe if safe else self.live).get(block, {0})
            if found not in allowed:
                raise Lost(f"block {block} of {what} holds record {found}, not one of {sorted(allowed)}")


class Model:
    """A pool: disks by name, snapshots by disk and name."""

    def __init__(self) -> None:
        self.disks: dict[str, Image] = {}
        self.snapshots: dict[tuple[str, str], Image] = {}
        self.refused = 0  # steps that ended with an error
        self.on_step: Callable[[], None] | None = None
        self._numbers = FIRST_NUMBER

    def number(self) -> int:
        """Of a new record."""
        self._numbers += 1
        return self._numbers

    def synced(self) -> None:
        """Whatever was written to any disk is durable."""
        for image in (*self.disks.values(), *self.snapshots.values()):
            image.synced()

    @contextmanager
    def step(self) -> Iterator[list[bool]]:
        """One thing that is tried. The list is empty afterwards if it failed."""
        done = [True]
        if self.on_step is not None:
            self.on_step()
        try:
            yield done
        except (OSError, RowfsError):
            self.refused += 1
            done.clear()

    def hold(self, disks: dict[str, bytes], snapshots: dict[tuple[str, str], bytes], safe: bool) -> None:
        """Raises Lost unless this may be all there is."""
        _hold_all(self.disks, disks, safe)
        _hold_all(self.snapshots, snapshots, safe)


def _hold_all(images: Mapping[K, Image], found: Mapping[K, bytes], safe: bool) -> None:
    for name, image in images.items():
        if name in found:
            image.hold(str(name), found[name], safe)
        elif image.sure:
            raise Lost(f"{name} is not there")
    if unknown := set(found) - set(images):
        raise Lost(f"{unknown} should not be there")
