"""After a snapshot, what is written goes to the host's disk ahead of the next one."""

from __future__ import annotations

import pytest
import trio

from rowfs.base.errors import StorageError
from rowfs.service import ahead
from tests.operations.helpers import Fs, until


@pytest.fixture
def calls(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the host was asked to write back."""
    monkeypatch.setattr(ahead, "EVERY_S", 0.005)
    found: list[float] = []
    write_back = fs.pool.data.write_back

    def counted() -> None:
        write_back()
        found.append(trio.from_thread.run_sync(trio.current_time))

    monkeypatch.setattr(fs.pool.data, "write_back", counted)
    return found


async def test_nothing_is_written_back_ahead_without_snapshots(fs: Fs, calls: list[float]) -> None:
    await fs.disk("vm", 4, "one")
    await trio.sleep(0.05)
    assert not calls


async def test_writes_after_a_snapshot_are_written_back_until_none_is_expected(
    fs: Fs, calls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 4, "one")
    await fs.snapshot("vm", "s")
    await until(lambda: calls, "the first")
    await trio.sleep(0.05)
    count = len(calls)
    await fs.write("vm", 1, "two")
    await until(lambda: len(calls) > count, "the next")
    monkeypatch.setattr(ahead, "EXPECTED_S", 0)
    await fs.snapshot("vm", "t")
    await trio.sleep(0.05)
    count = len(calls)
    await fs.write("vm", 2, "three")
    await trio.sleep(0.05)
    assert len(calls) == count


async def test_a_host_that_cannot_is_left_alone(fs: Fs, calls: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        calls.append(0.0)
        raise StorageError("no")

    monkeypatch.setattr(fs.pool.data, "write_back", fails)
    await fs.disk("vm", 4, "one")
    await fs.snapshot("vm", "s")
    await until(lambda: calls, "the only one")
    for number in range(3):
        await fs.write("vm", number, f"{number}")
        await trio.sleep(0.02)
    assert calls == [0.0]
    assert await fs.holds(".snapshots/vm/s", "one", "", "", "")
