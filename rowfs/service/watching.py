"""Looks how near the pool and its disks are to what they may hold, and tells of it as an event: at 75, 85 and 95 %."""

from __future__ import annotations

import trio

from rowfs.base.names import printable
from rowfs.base.units import BLOCK_BYTES, format_size
from rowfs.rules.limits import crossed, reached
from rowfs.service.service import Service
from rowfs.store.model import Disk

LOOK_S = 10.0
WARN_PERCENT = 85  # from there on it is in the warnings of info and list, too


class Watcher:
    """How near each was when it was last looked at."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool
        self._last: dict[Disk | None, int | None] = {}  # None: the pool

    async def run(self) -> None:
        """Look now and then; never ends."""
        while True:
            self.look()
            await trio.sleep(LOOK_S)

    def look(self) -> None:
        """Tell of what came nearer than before; what went away from its limit may be told of again."""
        if self._pool.read_only or self._pool.read_only_reason:
            return
        space = self._pool.space
        used = space.allocated_blocks * BLOCK_BYTES
        found: dict[Disk | None, int | None] = {None: reached(used, used + space.free_blocks() * BLOCK_BYTES)}
        found |= {disk: near(self._service, disk) for disk in limited(self._service)}
        for what, percent in found.items():
            warned = crossed(self._last.get(what), percent)
            if warned is not None:
                self._tell(what, warned)
        self._last = found

    def _tell(self, what: Disk | None, percent: int) -> None:
        if what is None:
            self._pool.catalog.events.add("limit", text=f"the pool is {percent} % full, or more")
        else:
            self._pool.catalog.events.of_disk("limit", what, f"{percent} % of what it may hold, or more")


def limited(service: Service) -> list[Disk]:
    """The disks whose space has a limit."""
    return [disk for disk in service.pool.catalog.live() if disk.limits.space_bytes is not None]


def near(service: Service, disk: Disk) -> int | None:
    """The highest of 75, 85 and 95 % of its limit that a disk and its chain have reached; None: not even the lowest."""
    return reached(service.pool.limits.held_bytes(disk), disk.limits.space_bytes)


def warnings(service: Service) -> list[str]:
    """A line for each disk that is near its limit."""
    return [
        f"the disk {printable(disk.name)} and its snapshots hold {percent} % of the "
        f"{format_size(disk.limits.space_bytes or 0)} that they may, or more: delete snapshots, or raise it"
        for disk in limited(service)
        if (percent := near(service, disk) or 0) >= WARN_PERCENT
    ]
