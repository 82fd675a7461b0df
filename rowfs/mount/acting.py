"""Requests that are somebody's act: what the engine does for them is told as theirs, and so is what it refuses."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pyfuse3

from rowfs.base.actor import acting
from rowfs.base.errors import LimitError, LockedError
from rowfs.mount.inodes import Chain
from rowfs.service.actors import actor_of
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot

T = TypeVar("T")
Handler = Callable[..., Coroutine[Any, Any, T]]

_VERBS = {"create": "create", "unlink": "delete", "rename": "rename", "setattr": "resize"}


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
                verb, disk, snapshot = _what(operations, handler.__name__, *args)
                service.pool.catalog.events.add(verb, disk=disk, snapshot=snapshot, failed=True, text=str(error))
                raise

    return acted


def _what(operations: Any, request: str, inode: Any, name: Any, *rest: Any) -> tuple[str, str, str | None]:
    """What a request would have done to which disk, or which snapshot of it. `inode` is that, or where `name` is."""
    node = operations.inodes.node(inode)
    if isinstance(node, Snapshot):
        return _VERBS[request], node.owner.name, node.name
    if isinstance(node, Disk):
        return _VERBS[request], node.name, None
    if isinstance(node, Chain):
        verb = "snapshot" if request == "create" else _VERBS[request]
        return verb, operations.inodes.chain(node).name, os.fsdecode(name)
    return _VERBS[request], os.fsdecode(name), None
