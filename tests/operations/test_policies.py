"""Policies carried out: days in milliseconds, since the clock is ours."""

from __future__ import annotations

import sys
from errno import EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rowfs.base.errors import RowfsError, StorageError
from rowfs.host import hooks
from rowfs.rules.times import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS
from rowfs.service import policies, policyrun
from rowfs.service.policies import PolicyRunner
from rowfs.store import groups as groups_module
from rowfs.store.pool import Pool
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused, until
from tests.operations.test_methods import fails
from tests.store.helpers import B

NOON_NS = 1_800_000_000 * SECOND_NS // HOUR_NS * HOUR_NS  # some hour of 2027


class Days:
    """A clock that a test moves, and what the daemon does of itself meanwhile."""

    def __init__(self, fs: Fs, at_ns: int = NOON_NS) -> None:
        self.fs = fs
        self.now_ns = at_ns
        self.runner: PolicyRunner = fs.methods.policies
        fs.service.clock.now_ns = lambda: self.now_ns

    @classmethod
    def after_a_crash(cls, days: Days) -> Days:
        """What would go on if the machine stopped now; without the tasks that commit."""
        after = cls(days.fs.after_a_crash(), days.now_ns)

        async def commit(whole: bool = False) -> None:
            after.fs.pool.commit()

        after.fs.service.committer.commit = commit  # type: ignore[method-assign]
        return after

    async def later(self, span_ns: int, times: int = 1) -> None:
        """The clock goes on, and whoever looks at it does what is due; again and again."""
        for _ in range(times):
            self.now_ns += span_ns
            await self.runner.look()
            await self.runner.work()

    def chain(self, disk: str = "vm") -> list[str]:
        """The snapshots of a disk, oldest first."""
        return list(self.fs.pool.catalog.chain(disk).chain)

    async def explained(self, disk: str = "vm") -> dict[str, str]:
        """What becomes of each."""
        return {item["snapshot"]: item["text"] for item in await self.fs.ask("policy_explain", disk=disk)}

    async def show(self, name: str = "hourly") -> dict[str, Any]:
        """All that is known of a policy."""
        found: dict[str, Any] = await self.fs.ask("policy_show", policy=name)
        return found


async def hourly(fs: Fs, **options: Any) -> Days:
    """A disk, and a policy of each hour."""
    days = Days(fs)
    if "vm" not in fs.pool.catalog.disks:
        await fs.disk("vm", 2)
    await fs.ask("policy_create", **({"policy": "hourly", "every": "1h", "disks": ["vm*"]} | options))
    return days


async def test_a_policy_takes_what_is_due_and_lets_go_what_no_rule_keeps(fs: Fs) -> None:
    days = await hourly(fs, keep_last=3)
    await fs.snapshot("vm", "mine")
    await days.later(MINUTE_NS)
    assert days.chain() == ["mine"]
    await days.later(HOUR_NS, 5)
    assert len(days.chain()) == 4 and days.chain()[0] == "mine"
    assert days.chain()[-1].startswith("hourly-2027")
    (disk,) = await fs.ask("list")
    assert {item["kind"] for item in disk["snapshots"]} == {"user", "policy"}
    shown = await days.show()
    assert (shown["last"]["taken"], shown["last"]["expired"], shown["snapshots"]) == (1, 1, 3)
    events = fs.pool.catalog.events
    assert {item.command for item in events.read(0) if item.snapshot == days.chain()[-1]} == {"policy hourly"}


async def test_explain_agrees_with_what_happens_and_preview_changes_nothing(fs: Fs) -> None:
    days = await hourly(fs, keep_last=2, keep_daily=3)
    await days.later(HOUR_NS, 60)
    before = days.chain()
    told = await days.explained()
    going = [name for name, text in told.items() if text.startswith("goes")]
    preview = await fs.ask("policy_preview", policy="hourly", disk="vm")
    assert len(preview["runs"]) == 30 and days.chain() == before and going == []
    for run in preview["runs"]:
        await days.later(HOUR_NS)
        assert days.chain()[-1] == run["takes"] and len(days.chain()) == run["kept"]
        assert not set(run["goes"]) & set(days.chain())
    first = await fs.ask("policy_create", policy="new", every="1d", keep_last=2, disks=["*"], preview=True)
    assert [len(first["runs"]), len(first["kept"])] == [30, 2]
    await fails(fs, ENOENT, "policy_show", policy="new")


