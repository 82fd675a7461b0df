"""Commands of the administrator that run before and after something: as words, with a time limit, and ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio

from rowfs.base.names import printable

TOLD_BYTES = 400  # of what a hook said last, in the reason of its failure
PART_BYTES = 4096
LAST_WORDS_S = 0.2
KILLED_S = 5.0  # until what was killed is gone: what waits in the kernel, say for a frozen file system, may never be


async def run_hook(words: Sequence[str], environment: Mapping[str, str], limit_s: float) -> str | None:
    """Run a program with these words, and variables beside our own. None: it ended well; else why not, in a line.

    What is still there of its process group after `limit_s`, or when we are cancelled, is killed. Nobody waits for what
    a child of it may hold open.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return f"{printable(words[0])} cannot be run: {error.strerror}"
    said = bytearray()
    with trio.move_on_after(limit_s) as scope:
        await _ended(process, said)
    if scope.cancelled_caught:
        return f"{printable(words[0])} was killed: it took longer than {limit_s:g} s"
    code = process.returncode
    assert code is not None, "a process is not waited for"
    if code == 0:
        return None
    end = f"exit code {code}" if code > 0 else f"signal {-code}"
    last = " ".join(said.decode(errors="replace").split())
    return f"{printable(words[0])} failed with {end}{': ' + printable(last) if last else ''}"


async def _ended(process: trio.Process, said: bytearray) -> None:
    """Wait until the process ends; if we are cancelled, its group is killed."""
    try:
        async with trio.open_nursery() as nursery:
            heard = trio.Event()
            nursery.start_soon(_listen, process, said, heard)
            await process.wait()
            with trio.move_on_after(LAST_WORDS_S):  # a child of it may hold the pipe for ever
                await heard.wait()
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.move_on_after(KILLED_S, shield=True):
                await process.wait()
        if process.stdout is not None:
            with trio.CancelScope(shield=True):
                await process.stdout.aclose()


async def _listen(process: trio.Process, said: bytearray, heard: trio.Event) -> None:
    """Keep the end of what it says, so that it never waits for a reader."""
    assert process.stdout is not None
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while part := await process.stdout.receive_some(PART_BYTES):
            said += part
            del said[:-TOLD_BYTES]
    heard.set()
