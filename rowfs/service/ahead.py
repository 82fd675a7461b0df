"""Written data goes to the host's disk ahead of the sync of a snapshot.

A snapshot beside writers is answered when all that was written before it is durable. The host begins to write back of
itself only after seconds, so that there are hundreds of MiB to wait for. Who has taken a snapshot takes the next one
soon, mostly: for a while after one the host is asked to begin all the time, and what a sync finds then is what was
written in the last moment, and what is on its way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from rowfs.store.pool import Pool

EVERY_S = 0.25  # beside writers of 60 MiB/s 15 MiB, which a disk takes in less than what a snapshot may take
EXPECTED_S = 120.0  # that the next snapshot is expected in

log = logging.getLogger(__name__)


class Ahead:
    """Has the host write back what was written to one mounted pool."""

    def __init__(self, pool: Pool, requests: Callable[[], int]) -> None:
        """`requests` tells how many requests there were."""
        self._pool = pool
        self._requests = requests
        self._until = -math.inf
        self._expected = trio.Event()

    def expect(self) -> None:
        """There is a snapshot: begin now, and go on for when there is another one."""
        self._until = trio.current_time() + EXPECTED_S
        self._expected.set()

    async def run(self) -> None:
        """Until cancelled, or as long as the host can."""
        seen = -1
        while not self._pool.read_only:
            if trio.current_time() >= self._until:
                self._expected = trio.Event()
                await self._expected.wait()
            count = self._requests()
            if count != seen and not await self._write_back():
                return
            seen = count
            self._expected = trio.Event()
            with trio.move_on_after(EVERY_S):
                await self._expected.wait()

    async def _write_back(self) -> bool:
        try:
            await trio.to_thread.run_sync(self._pool.data.write_back)
        except Exception as error:  # a sync will tell whoever has to know
            log.info("the host does not write back ahead of snapshots: %s", error)
            return False
        return True
