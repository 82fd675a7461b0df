"""The socket's verb on events; and what makes the acts of the other verbs, and their failures, those of who asked."""

from __future__ import annotations

import time
from datetime import UTC
from typing import Any

import trio

from rowfs.base.actor import acting
from rowfs.base.errors import RowfsError, UsageError
from rowfs.base.format import EventRecord
from rowfs.base.names import NAME_BYTES_MAX
from rowfs.base.times import now_ns, rfc3339
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.rules.times import parse_instant
from rowfs.service.actors import actor_of
from rowfs.service.service import Service
from rowfs.verbs.events import EVENTS
from rowfs.verbs.table import METHODS

PART_EVENTS = 500
WAIT_MAX_S = 30.0
LOOK_S = 0.1  # whether there is a new one


class EventMethods:
    """What clients may ask of what happened."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._events = service.pool.catalog.events

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"events": self.events}

    async def events(self, caller: Caller, params: Params) -> dict[str, Any]:
        """What happened after an event, or since a time; with a wait, when there is something."""
        since, after, wait_s = parameters(params, EVENTS)
        if after is not None and not 0 <= after < 1 << 32:
            raise BadParams("the parameter after has to be the number of an event, or 0")
        if wait_s is not None and not 0 <= wait_s <= WAIT_MAX_S:
            raise BadParams(f"the parameter wait_s has to be a number of seconds up to {WAIT_MAX_S:g}")
        since_ns = None if since is None else parse_instant(since, now_ns(), UTC, ahead=False)
        await self._wait(after or 0, wait_s or 0.0)
        last, lost = await self._send(caller, after, since_ns)
        return {"last": last, "lost": lost, "ending": self._service.ending}

    async def _wait(self, after: int, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while self._events.last() <= after and time.monotonic() < end and not self._service.ending:
            await trio.sleep(LOOK_S)

    async def _send(self, caller: Caller, after: int | None, since_ns: int | None) -> tuple[int, int]:
        """Send all events after that number, in parts; the number of the last, and how many were gone already.

        While a slow client takes a part, new events may push out those that are still to come.
        """
        lost = 0
        while True:
            lost += 0 if after is None else self._events.lost(after)
            after, found = after or 0, []
            for event in self._events.read(after):  # a reader of the map is not kept while a client reads
                after = event.id
                if since_ns is None or event.time_ns >= since_ns:
                    found.append(_object(event))
                if len(found) == PART_EVENTS:
                    break
            if not found:
                return after, lost
            await caller.part(found)

    def recorded(self, name: str, method: Method) -> Method:
        """The method, on behalf of who asks; what it refuses is an event if it would have changed something."""

        async def acted(caller: Caller, params: Params) -> Any:
            with acting(actor_of(caller.uid, caller.pid)):
                try:
                    return await method(caller, params)
                except UsageError:
                    raise
                except RowfsError as error:
                    self._failed(name, params, error)
                    raise

        return acted

    def _failed(self, name: str, params: Params, error: RowfsError) -> None:
        if not METHODS[name].changes or self._service.pool.read_only:
            return

        def named(key: str) -> str | None:
            value = params.get(key)
            return value[:NAME_BYTES_MAX] if isinstance(value, str) else None

        self._events.add(
            name.removeprefix("group_").replace("_", " "),
            disk=named("disk"),
            snapshot=named("snapshot"),
            group=named("group"),
            failed=True,
            text=str(error),
        )


def _object(event: EventRecord) -> dict[str, Any]:
    """An event as docs/CONTROL.md has it."""
    return {
        "number": event.id,
        "time": rfc3339(event.time_ns),
        "verb": event.verb,
        "failed": event.failed,
        "disk": event.disk,
        "snapshot": event.snapshot,
        "group": event.group,
        "size_bytes": event.size_bytes,
        "uid": event.uid,
        "pid": event.pid,
        "command": event.command,
        "text": event.text,
    }
