"""A scrub: everything that is sealed is read from the host's disk and held against its sums, in the order of addresses.

It runs beside the requests, however long whoever began it waits. Beside requests it rests three times as long as each
step took; a rate bounds it besides. What it finds is known as what reads find (store.damage), and at its end who sees
it is looked for among all page versions. What it has done is not kept over a mount: then it has to be begun anew.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from rowfs.base.errors import BusyError, RowfsError
from rowfs.base.sumcode import STRETCH_BLOCKS
from rowfs.base.times import now_ns, rfc3339
from rowfs.base.units import BLOCK_BYTES, format_size
from rowfs.seal.reading import sums_on_disk
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool
from rowfs.store.sightings import Sighting

if TYPE_CHECKING:
    from rowfs.service.committer import Committer

log = logging.getLogger(__name__)

REST = 3  # of a step's time, beside requests
QUIET_S = 0.5
STRETCHES_MAX = 64  # without any sums, before others may work
LOOK_S = 0.1

NEVER, RUNNING, PAUSED, STOPPED, DONE = "never", "running", "paused", "stopped", "done"


class Scrub:
    """The scrub of one mounted pool."""

    def __init__(self, pool: Pool, committer: Committer, requests: Callable[[], int]) -> None:
        """`requests` tells how many requests there were."""
        self._pool = pool
        self._committer = committer
        self._requests = requests
        self._seen, self._seen_at = requests(), -math.inf
        self.state = NEVER
        self.rate: int | None = None  # bytes a second; None: as fast as it can beside requests
        self.done_blocks = 0
        self.total_blocks = 0
        self._stretch = 0
        self._since = (0.0, 0)  # when the rate began to count, and what was done then
        self._began_ns = self._ended_ns = 0
        self._changed = trio.Event()
        self.sightings: dict[int, list[Sighting]] = {}

    # For who asks

    def start(self, rate: int | None = None) -> None:
        """Begin one, unless one is under way: then that goes on, at this rate if one is given."""
        if self.state not in (RUNNING, PAUSED):
            self._stretch = self.done_blocks = 0
            self.total_blocks = self._pool.io.sums.blocks
            self._began_ns, self._ended_ns = now_ns(), 0
            self.rate = None
        self.rate = rate or self.rate
        self._turn(RUNNING)

    def pause(self) -> None:
        """Let it wait. Raises BusyError when there is none."""
        self._need_one()
        self._turn(PAUSED)

    def resume(self, rate: int | None = None) -> None:
        """Let it go on. Raises BusyError when there is none."""
        self._need_one()
        self.rate = rate or self.rate
        self._turn(RUNNING)

    def stop(self) -> None:
        """Let it end where it is. Raises BusyError when there is none."""
        self._need_one()
        self._turn(STOPPED)

    def _need_one(self) -> None:
        if self.state not in (RUNNING, PAUSED):
            raise BusyError("no scrub is under way: begin one with rowfs scrub")

    def _turn(self, state: str) -> None:
        self.state = state
        self._since = time.monotonic(), self.done_blocks
        if state in (STOPPED, DONE):
            self._ended_ns = now_ns()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changed(self, limit_s: float) -> None:
        """Return when it has begun, paused, ended, or so much time is over."""
        with trio.move_on_after(limit_s):
            await self._changed.wait()

    def status(self) -> dict[str, Any]:
        """As docs/CONTROL.md has it."""
        return {
            "state": self.state,
            "scrubbed_bytes": self.done_blocks * BLOCK_BYTES,
            "total_bytes": max(self.done_blocks, self.total_blocks) * BLOCK_BYTES,
            "rate_bytes_s": self.rate,
            "started": rfc3339(self._began_ns) if self._began_ns else None,
            "ended": rfc3339(self._ended_ns) if self._ended_ns else None,
            "damaged_bytes": len(self._pool.damage) * BLOCK_BYTES,
        }

    # Working

    async def run(self) -> None:
        """Work at what is begun, until cancelled."""
        while True:
            if self.state != RUNNING:
                await self._changed.wait()
                continue
            began = time.monotonic()
            try:
                await self._step()
            except Exception as error:  # nobody's request; whoever waits hears that it ended
                log.error("the scrub ended: %s", error, exc_info=not isinstance(error, RowfsError))
                self._turn(STOPPED)
                continue
            await self._rest(time.monotonic() - began)

    async def _step(self) -> None:
        found = self._next()
        if found is None:
            if self._stretch >= len(self._pool.io.sums.table):
                await self.locate()
                if self.state == RUNNING:
                    self._turn(DONE)
                    self._tell()
            return
        addresses, sums = found
        ticket = self._pool.commits.begin_read()
        try:
            with trio.CancelScope(shield=True):  # the worker goes on anyway, and so must the ticket
                on_disk = await trio.to_thread.run_sync(sums_on_disk, self._pool.data, addresses)
        finally:
            self._committer.read_ended(ticket)
        self.done_blocks += len(addresses)
        wrong = addresses[on_disk != sums]
        for number in wrong[self._pool.io.sums.of(wrong) != 0].tolist():  # others are free meanwhile
            self._pool.damage.found(number, ())

    def _tell(self) -> None:
        if not self._pool.read_only:
            damaged = len(self._pool.damage) * BLOCK_BYTES
            what = f"{format_size(damaged)} damaged" if damaged else "nothing damaged"
            done = format_size(self.done_blocks * BLOCK_BYTES)
            self._pool.catalog.events.add("scrub", text=f"of {done}: {what}")

    def _next(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The sealed blocks of the next stretch that has any, and their sums."""
        for _ in range(STRETCHES_MAX):
            if self._stretch >= len(self._pool.io.sums.table):
                return None
            first = self._stretch * STRETCH_BLOCKS
            self._stretch += 1
            sums = self._pool.io.sums.of_run(first, STRETCH_BLOCKS)
            blocks = np.flatnonzero(sums)
            if len(blocks):
                return first + blocks, sums[blocks]
        return None

    async def _rest(self, took: float) -> None:
        rest = 0.0 if self._quiet() else took * REST
        if self.rate:
            since, then = self._since
            due = since + (self.done_blocks - then) * BLOCK_BYTES / self.rate
            rest = max(rest, due - time.monotonic())
        with trio.move_on_after(rest) if rest else trio.CancelScope():
            if rest:
                await self._changed.wait()
            await trio.lowlevel.checkpoint()

    def _quiet(self) -> bool:
        count, now = self._requests(), time.monotonic()
        if count != self._seen:
            self._seen, self._seen_at = count, now
        return now - self._seen_at >= QUIET_S

    # Who sees what is damaged

    async def locate(self) -> None:
        """Look for who sees what is known to be damaged; all that there is by now."""
        addresses = self._pool.damage.addresses
        if not addresses:
            self.sightings = {}
            return
        await self._committer.commit(whole=True)
        found: dict[int, list[Sighting]] = {}
        for found in self._pool.sightings(addresses):  # noqa: B007
            await trio.lowlevel.checkpoint()
        self.sightings = found
        for number, seen in found.items():
            if self._pool.damage.is_known(number):
                self._pool.damage.found(number, filter(None, map(self._place, seen)))

    def _place(self, seen: Sighting) -> tuple[Disk | Snapshot, int] | None:
        disk = None if seen.in_trash else self._pool.catalog.disks.get(seen.disk)
        target = disk if disk is None or seen.snapshot is None else disk.chain.get(seen.snapshot)
        return None if target is None else (target, seen.offset_bytes // BLOCK_BYTES)

    # Putting right

    def repair(self, number: int, block: bytes) -> bool:
        """Write a sealed block anew if `block` is what was sealed; else False. A commit makes it durable."""
        self._pool.check_writable()
        return self._pool.io.restore(number, block)
