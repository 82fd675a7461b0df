"""Looks how near the pool and its disks are to their limits, and tells of it at 75, 85 and 95 %: an event, and a hook.

And whether the pool, or its mount, has become read-only, or can be written to again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import trio

from rowfs.base.names import printable
from rowfs.base.units import BLOCK_BYTES, format_size
from rowfs.host.hooks import run_hook
from rowfs.rules.limits import crossed, reached, snapshots_limit
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.store.model import Disk

LOOK_S = 10.0
WARN_PERCENT = 85  # from there on it is in the warnings of info and list, too
HOOK_S = 30.0
LINES_MAX = 100  # that a hook is told at once

log = logging.getLogger(__name__)


class Fill(NamedTuple):
    """How much of a limit is used. `what` they are, and of which disk; None: of the pool."""

    what: str
    disk: Disk | None
    percent: int  # the highest of 75, 85 and 95 that is reached
    told: str  # of what so much is used, as words
    advice: str = ""

    @property
    def line(self) -> str:
        """For people."""
        whose = "the pool" if self.disk is None else f"the disk {printable(self.disk.name)}"
        return f"{whose} has come to {self.percent} % of {self.told}, or more{self.advice}"


async def fills(service: Service) -> AsyncIterator[Fill]:
    """Of each limit that has come near, how near; in slices."""
    pool = service.pool
    limits, all_limits, space = pool.limits, pool.limits.of_pool, pool.space
    used = space.allocated_blocks * BLOCK_BYTES
    disks = list(pool.catalog.live())
    of_pool = [
        ("space", used, used + space.free_blocks() * BLOCK_BYTES, "what it can hold"),
        ("disks", len(disks), all_limits.disks, f"the {all_limits.disks} disks that it may have"),
    ]
    if all_limits.provisioned_percent is not None:
        most = limits.capacity_bytes() * all_limits.provisioned_percent // 100
        of_pool.append(
            ("provisioned", limits.provisioned_bytes(), most, f"the {format_size(most)} of all disks' sizes")
        )
    for what, number, most_of_it, told in of_pool:
        if (percent := reached(number, most_of_it)) is not None:
            yield Fill(what, None, percent, told)
    slices = Slices()
    for disk in disks:
        await slices.rest()
        space_bytes, snapshots = disk.limits.space_bytes, snapshots_limit(disk.limits, all_limits)
        if space_bytes is not None and (percent := reached(limits.held_bytes(disk), space_bytes)) is not None:
            told = f"the {format_size(space_bytes)} that it and its snapshots may hold"
            yield Fill("space", disk, percent, told, ": delete snapshots, or raise it")
        if snapshots is not None and (percent := reached(len(disk.chain), snapshots)) is not None:
            told = f"the {snapshots} snapshots that it may have"
            yield Fill("snapshots", disk, percent, told, ": delete some, or raise it")


async def warnings(service: Service) -> list[str]:
    """A line for each limit that is near; that the pool is full, `info` says with its figures."""
    found = [fill async for fill in fills(service) if fill.percent >= WARN_PERCENT]
    return [fill.line for fill in found if (fill.what, fill.disk) != ("space", None)]


class Watcher:
    """How near each limit was when it was last looked at."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool
        self._last: dict[tuple[str, Disk | None], int] = {}

    async def run(self) -> None:
        """Look now and then; never ends."""
        while True:
            if not (self._pool.read_only or self._pool.read_only_reason):
                await self.look()
            await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Tell of what came nearer than before; what went away from its limit may be told of again."""
        found = {(fill.what, fill.disk): fill async for fill in fills(self._service)}
        nearer = [fill for key, fill in found.items() if crossed(self._last.get(key), fill.percent) is not None]
        self._last = {key: fill.percent for key, fill in found.items()}
        for fill in nearer:
            if fill.disk is None:
                self._pool.catalog.events.add("limit", text=fill.line)
            else:
                self._pool.catalog.events.of_disk("limit", fill.disk, fill.line)
        if nearer:
            await self._run_hook(nearer)

    async def _run_hook(self, nearer: Sequence[Fill]) -> None:
        words = self._pool.limits.of_pool.on_warning
        if not words:
            return
        lines = [fill.line for fill in nearer[:LINES_MAX]]
        if len(nearer) > LINES_MAX:
            lines.append(f"and {len(nearer) - LINES_MAX} more: rowfs events has them")
        told = {
            "ROWFS_HOOK": "on-warning",
            "ROWFS_POOL": self._pool.directory.current_path(),
            "ROWFS_MOUNT": self._service.own.mountpoint,
            "ROWFS_PERCENT": str(max(fill.percent for fill in nearer)),
            "ROWFS_REASON": "\n".join(lines),
        }
        if len(disks := {fill.disk for fill in nearer}) == 1 and (disk := disks.pop()) is not None:
            told["ROWFS_DISK"] = disk.name
        wrong = await run_hook(words, told, HOOK_S)
        if wrong is not None:
            log.warning("the hook for warnings: %s", printable(wrong))
            self._pool.catalog.events.add("limit", failed=True, text=f"the hook for warnings {wrong}")
