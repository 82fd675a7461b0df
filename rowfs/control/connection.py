"""One client of the socket: its requests, their answers, and bounds on both (docs/CONTROL.md).

Nothing that a client does concerns anybody else. It may hang up at any moment, send what is no request, or not read:

- No more is read from it while `REQUESTS_MAX` of its requests are under way. One is until its answer has left, so a
  client that does not read has that many answers made for it, and then its own sending waits.
- A line is collected up to `LINE_BYTES_MAX`; what is longer is thrown away as it comes.
- An answer that waits for its reader holds up no other connection, and not the end of the daemon (`stuck`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from rowfs.base.errors import RowfsError, UsageError
from rowfs.base.jsonrpc import (
    BAD_PARAMS,
    INTERNAL,
    INVALID_REQUEST,
    NO_METHOD,
    ROWFS_ERROR,
    RefusedError,
    Request,
    encode,
    failure,
    notification,
    parse,
    result,
)
from rowfs.service.tasks import alone, log_fault

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 1 << 20
REQUESTS_MAX = 16  # of one connection, under way at the same time
STUCK_S = 0.2  # that an answer may wait for its reader when the daemon ends


class BadParams(UsageError):
    """Raised when a method is called with parameters that it does not have."""


class GoneError(Exception):
    """Raised when a part of a long result has nobody to go to: the client has hung up."""


Method = Callable[..., Awaitable[Any]]


class Caller:
    """Who asked, and the way back to them while the request runs."""

    def __init__(self, uid: int, gid: int, pid: int, request: Any, connection: Connection) -> None:
        self.uid = uid
        self.gid = gid
        self.pid = pid
        self.afterwards = connection.afterwards  # what is done when the connection has ended, in whatever way
        self._request = request
        self._connection = connection

    async def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """Say how far the work is. It goes on if nobody listens."""
        with contextlib.suppress(GoneError):
            await self._notify("progress", {"done": done, "total": total, "unit": unit, "what": what})

    async def part(self, items: list[Any]) -> None:
        """Send a part of a long result. Raises GoneError when nobody wants the rest."""
        await self._notify("part", {"items": items})

    async def _notify(self, method: str, params: dict[str, Any]) -> None:
        await self._connection.send(notification(method, params | {"id": self._request}))


class Connection:
    """A client, from its first request to the last answer."""

    def __init__(self, stream: trio.SocketStream, methods: Mapping[str, Method], uid: int, gid: int, pid: int) -> None:
        self._stream = stream
        self._lines = _Lines(stream)
        self._methods = methods
        self._credentials = uid, gid, pid
        self._sending = trio.Lock()
        self._sending_since: float | None = None
        self._gone = False  # nobody reads answers any more
        self._places = trio.Semaphore(REQUESTS_MAX)
        self.under_way = 0
        self.afterwards = contextlib.AsyncExitStack()

    @property
    def stuck(self) -> bool:
        """Whether its answers wait for it to read."""
        since = self._sending_since
        return since is not None and trio.current_time() - since > STUCK_S

    async def serve(self) -> None:
        """Answer until the client has hung up and nothing is under way."""
        async with self.afterwards, trio.open_nursery() as nursery:
            while (line := await self._lines.next()) != b"":
                await self._places.acquire()
                if self._gone:  # of what it has sent, nothing more is begun
                    break
                nursery.start_soon(self._take, line)

    async def _take(self, line: bytes | None) -> None:
        self.under_way += 1
        try:
            answer = await self._answer(line)
            if answer is not None:
                await self.send(answer)
        except GoneError:
            pass  # who asked does not want to know any more
        finally:
            self.under_way -= 1
            self._places.release()

    async def _answer(self, line: bytes | None) -> dict[str, Any] | None:
        if line is None:
            return failure(None, INVALID_REQUEST, f"a request has at most {LINE_BYTES_MAX} bytes")
        try:
            request = parse(line)
        except RefusedError as error:
            return failure(error.request, error.code, str(error))
        answer = await self._call(request)
        return answer if request.answered else None

    async def _call(self, request: Request) -> dict[str, Any]:
        name, number = request.method, request.id
        method = self._methods.get(name)
        if method is None:
            return failure(number, NO_METHOD, f"there is no method {name}")
        try:
            return result(number, await method(Caller(*self._credentials, number, self), request.params))
        except Exception as error:  # trio.Cancelled is none: the daemon ends
            return _failed(name, number, alone(error))  # out of a nursery it comes in a group

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message, after those that wait already. Raises GoneError when the client has hung up."""
        async with self._sending:
            try:
                data = encode(message)
            except Exception as error:  # a method gave what is no JSON
                data = encode(_fault("an answer", message.get("id"), error))
            self._sending_since = trio.current_time()
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone = True
                raise GoneError from None
            finally:
                self._sending_since = None


def _failed(name: str, number: Any, error: BaseException) -> dict[str, Any]:
    """The answer to a request whose method failed. Raises GoneError when nobody wants one."""
    match error:
        case GoneError():
            raise error
        case UsageError():
            return failure(number, BAD_PARAMS, str(error), error.errno)
        case RowfsError():
            return failure(number, ROWFS_ERROR, str(error), error.errno)
        case OSError():
            return failure(number, ROWFS_ERROR, f"{name} failed: {error.strerror or error}", error.errno)
    return _fault(f"the method {name}", number, error)


def _fault(what: str, number: Any, error: BaseException) -> dict[str, Any]:
    log_fault(what, error)
    return failure(number, INTERNAL, f"{what} failed unexpectedly: see the daemon's log")


class _Lines:
    """What a client sends, line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._ended = False

    async def next(self) -> bytes | None:
        """The next line that is not empty, or what follows the last one; empty when the client says no more.

        None for one that is too long: it is thrown away.
        """
        while True:
            too_long = not await self._complete()
            line, newline, self._buffer = self._buffer.partition(b"\n")
            if too_long:
                return None
            if line.strip() or not newline:
                return bytes(line).strip()

    async def _complete(self) -> bool:
        """Collect a line, with its end if it has one. False: all but its end is thrown away."""
        kept = True
        while b"\n" not in self._buffer and await self._receive():
            if len(self._buffer) > LINE_BYTES_MAX and b"\n" not in self._buffer:
                kept = False
                self._buffer.clear()
        return kept

    async def _receive(self) -> bool:
        chunk = b""
        if not self._ended:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = await self._stream.receive_some()
        self._ended |= not chunk
        self._buffer += chunk
        return not self._ended
