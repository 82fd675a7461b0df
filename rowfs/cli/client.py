"""A blocking client of the daemon's socket: JSON-RPC 2.0, one object a line (docs/CONTROL.md)."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Self

from rowfs.base.errors import RowfsError, UsageError

SOCKET_NAME = "control.sock"
LOG_NAME = "rowfs.log"
RECEIVE_BYTES = 1 << 16
CODE_NOT_ALLOWED, CODE_WRONG_USAGE, CODE_FAULT = -32001, -32602, -32603
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid

# What is done, of how much (None: not known), and what that is.
ProgressCallback = Callable[[int, int | None, str], None]
PartsCallback = Callable[[list[Any]], None]


class DaemonGoneError(RowfsError):
    """Raised when nobody listens on a pool's socket. The mount may still be there, and dead."""

    errno: int = errno.ECONNREFUSED


def ignore_progress(done: int, total: int | None, what: str) -> None:
    """For callers that do not show progress."""


class Client:
    """One connection to the daemon of the pool at `pool`. Calls are made one after the other.

    Raises DaemonGoneError when no daemon answers, RowfsError when it will not speak with this user.
    """

    def __init__(self, pool: str, connection: socket.socket | None = None) -> None:
        """`connection` is one that there is already."""
        self._pool = pool
        self._log = os.path.join(pool, LOG_NAME)
        self._socket = connection or connect(pool)
        self._received = b""
        self._last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def peer(self) -> int:
        """The user who listens at the other end, as the kernel tells."""
        answer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(answer)[1])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        progress: ProgressCallback = ignore_progress,
        parts: PartsCallback | None = None,
    ) -> Any:
        """The result of `method`. `params` that are None are left out; `progress` and `parts` hear what comes before.

        Raises RowfsError with the daemon's message and errno, or when the daemon ends before it has answered.
        """
        self._last_id += 1
        given = {name: value for name, value in (params or {}).items() if value is not None}
        self._send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": given})
        while True:
            message = self._receive()
            if "method" in message:
                self._notify(message["method"], message.get("params", {}), progress, parts)
            elif message.get("error") is not None:
                raise self._error(message["error"])
            elif message.get("id") == self._last_id:
                return message.get("result")

    def _notify(
        self, method: str, params: dict[str, Any], progress: ProgressCallback, parts: PartsCallback | None
    ) -> None:
        if params.get("id") != self._last_id:
            return
        if method == "progress":
            progress(params.get("done", 0), params.get("total"), params.get("what", ""))
        elif method == "part" and parts is not None:
            parts(params.get("items", []))

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            # It may have said why before it hung up: that is still there to be read.
            return

    def _receive(self) -> dict[str, Any]:
        """The next message. Raises RowfsError when there is none, or none that can be understood."""
        while b"\n" not in self._received:
            chunk = self._receive_some()
            if not chunk:
                why = f"the daemon of {self._pool} ended before it answered: see {self._log}"
                raise RowfsError(why, errno.ECONNRESET)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return self._decode(line)

    def _receive_some(self) -> bytes:
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            return b""

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line.decode(errors="surrogateescape"))
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise RowfsError(f"the daemon of {self._pool} sent what is no JSON-RPC: see {self._log}", errno.EPROTO)
        return message

    def _error(self, error: dict[str, Any]) -> RowfsError:
        """What the daemon reports, as it worded it."""
        message = str(error.get("message") or "the daemon failed and did not say why")
        if error.get("code") == CODE_FAULT:
            message += f": see {self._log}"
        name = (error.get("data") or {}).get("errno")
        default = errno.EACCES if error.get("code") == CODE_NOT_ALLOWED else errno.EIO
        kind = UsageError if error.get("code") == CODE_WRONG_USAGE else RowfsError
        return kind(message, getattr(errno, str(name), default))


def connect(pool: str) -> socket.socket:
    """A connection to the socket in `pool`.

    It is named through the opened directory, because the path of a unix socket may have no more than 107 bytes.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory_fd = os.open(pool, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory_fd}/{SOCKET_NAME}")
        finally:
            os.close(directory_fd)
    except OSError as error:
        connection.close()
        raise connect_error(error, pool) from error
    return connection


def gone(pool: str) -> DaemonGoneError:
    """What says that nobody listens for a pool."""
    return DaemonGoneError(f"the daemon of {pool} is not running: end what is left of it with rowfs umount")


def connect_error(error: OSError, pool: str) -> RowfsError:
    """Why there is no connection to the daemon of `pool`."""
    path = os.path.join(pool, SOCKET_NAME)
    match error.errno:
        case errno.ENOENT | errno.ECONNREFUSED:
            return gone(pool)
        case errno.EACCES | errno.EPERM:
            return RowfsError(f"you may not speak to {path}: only root and the user who mounted may", errno.EACCES)
    return RowfsError(f"cannot speak to {path}: {error.strerror}", error.errno)
