"""The trash over the socket and by plain tools: what goes there, is listed, emptied, and makes room for writers."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOSPC
from typing import Any

import pytest

from rowfs.base.errors import StorageError
from rowfs.base.units import MIB
from rowfs.rules.times import DAY_NS, HOUR_NS
from rowfs.service.emptying import empty_overdue
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused
from tests.operations.test_methods import chain, fails
from tests.store.helpers import B

ENTRY = {
    "id",
    "disk",
    "snapshot",
    "snapshots",
    "size_bytes",
    "deleted",
    "until",
    "freed_if_emptied_bytes",
}


async def kept(fs: Fs) -> None:
    """A pool that keeps what is deleted for a week, and a chain."""
    await fs.ask("trash", keep="7d")
    await chain(fs)


async def test_the_trash_is_off_until_it_is_asked_for(fs: Fs) -> None:
    assert await fs.ask("trash") == {"keep": None, "entries": 0}
    assert await fs.ask("trash", keep="7d") == {"keep": "1w", "entries": 0}
    assert await fs.after_a_crash().ask("trash") == {"keep": "1w", "entries": 0}
    assert await fs.ask("trash", keep="off") == {"keep": None, "entries": 0}
    for wrong in ("", "1m", "7", "-1d", "9999999d"):
        await fails(fs, EINVAL, "trash", keep=wrong)


async def test_what_verbs_and_plain_tools_delete_is_gone_from_the_mount_and_listed(fs: Fs) -> None:
    await kept(fs)
    answer = await fs.ask("delete", disk="vm", snapshots=["a"])
    assert (answer["trash"], answer["freed_bytes"]) == (True, 0)
    await fs.unlink(".snapshots/vm/b")
    await fs.ask("delete", disk="vm", all_snapshots=True)
    assert await fs.list() == {".snapshots": 2} and await fs.list(".snapshots") == {}
    assert await fs.ask("list") == []
    found = await fs.after_a_crash().ask("trash_list")
    assert [(item["disk"], item["snapshot"], item["snapshots"]) for item in found] == [
        ("vm", "a", []),
        ("vm", "b", []),
        ("vm", None, ["c", "d"]),
    ]
    assert found[0].keys() == ENTRY
    assert found[0]["until"] > found[0]["deleted"] and found[0]["size_bytes"] == 4 * B


async def test_it_comes_back_durably_and_readable(fs: Fs) -> None:
    await kept(fs)
    await fs.ask("delete", disk="vm", all_snapshots=True)
    assert await fs.ask("undelete", disk="vm", name="vm2") == {"disk": "vm2", "snapshot": None}
    found = fs.after_a_crash()
    assert await found.holds("vm2", "block a", "block b", "block c", "block d")
    assert await found.holds(".snapshots/vm2/b", "block a", "block b", "", "")
    await fs.unlink(".snapshots/vm2/b")
    await fails(fs, ENOENT, "undelete", disk="vm2", snapshot="x")
    await fs.snapshot("vm2", "b")
    assert "can call it b-restored" in await fails(fs, EEXIST, "undelete", disk="vm2", snapshot="b")
    await fs.ask("undelete", disk="vm2", snapshot="b", name="old")
    assert await fs.holds(".snapshots/vm2/old", "block a", "block b", "", "")


async def test_emptying_says_what_comes_back_and_does_it(fs: Fs) -> None:
    await kept(fs)
    await fs.ask("delete", disk="vm", snapshots=["a"])
    await fs.ask("delete", disk="vm", all_snapshots=True)
    first, second = await fs.ask("trash_list")
    assert await fs.ask("trash_empty", id=first["id"]) == {"entries": 1, "freed_bytes": 0}
    assert await fs.ask("trash_empty") == {"entries": 1, "freed_bytes": 4 * B}
    await fails(fs, ENOENT, "trash_empty", id=second["id"])
    await fs.reclaimed()
    assert (await fs.ask("info"))["used_bytes"] == B


def shows(fs: Fs, since_ns: int, *passed_ns: int) -> None:
    """The clock shows these times, one after the other, and is looked at."""
    for span_ns in passed_ns:
        fs.service.clock.now_ns = lambda span_ns=span_ns: since_ns + span_ns  # type: ignore[misc]
        fs.service.clock.look()


async def test_a_clock_that_leaps_ahead_does_not_empty_the_trash(fs: Fs) -> None:
    await kept(fs)
    await fs.unlink(".snapshots/vm/a")
    since_ns = next(iter(fs.pool.trash)).deleted_ns
    shows(fs, since_ns, 0, HOUR_NS, 365 * DAY_NS)
    assert not empty_overdue(fs.service)
    await fs.service.committer.commit()
    later = fs.after_a_crash()
    shows(later, since_ns, 365 * DAY_NS + HOUR_NS)
    assert not empty_overdue(later.service) and len(later.pool.trash) == 1
    shows(fs, since_ns, *range(365 * DAY_NS, 366 * DAY_NS + HOUR_NS, HOUR_NS))  # it stands by it for a day
    assert empty_overdue(fs.service) and not len(fs.pool.trash)


async def test_what_was_kept_for_its_time_goes_and_what_cannot_stays_alone(
    fs: Fs, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    await kept(fs)
    for name in "abc":
        await fs.unlink(f".snapshots/vm/{name}")
    assert not empty_overdue(fs.service)
    since_ns = next(iter(fs.pool.trash)).deleted_ns
    shows(fs, since_ns, *range(0, 7 * DAY_NS + 2 * HOUR_NS, HOUR_NS))
    purge, second = fs.pool.trash.purge, list(fs.pool.trash)[1]

    def failing(entry: Any) -> None:
        if entry is second:
            raise StorageError("no")
        purge(entry)

    monkeypatch.setattr(fs.pool.trash, "purge", failing)
    assert empty_overdue(fs.service)
    assert [entry.snapshot for entry in fs.pool.trash] == ["b"]
    assert "stays in the trash for now: no" in log.take()


@pytest.mark.pool(capacity_bytes=MIB)
async def test_the_oldest_go_before_a_writer_is_told_that_there_is_no_space(fs: Fs) -> None:
    await fs.ask("trash", keep="7d")
    for name in ("old", "young"):
        await fs.disk(name, 100, *(f"{name} {block}" for block in range(100)))
        await fs.unlink(name)
    await fs.disk("vm", 100, *(f"block {block}" for block in range(100)))
    assert [entry.name for entry in fs.pool.trash] == ["young"]
    assert await fs.holds("vm", *(f"block {block}" for block in range(100)))


@pytest.mark.pool(capacity_bytes=MIB)
async def test_a_trash_that_frees_nothing_is_kept_when_a_writer_finds_no_space(
    fs: Fs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.ask("trash", keep="7d")
    await fs.disk("vm", 260, *(f"block {block}" for block in range(200)))
    for name in "abc":
        await fs.snapshot("vm", name)
        await fs.unlink(f".snapshots/vm/{name}")
    await fs.service.committer.commit()
    handle = await fs.open("vm")
    asked: list[None] = []
    for_space = fs.pool.trash.for_space
    monkeypatch.setattr(fs.pool.trash, "for_space", lambda: asked.append(None) or for_space())
    for turn in range(2):
        with refused(ENOSPC):
            for block in range(200, 260):
                await fs.put(handle, block, f"{turn}")
        await fs.service.committer.commit()
    assert [entry.snapshot for entry in fs.pool.trash] == ["a", "b", "c"]
    before = len(asked)
    for _ in range(5):
        with refused(ENOSPC):
            await fs.put(handle, 259, "more")
    assert 0 < before <= 6 and len(asked) <= before + 1, "what frees nothing is not counted for each write"
    await fs.truncate("vm", 100 * B)  # now the trash alone has what was there
    await fs.truncate("vm", 260 * B)
    for block in range(100, 250):
        await fs.put(handle, block, f"block {block}")
    assert len(fs.pool.trash) == 0
    assert await fs.holds("vm", *(f"block {block}" for block in range(250)), *[""] * 10)
    await fs.close(handle)
