"""The daemon's log, and that everything gets there which nobody catches: it has no terminal to complain to.

That is, beside what is logged: exceptions that leave a thread, a callback of C, or the main program; what C code, LMDB
and glibc say on descriptor 2; and where each thread was when a signal such as SIGSEGV or SIGABRT ends the process.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from types import TracebackType
from typing import TextIO

from rowfs.base.names import printable
from rowfs.service.tasks import log_fault

LOG_MODE = 0o644  # the pool's directory keeps others out
_NO_LOG_NOW = (EROFS, EACCES, ENOSPC, EDQUOT)  # the pool can be used all the same


def log_to(opened: Callable[[int, int], int] | None) -> None:
    """Begin to log: to the file that is opened with flags and mode, and descriptor 2 leads there too; or to stderr.

    Raises what that raises, unless the host takes no new files just now.
    """
    stream = sys.stderr if opened is None else _stream(opened)
    if stream is not None:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        faulthandler.enable(stream)
    logging.getLogger().setLevel(logging.INFO)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _left_thread


def _stream(opened: Callable[[int, int], int]) -> TextIO | None:
    try:
        fd = opened(os.O_WRONLY | os.O_APPEND | os.O_CREAT, LOG_MODE)
    except OSError as error:
        if error.errno in _NO_LOG_NOW:
            return None
        raise
    os.dup2(fd, 2)
    return open(fd, "a", encoding="utf-8", errors="backslashreplace")


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log_fault("the daemon", error)


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    log_fault(f"what nobody waits for ({unraisable.object!r})", error if error is not None else unraisable.exc_type())


def _left_thread(left: threading.ExceptHookArgs) -> None:
    if left.exc_value is not None and not isinstance(left.exc_value, SystemExit):
        log_fault(f"the thread {left.thread.name if left.thread else '?'}", left.exc_value)


class _Formatter(logging.Formatter):
    """Lines of the log, in which no name can begin another line or speak to a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line; a traceback comes after it as it is."""
        return printable(super().formatMessage(record))
