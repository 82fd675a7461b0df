"""Sealed blocks that did not read as what was sealed: what is known of them since the pool was opened.

Told once for each block: a line in the log and an event. A disk that is broken in many places must fill neither, so
after `TOLD_MAX` of them within `TOLD_S` seconds there is one line for all further ones.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from rowfs.base.errors import BlockDamagedError
from rowfs.base.names import printable
from rowfs.base.units import BLOCK_BYTES, PAGE_BLOCKS, PageIndex
from rowfs.store.model import Disk, Snapshot, address

if TYPE_CHECKING:
    from rowfs.store.events import Events
    from rowfs.store.versions import Versions

TOLD_MAX, TOLD_S = 20, 60.0
KNOWN_MAX = 1 << 16  # blocks: of more it is enough to know that there are

Place = tuple[Disk | Snapshot, int]  # who has the block, and as which block of it

log = logging.getLogger(__name__)


class Damage:
    """The damaged blocks of one pool."""

    def __init__(self, versions: Versions, events: Events) -> None:
        self._versions = versions
        self._events = events
        self._known: dict[int, set[Place]] = {}  # by address; who has it as far as that was seen
        self._told: list[float] = []  # when, of late
        self._silent = False

    def __len__(self) -> int:
        return len(self._known)

    @property
    def addresses(self) -> list[int]:
        """Which blocks are known to be damaged."""
        return sorted(self._known)

    @contextmanager
    def noted(self, target: Disk | Snapshot, offset: int | None = None) -> Iterator[None]:
        """What is found in a read of a disk or snapshot, the buffer of which begins at `offset` of it if that is given,
        is noted here, and raised on.
        """
        try:
            yield
        except BlockDamagedError as error:
            for number, start in zip(error.addresses, error.starts, strict=True):
                places = [] if offset is None else [(target, (offset + start) // BLOCK_BYTES)]
                self.found(number, places, target)
            raise

    def found(self, number: int, places: Iterable[Place], target: Disk | Snapshot | None = None) -> None:
        """The block at an address is damaged; these have it, among others perhaps. `target`: who was read."""
        new = number not in self._known
        if new and len(self._known) >= KNOWN_MAX:
            return
        self._known.setdefault(number, set()).update(places)
        if new:
            self._tell(number, target)

    def is_known(self, number: int) -> bool:
        """Whether the block at an address is known to be damaged."""
        return number in self._known

    def forget(self, addresses: np.ndarray) -> None:
        """These blocks are free, or whole again."""
        if self._known:
            for number in addresses.tolist():
                self._known.pop(number, None)

    def places(self, number: int) -> list[Place]:
        """Who is known to have a damaged block, and has it still."""
        return [(target, block) for target, block in self._known.get(number, ()) if self._has(target, block, number)]

    def counts(self) -> dict[Disk | Snapshot, int]:
        """How many blocks of each disk and snapshot are known to be damaged."""
        return Counter(target for number in self._known for target, _ in self.places(number))

    def _has(self, target: Disk | Snapshot, block: int, number: int) -> bool:
        if target.deleted or (isinstance(target, Disk) and target.head is None):
            return False
        point = target.head if isinstance(target, Disk) else target.point
        assert point is not None
        index, slot = divmod(block, PAGE_BLOCKS)
        return self._versions.page(point, PageIndex(index)).addresses[slot] == number

    def _tell(self, number: int, target: Disk | Snapshot | None) -> None:
        now = time.monotonic()
        self._told = [then for then in self._told if now - then < TOLD_S]
        if len(self._told) >= TOLD_MAX:
            if not self._silent:
                log.error("more sealed blocks are damaged: rowfs scrub finds them all")
            self._silent = True
            return
        self._silent = False
        self._told.append(now)
        what = f"the block at address {number} is not what was sealed: the data file is damaged there"
        log.error("%s%s", f"{printable(address(target))}: " if target is not None else "", what)
        if isinstance(target, Disk):
            self._events.of_disk("damage", target, what)
        elif target is not None:
            self._events.of_snapshot("damage", target, what)
        else:
            self._events.add("damage", text=what)
