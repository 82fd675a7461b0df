"""A thread for what must not fail because there are no threads left to be had."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import trio


class Worker:
    """One thread, there from the beginning, that does one thing after the other."""

    def __init__(self, name: str) -> None:
        """Raises RuntimeError when there is no thread to be had."""
        self._executor = ThreadPoolExecutor(1, name)
        self._executor.submit(int).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=False)

    async def run(self, step: Callable[..., None], *args: object) -> None:
        """Have the thread do a step, and return when it has, even if cancelled meanwhile. Raises as the step does."""
        token, done = trio.lowlevel.current_trio_token(), trio.Event()
        future = self._executor.submit(step, *args)
        future.add_done_callback(lambda _: token.run_sync_soon(done.set))
        with trio.CancelScope(shield=True):
            await done.wait()
        future.result()