async def test_what_was_missed_while_unmounted_is_made_up_once(fs: Fs) -> None:
    days = await hourly(fs)
    await days.later(HOUR_NS, 2)
    after = Days.after_a_crash(days)
    assert after.chain() == days.chain()
    await after.later(150 * HOUR_NS)
    assert len(after.chain()) == 3
    await after.later(MINUTE_NS)
    assert len(after.chain()) == 3


async def test_m9_a_run_that_ended_with_its_daemon_is_tried_again_and_takes_nothing_twice(fs: Fs) -> None:
    """The snapshot of the first disk is durable, with the record that says that a run is going on."""
    await fs.disk("vm0")
    days = await hourly(fs)

    async def crashed() -> None:
        await fs.service.committer.commit()
        survivors.append(Days.after_a_crash(days))

    survivors: list[Days] = []
    take = fs.service.take

    async def take_and_crash(disk: Any, *args: Any, **options: Any) -> Any:
        if disk.name == "vm0":
            await crashed()
        return await take(disk, *args, **options)

    fs.service.take = take_and_crash  # type: ignore[method-assign]
    await days.later(HOUR_NS)
    (after,) = survivors
    assert (len(after.chain("vm")), len(after.chain("vm0"))) == (1, 0)
    await after.later(0)
    assert (await after.show())["failures"] == 1
    assert "ended with its daemon" in (await after.fs.ask("info"))["warnings"][0]
    await after.later(MINUTE_NS)
    assert (after.chain("vm"), len(after.chain("vm0"))) == (days.chain("vm"), 1)
    assert (await after.show())["failures"] == 0


async def test_m8_a_start_while_the_run_before_goes_on_is_skipped_and_noted(fs: Fs) -> None:
    days = await hourly(fs)
    go_on = trio.Event()
    fs.kernel.meanwhile = go_on.wait
    days.now_ns += HOUR_NS
    await days.runner.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(days.runner.work)
        await until(lambda: ("flush", "vm") in fs.kernel.asked, "the run")
        days.now_ns += HOUR_NS
        await days.runner.look()
        await fails(fs, EBUSY, "policy_run", policy="hourly")
        go_on.set()
    assert len(days.chain()) == 1
    await days.later(MINUTE_NS)
    assert len(days.chain()) == 1
    await fs.service.committer.commit()
    assert any("is skipped" in event.text for event in fs.pool.catalog.events.read(0))


async def test_m10_policies_of_one_second_run_one_after_the_other(fs: Fs) -> None:
    days = await hourly(fs)
    for name in ("b", "a"):
        await fs.ask("policy_create", policy=name, cron="@hourly", disks=["vm"])
    await days.later(HOUR_NS)
    both = await fs.ask("policy_create", policy="both", cron="0 2 1,15 * 1", disks=["vm"])
    assert both["explained"].startswith(both["schedule"]) and "(OR: either of the two days)" in both["explained"]
    stamps = [name.partition("-") for name in days.chain()]
    assert [name for name, _, _ in stamps] == ["hourly", "b", "a"]
    assert len({stamp for _, _, stamp in stamps}) == 1


async def test_p4_a_disk_that_fails_keeps_no_other_from_its_snapshot_and_is_tried_again(fs: Fs, log: Log) -> None:
    for name in ("vm0", "vm1"):
        await fs.disk(name)
    days = await hourly(fs)
    take, broken = fs.service.take, True

    async def flaky(disk: Any, *args: Any, **options: Any) -> Any:
        if broken and disk.name == "vm0":
            raise StorageError("the kernel could not write back vm0")
        return await take(disk, *args, **options)

    fs.service.take = flaky  # type: ignore[method-assign]
    await days.later(HOUR_NS)
    assert "could not write back vm0" in log.take()
    assert [len(days.chain(name)) for name in ("vm", "vm0", "vm1")] == [1, 0, 1]
    shown = await days.show()
    assert (shown["failures"], shown["last"]["failures"]) == (1, ["vm0: the kernel could not write back vm0"])
    assert "vm0" in (await fs.ask("info"))["warnings"][0]
    broken = False
    await days.later(MINUTE_NS)
    assert [len(days.chain(name)) for name in ("vm", "vm0", "vm1")] == [1, 1, 1]
    assert (await fs.ask("info"))["warnings"] == []


