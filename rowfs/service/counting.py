"""Figures that take long are counted in slices, so that requests go on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

import trio

SLICE_S = 0.002

T = TypeVar("T")


async def counted(pausing: Generator[None, None, T]) -> T:
    """Run a pausing figure to its end."""
    end = time.monotonic() + SLICE_S
    while True:
        try:
            next(pausing)
        except StopIteration as result:
            found: T = result.value
            return found
        if time.monotonic() >= end:
            await trio.lowlevel.checkpoint()
            end = time.monotonic() + SLICE_S
