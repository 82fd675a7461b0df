"""The daemon's socket: who may speak, and how many at once. What they say: `connection`; the verbs: `methods`."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Self

import trio

from rowfs.base.errors import NO_SPACE
from rowfs.base.format import SOCKET_FILE, abstract_socket
from rowfs.base.jsonrpc import NOT_ALLOWED, ROWFS_ERROR, encode, failure
from rowfs.control.connection import Connection, Method
from rowfs.service.tasks import contained

log = logging.getLogger(__name__)

CONNECTIONS_MAX, CONNECTIONS_MIN = 256, 4
RESERVED = 128  # descriptors that no connection gets: for the pool, for looking at the host, for unmounting
BACKLOG = 128
PAUSE_S = 0.1  # before the next try, when nobody can be accepted
ENDING_S = 6.0  # that a daemon may take to end when its mount is gone, and a little more (process/daemon.py)
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_NO_FILE = (errno.EROFS, errno.EACCES, errno.EISDIR)  # where the socket cannot have one


class Server:
    """Answers on POOL/control.sock. Each request runs as a task of its own."""

    def __init__(
        self,
        place: str,
        methods: dict[str, Method],
        device: Callable[[], str] = lambda: "",
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`place` leads to the pool's directory for as long as we run, wherever that is moved.

        `device` tells the number of the mount; `make_room` is called when the host has no space for a name.
        """
        self._directory = place
        self._methods = methods
        self._device = device
        self._make_room = make_room
        self._connections: set[Connection] = set()
        self._crowded = False  # clients are being refused
        self._abstract: trio.socket.SocketType | None = None
        self._taken = False  # by somebody else is its name

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the socket's file is there only meanwhile."""
        spare = _Spare()
        with contextlib.ExitStack() as stack, spare:
            listeners = [stack.enter_context(bound) for bound in self._bind_all()]
            try:
                task_status.started()
                async with trio.open_nursery() as accepting, trio.open_nursery() as clients:
                    for listener in listeners:
                        accepting.start_soon(self._accept_always, listener, spare, clients)
                    if self._taken:
                        accepting.start_soon(self._accept_late, stack, spare, clients)
                    await trio.sleep_forever()
            finally:
                with contextlib.suppress(OSError):  # whoever binds next removes what is left
                    os.unlink(os.path.join(self._directory, SOCKET_FILE))

    async def quiet(self) -> None:
        """Return when every request is answered, but for clients that do not read."""
        while any(connection.under_way and not connection.stuck for connection in self._connections):
            await trio.sleep(0.01)

    # The socket

    def _bind_all(self) -> list[trio.socket.SocketType]:
        """Both sockets; on a host that is only to be read, or where a directory is in the way, the one with no file."""
        abstract = self._bind_abstract()
        try:
            named = self._bind()
        except OSError as error:
            if abstract is None or error.errno not in _NO_FILE:
                raise
            if error.errno == errno.EISDIR:
                log.warning("the daemon listens without %s: it is a directory, which should not be there", SOCKET_FILE)
            return [abstract]
        return [named, abstract] if abstract else [named]

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
            bound.listen(BACKLOG)
        except BaseException:
            bound.close()
            raise
        finally:
            os.close(directory)
        return trio.socket.from_stdlib_socket(bound)

    def _bind_abstract(self, last: bool = False) -> trio.socket.SocketType | None:
        """By this name we are found when the file is not: the pool's directory was moved, or the file removed.

        None: it is taken. That is a reason for a line in the log when it is tried for the `last` time.
        """
        if not self._device():
            return None
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(abstract_socket(self._device()))
            bound.listen(BACKLOG)
        except OSError as error:  # anybody may take the name, but not answer for us: clients look who listens
            self._taken = error.errno == errno.EADDRINUSE
            if last or not self._taken:
                log.warning("the daemon listens on %s alone: %s", SOCKET_FILE, error.strerror)
            bound.close()
            return None
        self._abstract = trio.socket.from_stdlib_socket(bound)
        return self._abstract

    def _bind_to(self, bound: socket.socket, path: str) -> None:
        try:
            bound.bind(path)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._make_room()
            bound.bind(path)

    # Clients

    async def _accept_late(self, stack: contextlib.ExitStack, spare: _Spare, nursery: trio.Nursery) -> None:
        """Linux gives a mount's number away at once, and a daemon whose mount is gone may take a moment to end."""
        end = trio.current_time() + ENDING_S
        late = False
        while self._taken and not late:
            await trio.sleep(PAUSE_S)
            late = trio.current_time() >= end
            if (bound := self._bind_abstract(late)) is not None:
                self._taken = False
                await self._accept_always(stack.enter_context(bound), spare, nursery)

    async def _accept_always(self, listener: trio.socket.SocketType, spare: _Spare, nursery: trio.Nursery) -> None:
        while not await contained("accepting clients", self._accept_all, listener, spare, nursery):
            await trio.sleep(PAUSE_S)

    async def _accept_all(self, listener: trio.socket.SocketType, spare: _Spare, nursery: trio.Nursery) -> None:
        while True:
            await self._accept(listener, spare, nursery)

    async def _accept(self, listener: trio.socket.SocketType, spare: _Spare, nursery: trio.Nursery) -> None:
        await trio.lowlevel.wait_readable(
            listener
        )  # Linux finds that there is no descriptor before it looks for clients
        try:
            client, _ = await listener.accept()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS or not await self._refuse_next(listener, spare):
                self._say_crowded(f"no client can be accepted: {error.strerror}")
                await trio.sleep(PAUSE_S)
            return
        if listener is self._abstract and not _may_speak(client):
            with client:
                await _say_not_allowed(client)
            await trio.sleep(PAUSE_S)  # anybody can come here, again and again: nobody else is to feel it
            return
        if len(nursery.child_tasks) >= (most := _connections_max()):
            await self._refuse(client, f"there are {most} connections to the daemon already", errno.EAGAIN)
            return
        self._crowded = False
        nursery.start_soon(contained, "a connection", self._serve, client)

    async def _refuse_next(self, listener: trio.socket.SocketType, spare: _Spare) -> bool:
        """Tell the next client that there is no descriptor for it. False: it could not even be told that."""
        with spare.lent(), contextlib.suppress(OSError), trio.move_on_after(PAUSE_S):
            client, _ = await listener.accept()
            await self._refuse(client, "the daemon has no file descriptors left", errno.EMFILE)
            return True
        return False

    async def _refuse(self, client: trio.socket.SocketType, why: str, code: int) -> None:
        self._say_crowded(f"clients are refused: {why}")
        with client:
            await _say(client, ROWFS_ERROR, f"{why}: close some, and try again", code)

    def _say_crowded(self, why: str) -> None:
        """One line in the log, until somebody is served again."""
        if not self._crowded:
            log.warning("%s", why)
        self._crowded = True

    async def _serve(self, client: trio.socket.SocketType) -> None:
        async with trio.SocketStream(client) as stream:
            if not _may_speak(client):
                await _say_not_allowed(client)
                return
            pid, uid, gid = _credentials(client)
            connection = Connection(stream, self._methods, uid, gid, pid)
            self._connections.add(connection)
            try:
                await connection.serve()
            finally:
                self._connections.discard(connection)


def _connections_max() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(CONNECTIONS_MIN, descriptors - RESERVED))


def _credentials(client: trio.socket.SocketType) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return pid, uid, gid


def _may_speak(client: trio.socket.SocketType) -> bool:
    return _credentials(client)[1] in (0, os.getuid())


async def _say_not_allowed(client: trio.socket.SocketType) -> None:
    await _say(client, NOT_ALLOWED, "you may not speak to this daemon: only root and the user who mounted may")


async def _say(client: trio.socket.SocketType, code: int, why: str, errno_: int | None = None) -> None:
    """One line, which goes into the socket's buffer even if the client does not read, or is gone."""
    with contextlib.suppress(OSError):
        await client.send(encode(failure(None, code, why, errno_)))


class _Spare:
    """A descriptor that is kept for the moment when there are no others."""

    def __init__(self) -> None:
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> None:
        if self._fd is not None:
            return
        with contextlib.suppress(OSError):  # somebody was quicker: then there is none for now
            self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """There is one descriptor more in the block."""
        self._close()
        try:
            yield
        finally:
            self._open()
