"""A fault in a background task is told in the log, leaves the pool readable, and holds up nobody who waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EIO, EROFS
from typing import NoReturn

import pytest
import trio

from rowfs.service import committer, punching
from rowfs.service.trimming import Trimming
from rowfs.store.commit import Commits
from rowfs.store.reclaim import Reclaimer
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused, until
from tests.store.helpers import B


def boom(*_: object) -> NoReturn:
    """What nobody foresaw."""
    raise RuntimeError("a fault")


Patch = Callable[[pytest.MonkeyPatch], None]
FAULTS: dict[str, Patch] = {
    "committer": lambda patch: patch.setattr(Commits, "needed", property(boom)),
    "timer": lambda patch: patch.setattr(Commits, "wanted", property(boom)),
    "reclaimer": lambda patch: patch.setattr(Reclaimer, "needs_commit", property(boom)),
    "recycler": lambda patch: patch.setattr(Commits, "unread", boom),
    "trimmer": lambda patch: patch.setattr(Trimming, "_syncs", boom),
}


@pytest.mark.parametrize("task", FAULTS)
async def test_a_fault_in_a_background_task_makes_the_pool_read_only_and_ends_nothing(
    soon: None, fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(committer, "RETRY_S", 0.05)
    await fs.disk("vm", 2, "one", "two")
    fs.pool.catalog.touch(fs.pool.catalog.disk("vm"))
    with monkeypatch.context() as patch:
        FAULTS[task](patch)
        fs.service.committer._looked -= committer.INTERVAL_S
        fs.service.committer.kick()
        fs.service.committer._freed.set()
        await until(lambda: log.lines, "the line")
    assert log.take() == f"the {task} failed unexpectedly"
    assert fs.pool.read_only_reason is not None and task in fs.pool.read_only_reason
    assert await fs.holds("vm", "one", "two")
    with refused(EROFS):
        await fs.open("vm", os.O_RDWR)
    handle = await fs.open("vm", os.O_RDONLY)
    with refused(EIO, EROFS):  # and not for ever without an answer
        await fs.ops.fsync(handle, False)


async def test_blocks_that_could_not_be_punched_are_free_all_the_same(
    soon: None, fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(punching, "QUIET_S", 0.01)
    await fs.disk("vm", 2, "one", "two")
    with monkeypatch.context() as patch:
        patch.setattr(fs.pool.data, "punch", boom)
        await fs.truncate("vm", 0)
        await fs.service.committer.commit()
        await until(lambda: not fs.pool.commits.freed and log.lines, "the blocks")
    assert log.take() == "free blocks were not given back to the host: a fault"
    assert fs.pool.read_only_reason is None
    await fs.truncate("vm", B)
    await fs.service.committer.commit()


async def test_commits_need_no_new_thread(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    await fs.disk("vm", 2, "one", "two")

    monkeypatch.setattr(trio.to_thread, "run_sync", boom)
    fs.pool.catalog.touch(fs.pool.catalog.disk("vm"))
    await fs.service.committer.commit(whole=True)
    assert fs.pool.read_only_reason is None
