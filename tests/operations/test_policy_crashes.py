"""The machine stops anywhere in a run of a policy: the run is neither lost nor done twice.

A run lets others work in between, and anybody's commit may take along what it has done so far. So at each such place
all of it is made durable and the machine stops; and it stops there without that. `tools/policykills.py` kills daemons.
"""

from __future__ import annotations

from typing import Any

import pytest

from rowfs.rules.times import HOUR_NS, MINUTE_NS
from rowfs.service.slices import Slices
from tests.operations.helpers import FakeKernel, Fs
from tests.operations.test_policies import Days, hourly
from tests.store.helpers import findings

DISKS = ("vm", "vm0", "vm1")


class Stops:
    """At each place where others may work: what is left if the machine stops there."""

    def __init__(self, days: Days, durable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.days, self.durable = days, durable
        self.left: list[Days] = []
        self._commit = days.fs.service.committer.commit
        flush = FakeKernel.flush

        async def rest(slices: Slices) -> None:
            self.stop()

        async def flushed(kernel: FakeKernel, disk: Any) -> None:
            self.stop()
            await flush(kernel, disk)

        async def commit(whole: bool = False) -> None:
            self.stop()
            await self._commit(whole)
            self.stop()

        monkeypatch.setattr(Slices, "rest", rest)
        monkeypatch.setattr(FakeKernel, "flush", flushed)
        monkeypatch.setattr(days.fs.service.committer, "commit", commit)

    def stop(self) -> None:
        """Here, and it goes on."""
        if self.durable:
            self.days.fs.pool.commit()
        self.left.append(Days.after_a_crash(self.days))


def chains(days: Days) -> dict[str, list[str]]:
    return {name: days.chain(name) for name in DISKS}


async def groups_of(days: Days) -> list[tuple[str, bool, list[tuple[str, str]]]]:
    """Their names, whether they are degraded, and their snapshots."""
    return [
        (group["name"], group["degraded"], [(member["disk"], member["name"]) for member in group["members"]])
        for group in await days.fs.ask("group_list")
    ]


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("durable", [False, True])
async def test_a_run_is_neither_lost_nor_done_twice_wherever_the_machine_stops(
    fs: Fs, monkeypatch: pytest.MonkeyPatch, group: bool, durable: bool
) -> None:
    for name in DISKS[1:]:
        await fs.disk(name, 2, name)
    days = await hourly(fs, group=group, keep_last=2)
    await days.later(HOUR_NS, 3)
    before = chains(days)
    running = Days.after_a_crash(days)
    with monkeypatch.context() as patched:
        stops = Stops(running, durable, patched)
        await running.later(HOUR_NS)
    wanted, groups = chains(running), await groups_of(running)
    assert bool(groups) == group
    assert all(len(found) == 2 and found[:1] == before[name][1:] for name, found in wanted.items())
    assert len(stops.left) > (5 if group else 10)
    begun = set()
    for left in stops.left:
        begun.add(sum(left.chain(name) != before[name] for name in DISKS))
        assert findings(left.fs.pool) == []
        for span_ns in (0, MINUTE_NS, MINUTE_NS):  # what was cut off is tried again a minute later
            await left.later(span_ns)
        assert chains(left) == wanted
        assert await groups_of(left) == groups
        shown = await left.show()
        assert (shown["failures"], shown["running"], shown["last"]["failures"]) == (0, False, [])
        left.fs.home.finish()
    assert not durable or begun == ({0, 3} if group else {0, 1, 2, 3}), "it never stopped in the middle"
