"""When blocks are sealed: all the time, but for a bounded share of it, a small one beside requests.

A step reads 1 MiB at most and sums it up in a worker, without the interpreter's lock where the extension does it. It is
followed by a rest that is so many times as long as the step took: on a slow disk or a busy machine steps take longer,
and so do the rests.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from rowfs.base.errors import CorruptionError, RowfsError
from rowfs.store.pool import Pool

if TYPE_CHECKING:
    from rowfs.service.committer import Committer

log = logging.getLogger(__name__)

LOOK_S = 0.5  # between looks whether there is anything
SLICE_S = 0.001  # of looking for it, before others may work
QUIET_S = 0.5  # without a request
REST, QUIET_REST = 24, 1  # of a step's time: 4 % of it beside requests, half of it without
FAULT_REST_S = 60.0


class Sealing:
    """Seals what a mounted pool's snapshots hold."""

    def __init__(self, pool: Pool, committer: Committer, requests: Callable[[], int]) -> None:
        """`requests` tells how many requests there were."""
        self._pool = pool
        self._sealer = pool.sealer
        self._committer = committer
        self._requests = requests
        self._seen, self._seen_at = requests(), -math.inf

    @property
    def active(self) -> bool:
        """Whether there is anything left to seal."""
        return not (self._pool.read_only or self._pool.read_only_reason) and self._sealer.pending

    async def run(self) -> None:
        """Seal until cancelled."""
        while True:
            quiet = self._quiet()
            if not self.active:
                await trio.sleep(LOOK_S)
                continue
            began = time.monotonic()
            well = await self._try_step()
            took = time.monotonic() - began
            await trio.sleep(took * (QUIET_REST if quiet else REST) if well else FAULT_REST_S)

    def _quiet(self) -> bool:
        count, now = self._requests(), time.monotonic()
        if count != self._seen:
            self._seen, self._seen_at = count, now
        return now - self._seen_at >= QUIET_S

    async def _try_step(self) -> bool:
        try:
            await self._step()
        except RowfsError as error:  # what cannot be read is found by who reads it
            if not (isinstance(error, CorruptionError) and error.logged):
                log.warning("blocks were not sealed: %s", error)
            return False
        except Exception as error:
            log.error("blocks were not sealed", exc_info=error)
            return False
        return True

    async def _step(self) -> None:
        piece, end = None, time.monotonic() + SLICE_S
        while piece is None and self._sealer.pending and time.monotonic() < end:
            piece = self._sealer.next()
        if piece is None:
            await trio.lowlevel.checkpoint()
            return
        ticket = self._pool.commits.begin_read()
        try:
            with trio.CancelScope(shield=True):  # the worker goes on anyway, and so must the ticket
                sums = await trio.to_thread.run_sync(self._sealer.sum_up, piece)
        except BaseException:
            self._sealer.put_back(piece)
            raise
        finally:
            self._committer.read_ended(ticket)
        if self.active:
            self._sealer.record(piece, sums)
        if self._pool.io.sums.crowded:
            self._committer.kick(whole=True)
