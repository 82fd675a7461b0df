"""Commits of a mount that fail: whoever waits hears of it, whichever commit they wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from errno import EIO
from pathlib import Path

import pytest
import trio
import trio.testing

from rowfs.base.errors import RowfsError, StorageError
from rowfs.persist.datafile import DataFile
from rowfs.service.committer import Committer
from rowfs.store.pool import Pool
from tests.store.helpers import Home, put

DEADLINE_S = 30.0


class SlowData(DataFile):
    """A data file whose sync waits for `gate` and then fails as `failure` says."""

    def __init__(self, path: str, read_only: bool = False) -> None:
        super().__init__(path, read_only)
        self.gate = threading.Event()
        self.failure: Callable[[], Exception] | None = None
        self.waiting = 0

    def sync(self) -> None:
        """As DataFile.sync."""
        if self.failure is None:
            super().sync()
            return
        self.waiting += 1
        assert self.gate.wait(DEADLINE_S), "nobody opened the gate"
        if self.failure is not None:
            raise self.failure()


async def _fsync(committer: Committer, outcomes: list[str]) -> None:
    try:
        with trio.fail_after(DEADLINE_S):
            await committer.commit()
        outcomes.append("success")
    except RowfsError as error:
        outcomes.append(type(error).__name__)


async def _two_fsyncs(
    pool: Pool, data: SlowData, outcomes: list[str], meanwhile: Callable[[Committer], None] = lambda committer: None
) -> None:
    committer = Committer(pool)
    disk = pool.catalog.disk("disk")
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        async with trio.open_nursery() as waiters:
            put(pool, disk, 0, "first")
            waiters.start_soon(_fsync, committer, outcomes)
            with trio.fail_after(DEADLINE_S):
                while not data.waiting:
                    await trio.sleep(0.001)
            put(pool, disk, 1, "second")
            waiters.start_soon(_fsync, committer, outcomes)
            await trio.testing.wait_all_tasks_blocked()
            meanwhile(committer)
            data.gate.set()
        committer.stop()


@pytest.mark.parametrize("failure", [lambda: StorageError("fdatasync failed"), lambda: MemoryError("no memory")])
def test_who_waits_for_the_next_commit_hears_that_this_one_failed(
    tmp_path: Path, failure: Callable[[], Exception]
) -> None:
    home = Home(tmp_path / "pool")
    pool = home.open(open_data=SlowData)
    pool.create_disk("disk", 8192)
    pool.commit()
    data = pool.data
    assert isinstance(data, SlowData)
    data.failure = failure
    outcomes: list[str] = []
    trio.run(_two_fsyncs, pool, data, outcomes)
    assert len(outcomes) == 2 and "success" not in outcomes, outcomes
    assert pool.commits.failed
    home.abandon()


def test_who_waits_for_the_next_commit_hears_that_a_sync_failed_meanwhile(tmp_path: Path) -> None:
    home = Home(tmp_path / "pool")
    pool = home.open(open_data=SlowData)
    pool.create_disk("disk", 8192)
    pool.commit()
    data = pool.data
    assert isinstance(data, SlowData)
    data.failure = lambda: StorageError("not raised")
    outcomes: list[str] = []

    def sync_fails(committer: Committer) -> None:
        committer.sync_failed(EIO)  # one of the C extension, which began before
        data.failure = None

    trio.run(_two_fsyncs, pool, data, outcomes, sync_fails)
    assert len(outcomes) == 2 and outcomes[-1] == "StorageError", outcomes
    assert pool.commits.failed
    home.abandon()
