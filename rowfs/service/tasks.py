"""What happens to an exception that leaves a task: docs/CONCURRENCY.md has the table.

An exception that leaves a nursery takes along everybody who works in it, and at last the daemon. So each task of the
daemon either ends it in order, or what goes wrong in it is the end of that task alone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger(__name__)


async def contained(what: str, task: Callable[..., Awaitable[object]], *args: Any) -> bool:
    """Run a task to its end. A fault is logged with its traceback and concerns nobody else; whether there was none."""
    well = True
    try:
        await task(*args)
    except* Exception as faults:  # a nursery's come as a group, which contextlib.suppress does not look into
        well = False
        log_fault(what, faults)
    return well


def log_fault(what: str, fault: BaseException) -> None:
    """One line, and the traceback, of what nobody foresaw."""
    log.error("%s failed unexpectedly", what, exc_info=alone(fault))


def alone(fault: BaseException) -> BaseException:
    """The one exception in a group, or groups in groups, of one; else what was given."""
    while isinstance(fault, BaseExceptionGroup) and len(fault.exceptions) == 1:
        fault = fault.exceptions[0]
    return fault
