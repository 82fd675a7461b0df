"""Keeps the accounts: counts now and then what disks and policies hold, in slices, and samples it.

Samples come into the next commit there is. The accounts go by the clock that policies go by: one that leaps ahead adds
nothing before it has stood by that for a day. Counting takes a fiftieth of the time at most, however much there is.
"""

from __future__ import annotations

import time

import trio

from rowfs.rules.times import HOUR_NS
from rowfs.rules.usage import Kind
from rowfs.service.counting import counted
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.service.tasks import contained
from rowfs.store.accounts import Held

FIRST_S = 60.0  # after mounting
INTERVAL_S = 3600.0
PACE = 50  # times as long as counting took is the least between two
CLOCK_NOTED_NS = 12 * HOUR_NS  # where nothing else has the clock noted, and nothing changes
RETRY_S = 600.0  # after a fault


class Accountant:
    """Who keeps the accounts of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool
        self._accounts = service.pool.catalog.accounts

    async def run(self) -> None:
        """Sample now and then, also after a fault; never ends."""
        while True:
            await contained("keeping accounts", self._run)
            await trio.sleep(RETRY_S)

    async def _run(self) -> None:
        await trio.sleep(FIRST_S)
        while True:
            begin_s = time.monotonic()
            await self.sample()
            await trio.sleep(max(INTERVAL_S, PACE * (time.monotonic() - begin_s)))

    async def sample(self) -> None:
        """Count what there is, and have it in the next commit; nothing where nothing can be written."""
        if not await self._may_write():
            return
        held = await counted(self._pool.holdings.count())
        if not await self._may_write():
            return
        slices = Slices()
        for _ in self._accounts.record(self._now(held)):
            await slices.rest()
        noted_ns, now_ns = self._pool.policies.clock.seen_ns, self._service.clock.now_ns()
        if self._accounts.unsaved or noted_ns is None or not 0 <= now_ns - noted_ns < CLOCK_NOTED_NS:
            self._service.clock.look()

    async def _may_write(self) -> bool:
        return not (
            self._pool.read_only
            or self._pool.read_only_reason
            or self._service.ending
            or await self._service.is_remounted_read_only()
        )

    def _now(self, held: dict[int, Held]) -> dict[int, Held]:
        """What was counted, with the sizes of disks as they have become meanwhile; without disks that have gone."""
        disks = {disk.id: disk for disk in self._pool.catalog.disks.values()}
        found = {}
        for number, item in held.items():
            if item.kind is Kind.DISK and item.there:
                disk = disks.get(number)
                if disk is None:
                    continue
                if item.amounts is not None:
                    head = (disk.size_bytes, disk.mapped_bytes) if disk.head is not None else (0, 0)
                    item = item._replace(amounts=(*head, *item.amounts[2:]))
            found[number] = item
        return found