async def test_a_fault_in_a_run_is_a_failure_of_that_run_alone(fs: Fs, log: Log) -> None:
    days = await hourly(fs)
    take = fs.service.take

    async def broken(*args: Any, **options: Any) -> Any:
        raise AssertionError("nobody foresaw this")

    fs.service.take = broken  # type: ignore[method-assign]
    await days.later(HOUR_NS)
    assert "failed unexpectedly" in log.lines[0] and "nobody foresaw this" in log.lines[1]
    log._taken += 2
    fs.service.take = take  # type: ignore[method-assign]
    await days.later(HOUR_NS)
    assert len(days.chain()) == 1


async def test_r19_what_no_rule_keeps_goes_though_nothing_could_be_taken(fs: Fs, log: Log) -> None:
    days = await hourly(fs, keep_last=3)
    await days.later(HOUR_NS, 3)
    await fs.ask("policy_edit", policy="hourly", keep_last=1)

    async def full(*args: Any, **options: Any) -> Any:
        raise RowfsError("the pool is full", 28)

    fs.service.take = full  # type: ignore[method-assign]
    await days.later(HOUR_NS)
    assert "the pool is full" in log.take()
    assert len(days.chain()) == 1 and (await days.show())["last"]["expired"] == 2


async def test_r18_what_cannot_be_deleted_keeps_nothing_else_and_is_named(
    fs: Fs, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = await hourly(fs)
    await days.later(HOUR_NS, 4)
    first, second, *_ = days.chain()
    await fs.ask("policy_edit", policy="hourly", keep_last=1)
    delete = Pool.delete_snapshot

    def stubborn(pool: Pool, snapshot: Any) -> None:
        if snapshot.name == first:
            raise StorageError("it sticks")
        delete(pool, snapshot)

    monkeypatch.setattr(Pool, "delete_snapshot", stubborn)
    await days.later(HOUR_NS)
    assert days.chain()[0] == first and len(days.chain()) == 2
    shown = await days.show()
    assert shown["last"]["kept"] == [f"vm@{first} stays for now: it sticks"] and shown["failures"] == 0
    monkeypatch.undo()
    await days.later(HOUR_NS)
    assert first not in days.chain()


async def test_k1_locked_and_open_ones_stay_and_are_shown(fs: Fs) -> None:
    days = await hourly(fs, keep_last=1)
    await days.later(HOUR_NS)
    locked = days.chain()[0]
    await fs.ask("lock", disk="vm", snapshots=[locked])
    await days.later(HOUR_NS)
    used = days.chain()[-1]
    handle = await fs.open(f".snapshots/vm/{used}", 0)
    await days.later(HOUR_NS, 3)
    assert days.chain()[:2] == [locked, used] and len(days.chain()) == 3
    told = await days.explained()
    assert "locked" in told[locked] and "open or attached" in told[used]
    await fs.close(handle)
    await days.later(HOUR_NS)
    assert used not in days.chain() and locked in days.chain()


async def test_r17_snapshots_of_a_deleted_policy_stay_and_say_so(fs: Fs) -> None:
    days = await hourly(fs, keep_last=1)
    await days.later(HOUR_NS)
    assert await fs.ask("policy_delete", policy="hourly") == {"snapshots": 1}
    await days.later(HOUR_NS, 2)
    (text,) = (await days.explained()).values()
    assert len(days.chain()) == 1 and "its policy is gone" in text
    await fs.ask("policy_create", policy="hourly", every="1h", keep_last=1, disks=["vm"])  # not the same one
    await days.later(HOUR_NS, 2)
    assert len(days.chain()) == 2


async def test_r7_a_policy_that_cannot_be_read_deletes_nothing_and_is_named(fs: Fs) -> None:
    days = await hourly(fs, keep_last=1)
    number = (await days.show())["id"]
    await fs.ask("policy_create", policy="other", every="1h", keep_last=1, disks=["vm"])
    await days.later(HOUR_NS)
    record = next(item for item in fs.pool.catalog.policies if item.id == number)
    assert isinstance(record.rule, dict)
    record.rule["retention"]["lunar"] = 3  # of a newer rowfs
    fs.pool.catalog.policies.put(record)
    await fs.service.committer.commit()
    after = Days.after_a_crash(days)
    await after.later(HOUR_NS, 2)
    found = await after.fs.ask("policy_list")
    assert [item["name"] for item in found["unreadable"]] == ["hourly"]
    assert [item["name"] for item in found["policies"]] == ["other"]
    assert "hourly" in (await after.fs.ask("info"))["warnings"][0]
    assert [name.partition("-")[0] for name in after.chain()] == ["hourly", "other"]
    assert "its policy deletes nothing" in (await after.explained())[after.chain()[0]]
    assert await after.fs.ask("policy_delete", policy="hourly") == {"snapshots": 1}
    await fs.ask("policy_delete", policy="hourly")


async def test_p1_p3_a_policy_needs_disks_to_be_named_and_outlives_them(fs: Fs) -> None:
    days = Days(fs)
    await fs.disk("vm")
    text = await fails(fs, EINVAL, "policy_create", policy="p", every="1h")
    assert "--disks" in text
    await hourly(fs, disks=["vm"])
    await days.later(HOUR_NS)
    await fs.ask("delete", disk="vm", all_snapshots=True)
    await days.later(HOUR_NS)
    assert (await days.show())["failures"] == 0


async def test_p2_a_disk_that_a_label_takes_out_is_shown_as_unprotected(fs: Fs) -> None:
    days = Days(fs)
    await fs.disk("vm")
    await fs.ask("policy_create", policy="p", every="1h", disks=["*"], selector="backup!=no")
    assert (await fs.ask("policy_list"))["unprotected"] == []
    await fs.ask("label", disk="vm", changes=["backup=no"])
    assert (await fs.ask("policy_list"))["unprotected"] == ["vm"]
    await days.later(HOUR_NS)
    assert days.chain() == []


async def test_the_hook_after_a_snapshot_runs_when_that_is_durable(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    days = await hourly(fs, post=["/bin/true"])
    seen = []

    async def run_hook(words: object, environment: dict[str, str], limit_s: float) -> None:
        seen.append((environment["ROWFS_HOOK"], environment["ROWFS_REASON"], fs.pool.commits.needed))

    monkeypatch.setattr(policyrun, "run_hook", run_hook)
    await days.later(HOUR_NS)
    assert len(days.chain()) == 1 and seen == [("post", "", False)]


class Stuck:
    """A process that waits in the kernel, and goes for no signal."""

    pid, returncode, stdout = 1 << 30, None, None  # no process has that number

    async def wait(self) -> None:
        await trio.sleep_forever()


async def test_a_hook_that_no_signal_ends_holds_up_nobody(fs: Fs, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    days = await hourly(fs, pre=["/stuck"], hook_limit="1s")

    async def open_process(*_: object, **__: object) -> Stuck:
        return Stuck()

    async def nothing(*_: object) -> None:
        """It says nothing."""

    monkeypatch.setattr(hooks.trio.lowlevel, "open_process", open_process)
    monkeypatch.setattr(hooks, "_listen", nothing)
    monkeypatch.setattr(hooks, "KILLED_S", 0.01)
    await days.later(HOUR_NS)
    assert days.chain() == [] and "/stuck was killed: it took longer than 1 s" in log.take()


async def test_paused_resumed_edited_and_run_by_hand(fs: Fs) -> None:
    days = await hourly(fs, keep_last=2)
    assert (await fs.ask("policy_pause", policy="hourly"))["next"] is None
    await days.later(HOUR_NS, 3)
    assert days.chain() == []
    outcome = await fs.ask("policy_run", policy="hourly")
    assert (outcome["taken"], outcome["failures"], len(days.chain())) == (1, [], 1)
    await fs.ask("policy_resume", policy="hourly")
    await days.later(MINUTE_NS)
    assert len(days.chain()) == 1
    edited = await fs.ask("policy_edit", policy="hourly", to="daily", every="1d", at=["02:00"], tz="Europe/Berlin")
    assert (edited["schedule"], edited["keeps"]) == ("every 1d at 02:00, Europe/Berlin", "last 2")
    edited = await fs.ask("policy_edit", policy="daily", on="mon,tue", keep_for="90d", keep_last=0)
    assert (edited["schedule"], edited["keeps"]) == ("every 1d at 02:00 on mon,tue, Europe/Berlin", "for 90d")
    await fails(fs, EINVAL, "policy_edit", policy="daily")
    await fails(fs, ENOENT, "policy_run", policy="hourly")
    await fails(fs, EEXIST, "policy_create", policy="daily", every="1d", disks=["*"])
    after = fs.after_a_crash()
    assert (await after.ask("policy_show", policy="daily"))["schedule"] == edited["schedule"]


async def test_a_clock_that_leaps_a_year_ahead_expires_nothing_by_age_at_once(fs: Fs) -> None:
    days = await hourly(fs, keep_for="2d")
    await days.later(HOUR_NS, 5)
    survivor = Days.after_a_crash(days)
    for clocks in (days, survivor):
        await clocks.later(366 * DAY_NS)
        assert len(clocks.chain()) == 6
        assert any("clock leapt" in text for text in (await clocks.explained()).values())
        await clocks.later(HOUR_NS, 26)
        assert len(clocks.chain()) == 27  # it has stood by it for a day: the five are too old


async def test_a_limit_makes_room_of_its_own_oldest_where_told(fs: Fs, log: Log) -> None:
    days = await hourly(fs)
    await fs.snapshot("vm", "mine")
    await days.later(HOUR_NS, 5)
    before = days.chain()
    await fs.ask("limit", disk="vm", snapshots=3)  # less than there are: three have to go for the next one
    await days.later(HOUR_NS)
    assert days.chain() == before and "its limit is 3" in log.take()
    await fs.ask("policy_edit", policy="hourly", when_limited="expire")
    await days.later(HOUR_NS)
    assert days.chain()[:2] == ["mine", before[-1]] and len(days.chain()) == 3
    assert (await days.show())["last"] | {"due": 0, "ended": 0} == {
        "due": 0,
        "ended": 0,
        "taken": 1,
        "expired": 4,
        "failures": [],
        "kept": [],
    }
    await fs.ask("limit", disk="vm", without=["snapshots"])
    await fs.ask("limit", snapshots=3)  # the pool's
    await days.later(HOUR_NS)
    assert days.chain()[0] == "mine" and len(days.chain()) == 3


async def test_at_a_limit_no_good_one_goes_for_one_that_failed(fs: Fs, log: Log) -> None:
    days = await hourly(fs, when_limited="expire")
    await days.later(HOUR_NS, 3)
    before = days.chain()
    await fs.ask("limit", disk="vm", snapshots=4)
    await fs.ask("policy_edit", policy="hourly", pre=["/bin/false"], after_pre="mark")
    await days.later(HOUR_NS)
    (marked,) = set(days.chain()) - set(before)
    assert "its limit" not in log.take()
    await days.later(HOUR_NS)
    assert days.chain() == [*before, marked] and "its limit is 4" in log.take()
    await fs.ask("policy_edit", policy="hourly", pre=["/bin/true"])
    await days.later(HOUR_NS)
    assert days.chain()[:3] == before and marked not in days.chain()
    await fs.ask("policy_pause", policy="hourly")
    before = days.chain()
    await fs.ask("limit", disk="vm", snapshots=len(before))
    await days.later(MINUTE_NS)
    outcome = await fs.ask("policy_run", policy="hourly")
    assert "its limit is" in str(outcome["failures"]) and outcome["expired"] == 0
    assert days.chain() == before, "of a paused policy nothing goes"
    log.take()


async def test_where_giving_up_makes_no_place_nothing_is_given_up(fs: Fs, log: Log) -> None:
    days = await hourly(fs, when_limited="expire")
    for name in ("mine", "mine too"):
        await fs.snapshot("vm", name)
    await days.later(HOUR_NS, 3)
    before = days.chain()
    await fs.ask("limit", disk="vm", snapshots=2)
    await days.later(HOUR_NS)
    assert days.chain() == before and "its limit is 2" in log.take()


async def test_a_group_gives_up_its_oldest_whole_and_only_where_there_are_too_many(fs: Fs) -> None:
    await fs.disk("vm0")
    days = await hourly(fs, group=True, when_limited="expire")
    await days.later(HOUR_NS, 3)
    first, second, third = await fs.ask("group_list")
    await fs.ask("lock", disk="vm0", snapshots=[days.chain("vm0")[0]])
    await fs.ask("limit", disk="vm", snapshots=3)
    await days.later(HOUR_NS)
    names = [group["name"] for group in await fs.ask("group_list")]
    assert second["name"] not in names and {first["name"], third["name"]} < set(names)
    assert len(days.chain("vm")) == len(days.chain("vm0")) == 3


async def test_a_writer_at_its_limit_of_space_gets_what_such_a_policy_can_give_up(fs: Fs) -> None:
    """As few as will do, the oldest first; where that is not enough, nothing goes and the write is refused."""
    await fs.disk("vm", 10)
    days = await hourly(fs, when_limited="expire")
    for number in range(4):
        await fs.write("vm", 0, *(f"{number} {block}" for block in range(10)))
        await days.later(HOUR_NS)
    kept = days.chain()
    await fs.ask("limit", disk="vm", space_bytes=42 * B)
    await fs.write("vm", 0, "5 0", "5 1")
    assert days.chain() == kept
    await fs.write("vm", 2, "5 2", "5 3", "5 4")  # of 42, 42 are held
    assert days.chain() == kept[1:]
    assert await fs.holds(f".snapshots/vm/{kept[1]}", *(f"1 {block}" for block in range(10)))
    events = [event for event in fs.pool.catalog.events.read(0) if event.verb == "delete"]
    assert [(event.snapshot, event.command) for event in events] == [(kept[0], "policy hourly")]
    await fs.ask("limit", disk="vm", space_bytes=4 * B)
    with refused(ENOSPC):
        await fs.write("vm", 5, "5 5", "5 6")
    assert days.chain() == kept[1:]


async def test_a_leap_of_the_clock_can_be_confirmed(fs: Fs) -> None:
    days = await hourly(fs, keep_for="2d")
    await days.later(HOUR_NS, 5)
    await days.later(366 * DAY_NS)
    days.now_ns += MINUTE_NS
    assert (await fs.ask("policy_run", policy="hourly", confirm_clock=True))["expired"] == 5
    assert len(days.chain()) == 2


# Groups


async def test_g5_a_group_is_one_point_in_time_and_goes_whole(fs: Fs) -> None:
    await fs.disk("vm0")
    days = await hourly(fs, group=True, keep_last=1)
    await days.later(HOUR_NS)
    (group,) = await fs.ask("group_list")
    assert [item["disk"] for item in group["members"]] == ["vm", "vm0"]
    await fs.ask("lock", disk="vm0", snapshots=[days.chain("vm0")[0]])
    await days.later(HOUR_NS, 2)
    assert len(days.chain("vm")) == len(days.chain("vm0")) == 2
    assert "its group stays" in (await days.explained("vm"))[days.chain()[0]]
    assert len(await fs.ask("group_list")) == 2


async def test_g6_what_is_not_of_one_moment_is_no_group(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(groups_module, "MEMBERS_MAX", 2)
    for name in ("vm0", "vm1"):
        await fs.disk(name)
    days = await hourly(fs, group=True)
    await days.later(HOUR_NS)
    assert "a group has 1 to 2 disks, this one has 3" in log.take()
    assert [days.chain(name) for name in ("vm", "vm0", "vm1")] == [[], [], []] and await fs.ask("group_list") == []
    await fs.ask("delete", disk="vm1")
    well = tmp_path / "well"
    await fs.ask("policy_edit", policy="hourly", post=["/usr/bin/test", "-e", str(well)])  # so that it is tried again
    await days.later(HOUR_NS)
    assert "post hook" in log.take() and len(await fs.ask("group_list")) == 1
    await fs.disk("vm2")
    well.touch()
    await days.later(2 * MINUTE_NS)
    assert (await days.show())["failures"] == 0
    (group,) = await fs.ask("group_list")
    assert [member["disk"] for member in group["members"]] == ["vm", "vm0"] and days.chain("vm2") == []


# Hooks


def script(path: Path, text: str) -> list[str]:
    """A program, as the words of a hook."""
    path.write_text(text)
    return [sys.executable, str(path)]


NOTE = """
import os, sys
with open(sys.argv[1], "a") as out:
    out.write(" ".join(os.environ.get(key, "-") for key in ("ROWFS_HOOK", "ROWFS_DISK", "ROWFS_REASON")) + "\\n")
sys.exit(int(sys.argv[2]))
"""


async def test_h1_h2_h4_hooks_run_around_each_snapshot_and_post_whatever_became_of_it(
    fs: Fs, log: Log, tmp_path: Path
) -> None:
    odd = "vm$(touch x)"
    await fs.disk(odd)
    note, told = script(tmp_path / "note.py", NOTE), tmp_path / "told"
    days = await hourly(fs, disks=["vm[$]*"], pre=[*note, str(told), "0"], post=[*note, str(told), "0"])
    await days.later(HOUR_NS)
    assert told.read_text().splitlines() == [f"pre {odd} -", f"post {odd} "]
    told.unlink()
    failing = {"pre": [*note, str(told), "3"], "on_failure": [*note, str(told), "0"]}
    await fs.ask("policy_edit", policy="hourly", **failing)
    await days.later(HOUR_NS)
    assert len(days.chain(odd)) == 1 and "exit code 3" in log.take()
    lines = [line.partition(" the pre hook")[0] for line in told.read_text().splitlines()]
    assert lines[0] == f"pre {odd} -" and lines[1].startswith(f"post {odd}") and lines[2].startswith("on-failure -")
    await fs.ask("policy_edit", policy="hourly", after_pre="mark", keep_last=1)
    await days.later(HOUR_NS)
    assert "exit code 3" in log.take()
    assert len(days.chain(odd)) == 2  # the marked one counts for no rule: the good one stays
    (shown,) = await fs.ask("list", disks=[odd])
    assert [item["failed"] for item in shown["snapshots"]] == [False, True]
    await fs.ask("policy_edit", policy="hourly", pre=[])
    await days.later(HOUR_NS)
    assert len(days.chain(odd)) == 1


async def test_h3_a_hook_that_takes_too_long_is_killed_with_all_its_children(fs: Fs, log: Log, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"""
import os, subprocess, time
child = subprocess.Popen(["sleep", "1000"])
open({str(pids)!r}, "w").write(str(child.pid))
time.sleep(1000)
"""
    post = [*script(tmp_path / "note.py", NOTE), str(tmp_path / "told"), "0"]
    days = await hourly(fs, pre=script(tmp_path / "slow.py", text), post=post, hook_limit="1s")
    await days.later(HOUR_NS)
    assert "was killed" in log.take() and days.chain() == []
    assert (tmp_path / "told").read_text().startswith("post vm the pre hook")
    await until(lambda: _is_gone(int(pids.read_text())), "the child to end")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_a_hook_that_is_no_program_is_a_failure_with_a_reason(fs: Fs, log: Log) -> None:
    days = await hourly(fs, pre=["/nowhere/x"])
    await days.later(HOUR_NS)
    assert "/nowhere/x cannot be run" in log.take()


# By itself


async def test_the_daemon_runs_policies_of_itself(fs: Fs) -> None:
    days = await hourly(fs, every="1m")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(days.runner.run)
        await trio.testing.wait_all_tasks_blocked(0.01)
        days.now_ns += MINUTE_NS
        days.runner.changed()
        await until(days.chain, "a snapshot")
        nursery.cancel_scope.cancel()


async def test_after_a_fault_of_its_own_it_begins_anew_and_what_ran_is_tried_again(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "RETRY_S", 0.001)
    days = await hourly(fs)
    held = trio.Event()
    fs.kernel.meanwhile = held.wait
    look = days.runner.look
    async with trio.open_nursery() as nursery:
        days.now_ns += HOUR_NS
        nursery.start_soon(days.runner.run)
        await until(lambda: ("flush", "vm") in fs.kernel.asked, "the run")

        async def broken() -> float:
            days.runner.look = look  # type: ignore[method-assign]
            raise AssertionError("nobody foresaw this")

        days.runner.look = broken  # type: ignore[method-assign]
        days.runner.changed()
        await until(lambda: log.lines, "the fault")
        assert "running policies failed unexpectedly" in log.take()
        await until(days.runner.warnings, "that the run has failed")
        days.now_ns += MINUTE_NS
        days.runner.changed()
        await until(days.chain, "the run again")
        nursery.cancel_scope.cancel()


async def test_nothing_runs_on_a_pool_that_cannot_be_written(fs: Fs) -> None:
    days = await hourly(fs)
    fs.pool.commits.fail("the host failed")
    await days.later(HOUR_NS, 2)
    assert days.chain() == []
