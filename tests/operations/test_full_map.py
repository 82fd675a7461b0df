"""The map finds no space: neither the host's, which is waited for, nor address space, of which it takes more."""

from __future__ import annotations

from errno import ENOSPC

import pytest
import trio

from rowfs.base.errors import NoSpaceError, RowfsError
from rowfs.persist.blockmap import BlockMap, MapNoSpaceError, MapUpdate
from rowfs.service import committer
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused, until, without_journal
from tests.store.helpers import B, ready

TINY_BYTES = 64 * B


class Host:
    """The host below the map: while it is `full`, no transaction can be written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.tries = 0
        apply = BlockMap.apply

        def limited(blockmap: BlockMap, update: MapUpdate) -> None:
            if self.full:
                self.tries += 1
                raise MapNoSpaceError("the host is full")
            apply(blockmap, update)

        monkeypatch.setattr(BlockMap, "apply", limited)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    without_journal(monkeypatch)
    return Host(monkeypatch)


async def test_the_journal_takes_what_the_map_has_no_space_for(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(monkeypatch)
    await fs.disk("vm", 2, "one")
    handle = await fs.open("vm")
    ready(fs.pool.commits.journal)
    host.full = True
    await fs.put(handle, 1, "two")
    await fs.ops.fsync(handle, False)
    assert host.tries == 0
    await fs.put(handle, 0, "three")
    with pytest.raises(NoSpaceError):
        await fs.service.committer.commit(whole=True)
    host.full = False
    await fs.ops.fsync(handle, False)
    log.take()
    assert await fs.after_a_crash().holds("vm", "three", "two")


async def test_a_commit_without_space_is_told_to_who_waits_and_done_later(fs: Fs, host: Host, log: Log) -> None:
    await fs.disk("vm", 3, "one", "two")
    await fs.snapshot("vm", "s")
    handle = await fs.open("vm")
    host.full = True
    for block in range(3):
        await fs.put(handle, block, f"new {block}")
        with refused(ENOSPC):
            await fs.ops.fsync(handle, False)
    with pytest.raises(RowfsError) as caught:
        await fs.ask("snapshot", disk="vm", snapshot="t")
    assert caught.value.errno == ENOSPC
    info = await fs.ask("info")
    assert info["read_only"] is False
    assert any("nothing can be made durable now: the host is full" in line for line in info["warnings"])
    assert await fs.holds("vm", "new 0", "new 1", "new 2")
    host.full = False
    await fs.ops.fsync(handle, False)
    assert not any("durable" in line for line in (await fs.ask("info"))["warnings"])
    assert "nothing can be made durable now" in log.take()
    crashed = fs.after_a_crash()
    assert await crashed.holds("vm", "new 0", "new 1", "new 2")
    assert await crashed.holds(".snapshots/vm/t", "new 0", "new 1", "new 2")
    assert await crashed.holds(".snapshots/vm/s", "one", "two", "")


@pytest.fixture
def never_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit begins unless somebody asks for it."""
    monkeypatch.setattr(committer, "INTERVAL_S", 1000.0)
    monkeypatch.setattr(committer, "RETRY_S", 1000.0)


async def without_space(fs: Fs, host: Host) -> int:
    """A disk that holds "one" and "two", of which the second finds no space to become durable; open as this handle."""
    await fs.disk("vm", 3, "one")
    handle = await fs.open("vm")
    await fs.put(handle, 1, "two")
    host.full = True
    with refused(ENOSPC):
        await fs.ops.fsync(handle, False)
    return handle


async def test_a_commit_without_space_is_tried_again_unasked(
    fs: Fs, host: Host, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "RETRY_S", 0.01)
    await without_space(fs, host)
    await until(lambda: host.tries > 3, "another try")
    host.full = False
    await until(lambda: not fs.pool.commits.needed and not fs.pool.commits.running, "the commit")
    log.take()
    assert await fs.after_a_crash().holds("vm", "one", "two", "")


async def test_who_asks_during_the_wait_for_space_does_not_wait_for_the_next_commit_on_time(
    never_on_time: None, fs: Fs, host: Host, log: Log
) -> None:
    handle = await without_space(fs, host)
    host.full = False
    await fs.put(handle, 2, "three")
    await fs.ops.fsync(handle, False)
    log.take()
    assert await fs.after_a_crash().holds("vm", "one", "two", "three")


async def test_everyone_who_waits_for_a_commit_without_space_is_told(fs: Fs, host: Host, log: Log) -> None:
    await fs.disk("vm", 10)
    handle = await fs.open("vm")
    host.full = True
    told = 0

    async def write_and_sync(block: int) -> None:
        nonlocal told
        await fs.put(handle, block, f"block {block}")
        with refused(ENOSPC):
            await fs.ops.fsync(handle, False)
        told += 1

    async with trio.open_nursery() as nursery:
        for block in range(10):
            nursery.start_soon(write_and_sync, block)
    assert told == 10
    host.full = False
    await fs.ops.fsync(handle, False)
    log.take()


@pytest.fixture
def tiny_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools whose map has very little address space to begin with."""
    original = BlockMap.__init__

    def tiny(self: BlockMap, path: str, read_only: bool = False) -> None:
        original(self, path, read_only, TINY_BYTES)

    monkeypatch.setattr(BlockMap, "__init__", tiny)


async def test_a_map_that_is_full_is_grown_and_nobody_notices(tiny_map: None, fs: Fs) -> None:
    names = [f"{number:0200}" for number in range(300)]
    for start in range(0, len(names), 50):
        for name in names[start : start + 50]:
            await fs.ask("create", disk=name, size_bytes=B)
    assert fs.pool.commits.failed is None
    assert set(await fs.after_a_crash().list("", 1000)) == {".snapshots", *names}
