"""How fast to reclaim beside requests: the more is owed, the larger the share of time.

What is owed are the blocks of deleted snapshots and disks that are yet to be freed, at most, and those that are free
with the next commit. They are meant to stay below a tenth of what is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass

OWED_SHARE = 10  # that may be owed: a tenth of what is allocated
SLICE_S, LONG_SLICE_S = 0.001, 0.004  # of reclaiming at a time; the longer one when all that may be owed is owed
PAUSE_S, BUSY_PAUSE_S = 0.0005, 0.008  # between slices; the longer one beside requests while little is owed
LOOK_S = 0.5  # over which a rate is measured
WEIGHT = 0.5  # of the last such time in it


def pressure(owed_blocks: int, allocated_blocks: int) -> float:
    """0: nothing is owed; 1: all that may be, or more."""
    return min(1.0, owed_blocks * OWED_SHARE / max(1, allocated_blocks))


def slice_s(pressing: float) -> float:
    """How long to reclaim before requests have their turn."""
    return SLICE_S + (LONG_SLICE_S - SLICE_S) * pressing


def pause_s(pressing: float, removals: int) -> float:
    """How long requests have their turn. The more waits to be looked at, the shorter, however little each one holds."""
    return max(PAUSE_S, BUSY_PAUSE_S * (1 - pressing) / max(1, removals))


@dataclass(slots=True)
class Rate:
    """How many blocks a second are dealt with, of late."""

    blocks_s: float | None = None  # None: not known yet
    _since: float | None = None
    _then: int = 0

    def note(self, now: float, blocks: int) -> None:
        """So many `blocks` were dealt with until `now`."""
        if self._since is None:
            self._since, self._then = now, blocks
        elif now - self._since >= LOOK_S:
            rate = (blocks - self._then) / (now - self._since)
            self.blocks_s = rate if self.blocks_s is None else WEIGHT * rate + (1 - WEIGHT) * self.blocks_s
            self._since, self._then = now, blocks

    def rest(self) -> None:
        """Nothing is done for now: that time does not count."""
        self._since = None

    def seconds(self, owed_blocks: int) -> float | None:
        """How long these will take; None: that is not known."""
        if not owed_blocks:
            return 0.0
        return owed_blocks / self.blocks_s if self.blocks_s else None
