"""Signals while something has to be put back in order afterwards."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end the block as an exception does, so that `finally` is obeyed."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
