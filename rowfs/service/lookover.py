"""Looking at the block map now and then, while it is in use: LMDB trusts what it reads.

All its pages are looked at by another process (persist.lookover): soon after a mount, if there are more than were
looked at when the map was opened, and from time to time. What is found ends all use of the map, before LMDB stumbles
over it: what is not in memory is EIO from then on, and the pool read-only.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import time
from pathlib import Path

import trio

import rowfs
from rowfs.store.pool import Pool

INTERVAL_S, LARGE_INTERVAL_S = 600.0, 3600.0  # 128 MiB take a third of a second, and of the host's cache as much
TOLD_S = 86_400.0  # as often it is told at most that all is well
ENVIRONMENT = {"PYTHONPATH": str(Path(rowfs.__file__).resolve().parents[1])}

log = logging.getLogger(__name__)


class LookOver:
    """The looks at the map of one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._told_s = -math.inf  # when it was last told that all is well

    async def run(self) -> None:
        """One after the other, until cancelled or something is found."""
        if self._pool.map_looked_over:
            await trio.sleep(INTERVAL_S)
        while not self._pool.versions.damage:
            await self.look_over()
            await trio.sleep(INTERVAL_S if self._pool.map_looked_over else LARGE_INTERVAL_S)

    async def look_over(self) -> None:
        """Look at all pages of the last commit. Whatever keeps that from being done is told, and no fault."""
        try:
            done = await self._looked_over()
        except Exception as error:
            self._tell_not_done(str(error) or repr(error))
            return
        if done.returncode:
            self._tell_not_done(done.stderr.decode(errors="replace")[-200:].strip())
        elif found := done.stdout.decode(errors="replace").strip():
            self._pool.distrust_map(found.splitlines()[0])
        elif time.monotonic() - self._told_s >= TOLD_S:
            self._told_s = time.monotonic()
            self._tell(text="the block map is in order")

    async def _looked_over(self) -> subprocess.CompletedProcess[bytes]:
        words, release = self._pool.look_over()
        try:
            return await trio.run_process(
                words,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        finally:
            release()

    def _tell_not_done(self, why: str) -> None:
        log.warning("the block map could not be looked over: %s", why)
        self._tell(failed=True, text=f"the block map could not be looked over: {why}")

    def _tell(self, text: str, failed: bool = False) -> None:
        if not self._pool.read_only:
            self._pool.catalog.events.add("check", failed=failed, text=text)
