"""On whose behalf something is done, for the events: set by whoever takes a request, read where the engine does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """A process that asked for something, by its credentials then. `command`: its name, empty when it was gone."""

    uid: int
    pid: int
    command: str = ""


_current: ContextVar[Actor | None] = ContextVar("actor", default=None)


def actor() -> Actor | None:
    """On whose behalf the running task works; None: nobody's, the daemon does it of itself."""
    return _current.get()


@contextmanager
def acting(on_behalf_of: Actor | None) -> Iterator[None]:
    """In the block the task works on somebody's behalf."""
    token = _current.set(on_behalf_of)
    try:
        yield
    finally:
        _current.reset(token)
