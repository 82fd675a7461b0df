"""Signals that come while something is made that has to be taken down."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Keeps Ctrl-C and its kin back until the block is over, for what must not be left half known.

    A second one is not kept back: the block may be waiting for somebody who never answers.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for each in before:
        signal.signal(each, remember)
    try:
        yield
    finally:
        restore()
    for late in caught:
        signal.raise_signal(late)
