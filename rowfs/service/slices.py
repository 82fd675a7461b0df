"""Long work on the owner's thread, in slices, between which requests go on."""

from __future__ import annotations

import time

import trio

SLICE_S = 0.001  # of work, before others may


class Slices:
    """Lets others work when it is their turn."""

    def __init__(self) -> None:
        self._end = time.monotonic() + SLICE_S

    async def rest(self) -> None:
        """Go on at once, or after others."""
        if time.monotonic() >= self._end:
            await trio.lowlevel.checkpoint()
            self._end = time.monotonic() + SLICE_S
