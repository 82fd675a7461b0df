"""What the tests of the operations have: a file system without a mount, and a log that has to stay silent."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from rowfs.native import extension
from rowfs.service import committer
from tests.operations.helpers import Fs, Listing
from tests.store.helpers import Home


def pytest_configure(config: pytest.Config) -> None:
    """What a test may ask of its pool."""
    config.addinivalue_line("markers", "pool(**options): capacity_bytes and options of the pool behind `fs`")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An async test runs under trio, beside the tasks that commit and reclaim."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    values = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    trio.run(values["fs"].drive, partial(pyfuncitem.obj, **values))
    return True


@pytest.fixture
def fs(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fs]:
    """A file system; at the end its pool is held against all invariants."""
    monkeypatch.setattr(pyfuse3, "readdir_reply", _reply)
    marker = request.node.get_closest_marker("pool")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    made = Fs(Home(tmp_path / "pool", options.pop("capacity_bytes", None)), **options)
    monkeypatch.setattr(extension, "module", made.native)
    yield made
    made.finish()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the committer does on time it does in a moment, from its first wait on."""
    monkeypatch.setattr(committer, "INTERVAL_S", 0.1)


def _reply(token: Listing, name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
    return token.reply(name, attributes, next_id)


class Log:
    """What the daemon's log got at WARNING or above. A test takes what it expects; nothing else may be there."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._taken = 0

    @property
    def lines(self) -> list[str]:
        """What was logged and not taken."""
        records = [record for phase in ("setup", "call", "teardown") for record in self._caplog.get_records(phase)]
        return [record.getMessage() for record in records if record.levelno >= logging.WARNING][self._taken :]

    def take(self) -> str:
        """The one line that was logged since the last."""
        lines = self.lines
        assert len(lines) == 1, f"expected one line in the log, not {lines}"
        self._taken += 1
        return lines[0]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """The log, which has to be silent."""
    made = Log(caplog)
    yield made
    assert made.lines == []
