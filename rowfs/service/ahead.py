"""Written data goes to the daemon and to the host's disk ahead of the next snapshot.

A snapshot beside writers is answered when all that was written before it is durable. The kernel hands over what it
caches of a disk only after seconds, and the host begins to write back no sooner, so that there are hundreds of MiB to
wait for. Who has taken a snapshot takes the next one soon, mostly: for a while after one both are asked to begin all
the time, and what a snapshot finds then is what was written in the last moment, and what is on its way.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from rowfs.base.names import printable
from rowfs.store.model import Disk
from rowfs.store.pool import Pool

EVERY_S = 0.1  # beside writers of 200 MiB/s 20 MiB, which a disk takes in less than what a snapshot may take
EXPECTED_S = 120.0  # that the next snapshot is expected in

log = logging.getLogger(__name__)

HandOver = Callable[[Disk], Awaitable[object]]


async def _nothing(disk: Disk) -> None:
    """Where nobody caches anything of it."""


class Ahead:
    """Has what was written to one mounted pool written back."""

    def __init__(self, pool: Pool, requests: Callable[[], int]) -> None:
        """`requests` tells how many requests there were."""
        self._pool = pool
        self._requests = requests
        self.hand_over: HandOver = _nothing  # has the kernel give us what it holds of a disk; never fails
        self._until: dict[Disk, float] = {}
        self._handing_over = trio.Lock()
        self._expected = trio.Event()

    def expect(self, *disks: Disk) -> None:
        """There is a snapshot of these: begin now, and go on for when there is another one."""
        until = trio.current_time() + EXPECTED_S
        self._until |= dict.fromkeys(disks, until)
        self._expected.set()

    async def rest(self) -> None:
        """No snapshot is expected any more; return when no file of the mount is open for this."""
        self._until.clear()
        async with self._handing_over:
            pass

    async def run(self) -> None:
        """Until cancelled, or as long as the host can."""
        seen = -1
        while not self._pool.read_only:
            if not self._disks():
                self._expected = trio.Event()
                await self._expected.wait()
            await self._handed_over()
            count = self._requests()
            if count != seen and not await self._write_back():
                return
            seen = count
            self._expected = trio.Event()
            with trio.move_on_after(EVERY_S):
                await self._expected.wait()

    def _disks(self) -> list[Disk]:
        """Of which a snapshot is expected."""
        now = trio.current_time()
        self._until = {disk: until for disk, until in self._until.items() if until > now and not disk.deleted}
        return list(self._until)

    async def _handed_over(self) -> None:
        """What the kernel holds of disks that somebody may be writing to."""
        async with self._handing_over, trio.open_nursery() as nursery:
            for disk in self._disks():
                if disk.writers:
                    nursery.start_soon(self._try_to_hand_over, disk)

    async def _try_to_hand_over(self, disk: Disk) -> None:
        try:
            await self.hand_over(disk)
        except Exception as error:  # no thread is to be had, say: the snapshot waits for it, then
            log.info("what Linux holds of %s is not handed over ahead of snapshots: %s", printable(disk.name), error)

    async def _write_back(self) -> bool:
        try:
            await trio.to_thread.run_sync(self._pool.data.write_back)
        except Exception as error:  # a sync will tell whoever has to know
            log.info("the host does not write back ahead of snapshots: %s", error)
            return False
        return True
