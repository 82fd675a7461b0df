"""After a snapshot, what is written goes to the host's disk ahead of the next one."""

from __future__ import annotations

import os

import pytest
import trio

from rowfs.base.errors import StorageError
from rowfs.service import ahead
from rowfs.store.model import Disk
from tests.operations.helpers import Fs, until


class Calls(list[str]):
    """What became of each time that the host was asked to write back."""

    async def at_rest(self) -> int:
        """How many there are when none is under way, and none was for ten looks."""
        await until(lambda: "asked" not in self, "the host")
        await trio.sleep(10 * ahead.EVERY_S)
        await until(lambda: "asked" not in self, "the host")
        return len(self)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Filled by the tests' host."""
    monkeypatch.setattr(ahead, "EVERY_S", 0.005)
    found = Calls()
    write_back = ahead.Ahead._write_back

    async def noted(self: ahead.Ahead) -> bool:
        found.append("asked")
        done = await write_back(self)
        found[-1] = "done" if done else "failed"
        return done

    monkeypatch.setattr(ahead.Ahead, "_write_back", noted)
    return found


async def test_nothing_is_written_back_ahead_without_snapshots(fs: Fs, calls: Calls) -> None:
    await fs.disk("vm", 4, "one")
    assert await calls.at_rest() == 0


async def test_writes_after_a_snapshot_are_written_back_until_none_is_expected(
    fs: Fs, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 4, "one")
    await fs.snapshot("vm", "s")
    await until(lambda: calls, "the first")
    count = await calls.at_rest()
    await fs.write("vm", 1, "two")
    await until(lambda: len(calls) > count, "the next")
    monkeypatch.setattr(ahead, "EXPECTED_S", 0)
    await fs.snapshot("vm", "t")
    count = await calls.at_rest()
    await fs.write("vm", 2, "three")
    assert await calls.at_rest() == count
    assert set(calls) == {"done"}


async def test_a_host_that_cannot_is_left_alone(fs: Fs, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise StorageError("no")

    monkeypatch.setattr(fs.pool.data, "write_back", fails)
    await fs.disk("vm", 4, "one")
    await fs.snapshot("vm", "s")
    await until(lambda: calls, "the only one")
    for number in range(3):
        await fs.write("vm", number, f"{number}")
        assert await calls.at_rest() == 1
    assert calls == ["failed"]
    assert await fs.holds(".snapshots/vm/s", "one", "", "", "")


async def test_what_linux_holds_of_a_disk_is_asked_for_while_somebody_may_write_to_it(
    fs: Fs, calls: list[float]
) -> None:
    asked: list[str] = []

    async def hand_over(disk: Disk) -> None:
        asked.append(disk.name)
        await trio.lowlevel.checkpoint()

    fs.service.committer.ahead.hand_over = hand_over
    for name in ("vm", "read", "other"):
        await fs.disk(name, 4, "one")
    writer, reader = await fs.open("vm", os.O_WRONLY), await fs.open("read", os.O_RDONLY)
    other = await fs.open("other", os.O_WRONLY)  # of which there is no snapshot
    for name in ("vm", "read"):
        await fs.snapshot(name, "s")
    await until(lambda: len(asked) > 2, "the third time")
    await fs.service.committer.ahead.rest()
    count = len(asked)
    await trio.sleep(0.05)
    assert len(asked) == count, "before unmounting nothing may be open"
    await fs.close(writer)
    await fs.snapshot("vm", "t")
    await trio.sleep(0.05)
    assert asked == ["vm"] * count, "nobody can write to it any more"
    for handle in (reader, other):
        await fs.close(handle)


async def test_what_linux_does_not_hand_over_ahead_is_no_fault(fs: Fs) -> None:
    asked: list[str] = []

    async def hand_over(disk: Disk) -> None:
        asked.append(disk.name)
        raise RuntimeError("can't start new thread")

    fs.service.committer.ahead.hand_over = hand_over
    await fs.disk("vm", 4, "one")
    writer = await fs.open("vm", os.O_WRONLY)
    await fs.snapshot("vm", "s")
    await until(lambda: len(asked) > 2, "the third time")
    assert fs.pool.commits.failed is None
    await fs.close(writer)
