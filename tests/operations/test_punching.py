"""Giving freed blocks back to the host: in idle time, beside requests only what presses."""

from __future__ import annotations

import os

import pytest
import trio

from rowfs.base.units import MIB
from rowfs.persist import space as space_module
from rowfs.service import punching
from rowfs.store import punching as store_punching
from tests.operations.helpers import Fs, until
from tests.store.helpers import B

BLOCKS = 1024  # 4 MiB


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle time begins soon."""
    monkeypatch.setattr(punching, "QUIET_S", 0.05)
    monkeypatch.setattr(punching, "LOOK_S", 0.005)


async def delete_much(fs: Fs) -> None:
    """A disk of 4 MiB of data is deleted, and its blocks are free again."""
    await fs.disk("vm", BLOCKS)
    handle = await fs.open("vm")
    for start in range(0, BLOCKS * B, MIB):
        await fs.ops.write(handle, start, os.urandom(MIB))
    await fs.close(handle)
    await fs.ask("delete", disk="vm")
    await fs.reclaimed()


async def test_what_was_freed_goes_back_to_the_host_in_idle_time(fs: Fs) -> None:
    await delete_much(fs)
    await until(lambda: not fs.pool.puncher.pending, "the host to have its blocks back")
    assert fs.pool.puncher.punched_blocks >= BLOCKS
    assert fs.pool.data.used_bytes() < MIB


async def test_nothing_is_punched_while_there_are_requests(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "QUIET_S", 3600)
    await delete_much(fs)
    await trio.sleep(0.05)  # ten looks
    assert fs.pool.puncher.punched_blocks == 0
    assert fs.pool.space.unpunched.blocks == BLOCKS


async def test_what_was_freed_takes_new_data_before_it_is_punched(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "QUIET_S", 3600)
    monkeypatch.setattr(space_module, "ROOMY_BLOCKS", 1)
    await delete_much(fs)
    used, size = fs.pool.data.used_bytes(), fs.pool.data.size_bytes()
    await fs.disk("other", BLOCKS)
    handle = await fs.open("other")
    await fs.ops.write(handle, 0, os.urandom(MIB))
    assert (fs.pool.data.used_bytes(), fs.pool.data.size_bytes()) == (used, size)


@pytest.mark.parametrize("why", ["much", "short"])
async def test_long_runs_are_punched_beside_requests_where_it_presses(
    fs: Fs, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(punching, "QUIET_S", 3600)
    if why == "much":
        monkeypatch.setattr(space_module, "UNPUNCHED_BLOCKS", 0)
    else:
        monkeypatch.setattr(store_punching, "SHORT_BYTES", 1 << 60)
    await delete_much(fs)
    await until(lambda: fs.pool.puncher.punched_blocks >= BLOCKS, "long runs to be punched")


async def test_what_an_earlier_mount_left_goes_back_as_well(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "QUIET_S", 3600)
    await delete_much(fs)
    pool = fs.after_a_crash().pool
    used = pool.data.used_bytes()
    assert used > BLOCKS * B
    pool.puncher.run()
    assert pool.data.used_bytes() <= used - BLOCKS * B
