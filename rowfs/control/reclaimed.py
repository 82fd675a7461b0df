"""Waiting until what was deleted can be used again."""

from __future__ import annotations

import trio

from rowfs.base.units import BLOCK_BYTES
from rowfs.control.connection import Caller
from rowfs.service.service import Service


async def reclaimed(service: Service, caller: Caller) -> None:
    """Return when all that was deleted is free, with progress. Raises ReadOnlyError when that cannot be any more."""
    pool = service.pool
    reclaimer, before = pool.reclaimer, pool.reclaimer.freed_blocks
    pool.check_writable()
    while reclaimer.ready or pool.space.freed_blocks:
        while reclaimer.ready:
            await trio.sleep(0.01)
            pool.check_writable()  # damage ends the reclaimer
        await service.committer.reclaimed()
        await caller.progress((reclaimer.freed_blocks - before) * BLOCK_BYTES, None, "bytes", "reclaiming")
