"""A scrub finds what is damaged, tells who sees it, and an intact copy puts it right."""

from __future__ import annotations

import base64
import random
from errno import EIO
from typing import Any

import pytest

from rowfs.base.errors import BusyError, StorageError, UsageError
from rowfs.persist.datafile import DataFile
from rowfs.service import scrub, sealing
from rowfs.service.scrub import DONE, PAUSED, RUNNING, STOPPED
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused, until
from tests.operations.test_sealing import sealed
from tests.store.helpers import B, address, fill
from tests.store.test_seal import damage

BLOCKS = 40


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be done is done soon."""
    monkeypatch.setattr(sealing, "LOOK_S", 0.002)
    monkeypatch.setattr(sealing, "REST", 1)
    monkeypatch.setattr(scrub, "REST", 1)


async def made(fs: Fs) -> bytes:
    """The disk `vm` and its snapshot s hold what is returned; `twin` is a clone, and `vm` has its first block anew."""
    await fs.disk("vm", BLOCKS, *(f"{n}" for n in range(BLOCKS)))
    await fs.ask("snapshot", disk="vm", snapshot="s")
    await fs.ask("clone", disk="vm", snapshot="s", targets=["twin"])
    await sealed(fs)
    image = await fs.bytes("vm")
    await fs.write("vm", 0, "new")
    return image


def place(fs: Fs, block: int) -> int:
    """Where a block of the snapshot lies."""
    return address(fs.pool, fs.pool.catalog.disk("vm").chain["s"], block)


async def scrubbed(fs: Fs, **params: Any) -> dict[str, Any]:
    """The answer when it is done; what is damaged are the caller's items."""
    fs.caller.items.clear()
    answer: dict[str, Any] = await fs.ask("scrub", wait=True, **params)
    return answer


async def repair(fs: Fs, number: int, block: bytes) -> bool:
    """Whether the block took this."""
    return bool((await fs.ask("repair", address=number, data=base64.b64encode(block).decode()))["repaired"])


async def test_nothing_is_found_where_nothing_is_damaged(fs: Fs) -> None:
    answer = await scrubbed(fs)
    assert (answer["state"], answer["total_bytes"]) == (DONE, 0)
    await made(fs)
    answer = await scrubbed(fs)
    assert (answer["state"], answer["scrubbed_bytes"], answer["total_bytes"]) == (DONE, BLOCKS * B, BLOCKS * B)
    assert (answer["damaged_bytes"], fs.caller.items) == (0, [])
    assert answer["started"] <= answer["ended"]


async def test_every_damaged_block_is_found_seen_and_put_right(fs: Fs, log: Log) -> None:
    image = await made(fs)
    damaged = sorted(random.Random(1).sample(range(1, BLOCKS), 12))
    for block in [0, *damaged]:
        damage(fs.home, place(fs, block), byte=block * 97)
    answer = await scrubbed(fs)
    assert (answer["state"], answer["damaged_bytes"]) == (DONE, 13 * B)
    assert [item["address"] for item in fs.caller.items] == sorted(place(fs, block) for block in [0, *damaged])
    seen = {item["address"]: item["seen_by"] for item in fs.caller.items}
    for block in [0, *damaged]:
        who = [("twin", None), *([] if block == 0 else [("vm", None)]), ("vm", "s")]
        assert [(each["disk"], each["snapshot"]) for each in seen[place(fs, block)]] == who
        assert {each["offset_bytes"] for each in seen[place(fs, block)]} == {block * B}
    listed = {disk["name"]: disk for disk in await fs.ask("list")}
    assert (listed["vm"]["damaged_bytes"], listed["twin"]["damaged_bytes"]) == (12 * B, 13 * B)
    assert listed["vm"]["snapshots"][0]["damaged_bytes"] == 13 * B
    for block in [0, *damaged]:
        assert not await repair(fs, place(fs, block), fill("wrong"))
        assert await repair(fs, place(fs, block), image[block * B : (block + 1) * B])
        assert not await repair(fs, 1 << 40, image[:B])
    answer = await scrubbed(fs)
    assert (answer["state"], answer["damaged_bytes"], fs.caller.items) == (DONE, 0, [])
    assert await fs.bytes("twin") == await fs.bytes(".snapshots/vm/s") == image
    log._taken += 13
    found = fs.after_a_crash()
    assert await found.bytes("twin") == image, "what was put right is durable"


async def test_what_is_in_memory_alone_does_not_hide_what_the_disk_has(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        DataFile, "read_disk", lambda data, spans, buffer: asked.append(spans) or data.read(spans, buffer)
    )
    await made(fs)
    await scrubbed(fs)
    assert asked


async def test_a_scrub_pauses_goes_on_and_stops(fs: Fs) -> None:
    await made(fs)
    with pytest.raises(BusyError, match="no scrub is under way"):
        await fs.ask("scrub", action="pause")
    answer = await fs.ask("scrub", rate=1)  # one stretch, and then a rest of hours
    assert (answer["state"], answer["rate_bytes_s"]) == (RUNNING, 1)
    await until(lambda: fs.service.committer.scrub.done_blocks, "its first step")
    assert (await fs.ask("scrub", action="status"))["state"] == RUNNING
    assert (await fs.ask("scrub", action="pause"))["state"] == PAUSED
    assert (await scrubbed(fs, action="status"))["state"] == PAUSED
    answer = await scrubbed(fs, action="resume", rate=1 << 40)
    assert (answer["state"], answer["scrubbed_bytes"]) == (DONE, BLOCKS * B)
    await fs.ask("scrub", rate=1)
    assert (await fs.ask("scrub", action="stop"))["state"] == STOPPED
    with pytest.raises(BusyError):
        await fs.ask("scrub", action="resume")
    assert (await scrubbed(fs))["state"] == DONE
    for wrong in ({"action": "jump"}, {"rate": 0}):
        with pytest.raises(UsageError):
            await fs.ask("scrub", **wrong)
    with pytest.raises(UsageError, match="not in base64"):
        await fs.ask("repair", address=1, data="?")
    with pytest.raises(UsageError, match="4096 bytes, not 1"):
        await fs.ask("repair", address=1, data="AA==")


async def test_what_a_read_found_is_told_without_a_scrub(fs: Fs, log: Log) -> None:
    await made(fs)
    damage(fs.home, place(fs, 3))
    with refused(EIO):
        await fs.bytes("twin")
    assert (await scrubbed(fs, action="status"))["state"] == "never"
    (item,) = fs.caller.items
    assert [(each["disk"], each["snapshot"]) for each in item["seen_by"]] == [("twin", None), ("vm", None), ("vm", "s")]
    assert "is not what was sealed" in log.take()


async def test_a_disk_that_cannot_be_read_ends_the_scrub_and_says_so(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(fs)

    def fails(*_: object) -> None:
        raise StorageError("read of the data file failed: Input/output error")

    monkeypatch.setattr(DataFile, "read_disk", fails)
    assert (await scrubbed(fs))["state"] == STOPPED
    assert log.take() == "the scrub ended: read of the data file failed: Input/output error"
