"""Holes for what is zeros: in idle time for blocks that were written as such, and for a whole disk when asked.

Idle is while nobody syncs: a change of the map beside a sync is one more thing that it has to make durable. Where space
is short, it is at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from rowfs.base.errors import RowfsError
from rowfs.base.ranges import Span
from rowfs.base.units import BLOCK_BITS, BLOCK_BYTES
from rowfs.native import extension
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from rowfs.store.trim import Emptied
from rowfs.store.zeros import GENERATIONS, Piece

if TYPE_CHECKING:
    from rowfs.service.committer import Committer

log = logging.getLogger(__name__)

TICK_S = 1.0  # so long nobody may have synced
PIECES_MAX = 256  # of a page each, before a commit: 0.5 GiB of zeros

Progress = Callable[[int, int], Awaitable[None]]  # what is done, of how much, in bytes


class Trimming:
    """Makes holes of zeros in one mounted pool."""

    def __init__(self, pool: Pool, committer: Committer) -> None:
        self._pool = pool
        self._zeros = pool.io.zeros
        self._committer = committer

    async def run(self) -> None:
        """In idle time, for ever."""
        aged, syncs = trio.current_time(), self._syncs()
        while True:
            part_s = None if self._zeros.after_s is None else self._zeros.after_s / GENERATIONS
            await trio.sleep(TICK_S if part_s is None else min(TICK_S, max(0.01, part_s)))
            if part_s is not None and trio.current_time() >= aged + part_s:
                self._zeros.age()
                aged = trio.current_time()
            if self._pool.space.shortage and self._zeros.noted:
                self._zeros.hurry()
            before, syncs = syncs, self._syncs()
            if self._zeros.due and (syncs == before or self._pool.space.shortage):
                await self.some()

    def _syncs(self) -> int:
        return self._committer.asked + extension.served().syncs

    async def some(self) -> bool:
        """Make holes of some of what is due, until somebody syncs; the next commit follows. False: there were none."""
        syncs, emptied = self._syncs(), False
        for _ in range(PIECES_MAX):
            if self._pool.read_only or self._pool.read_only_reason or (piece := self._zeros.take()) is None:
                break
            emptied |= await self._try_to_empty(piece)
            await trio.lowlevel.checkpoint()
            if self._syncs() != syncs and not self._pool.space.shortage:
                break
        if emptied:
            self._committer.kick(whole=True)
        return emptied

    async def _try_to_empty(self, piece: Piece) -> bool:
        """Whether there are holes now. What fails stays data: nobody has asked for it."""
        try:
            return (await self._empty(piece)).holes > 0
        except RowfsError as error:
            log.warning("zeros of %s stay data: %s", piece.disk.name, error)
        except Exception as error:
            log.error("zeros of %s stay data", piece.disk.name, exc_info=error)
        return False

    async def _empty(self, piece: Piece) -> Emptied:
        done = self._pool.trim.empty(piece)
        if done is None:
            await self._read(piece.disk, self._pool.trim.spans(piece))
            done = self._pool.trim.empty(piece, wait=True)  # in the host's memory now
        assert done is not None, "zeros are looked at and not told"
        return done

    async def _read(self, disk: Disk, spans: list[Span]) -> memoryview:
        """What lies there, one after the other, read in a worker."""
        buffer = memoryview(bytearray(sum(span.length_bytes for span in spans)))
        expected = self._pool.io.sums.expected(spans)
        ticket = self._pool.commits.begin_read()
        try:
            with trio.CancelScope(shield=True):  # the worker goes on anyway, and so must the ticket
                await trio.to_thread.run_sync(self._pool.data.read, spans, buffer)
        finally:
            self._committer.read_ended(ticket)
        if expected is not None:  # zeros that damage made are no zeros
            with self._pool.damage.noted(disk):
                await trio.to_thread.run_sync(expected.check, buffer)
        return buffer

    async def trim(self, disk: Disk, progress: Progress, dry_run: bool) -> tuple[int, int]:
        """Make holes of all blocks of a disk that are zeros; how many bytes that were, and how many came back.

        With `dry_run` nothing is changed, and what would come back is not known: 0.
        """
        holes = freed = looked = 0
        total = disk.mapped_blocks
        for piece in self._pool.trim.pieces(disk):
            data = await self._read(disk, self._pool.trim.spans(piece))
            if disk.head is None:
                break
            zeros = self._pool.trim.zeros(piece, data)
            looked += len(data) >> BLOCK_BITS
            if dry_run:
                holes += int(zeros.slots.sum())
            elif zeros.slots.any():
                self._pool.check_writable()
                done = await self._empty(zeros)
                holes, freed = holes + done.holes, freed + done.freed
                await self._committer.throttle()
            await progress(looked * BLOCK_BYTES, max(looked, total) * BLOCK_BYTES)
        return holes * BLOCK_BYTES, freed * BLOCK_BYTES
