"""Durability beside requests: shared commits, commits that fail, and space for writers when the pool is full."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable
from errno import EIO, ENOSPC, EROFS
from itertools import pairwise
from typing import Any, NoReturn

import pytest
import trio

from rowfs.base.errors import CorruptionError, ReadOnlyError, RowfsError
from rowfs.base.units import MIB
from rowfs.persist.journal import Journal, JournalError
from rowfs.service import committer, pace
from rowfs.store.commit import Batch
from tests.operations.conftest import Log
from tests.operations.helpers import FailingData, Fs, GatedData, Writes, refused, until, without_journal
from tests.store.helpers import B, fill, ready


def gated(fs: Fs) -> GatedData:
    data = fs.pool.data
    assert isinstance(data, GatedData)
    return data


def failing(fs: Fs) -> FailingData:
    data = fs.pool.data
    assert isinstance(data, FailingData)
    return data


@pytest.mark.pool(open_data=GatedData)
async def test_fsyncs_during_a_commit_share_the_next_one(fs: Fs) -> None:
    await fs.disk("vm", 30)
    handle = await fs.open("vm")
    writes, data, done = Writes(fs), gated(fs), 0

    async def write_and_sync(block: int) -> None:
        nonlocal done
        await fs.put(handle, block, f"block {block}")
        await fs.ops.fsync(handle, False)
        done += 1

    data.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_and_sync, 0)
        await until(lambda: data.waiting, "the first commit")
        for block in range(1, 30):
            nursery.start_soon(write_and_sync, block)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert done == 0
        data.gate.set()
    assert (done, writes.count + writes.records) == (30, 2)
    assert await fs.after_a_crash().holds("vm", *(f"block {block}" for block in range(30)))


@pytest.mark.pool(open_data=GatedData)
async def test_an_fsync_waits_for_the_commit_that_is_taking_its_writes(fs: Fs) -> None:
    await fs.disk("vm", 2)
    handle = await fs.open("vm")
    writes, data = Writes(fs), gated(fs)
    await fs.put(handle, 0, "one")
    data.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.ops.fsync, handle, False)
        await until(lambda: data.waiting, "the commit")
        with trio.move_on_after(0.05) as waiting:
            await fs.ops.fsync(handle, False)  # nothing new, and not durable yet
        assert waiting.cancelled_caught
        data.gate.set()
    assert writes.count + writes.records == 1


@pytest.mark.pool(open_data=GatedData)
async def test_requests_go_on_during_a_commit(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    handle = await fs.open("vm")
    await fs.put(handle, 0, "three")
    gated(fs).gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.ops.fsync, handle, False)
        await until(lambda: gated(fs).waiting, "the commit")
        await fs.put(handle, 1, "four")
        assert bytes(await fs.ops.read(handle, 0, 2 * B)) == fill("three") + fill("four")
        assert (await fs.stat("vm")).st_size == 2 * B
        gated(fs).gate.set()
    await fs.ops.fsync(handle, False)
    assert await fs.after_a_crash().holds("vm", "three", "four")


@pytest.mark.pool(open_data=GatedData)
async def test_one_cold_read_keeps_nobody_waiting(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    handle = await fs.open("vm", os.O_RDONLY)
    data, cold = gated(fs), bytearray()

    async def read_cold() -> None:
        cold.extend(await fs.ops.read(handle, 0, B))

    data.gate.clear()
    async with trio.open_nursery() as nursery:
        data.cold = True
        nursery.start_soon(read_cold)
        await until(lambda: data.waiting, "the cold read")
        data.cold = False
        assert bytes(await fs.ops.read(handle, B, B)) == fill("two")
        assert not cold
        data.gate.set()
    assert bytes(cold) == fill("one")


@pytest.mark.pool(open_data=GatedData, capacity_bytes=MIB)
async def test_what_a_cold_read_still_wants_is_not_handed_out_again(fs: Fs) -> None:
    await fs.disk("vm", 200, *(f"old {block}" for block in range(200)))
    handle = await fs.open("vm", os.O_RDONLY)
    data, found = gated(fs), bytearray()

    async def read_cold() -> None:
        found.extend(await fs.ops.read(handle, 0, 200 * B))
        await fs.close(handle)

    async with trio.open_nursery() as nursery:
        data.cold = True
        data.gate.clear()
        nursery.start_soon(read_cold)
        await until(lambda: data.waiting, "the cold read")
        data.cold = False
        nursery.start_soon(fs.truncate, "vm", 0)
        await until(lambda: (fs.pool.catalog.disk("vm").size_bytes) == 0, "the disk to be cut short")
        nursery.start_soon(fs.disk, "other", 200, *(f"new {block}" for block in range(200)))
        for _ in range(50):
            await trio.sleep(0.001)
        data.gate.set()
    assert bytes(found) == b"".join(fill(f"old {block}") for block in range(200))
    assert await fs.holds("other", *(f"new {block}" for block in range(200)))


async def test_what_is_durable_is_not_committed_again(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    await fs.ops.fsync(handle, False)
    writes = Writes(fs)
    await fs.ops.fsync(handle, True)
    await fs.close(handle)
    await fs.bytes("vm")
    assert writes.count == 0


async def test_closing_what_could_not_write_commits_nothing(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    writes = Writes(fs)
    await fs.put(handle, 0, "two")
    await fs.bytes("vm")
    assert (writes.count, writes.syncs) == (0, 0)
    await fs.close(handle)
    assert (writes.count, writes.syncs) == (0, 1)  # it was written in place: the map is as it was


async def test_a_flush_for_a_snapshot_of_ours_commits_nothing_itself(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    fs.kernel.own_threads[4711] = None
    fs.ctx.pid = 4711
    handle = await fs.open("vm")
    writes = Writes(fs)
    await fs.put(handle, 0, "two")
    await fs.ops.fsync(handle, False)
    assert (writes.count, writes.syncs) == (0, 0)


async def test_a_time_is_not_worth_a_commit_of_the_map(fs: Fs) -> None:
    # Linux tells it before each fsync of a file that was written.
    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    writes = Writes(fs)
    await fs.put(handle, 0, "two")
    await fs.setattr("vm", mtime_ns=5, ctime_ns=5)
    await fs.ops.fsync(handle, True)
    assert (writes.count, writes.syncs) == (0, 1)
    await fs.ops.fsync(handle, True)
    assert (writes.count, writes.syncs) == (0, 1)
    assert fs.pool.commits.wanted and not fs.pool.commits.needed


async def test_a_time_is_stored_with_the_next_commit(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.setattr("vm", mtime_ns=5, ctime_ns=5)
    await fs.create("new")
    await fs.service.committer.commit()
    await _holds_its_time(fs)


async def test_a_time_is_stored_in_idle_time(soon: None, fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.setattr("vm", mtime_ns=5, ctime_ns=5)
    await until(lambda: not fs.pool.commits.wanted, "a commit of its own")
    await _holds_its_time(fs)


async def _holds_its_time(fs: Fs) -> None:
    assert not fs.pool.commits.wanted
    await until(lambda: fs.pool.commits.running is None, "the commit")
    assert (await fs.after_a_crash().stat("vm")).st_mtime_ns == 5


async def test_reclaim_takes_more_time_the_more_is_owed(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[float] = []
    monkeypatch.setattr(fs.pool.reclaimer, "step", budgets.append)
    await until(lambda: budgets, "the reclaimer")
    assert budgets[-1] == pace.SLICE_S
    fs.pool.catalog.owed_blocks = fs.pool.space.allocated_blocks
    await until(lambda: budgets[-1] == pace.LONG_SLICE_S, "a long slice")
    fs.pool.catalog.owed_blocks = 0
    await until(lambda: budgets[-1] == pace.SLICE_S, "a short slice")
    fs.pool.space.shortage = True
    await until(lambda: budgets[-1] == pace.LONG_SLICE_S, "a long slice, since space is short")
    fs.pool.space.shortage = False


async def test_reclaim_makes_way_for_a_commit_unless_much_is_owed(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []
    going, go_on = threading.Event(), threading.Event()
    write = fs.pool.commits.write

    def slow(batch: Batch) -> None:
        going.set()
        assert go_on.wait(30)
        write(batch)

    def step(budget_s: float) -> bool:
        steps.append(budget_s)
        return True

    await fs.disk("vm", 4, "one")
    monkeypatch.setattr(fs.pool.commits, "write", slow)
    monkeypatch.setattr(fs.pool.reclaimer, "step", step)
    await until(lambda: steps, "the reclaimer")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.snapshot, "vm", "s")
            await until(going.is_set, "the commit")
            steps.clear()
            await trio.sleep(0.05)
            assert not steps
            fs.pool.catalog.owed_blocks = fs.pool.space.allocated_blocks
            await until(lambda: steps, "the reclaimer, for now much is owed")
            fs.pool.catalog.owed_blocks = 0
            go_on.set()
    finally:
        go_on.set()
    steps.clear()
    await until(lambda: steps, "the reclaimer, after the commit")


async def test_what_is_owed_is_told_and_gone_in_the_end(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fs.pool.reclaimer, "step", lambda budget_s: False)
        await fs.disk("vm", 10, "one", "two", "three")
        await fs.snapshot("vm", "a")
        await fs.write("vm", 0, "x", "y")
        await fs.snapshot("vm", "b")
        await fs.ask("delete", disk="vm", snapshots=["a", "b"])
        assert (await fs.ask("info"))["owed_bytes"] == 2 * B, "what the disk does not hold"
    await fs.reclaimed()
    info = await fs.ask("info")
    assert (info["owed_bytes"], info["owed_s"]) == (0, 0)


async def test_commits_that_somebody_asks_for_put_off_the_one_on_time(
    soon: None, fs: Fs, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[float] = []
    freeze = fs.pool.commits.freeze
    monkeypatch.setattr(fs.pool.commits, "freeze", lambda: frozen.append(time.monotonic()) or freeze())
    await fs.disk("vm", 10, "one")
    handle = await fs.open("vm", os.O_RDWR)
    frozen.clear()
    await fs.put(handle, 5, "more")
    await until(lambda: bool(frozen), "one on time")
    monkeypatch.setattr(committer, "INTERVAL_S", 0.5)
    frozen.clear()
    for number in range(16):
        await fs.snapshot("vm", f"s{number}")
        await fs.put(handle, 5, f"{number}")
        await trio.sleep(0.05)
    late = sum(after - before >= committer.INTERVAL_S for before, after in pairwise(frozen))  # a machine that stalls
    assert len(frozen) <= 16 + late
    count = len(frozen)
    await until(lambda: len(frozen) > count, "one on time")


CHANGES: dict[str, Callable[[Fs], Awaitable[object]]] = {
    "create": lambda fs: fs.create("new"),
    "unlink": lambda fs: fs.unlink("vm"),
    "rename": lambda fs: fs.rename("vm", "new"),
    "truncate": lambda fs: fs.truncate("vm", B),
    "truncate to nothing": lambda fs: fs.truncate("vm", 0),
    "grow": lambda fs: fs.truncate("vm", 100 * B),
    "chmod": lambda fs: fs.setattr("vm", mode=0o600),
    "touch": lambda fs: fs.create(".snapshots/vm/t", os.O_WRONLY),
    "delete a snapshot": lambda fs: fs.unlink(".snapshots/vm/s"),
    "rename a snapshot": lambda fs: fs.rename(".snapshots/vm/s", ".snapshots/vm/t"),
    "open to write": lambda fs: fs.open("vm", os.O_RDWR),
}
VERBS: dict[str, dict[str, Any]] = {
    "create": {"disk": "new", "size_bytes": B},
    "resize": {"disk": "vm", "size_bytes": B},
    "rename": {"disk": "vm", "to": "new"},
    "snapshot": {"disk": "vm"},
    "rollback": {"disk": "vm", "snapshot": "s"},
    "clone": {"disk": "vm", "snapshot": "s", "targets": ["new"]},
    "delete": {"disk": "vm"},
    "delete_several": {"addresses": ["vm@"]},
}


async def failed_commit(fs: Fs, log: Log) -> Any:
    """A disk with a snapshot, a handle on it, and a write that could not be made durable."""
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")
    handle = await fs.open("vm")
    await fs.put(handle, 0, "lost")
    failing(fs).broken = True
    with refused(EIO):
        await fs.ops.fsync(handle, False)
    assert "read-only from now on" in log.take()
    return handle


@pytest.mark.pool(open_data=FailingData)
async def test_a_failed_commit_ends_all_changes(fs: Fs, log: Log) -> None:
    handle = await failed_commit(fs, log)
    failing(fs).broken = False  # a second fdatasync reports success for what the kernel has dropped
    for name, change in CHANGES.items():
        with refused(EROFS):
            await change(fs)
            pytest.fail(f"{name} works after a failed commit")
    with refused(EROFS):
        await fs.put(handle, 0, "new")
    for verb, params in VERBS.items():
        with pytest.raises(ReadOnlyError, match="since a commit failed"):
            await fs.ask(verb, **params)
    assert set(await fs.list()) == {".snapshots", "vm"}


@pytest.mark.pool(open_data=FailingData)
async def test_after_a_failed_commit_no_fsync_or_close_succeeds(fs: Fs, log: Log) -> None:
    handle = await failed_commit(fs, log)
    failing(fs).broken = False
    for _ in range(2):
        with refused(EROFS, EIO):
            await fs.ops.fsync(handle, False)
        with refused(EROFS, EIO):
            await fs.ops.flush(handle)
    await fs.ops.release(handle)


@pytest.mark.pool(open_data=FailingData)
async def test_after_a_failed_commit_everything_is_still_read(fs: Fs, log: Log) -> None:
    await failed_commit(fs, log)
    assert await fs.holds("vm", "lost", "two")
    assert await fs.holds(".snapshots/vm/s", "one", "two")
    assert await fs.after_a_crash().holds("vm", "one", "two")


@pytest.mark.pool(open_data=FailingData)
async def test_a_failed_commit_is_told_by_info(fs: Fs, log: Log) -> None:
    assert (await fs.ask("info"))["read_only"] is False
    await failed_commit(fs, log)
    info = await fs.ask("info")
    assert info["read_only"] is True
    assert "fdatasync" in info["read_only_reason"]
    assert any("read-only" in line for line in info["warnings"])
    assert await fs.getxattr("", "user.rowfs.read_only") == "true"


@pytest.mark.pool(open_data=FailingData)
async def test_everyone_who_waits_for_a_commit_that_fails_is_told(fs: Fs, log: Log) -> None:
    await fs.disk("vm", 10)
    handle = await fs.open("vm")
    answers: list[int] = []

    async def write_and_sync(block: int) -> None:
        await fs.put(handle, block, "lost")
        with refused(EIO, EROFS):
            await fs.ops.fsync(handle, False)
        answers.append(block)

    failing(fs).broken = True
    async with trio.open_nursery() as nursery:
        for block in range(10):
            nursery.start_soon(write_and_sync, block)
    assert len(answers) == 10
    log.take()


@pytest.mark.parametrize("step", ["write", "append"])
async def test_a_commit_that_fails_unexpectedly_is_a_failed_commit(
    fs: Fs, log: Log, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 2, "one")
    handle = await fs.open("vm")
    await fs.put(handle, 1, "lost")

    def fault(_: object) -> NoReturn:
        raise RuntimeError("a fault")

    if step == "write":
        without_journal(monkeypatch)
    ready(fs.pool.commits.journal)
    monkeypatch.setattr(fs.pool.commits, step, fault)
    with refused(EIO):
        await fs.ops.fsync(handle, False)
    with refused(EROFS):
        await fs.put(handle, 0, "more")
    assert (await fs.ask("info"))["read_only"] is True
    log.take()


async def test_what_the_journal_cannot_hold_the_map_does(fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await fs.disk("vm", 2, "one")
    handle = await fs.open("vm")
    ready(fs.pool.commits.journal)
    writes = Writes(fs)

    def fails(*_: object) -> NoReturn:
        raise JournalError("a write to the journal failed: No space left on device")

    monkeypatch.setattr(Journal, "write", fails)
    for number in range(3):
        await fs.put(handle, 1, f"two {number}")
        await fs.snapshot("vm", f"s{number}")
        await fs.put(handle, 0, f"one {number}")
        await fs.ops.fsync(handle, False)
        assert await fs.after_a_crash().holds("vm", f"one {number}", f"two {number}")
    assert writes.records == 1 and (await fs.ask("info"))["read_only"] is False
    assert "the journal cannot be written to" in log.take()


@pytest.mark.parametrize("error", [CorruptionError("page 0 of branch 1 cannot be decoded"), RuntimeError("a fault")])
async def test_a_reclaimer_that_fails_leaves_the_mount_up(fs: Fs, log: Log, error: Exception) -> None:
    await fs.disk("vm", 1, "one")
    await fs.disk("gone", 1, "two")

    def fail(*_: object) -> NoReturn:
        raise error

    fs.pool.reclaimer._remove = fail  # type: ignore[method-assign]
    with pytest.raises(RowfsError):
        await fs.ask("delete", disk="gone", wait=True)
    log.take()
    for _ in range(300):  # the reclaimer's pause is 0.2 s at most: it does not fill the log either
        await trio.sleep(0.001)
    assert await fs.holds("vm", "one")
    assert log.lines == []


@pytest.mark.pool(capacity_bytes=MIB)
async def test_a_full_pool_refuses_and_harms_nothing(fs: Fs) -> None:
    await fs.disk("vm", 250, *(f"block {block}" for block in range(250)))
    handle = await fs.create("more")
    with refused(ENOSPC):
        for block in range(20):
            await fs.put(handle, block, "more")
    await fs.put(await fs.open("vm"), 7, "in place")
    await fs.ops.fsync(handle, False)
    expected = [f"block {block}" for block in range(250)]
    expected[7] = "in place"
    assert await fs.holds("vm", *expected)
    await fs.snapshot("vm", "s")  # names cost nothing
    await fs.unlink("more")


async def test_info_says_that_it_is_reclaiming_until_all_has_come_back(soon: None, fs: Fs) -> None:
    await fs.disk("vm", 100, *(f"block {block}" for block in range(100)))
    await fs.unlink("vm")
    seen = set()
    while (info := await fs.ask("info"))["reclaiming"]:
        seen.add(info["used_bytes"])
        await trio.sleep(0.005)
    assert 101 * B in seen and seen <= {101 * B, B}, "it is reclaiming until what came back is durable"
    assert (await fs.ask("info"))["used_bytes"] == B


@pytest.mark.pool(capacity_bytes=MIB)
@pytest.mark.parametrize("deleted", ["disk", "snapshot"])
async def test_a_write_to_a_full_pool_waits_for_what_was_deleted(fs: Fs, deleted: str) -> None:
    await fs.disk("vm", 200, *(f"block {block}" for block in range(200)))
    await fs.snapshot("vm", "s")
    if deleted == "disk":
        await fs.unlink(".snapshots/vm/s")
        await fs.unlink("vm")
    else:
        await fs.truncate("vm", 0)
        await fs.unlink(".snapshots/vm/s")
    await fs.disk("new", 200, *(f"new {block}" for block in range(200)))
    assert await fs.holds("new", *(f"new {block}" for block in range(200)))


@pytest.mark.pool(capacity_bytes=MIB)
async def test_many_writers_to_a_full_pool_all_get_an_answer(fs: Fs) -> None:
    await fs.disk("vm", 200, *(f"block {block}" for block in range(200)))
    await fs.disk("new", 400)
    handle, answers = await fs.open("new"), []

    async def write(block: int) -> None:
        try:
            await fs.put(handle, block, f"new {block}")
            answers.append(block)
        except Exception:
            answers.append(-1)

    async with trio.open_nursery() as nursery:
        await fs.unlink("vm")
        for block in range(400):
            nursery.start_soon(write, block)
    kept = [block for block in answers if block >= 0]
    assert len(answers) == 400 and len(kept) == 255
    for block in kept:
        assert bytes(await fs.ops.read(handle, block * B, B)) == fill(f"new {block}")


@pytest.mark.pool(capacity_bytes=MIB)
async def test_a_full_pool_whose_space_is_still_open_answers_at_once(fs: Fs) -> None:
    await fs.disk("vm", 250, *(f"block {block}" for block in range(250)))
    handle = await fs.open("vm")
    await fs.unlink("vm")
    with refused(ENOSPC):
        await fs.disk("new", 10, *"abcdefghij")
    await fs.close(handle)
    await fs.write("new", 0, *"abcdefghij")


@pytest.mark.pool(capacity_bytes=MIB)
async def test_a_snapshot_on_a_full_pool_makes_the_next_write_fail_and_its_deletion_cures_that(fs: Fs) -> None:
    await fs.disk("vm", 254, *(f"block {block}" for block in range(254)))
    await fs.snapshot("vm", "s")
    await fs.write("vm", 0, "new")
    handle = await fs.open("vm")
    with refused(ENOSPC):
        await fs.put(handle, 1, "new")
    assert bytes(await fs.ops.read(handle, B, B)) == fill("block 1")
    await fs.unlink(".snapshots/vm/s")
    await fs.put(handle, 1, "new")
    assert bytes(await fs.ops.read(handle, 0, 2 * B)) == fill("new") * 2


@pytest.mark.pool(cache_bytes=1 * MIB)
async def test_what_is_not_durable_stays_within_bounds_without_any_fsync(fs: Fs) -> None:
    await fs.disk("vm", 1)
    handle = await fs.open("vm")
    writes = Writes(fs)
    pages = 4 * fs.service.committer.hard_pages
    await fs.truncate("vm", pages * 2 * MIB)
    most = 0
    for page in range(pages):
        await fs.put(handle, page * (2 * MIB // B), "x")
        most = max(most, fs.pool.versions.dirty_pages)
    assert most <= fs.service.committer.hard_pages + 1
    assert writes.count >= 2


async def test_everything_is_durable_in_time_without_any_fsync(soon: None, fs: Fs) -> None:
    await fs.disk("vm", 1)
    handle = await fs.open("vm")
    writes = Writes(fs)
    await fs.put(handle, 0, "one")
    await until(lambda: writes.count, "a commit on time")
    await until(lambda: not fs.pool.commits.running, "the commit")
    assert await fs.after_a_crash().holds("vm", "one")


async def test_rowfs_errors_of_a_commit_reach_the_caller_of_a_verb(fs: Fs, log: Log) -> None:
    def fail(_: object) -> NoReturn:
        raise RowfsError("the disk is on fire")

    fs.pool.commits.write = fail  # type: ignore[method-assign]
    with pytest.raises(RowfsError, match="on fire"):
        await fs.ask("create", disk="vm", size_bytes=B)
    log.take()
