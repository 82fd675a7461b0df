"""Requests that are somebody's act: what the engine does for them is told as theirs, and so is what it refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pyfuse3

from rowfs.base.actor import acting
from rowfs.base.errors import LimitError, LockedError
from rowfs.service.actors import actor_of
from rowfs.service.service import Service

T = TypeVar("T")
Handler = Callable[..., Coroutine[Any, Any, T]]

_VERBS = {"create": "snapshot", "unlink": "delete", "rename": "rename", "setattr": "resize"}


def act(handler: Handler[T]) -> Handler[T]:
    """A handler of Operations whose last argument is the context of the request."""

    @functools.wraps(handler)
    async def acted(operations: Any, *args: Any) -> T:
        service: Service = operations._service  # of this room
        ctx: pyfuse3.RequestContext = args[-1]
        own = service.cache.own_threads
        with acting(own[ctx.pid] if ctx.pid in own else actor_of(ctx.uid, ctx.pid)):
            try:
                return await handler(operations, *args)
            except (LimitError, LockedError) as error:
                service.pool.catalog.events.add(_VERBS[handler.__name__], failed=True, text=str(error))
                raise

    return acted
