"""Giving free blocks back to the host: in few and long pieces, apart from commits.

A block that was freed is handed out again as soon as that is durable (store.commit), the host holding it still. What
nobody wrote again meanwhile is punched here, a chunk at a time:

    1  begin      owner   free runs of a chunk are set aside: nobody gets them meanwhile
    2  carry out  worker  holes are punched
    3  end        owner   the runs may be handed out again

A crash between any two leaves blocks that are free, and the host holds or does not hold: the next mount asks it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rowfs.base.bitmap import CHUNK_BLOCKS
from rowfs.base.errors import RowfsError
from rowfs.base.units import MIB, BlockAddress
from rowfs.persist.datafile import DataFile
from rowfs.persist.space import HOST_RESERVE_BYTES, Punching, Space

PUNCH_BLOCKS_MAX = 1024  # 4 MiB: while the host punches a hole, nobody else can write to the data file
SHORT_BYTES = HOST_RESERVE_BYTES + 960 * MIB  # left on the host: now it needs what is free more than writers do

log = logging.getLogger(__name__)


class Puncher:
    """What of one pool's free blocks is punched when."""

    def __init__(self, data: DataFile, space: Space) -> None:
        self._data = data
        self._space = space
        self.punched_blocks = 0  # since the pool was opened

    @property
    def pending(self) -> bool:
        """Whether the host may hold anything that is free."""
        return not self._data.keeps_freed and bool(self._space.unpunched.blocks or self._space.unpunched.unknown)

    @property
    def pressing(self) -> bool:
        """Whether the host needs it soon, be there requests or not."""
        return self.pending and (self._space.unpunched_much or self._data.host_free_bytes() < SHORT_BYTES)

    # What an earlier mount left

    def unknown(self) -> int | None:
        """A chunk that the host has to be asked about (owner); None: there is none."""
        return next(iter(self._space.unpunched.unknown), None)

    def look(self, chunk: int) -> list[tuple[int, int]]:
        """What the host holds of a chunk (any thread), for `found`."""
        try:
            return self._data.held_runs(BlockAddress(chunk * CHUNK_BLOCKS), CHUNK_BLOCKS)
        except RowfsError as error:
            log.error("what the host holds of the free blocks cannot be seen: %s", error)
            return []

    def found(self, chunk: int, runs: list[tuple[int, int]]) -> None:
        """The answer of `look` (owner)."""
        self._space.found_held(chunk, runs)

    # 1 to 3

    def begin(self, blocks_min: int = 1) -> Punching | None:
        """What to punch next, in runs of so many blocks at least (owner). None: nothing, or not now."""
        return self._space.begin_punching(blocks_min)

    def carry_out(self, punching: Punching, go_on: Callable[[], bool] = lambda: True) -> int:
        """Punch (any thread) until `go_on`, which is asked after each call to the host, says no. How many runs are?

        A run that cannot be punched counts, so that it is not tried for ever: the next mount does that.
        """
        for done, (first, count) in enumerate(punching.runs):
            for start in range(first, first + count, PUNCH_BLOCKS_MAX):
                try:
                    self._data.punch(BlockAddress(start), min(PUNCH_BLOCKS_MAX, first + count - start))
                except Exception as error:  # the blocks are free all the same, the host merely keeps its own
                    foreseen = isinstance(error, RowfsError)
                    log.error("free blocks were not given back to the host: %s", error, exc_info=not foreseen)
                    return done + 1
                if not go_on():
                    return done + (start + PUNCH_BLOCKS_MAX >= first + count)
        return len(punching.runs)

    def end(self, punching: Punching, done: int) -> None:
        """Punched, the first `done` runs of it (owner)."""
        self._space.end_punching(punching, done)
        self.punched_blocks += sum(count for _, count in punching.runs[:done])

    def run(self, limit_s: float = float("inf")) -> None:
        """All of it in this thread, for about `limit_s` at most."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end and (chunk := self.unknown()) is not None:
            self.found(chunk, self.look(chunk))
        while time.monotonic() < end and (punching := self.begin()) is not None:
            self.end(punching, self.carry_out(punching, lambda: time.monotonic() < end))
