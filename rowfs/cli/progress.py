"""Progress of long work on stderr, when that is a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self, TextIO

import click

from rowfs.base.names import printable

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar


class Progress:
    """Called with what is done, of how much, and what that is. Work that never reports shows nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream: TextIO | None = stream or sys.stderr  # None: we were started with it closed
        self._shown = self._stream is not None and self._stream.isatty()
        self._bar: ProgressBar[int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if not self._shown:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=0, file=self._stream).__enter__()
        self._bar.label = printable(what)
        self._bar.length = total  # None: click shows that something moves, and no percentage
        self._bar.update(done - self._bar.pos)
