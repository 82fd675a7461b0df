"""A daemon with a fault, to see what becomes of it: python -m tests.faults.faulty HOW POOL MNT …"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import trio

from rowfs.control.methods import Methods
from rowfs.control.server import Server
from rowfs.mount.operations import Operations
from rowfs.process import daemon
from rowfs.store.pool import Pool


class Fault(Exception):
    """What nobody foresaw."""


def _boom(*_: object) -> NoReturn:
    raise Fault


async def _later(*_: object) -> NoReturn:
    raise Fault


def _a_handler_lets_it_out() -> None:
    Operations.statfs = _later  # type: ignore[method-assign]


def _a_method_has_one() -> None:
    Methods.info = _later  # type: ignore[method-assign, assignment]


def _accepting_has_one() -> None:
    accept, faults = Server._accept, [Fault()]

    async def once(self: Server, *args: Any) -> None:
        await accept(self, *args)
        if faults:
            raise faults.pop()

    Server._accept = once  # type: ignore[method-assign]


def _tuning_has_one() -> None:
    daemon.tune = _boom


def _the_socket_cannot_be_made() -> None:
    Server._bind = _boom  # type: ignore[method-assign]


def _in_info(step: Callable[[], object]) -> None:
    async def info(self: Methods, *_: object) -> dict[str, object]:
        step()
        return {}

    Methods.info = info  # type: ignore[method-assign, assignment]


def _it_ends_when_asked() -> None:
    _in_info(lambda: os._exit(3))


def _it_never_answers() -> None:
    async def never(*_: object) -> NoReturn:
        await trio.sleep_forever()

    Methods.diff = never  # type: ignore[method-assign, assignment]


def _late_imports_are_told() -> None:
    """None at all: it only says what is imported once the mount is there, which is late for a commit."""
    mounted = False
    say_ready = daemon.Daemon._say_ready

    async def ready(self: daemon.Daemon, ready_fd: int | None) -> None:
        nonlocal mounted
        await say_ready(self, ready_fd)
        mounted = True

    def told(event: str, details: tuple[Any, ...]) -> None:
        if mounted and event == "import":
            os.write(2, f"now ERROR late import of {details[0]}\n".encode())

    daemon.Daemon._say_ready = ready  # type: ignore[method-assign]
    sys.addaudithook(told)


def _a_thread_has_one() -> None:
    _in_info(lambda: threading.Thread(target=_boom, name="some").start())


def _c_code_complains() -> None:
    _in_info(lambda: os.write(2, b"said in C: Fault\n"))


def _memory_is_touched_that_is_none() -> None:
    _in_info(lambda: ctypes.string_at(0))


def _opening_finds_something() -> None:
    opened = Pool.__init__

    def find(self: Pool, *args: Any, **more: Any) -> None:
        logging.getLogger("rowfs").warning("found while opening: Fault")
        opened(self, *args, **more)

    Pool.__init__ = find  # type: ignore[method-assign]


WAYS: dict[str, Callable[[], None]] = {
    "a-handler-lets-it-out": _a_handler_lets_it_out,
    "a-method": _a_method_has_one,
    "accepting": _accepting_has_one,
    "tuning": _tuning_has_one,
    "the-socket": _the_socket_cannot_be_made,
    "a-thread": _a_thread_has_one,
    "late-imports": _late_imports_are_told,
    "its-end": _it_ends_when_asked,
    "silence": _it_never_answers,
    "c-code": _c_code_complains,
    "memory": _memory_is_touched_that_is_none,
    "opening": _opening_finds_something,
}

if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    sys.exit(daemon.main())
