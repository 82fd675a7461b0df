"""Events over the socket: who did what by which way, what failed, and waiting for the next."""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import Any

import pytest
import trio

from rowfs.base.actor import Actor
from rowfs.control import events as control_module
from rowfs.store import events as events_module
from tests.operations.helpers import Context, Fs, refused
from tests.operations.test_methods import fails

EVENT = {
    "number",
    "time",
    "verb",
    "failed",
    "disk",
    "snapshot",
    "group",
    "size_bytes",
    "uid",
    "pid",
    "command",
    "text",
}


async def events(fs: Fs, **params: Any) -> list[dict[str, Any]]:
    """What is answered; all of it is durable."""
    await fs.service.committer.commit()
    fs.caller.items.clear()
    answer = await fs.ask("events", **params)
    assert not fs.caller.items or answer["last"] == fs.caller.items[-1]["number"]
    return list(fs.caller.items)


async def test_an_act_of_plain_tools_is_told_with_who_did_it(fs: Fs) -> None:
    fs.ctx = Context(uid=7, gid=7, pid=1)
    await fs.disk("vm", 4)
    await fs.snapshot("vm", "s")
    await fs.rename("vm", "vm2")
    await fs.unlink(".snapshots/vm2/s")
    await fs.unlink("vm2")
    found = await events(fs)
    assert [event["verb"] for event in found] == ["create", "resize", "snapshot", "rename", "delete", "delete"]
    assert {(event["uid"], event["pid"]) for event in found} == {(7, 1)}
    assert found[0]["command"]  # process 1 has a name
    assert found[0].keys() == EVENT
    assert (found[2]["disk"], found[2]["snapshot"], found[2]["size_bytes"]) == ("vm", "s", 4 * 4096)


async def test_an_act_over_the_socket_is_told_with_its_peer(fs: Fs) -> None:
    fs.caller.uid, fs.caller.pid = 3, 99999999
    await fs.ask("create", disk="vm", size_bytes=4096)
    (found,) = await events(fs)
    assert (found["uid"], found["pid"], found["command"], found["verb"]) == (3, 99999999, "", "create")


async def test_a_request_of_our_own_is_told_as_that_of_who_asked_for_it(fs: Fs) -> None:
    fs.kernel.own_threads[1] = Actor(5, 6, "rowfs")
    await fs.disk("vm", 1)
    found = await events(fs)
    assert {(event["uid"], event["pid"]) for event in found} == {(5, 6)}


async def test_what_is_refused_is_told_with_the_reason(fs: Fs) -> None:
    await fs.disk("vm", 1)
    await fs.snapshot("vm", "s")
    await fs.ask("lock", disk="vm", snapshots=["s"])
    after = (await events(fs))[-1]["number"]
    await fails(fs, EPERM, "delete", disk="vm", snapshots=["s"])
    with refused(EPERM):
        await fs.unlink(".snapshots/vm/s")
    await fails(fs, EINVAL, "create", disk="a/b", size_bytes=0)  # wrong usage is nobody's event
    await fs.ask("create", disk="next", size_bytes=0)  # failures become durable with the next commit
    socket, plain, _ = await events(fs, after=after)
    assert (socket["verb"], socket["failed"], socket["disk"]) == ("delete", True, "vm")
    assert "is kept by a hold" in socket["text"] and "vm@s is kept by a hold" in plain["text"]
    assert plain["uid"] == 0 and plain["failed"]


async def test_events_are_told_after_a_number_and_since_a_time(fs: Fs) -> None:
    for name in "abc":
        await fs.ask("create", disk=name, size_bytes=0)
    found = await events(fs)
    assert [event["number"] for event in found] == [1, 2, 3]
    assert [event["disk"] for event in await events(fs, after=2)] == ["c"]
    assert await events(fs, after=3) == []
    assert [event["disk"] for event in await events(fs, since="1h")] == list("abc")
    assert await events(fs, since="2199-01-01") == []
    for wrong in ({"after": -1}, {"after": 1 << 32}, {"since": "soon"}, {"wait_s": 31}, {"wait_s": float("nan")}):
        await fails(fs, EINVAL, "events", **wrong)


@pytest.mark.parametrize("ends", [False, True])
async def test_who_waits_hears_of_the_next_event_or_of_the_end(fs: Fs, ends: bool) -> None:
    await fs.ask("create", disk="a", size_bytes=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_soon, fs, ends)
        answer = await fs.ask("events", after=1, wait_s=15)
    assert [event["disk"] for event in fs.caller.items] == ([] if ends else ["b"])
    assert (answer["last"], answer["ending"]) == (1 if ends else 2, ends)


async def _soon(fs: Fs, ends: bool) -> None:
    await trio.sleep(0.01)
    fs.service.ending = ends
    if not ends:
        await fs.ask("create", disk="b", size_bytes=0)


async def test_e2_a_watcher_misses_nothing_that_it_does_not_hear_of(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring turns while a slow client takes what it asked for, and between two questions."""
    monkeypatch.setattr(events_module, "EVENTS_KEPT", 8)
    monkeypatch.setattr(control_module, "PART_EVENTS", 3)
    made = 0

    async def make(number: int) -> None:
        nonlocal made
        for _ in range(number):
            fs.pool.catalog.events.add("test", text=str(made))
            made += 1
        fs.pool.catalog.touch_pool()
        await fs.service.committer.commit()

    heard: list[int] = []
    bursts = [1, 0, 20, 2, 5, 0, 0, 40, 3]

    async def part(items: list[dict[str, Any]]) -> None:
        heard.extend(event["number"] for event in items)
        if bursts:
            await make(bursts.pop())

    monkeypatch.setattr(fs.caller, "part", part)
    await make(5)
    after, lost = 0, 0
    while bursts or after < made:
        answer = await fs.ask("events", after=after)
        after, lost = answer["last"], lost + answer["lost"]
        if bursts:
            await make(bursts.pop())
    assert heard == sorted(set(heard)) and heard[-1] == made
    assert len(heard) + lost == made and lost > 0
