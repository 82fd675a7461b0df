"""Waiting for the next request without a turn of the event loop while requests are queued.

pyfuse3 finds its event loop through its module attribute `trio` (that is how pyfuse3.asyncio plugs in). Its tasks take
turns: one holds a lock and waits for the descriptor, the others wait for the lock. Here the descriptor is asked first
(poll) and the event loop only when nothing is queued; and a task that answers without waiting keeps the turn, instead
of waking the next task for each request. Together that is half of the work for a small request.

With the C extension, the commonest requests do not get here (_hotpath.h). It answers them when pyfuse3 reads, and also,
in trio's place, whenever trio is about to wait: it waits for the session's descriptor and for trio's own epoll, so that
nothing else that trio waits for comes late. A request that it cannot answer, and the end of trio's time-out, make its
`wake_fd` readable, for which the task that has the turn waits as well.

So no task may end while others wait (session.serve sees to that), and a handler that is about to wait for anything has
to call `give_turn` first, or nobody reads requests meanwhile. `answering` does it for all handlers but read and write.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
from types import TracebackType
from typing import Any

import pyfuse3
import trio

from rowfs.native import extension

GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL  # the mount is
REQUESTS_MAX = 16  # in a row, before timers, workers and the socket have their turn
LINGER_S_MAX = 3600.0


class TurnLock:
    """A lock that its last holder may take again, as long as it has not given the turn away."""

    def __init__(self) -> None:
        self._held = False
        self._waiting = trio.lowlevel.ParkingLot()
        self.ending = False  # no more requests will come: everybody has to see that

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiting.park()
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        self.ending |= error is not None
        if self.ending:
            self.give_turn()

    def give_turn(self) -> None:
        """Wake the next task, if nobody reads requests."""
        if not self._held and self._waiting:
            self._waiting.unpark()

    def end(self) -> None:
        """There will be no more requests: everybody has to see that."""
        self.ending = True
        self.give_turn()


class _Lowlevel:
    """trio.lowlevel with another wait_readable."""

    def __init__(self, lock: TurnLock) -> None:
        self._lock = lock
        self._poll = select.poll()
        self._waiting: select.epoll | None = None
        self._requests = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` can be read, or the extension has a request that it read from there."""
        if self._waiting is None:
            self._waiting = self._register(fd)
        queued = self._poll.poll(0) if self._requests < REQUESTS_MAX else []
        self._requests += 1
        if not queued:
            self._requests = 0
            await trio.lowlevel.wait_readable(self._waiting)
            queued = self._poll.poll(0)
        if any(events & GONE for _, events in queued):
            self._lock.ending = True

    def notify_closing(self, fd: int) -> None:
        """End the wait for `fd` with trio.ClosedResourceError, and the waiting for it."""
        self._lock.end()
        trio.lowlevel.notify_closing(fd if self._waiting is None else self._waiting)

    def _register(self, fd: int) -> select.epoll:
        epolls = _epolls()
        waiting = select.epoll()
        for number in [fd] if extension.module is None else [fd, extension.module.wake_fd()]:
            self._poll.register(number, select.POLLIN)
            waiting.register(number, select.EPOLLIN)
        if extension.module is not None and len(epolls) == 1:
            trio.lowlevel.add_instrument(_Lingering(fd, epolls[0]))
        return waiting


class _Ended(trio.abc.Instrument):
    """Lets nobody wait for a turn when the session ends, which the task that has the turn may see first, or alone."""

    def __init__(self, lock: TurnLock) -> None:
        self._lock = lock

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """A task has ended: one of pyfuse3's does so only at the end (see session.serve)."""
        if task.name.startswith("pyfuse-"):
            self._lock.end()


class _Lingering(trio.abc.Instrument):
    """Lets the extension answer requests in trio's place while that has nothing to do."""

    def __init__(self, fd: int, epoll: int) -> None:
        self._fd, self._epoll = fd, epoll

    def before_io_wait(self, timeout: float) -> None:
        """Trio is about to wait for so many seconds."""
        if timeout > 0:
            extension.module.linger(self._fd, self._epoll, math.ceil(1000 * min(timeout, LINGER_S_MAX)))


def _epolls() -> list[int]:
    # Trio does not tell the descriptor of its epoll, which becomes readable with any event that it waits for.
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.append(int(name))
    return found


class _Trio:
    """trio with that lock and that lowlevel."""

    def __init__(self) -> None:
        self.lock = TurnLock()
        self.lowlevel = _Lowlevel(self.lock)

    def Lock(self) -> TurnLock:
        """The lock of the one session there is."""
        trio.lowlevel.add_instrument(_Ended(self.lock))
        return self.lock

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


_TRIO = _Trio()  # one session per process, as pyfuse3 has it


def install() -> None:
    """Have pyfuse3 wait that way from now on."""
    pyfuse3.trio = _TRIO  # type: ignore[attr-defined]


def give_turn() -> None:
    """Let another task read requests: the one that calls is about to wait."""
    _TRIO.lock.give_turn()
