"""Sealing beside requests, and what is seen of a sealed block that is damaged."""

from __future__ import annotations

from errno import EIO

import numpy as np
import pytest
import trio

from rowfs.base.errors import BlockDamagedError, StorageError
from rowfs.service import sealing
from rowfs.store.sealing import Sealer
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, GatedData, refused, until
from tests.store.helpers import B, address, fill
from tests.store.test_seal import damage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be done is done soon."""
    monkeypatch.setattr(sealing, "LOOK_S", 0.002)
    monkeypatch.setattr(sealing, "REST", 1)
    monkeypatch.setattr(sealing, "FAULT_REST_S", 0.002)


async def sealed(fs: Fs) -> None:
    """All that can be sealed is."""
    await until(lambda: not fs.service.committer.sealing.active, "the sealer")


async def frozen_disk(fs: Fs) -> None:
    """The disk `vm` holds a, b and c, as its snapshot s does."""
    await fs.disk("vm", 3, "a", "b", "c")
    await fs.ask("snapshot", disk="vm", snapshot="s")
    await sealed(fs)


def place(fs: Fs, block: int) -> int:
    """Where a block of the disk `vm` lies."""
    return address(fs.pool, fs.pool.catalog.disk("vm"), block)


async def test_what_a_snapshot_holds_is_sealed_in_the_background(fs: Fs) -> None:
    await fs.disk("vm", 3, "a", "b", "c")
    before = await fs.ask("info")
    assert (before["sealed_bytes"], before["sealing"], before["damaged_bytes"]) == (0, False, 0)
    await fs.ask("snapshot", disk="vm", snapshot="s")
    await sealed(fs)
    after = await fs.ask("info")
    assert (after["sealed_bytes"], after["sealing"]) == (3 * B, False)
    assert await fs.holds("vm", "a", "b", "c")
    await fs.service.committer.commit(whole=True)
    fs.service.committer.kick(whole=True)
    await until(lambda: not fs.pool.io.sums.changed and fs.pool.commits.running is None, "a commit")
    assert fs.after_a_crash().pool.io.sums.blocks == 3


async def test_sealing_goes_on_after_a_crash(fs: Fs) -> None:
    await fs.disk("vm", 3, "a", "b", "c")
    await fs.ask("snapshot", disk="vm", snapshot="s")
    found = fs.after_a_crash()
    found.pool.sealer.run()
    assert found.pool.io.sums.blocks == 3


async def test_damage_is_an_error_an_event_a_line_and_a_state(fs: Fs, log: Log) -> None:
    await frozen_disk(fs)
    damage(fs.home, place(fs, 1))
    at = place(fs, 1)
    handle = await fs.open("vm")
    for _ in range(3):  # it is told once
        with refused(EIO):
            await fs.ops.read(handle, 0, 3 * B)
        with refused(EIO):
            await fs.ops.read(handle, B, B)
    assert await fs.ops.read(handle, 0, B) == fill("a")
    assert await fs.ops.read(handle, 2 * B, B) == fill("c")
    what = f"the block at address {at} is not what was sealed: the data file is damaged there"
    assert log.take() == f"vm: {what}"
    (vm,) = await fs.ask("list")
    assert (vm["damaged_bytes"], vm["snapshots"][0]["damaged_bytes"]) == (B, 0)  # the snapshot was not read yet
    with refused(EIO):
        await fs.bytes(".snapshots/vm/s")
    (vm,) = await fs.ask("list")
    assert (vm["damaged_bytes"], vm["snapshots"][0]["damaged_bytes"]) == (B, B)
    info = await fs.ask("info")
    assert info["damaged_bytes"] == B
    assert info["warnings"] == ["4.0K of sealed data are damaged: rowfs scrub --status tells where"]
    await fs.service.committer.commit()
    fs.service.committer.kick(whole=True)
    await until(lambda: not fs.pool.catalog.events.unsaved and fs.pool.commits.running is None, "a commit")
    fs.caller.items.clear()
    await fs.ask("events")
    assert [(e["disk"], e["text"], e["uid"]) for e in fs.caller.items if e["verb"] == "damage"] == [("vm", what, None)]


async def test_a_block_that_is_written_anew_is_no_damage_any_more(fs: Fs, log: Log) -> None:
    await frozen_disk(fs)
    damage(fs.home, place(fs, 1))
    with refused(EIO):
        await fs.bytes("vm")
    handle = await fs.open("vm")
    with refused(EIO):  # the rest of it would have to be read
        await fs.ops.write(handle, B + 3, b"x")
    await fs.put(handle, 1, "B")
    assert await fs.holds("vm", "a", "B", "c")
    (vm,) = await fs.ask("list")
    assert vm["damaged_bytes"] == 0
    await fs.close(handle)
    await fs.ask("delete", disk="vm", snapshots=["s"])
    await fs.reclaimed()
    assert (await fs.ask("info"))["damaged_bytes"] == 0
    assert "is not what was sealed" in log.take()


@pytest.mark.pool(open_data=GatedData)
async def test_a_cold_read_is_verified_too(fs: Fs, log: Log) -> None:
    await frozen_disk(fs)
    damage(fs.home, place(fs, 1))
    fs.pool.data.cold = True  # type: ignore[attr-defined]
    with refused(EIO):
        await fs.bytes("vm")
    handle = await fs.open("vm")
    assert await fs.ops.read(handle, 2 * B, B) == fill("c")
    await fs.close(handle)
    assert "is not what was sealed" in log.take()


@pytest.mark.pool(open_data=GatedData)
async def test_what_is_written_in_place_while_it_is_read_is_no_damage(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    await frozen_disk(fs)
    await fs.ask("delete", disk="vm", snapshots=["s"], wait=True)
    await fs.service.committer.commit(whole=True)
    pool, disk, read = fs.pool, fs.pool.catalog.disk("vm"), fs.pool.data.read
    late, unsealed = [read], []

    def write() -> None:
        unsealed.append(pool.io.unseal(disk, B, B))
        pool.commit()
        pool.write(disk, B, fill("B"))

    def read_late(spans: object, buffer: memoryview) -> None:
        if late:
            late.clear()
            trio.from_thread.run_sync(write)
        read(spans, buffer)  # type: ignore[arg-type]

    fs.pool.data.cold = True  # type: ignore[attr-defined]
    before = place(fs, 1)
    monkeypatch.setattr(pool.data, "read", read_late)
    assert await fs.bytes("vm") == fill("a") + fill("B") + fill("c")
    assert unsealed == [1] and place(fs, 1) == before and len(pool.damage) == 0


async def test_zeros_that_damage_made_are_not_trimmed(fs: Fs, log: Log) -> None:
    await frozen_disk(fs)
    with open(fs.home.data_path, "r+b") as file:
        file.seek(place(fs, 1) * B)
        file.write(bytes(B))
    with pytest.raises(BlockDamagedError):
        await fs.ask("trim", disk="vm")
    assert place(fs, 1)
    assert "is not what was sealed" in log.take()


async def test_a_full_pool_takes_what_goes_over_sealed_blocks(fs: Fs) -> None:
    await frozen_disk(fs)
    await fs.ask("delete", disk="vm", snapshots=["s"])
    await fs.reclaimed()
    fs.pool.space.drop_all()
    fs.pool.space.capacity_blocks = fs.pool.space.allocated_blocks
    await fs.write("vm", 1, "B")
    assert await fs.holds("vm", "a", "B", "c")
    fs.pool.space.capacity_blocks = None


async def test_what_cannot_be_read_is_not_sealed_and_holds_up_nothing_else(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    sum_up, failed = Sealer.sum_up, []

    def fails(sealer: Sealer, piece: object) -> np.ndarray:
        if not failed:
            failed.append(piece)
            raise StorageError("read of the data file failed: Input/output error")
        return sum_up(sealer, piece)  # type: ignore[arg-type]

    monkeypatch.setattr(Sealer, "sum_up", fails)
    await fs.disk("vm", 1, "a")
    await fs.disk("other", 1, "b")
    await fs.ask("snapshot", disk="vm", snapshot="s")
    await fs.ask("snapshot", disk="other", snapshot="s")
    await sealed(fs)
    assert fs.pool.io.sums.blocks == 2, "it was tried again"
    assert log.take() == "blocks were not sealed: read of the data file failed: Input/output error"
    assert await fs.holds("vm", "a")
