"""How handlers answer: rowfs's errors as errnos, everything unexpected as EIO and one log line.

pyfuse3 tears the whole mount down when a handler lets out anything but FUSEError.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from errno import EIO
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from rowfs.base.errors import CorruptionError, RowfsError
from rowfs.mount import polling

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def fuse_error(error: Exception, what: str) -> pyfuse3.FUSEError:
    """The FUSEError that answers `error`, which happened in `what`."""
    if isinstance(error, pyfuse3.FUSEError):
        return error
    if isinstance(error, RowfsError):
        if isinstance(error, CorruptionError) and not error.logged:
            log.error("%s: %s", what, error)
        return pyfuse3.FUSEError(error.errno)
    log.error("%s failed unexpectedly", what, exc_info=error)
    return pyfuse3.FUSEError(EIO)


def answering(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A handler that lets out nothing but FUSEError, and that may wait."""

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        polling.give_turn()
        try:
            return await handler(*args, **kwargs)
        except Exception as error:
            raise fuse_error(error, handler.__name__) from None

    return answer
