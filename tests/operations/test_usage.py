"""Accounts kept and told: days in milliseconds, since the clock is ours."""

from __future__ import annotations

from errno import EINVAL, ENOENT
from typing import Any

import pytest
import trio

from rowfs.base.units import GIB
from rowfs.rules.times import DAY_NS, HOUR_NS, SECOND_NS
from rowfs.service import accounting
from rowfs.service.accounting import Accountant
from rowfs.store.holdings import Holdings
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, until
from tests.operations.test_methods import fails
from tests.store.helpers import B

NOON_NS = 1_800_000_000 * SECOND_NS


class Days:
    """A mount, a clock that a test moves, and who keeps the accounts."""

    def __init__(self, fs: Fs) -> None:
        self.fs = fs
        self.now_ns = NOON_NS
        fs.service.clock.now_ns = lambda: self.now_ns
        self.accountant = Accountant(fs.service)

    async def later(self, span_ns: int) -> None:
        """The clock goes on, and what is held is sampled, durably."""
        self.now_ns += span_ns
        await self.accountant.sample()
        await self.fs.service.committer.commit()

    async def told(self, **params: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Rows by name, and what there is to say beside them."""
        self.fs.caller.items = []
        answer = await self.fs.ask("usage", **params)
        return {row["name"]: row for row in self.fs.caller.items}, answer


@pytest.fixture
def days(fs: Fs) -> Days:
    return Days(fs)


async def test_usage_tells_what_is_there_and_for_how_long(fs: Fs, days: Days) -> None:
    await fs.disk("vm", 4, "a", "b")
    await fs.snapshot("vm", "s")
    await fs.write("vm", 0, "c")
    await fs.ask("clone", disk="vm", snapshot="s", targets=["copy"])
    await days.later(0)
    days.now_ns += 2 * HOUR_NS
    rows, answer = await days.told()
    assert list(rows) == ["copy", "vm"]
    assert rows["vm"] | {"byte_seconds": None} == {
        "name": "vm",
        "count": 1,
        "snapshots": 1,
        "provisioned_bytes": 4 * B,
        "mapped_bytes": 2 * B,
        "snapshots_bytes": 0,
        "shared_bytes": 2 * B,
        "trash_bytes": 0,
        "byte_seconds": None,
    }
    assert rows["copy"]["shared_bytes"] == 2 * B
    assert rows["vm"]["byte_seconds"]["mapped"] == 7200 * 2 * B
    assert answer["total"]["byte_seconds"]["provisioned"] == 7200 * 8 * B
    rows, answer = await days.told(since="1h")
    assert rows["vm"]["byte_seconds"]["shared"] == 3600 * 2 * B
    assert (answer["since"], answer["until"]) == ("2027-01-15T09:00:00.000000Z", "2027-01-15T10:00:00.000000Z")
    (disk,) = await fs.ask("list", disks=["vm"])
    await fs.ask("delete", disk="copy")
    rows, _ = await days.told()
    assert rows["vm"]["snapshots_bytes"] == B
    (disk,) = await fs.ask("list", disks=["vm"])
    assert disk["snapshots"][0]["freed_if_deleted_bytes"] == B
    assert rows["vm"]["mapped_bytes"] == disk["mapped_bytes"]
    gone = rows["copy"]
    assert (gone["count"], gone["provisioned_bytes"], gone["mapped_bytes"], gone["shared_bytes"]) == (0, 0, 0, 0)
    assert gone["byte_seconds"]["provisioned"] == 7200 * 4 * B


async def test_a_renamed_disk_is_billed_under_the_name_it_has(fs: Fs, days: Days) -> None:
    await fs.disk("vm", 4, "a")
    await days.later(0)
    days.now_ns += HOUR_NS
    await fs.ask("rename", disk="vm", to="db")
    rows, _ = await days.told()
    assert list(rows) == ["db"] and rows["db"]["byte_seconds"]["mapped"] == 3600 * B
    await fs.ask("delete", disk="db")
    await fs.disk("db", 2)
    days.now_ns += HOUR_NS
    rows, _ = await days.told()
    assert list(rows) == ["db"] and rows["db"]["byte_seconds"]["provisioned"] == 3600 * (4 * B + 2 * B)


async def test_usage_by_label_and_policy(fs: Fs, days: Days) -> None:
    for number, name in enumerate(("a", "b", "c")):
        await fs.disk(name, 4, *"xyz"[: number + 1])
    await fs.ask("label", disk="a", changes=["env=prod", "owner=db"])
    await fs.ask("label", disk="b", changes=["env=test"])
    await fs.ask("policy_create", policy="nightly", every="1d", disks=["b", "c"])
    await fs.ask("policy_run", policy="nightly")
    await fs.write("b", 0, "new")
    await fs.write("c", 0, "new", "new")
    await days.later(0)
    days.now_ns += HOUR_NS
    rows, answer = await days.told(by="label", key="env")
    assert [(row["name"], row["count"], row["mapped_bytes"]) for row in rows.values()] == [
        ("", 1, 3 * B),
        ("env=prod", 1, B),
        ("env=test", 1, 2 * B),
    ]
    assert answer["total"]["mapped_bytes"] == 6 * B
    rows, _ = await days.told(by="label")
    assert list(rows) == ["", "env=prod", "env=test", "owner=db"]
    rows, answer = await days.told(selector="env")
    assert list(rows) == ["a", "b"] and answer["total"]["count"] == 2
    rows, _ = await days.told(by="policy")
    assert list(rows) == ["nightly"]
    assert (rows["nightly"]["snapshots"], rows["nightly"]["snapshots_bytes"]) == (2, 3 * B)
    assert rows["nightly"]["byte_seconds"]["snapshots"] == 3600 * 3 * B
    await fs.ask("label", disk="a", changes=["env-"])
    await fs.ask("delete", disk="b", all_snapshots=True)
    rows, _ = await days.told(by="label", key="env")
    assert {name: row["byte_seconds"]["mapped"] // 3600 for name, row in rows.items()} == {"": 4 * B, "env=test": 2 * B}


async def test_what_cannot_be_asked_is_refused(fs: Fs, days: Days) -> None:
    for params in ({"by": "size"}, {"key": "env"}, {"by": "policy", "selector": "env"}, {"since": "never"}):
        await fails(fs, EINVAL, "usage", **params)
    rows, answer = await days.told(since="1970-01-02")
    assert rows == {} and answer["since"] == "2025-12-11T08:00:00.000000Z", "400 days at most"


async def test_a_clock_that_leaps_years_ahead_bills_nothing_before_it_is_believed(fs: Fs, days: Days) -> None:
    await fs.disk("vm", 4, "a")
    for _ in range(3):
        await days.later(HOUR_NS)
    first = days.now_ns
    await days.later(3000 * DAY_NS)
    for hour in range(4):
        rows, answer = await days.told()
        assert rows["vm"]["byte_seconds"]["mapped"] <= (3 + hour) * 3600 * B
        await days.later(HOUR_NS)
    days.now_ns = first + 5 * HOUR_NS  # somebody has set it right
    await days.later(HOUR_NS)
    rows, _ = await days.told()
    assert rows["vm"]["byte_seconds"]["provisioned"] == 9 * 3600 * 4 * B
    await days.later(30 * DAY_NS)  # switched off for a month
    for _ in range(25):
        await days.later(HOUR_NS)
    rows, _ = await days.told()
    assert rows["vm"]["byte_seconds"]["provisioned"] == (9 + 1 + 24 * 31) * 3600 * 4 * B


async def test_samples_go_on_after_a_fault_and_are_durable_without_being_asked_for(
    soon: None, fs: Fs, days: Days, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_S", "INTERVAL_S", "RETRY_S"):
        monkeypatch.setattr(accounting, name, 0.02)
    await fs.disk("vm", 4, "a")

    def fault(self: Holdings) -> Any:
        raise RuntimeError("a fault")

    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(Holdings, "count", fault)
            nursery.start_soon(days.accountant.run)
            await until(lambda: log.lines, "the fault")
        monkeypatch.undo()
        monkeypatch.setattr(accounting, "RETRY_S", 0.02)

        def sampled() -> bool:
            account = fs.pool.catalog.accounts.get(fs.pool.catalog.disk("vm").id)
            return account is not None and account.holds[1] == B

        await until(sampled, "a sample")
        nursery.cancel_scope.cancel()
    assert "keeping accounts failed unexpectedly" in log.take()


async def test_a_pool_that_is_read_only_is_told_of_and_not_sampled(fs: Fs, days: Days) -> None:
    await fs.disk("vm", 4, "a")
    await days.later(0)
    days.now_ns += HOUR_NS
    fs.pool.commits.fail("the host failed")
    await days.accountant.sample()
    rows, _ = await days.told()
    assert rows["vm"]["byte_seconds"]["mapped"] == 3600 * B
    assert not fs.pool.catalog.accounts.unsaved


async def test_long_accounts_come_in_parts(fs: Fs, days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await fs.disk(f"d{number}", 1)
    monkeypatch.setattr("rowfs.control.usage.PART_ROWS", 2)
    rows, answer = await days.told()
    assert list(rows) == [f"d{number}" for number in range(5)]
    assert answer["total"]["count"] == 5 and answer["total"]["provisioned_bytes"] == 5 * B < GIB


async def test_the_history_of_a_chain_tells_rollbacks_clones_and_what_each_frees(fs: Fs) -> None:
    await fs.disk("vm", 4, "a")
    await fs.snapshot("vm", "s1")
    await fs.write("vm", 0, "b")
    await fs.snapshot("vm", "s2")
    await fs.ask("rollback", disk="vm", snapshot="s1", discard=True)
    await fs.ask("clone", disk="vm", snapshot="s2", targets=["copy"])
    await fs.ask("lock", disk="vm", snapshots=["s1"])
    found = await fs.ask("history", disk="vm")
    assert [(item["snapshot"], item["rolled_back"], item["locked"]) for item in found["steps"]] == [
        ("s1", False, True),
        ("s2", False, False),
        (None, True, False),
    ]
    s1 = {"disk": "vm", "snapshot": "s1"}
    assert [item["after"] for item in found["steps"]] == [None, s1, s1]
    assert [item["freed_if_deleted_bytes"] for item in found["steps"]] == [0, 0, None]
    (clone,) = found["clones"]
    assert (clone["disk"], clone["after"]) == ("copy", {"disk": "vm", "snapshot": "s2"})
    (first,) = (await fs.ask("history", disk="copy"))["steps"]
    assert first["after"] == {"disk": "vm", "snapshot": "s2"} and not first["rolled_back"]
    await fs.ask("delete", disk="vm")
    assert [item["snapshot"] for item in (await fs.ask("history", disk="vm"))["steps"]] == ["s1", "s2"]
    await fails(fs, ENOENT, "history", disk="none")
