"""Signals: Ctrl-C only where it can be obeyed; and those that end a program, while something has to be put in order.

A process begins with SIGINT blocked (scripts/rowfs, __main__.py), and ends so: at these times, and while a module is
imported, Python would answer it with a traceback. It is not lost: it comes as soon as it is let in.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

AGAIN_S = 0.01
_INTERRUPTS = {signal.SIGINT, signal.SIGALRM}  # the second: see keep_interrupts


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
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C in, for the block."""
    yield from _masked(signal.SIG_UNBLOCK)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keeps Ctrl-C back until the block is over."""
    yield from _masked(signal.SIG_BLOCK)


def _masked(how: int) -> Iterator[None]:
    before = signal.pthread_sigmask(how, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_interrupts() -> None:
    """Has an interrupt that came where nothing can be raised (a destructor, a callback) come again a moment later."""
    report = sys.unraisablehook
    signal.signal(signal.SIGALRM, signal.default_int_handler)

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            report(unraisable)

    sys.unraisablehook = again


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception came of Ctrl-C, which Python in places wraps into another one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
