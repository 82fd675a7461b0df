"""The daemon's socket: JSON-RPC 2.0, one object a line (docs/CONTROL.md). Transport alone; verbs: `methods`."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trio

from rowfs.base.errors import RowfsError, UsageError
from rowfs.base.format import SOCKET_FILE

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 1 << 20
PARSE_ERROR, INVALID_REQUEST, NO_METHOD, BAD_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
ROWFS_ERROR, NOT_ALLOWED = -32000, -32001
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class BadParams(UsageError):
    """Raised when a method is called with parameters that it does not have."""


Send = Callable[[dict[str, Any]], Awaitable[None]]


class Caller:
    """Who asked, and the way back to them while the request runs."""

    def __init__(self, uid: int, gid: int, send: Send, request: Any, afterwards: contextlib.AsyncExitStack) -> None:
        self.uid = uid
        self.gid = gid
        self.afterwards = afterwards  # what is done when the connection has ended, in whatever way; it may not fail
        self._send = send
        self._request = request

    async def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """Say how far the work is."""
        await self._notify("progress", {"done": done, "total": total, "unit": unit, "what": what})

    async def part(self, items: list[Any]) -> None:
        """Send a part of a long result."""
        await self._notify("part", {"items": items})

    async def _notify(self, method: str, params: dict[str, Any]) -> None:
        params["id"] = self._request
        await self._send({"jsonrpc": "2.0", "method": method, "params": params})


Method = Callable[..., Awaitable[Any]]


class Server:
    """Answers on POOL/control.sock. Each request runs as a task of its own."""

    def __init__(
        self, pool_path: str, methods: dict[str, Method], make_room: Callable[[], None] = lambda: None
    ) -> None:
        """`make_room` is called when the host has no space for the socket's name."""
        self._directory = pool_path
        self._methods = methods
        self._make_room = make_room
        self._answering = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the socket's file is there only meanwhile."""
        listener = trio.SocketListener(self._bind())
        try:
            task_status.started()
            await trio.serve_listeners(self._serve, [listener])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, SOCKET_FILE))

    async def quiet(self) -> None:
        """Return when no request is being answered."""
        while self._answering:
            await trio.sleep(0.01)

    def _bind(self) -> trio.socket.SocketType:
        # Through the directory's descriptor: a socket's path has 107 bytes at most, a pool's path may have more.
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{directory}/{SOCKET_FILE}"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a daemon that was killed; ours alone, since we hold the pool
            old_umask = os.umask(0o177)
            try:
                self._bind_to(bound, path)
            finally:
                os.umask(old_umask)
            bound.listen(64)
        except BaseException:
            bound.close()
            raise
        finally:
            os.close(directory)
        return trio.socket.from_stdlib_socket(bound)

    def _bind_to(self, bound: socket.socket, path: str) -> None:
        try:
            bound.bind(path)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._make_room()
            bound.bind(path)

    async def _serve(self, stream: trio.SocketStream) -> None:
        sending = trio.Lock()

        async def send(message: dict[str, Any]) -> None:
            async with sending:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(json.dumps(message, separators=(",", ":")).encode() + b"\n")

        _, uid, gid = _CREDENTIALS.unpack(
            stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in (0, os.getuid()):
            await send(
                _error(None, NOT_ALLOWED, "only root and the user who mounted may speak to the daemon", "EACCES")
            )
            return
        async with contextlib.AsyncExitStack() as afterwards:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    async for line in _lines(stream):
                        caller = functools.partial(Caller, uid, gid, send, afterwards=afterwards)
                        nursery.start_soon(self._answer, line, caller, send)

    async def _answer(self, line: bytes, caller: Callable[[Any], Caller], send: Send) -> None:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            await send(_error(None, PARSE_ERROR, "a request is one JSON object on a line", "EINVAL"))
            return
        number = request.get("id") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            await send(_error(number, INVALID_REQUEST, "a request has a method, params and an id", "EINVAL"))
            return
        self._answering += 1
        try:
            answer = await self._call(request, number, caller(number))
            if "id" in request:  # else a notification: nobody waits for an answer
                await send(answer)
        finally:
            self._answering -= 1

    async def _call(self, request: dict[str, Any], number: Any, caller: Caller) -> dict[str, Any]:
        name, params = request["method"], request.get("params", {})
        method = self._methods.get(name)
        if method is None:
            return _error(number, NO_METHOD, f"there is no method {name}", "ENOSYS")
        if not isinstance(params, dict):
            return _error(number, BAD_PARAMS, "params are an object of names and values", "EINVAL")
        try:
            return {"jsonrpc": "2.0", "id": number, "result": await method(caller, params)}
        except UsageError as error:
            return _error(number, BAD_PARAMS, str(error), _name(error.errno))
        except RowfsError as error:
            return _error(number, ROWFS_ERROR, str(error), _name(error.errno))
        except OSError as error:
            return _error(number, ROWFS_ERROR, f"{name} failed: {error.strerror}", _name(error.errno or errno.EIO))
        except Exception as error:
            log.error("the method %s failed unexpectedly", name, exc_info=error)
            return _error(number, INTERNAL, f"{name} failed unexpectedly: see the daemon's log", "EIO")


async def _lines(stream: trio.SocketStream) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for chunk in stream:
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if line.strip():
                yield line
        if len(buffer) > LINE_BYTES_MAX:
            return


def _name(number: int) -> str:
    return errno.errorcode.get(number, "EIO")


def _error(number: Any, code: int, message: str, name: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message, "data": {"errno": name}}}
