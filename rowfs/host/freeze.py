"""Freezing the file systems on a disk while a snapshot is taken: bounded, and thawed whatever happens.

A child process freezes and thaws (freezer.py says why). It thaws when our end of the pipe to it closes: at the end of
the block, when the request is cancelled, when the daemon ends or is killed.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from errno import EBUSY, EIO, ENOTTY, EOPNOTSUPP, EPERM, ESTALE, ETIMEDOUT

import trio

from rowfs.base.errors import RowfsError, UsageError
from rowfs.host import freezer
from rowfs.host.holders import FileSystem

LIMIT_S = 10.0
LIMIT_MAX_S = 3600.0
GONE_S = 1.0  # for the child to end when it has thawed

_WHY = {
    EBUSY: "it is frozen already by someone else: thaw it, or take the snapshot without freezing",
    EPERM: "only root can freeze file systems, and the daemon is run by another user",
    EOPNOTSUPP: "its file system cannot be frozen",
    ENOTTY: "its file system cannot be frozen",
    ESTALE: "another mount covers it",
}


def check_limit(limit_s: float) -> float:
    """`limit_s`, if it is one. Raises UsageError."""
    if not 0 < limit_s <= LIMIT_MAX_S or math.isnan(limit_s):
        raise UsageError(f"a freeze lasts more than 0 and at most {LIMIT_MAX_S:.0f} seconds")
    return limit_s


class Freezes:
    """The freezes of one daemon, one at a time."""

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._left: list[trio.Process] = []  # children whose freeze is still in the kernel's hands

    @contextlib.asynccontextmanager
    async def frozen(self, systems: Sequence[FileSystem], limit_s: float) -> AsyncIterator[None]:
        """Keep `systems` frozen in the block, which has to be over within `limit_s`.

        Raises RowfsError when one cannot be frozen, with ETIMEDOUT when the time did not suffice: then some may not
        have been frozen to the end of the block.
        """
        async with self._turn:
            with trio.move_on_after(limit_s) as scope:
                async with self._child(systems, limit_s) as child:
                    _check(await _line(child), systems, limit_s)
                    yield
                    await _close(child)
                    if await _line(child) != "thawed":
                        raise _late(systems, limit_s)
            if scope.cancelled_caught:
                raise _late(systems, limit_s)

    @contextlib.asynccontextmanager
    async def _child(self, systems: Sequence[FileSystem], limit_s: float) -> AsyncIterator[trio.Process]:
        self._left = [child for child in self._left if child.poll() is None]
        targets = [f"{system.mount_id}:{system.mountpoint}" for system in systems]
        child = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(freezer.__file__), str(limit_s), *targets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            yield child
        finally:
            with trio.CancelScope(shield=True):
                await _close(child)
                with trio.move_on_after(GONE_S):
                    await child.wait()
            if child.poll() is None:
                self._left.append(child)


async def _close(child: trio.Process) -> None:
    assert child.stdin is not None
    await child.stdin.aclose()


async def _line(child: trio.Process) -> str:
    """The next line that the child says; empty when it ends instead."""
    assert child.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        more = await child.stdout.receive_some(1)
        if not more:
            break
        said += more
    return said.decode().strip()


def _check(said: str, systems: Sequence[FileSystem], limit_s: float) -> None:
    """Raises RowfsError unless the child said that all are frozen."""
    word, *details = said.split()[:3] or [""]
    if word == "failed":
        code, place = map(int, details)
        raise RowfsError(f"cannot freeze {systems[place].mountpoint}: {_WHY.get(code, os.strerror(code))}", code)
    if word == "late":
        raise _late(systems, limit_s)
    if word != "frozen":
        raise RowfsError("the process that freezes file systems ended unexpectedly", EIO)


def _late(systems: Sequence[FileSystem], limit_s: float) -> RowfsError:
    where = ", ".join(system.mountpoint for system in systems)
    return RowfsError(
        f"{where} was not frozen, snapshotted and thawed within {limit_s:g} s: no snapshot was taken, and what was "
        "frozen is thawed",
        ETIMEDOUT,
    )
