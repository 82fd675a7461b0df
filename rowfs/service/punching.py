"""When free blocks go back to the host: in idle time, and beside requests only where that presses.

Punching changes the host's own metadata, and the next sync waits for that. So it waits itself until nobody asked for
anything for a while. Beside requests only long runs are punched, in short slices, and none while a sync is under way.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import trio

from rowfs.store.commit import Commits
from rowfs.store.pool import Pool
from rowfs.store.punching import Puncher

log = logging.getLogger(__name__)

QUIET_S = 0.5  # without a request: then nobody is between a write and its sync
LOOK_S = 0.1
QUIET_SLICE_S, SLICE_S = 0.05, 0.002  # of punching at a time, without requests and beside them
LONG_BLOCKS = 32  # 128 KiB: shorter runs are not worth it beside requests, writers fill them as fast


class Punching:
    """Gives a mounted pool's free blocks back to the host."""

    def __init__(self, pool: Pool, requests: Callable[[], int]) -> None:
        """`requests` tells how many requests there were."""
        self._pool = pool
        self._requests = requests
        self._resting = trio.Lock()  # held while runs are set aside
        self._seen, self._seen_at = requests(), -math.inf

    async def run(self) -> None:
        """Punch until cancelled."""
        puncher, commits = self._pool.puncher, self._pool.commits
        while not self._pool.read_only:
            quiet = self._quiet()
            if puncher.pending and not _syncing(commits) and (quiet or puncher.pressing):
                async with self._resting:
                    worked = await self._try_slice(puncher, quiet)
                await trio.sleep(0 if quiet and worked else LOOK_S)
            else:
                await trio.sleep(LOOK_S)

    async def rest(self) -> None:
        """Return when nothing is set aside that a writer could want."""
        async with self._resting:
            pass

    def _quiet(self) -> bool:
        count, now = self._requests(), time.monotonic()
        if count != self._seen:
            self._seen, self._seen_at = count, now
        return now - self._seen_at >= QUIET_S

    async def _try_slice(self, puncher: Puncher, quiet: bool) -> bool:
        try:
            return await self._slice(puncher, quiet)
        except Exception as error:  # no thread to be had, say: nobody has asked for it
            log.error("free blocks are not given back to the host", exc_info=error)
            return False

    async def _slice(self, puncher: Puncher, quiet: bool) -> bool:
        """Some of it; False: there is nothing to do now."""
        end = time.monotonic() + (QUIET_SLICE_S if quiet else SLICE_S)
        seen = self._requests()

        def go_on() -> bool:
            return time.monotonic() < end and not (quiet and self._requests() != seen)

        chunk = puncher.unknown()
        if chunk is not None:
            puncher.found(chunk, await trio.to_thread.run_sync(puncher.look, chunk))
            return True
        punching = puncher.begin(1 if quiet else LONG_BLOCKS)
        if punching is None:
            return False
        done = 0
        try:
            with trio.CancelScope(shield=True):
                done = await trio.to_thread.run_sync(puncher.carry_out, punching, go_on)
        finally:
            puncher.end(punching, done)
        return True


def _syncing(commits: Commits) -> bool:
    return commits.running is not None or commits.syncing or commits.appending > 0
