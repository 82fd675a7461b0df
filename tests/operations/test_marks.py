"""Labels and locks over the socket and by plain tools: what they answer, what they refuse, that they are durable."""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM

import pytest

from rowfs.control import deletion
from tests.operations.helpers import Fs, refused
from tests.operations.test_methods import chain, fails


async def test_labels_are_set_taken_away_and_listed(fs: Fs) -> None:
    await chain(fs)
    assert await fs.ask("label", disk="vm", changes=["env=prod", "owner=db"]) == {
        "labels": {"env": "prod", "owner": "db"}
    }
    assert await fs.ask("label", disk="vm", changes=["owner-"]) == {"labels": {"env": "prod"}}
    await fs.ask("label", disk="vm", snapshot="b", changes=["env=test"])
    (vm,) = await fs.after_a_crash().ask("list")
    assert vm["labels"] == {"env": "prod"}
    assert [snapshot["labels"] for snapshot in vm["snapshots"]] == [{}, {"env": "test"}, {}, {}]


@pytest.mark.parametrize("changes", [["x"], ["a b=c"], ["a=b", "a-"], ["=x"], [f"k{n}=1" for n in range(65)]])
async def test_what_is_no_label_is_refused(fs: Fs, changes: list[str]) -> None:
    await chain(fs)
    await fails(fs, EINVAL, "label", disk="vm", changes=changes)
    assert fs.pool.catalog.disk("vm").labels == {}


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("env=prod", {"vm": list("abcd")}),
        ("env=test", {"other": ["s"]}),
        ("env in (prod,test)", {"vm": list("abcd"), "other": ["s"]}),
        ("env=none", {}),
        ("", {}),
    ],
)
async def test_list_chooses_disks_with_their_chains_and_single_snapshots(
    fs: Fs, selector: str, found: dict[str, list[str]]
) -> None:
    await chain(fs)
    await fs.disk("other")
    await fs.snapshot("other", "s")
    await fs.snapshot("other", "t")
    await fs.ask("label", disk="vm", changes=["env=prod"])
    await fs.ask("label", disk="other", snapshot="s", changes=["env=test"])
    listed = await fs.ask("list", selector=selector)
    assert {disk["name"]: [item["name"] for item in disk["snapshots"]] for disk in listed} == found


async def test_a_selector_that_is_none_is_refused(fs: Fs) -> None:
    await fails(fs, EINVAL, "list", selector="a b")


async def test_locks_are_answered_listed_and_durable(fs: Fs) -> None:
    await chain(fs)
    held = {"hold": True, "until": None, "compliance": False, "reason": "audit"}
    assert await fs.ask("lock", disk="vm", snapshots=["a..b"], reason="audit") == [
        {"snapshot": "a", "lock": held},
        {"snapshot": "b", "lock": held},
    ]
    (dated,) = await fs.ask("lock", disk="vm", snapshots=["c"], until="2099-03-01T00:00:00Z", compliance=True)
    assert dated["lock"]["until"] == "2099-03-01T00:00:00.000000Z" and dated["lock"]["compliance"]
    (vm,) = await fs.after_a_crash().ask("list")
    assert [snapshot["lock"] for snapshot in vm["snapshots"]] == [held, held, dated["lock"], None]


@pytest.mark.parametrize(
    ("params", "number"),
    [
        ({"snapshots": []}, EINVAL),
        ({"snapshots": ["x"]}, ENOENT),
        ({"snapshots": ["a"], "until": "0d"}, EINVAL),
        ({"snapshots": ["a"], "until": "2001-01-01"}, EINVAL),
        ({"snapshots": ["a"], "until": "101w5d99999999999d"}, EINVAL),
        ({"snapshots": ["a"], "until": "36601d"}, EINVAL),
        ({"snapshots": ["a"], "until": "9999-12-31"}, EINVAL),
        ({"snapshots": ["a"], "until": "soon"}, EINVAL),
        ({"snapshots": ["a"], "compliance": True}, EINVAL),
        ({"snapshots": ["a"], "reason": "x" * 501}, EINVAL),
    ],
)
async def test_a_lock_that_is_none_is_refused(fs: Fs, params: dict[str, object], number: int) -> None:
    await chain(fs)
    await fails(fs, number, "lock", disk="vm", **params)
    assert not any(snapshot.lock.keeps(0) for snapshot in fs.pool.catalog.snapshots.values())


async def test_neither_the_verb_nor_rm_deletes_a_locked_snapshot(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("lock", disk="vm", snapshots=["b"], reason="audit")
    asked = [{"snapshots": ["b"]}, {"snapshots": ["a..c"]}, {"all_snapshots": True, "keep_disk": True}]
    for params in [*asked, *({**params, "dry_run": True} for params in asked)]:
        assert "vm@b is kept by a hold (audit)" in await fails(fs, EPERM, "delete", disk="vm", **params)
    message = await fails(fs, EPERM, "delete", disk="vm", all_snapshots=True)
    assert message.startswith("the disk vm is not deleted: vm@b is kept by a hold (audit)")
    with refused(EPERM):
        await fs.unlink(".snapshots/vm/b")
    assert list(fs.pool.catalog.disk("vm").chain) == list("abcd")
    await fs.rename("vm", "moved")
    await fs.unlink("moved")  # its snapshots stay
    await fs.ask("release", disk="moved", snapshots=["b"])
    await fs.ask("delete", disk="moved", all_snapshots=True)


async def test_mv_over_a_disk_leaves_its_locked_snapshots(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("lock", disk="vm", snapshots=["b"])
    await fs.disk("other", 1, "other")
    await fs.rename("other", "vm")
    assert list(fs.pool.catalog.disk("vm").chain) == list("abcd")


async def test_a_lock_that_is_set_while_figures_are_counted_holds(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    await chain(fs)

    async def counted(pausing: object) -> list[int]:
        await fs.ask("lock", disk="vm", snapshots=["b"])
        return [0]

    monkeypatch.setattr(deletion, "counted", counted)
    await fails(fs, EPERM, "delete", disk="vm", snapshots=["a", "b"])
    assert list(fs.pool.catalog.disk("vm").chain) == list("abcd")


async def test_a_description_can_be_changed_and_is_durable(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("lock", disk="vm", snapshots=["a"])
    assert await fs.ask("describe", disk="vm", snapshot="a", description="why") == {"description": "why"}
    after = fs.after_a_crash().pool.catalog.disk("vm").chain["a"]
    assert after.description == "why" and after.changed_ns >= after.created_ns
    (event,) = [event for event in fs.pool.catalog.events.read(0) if event.verb == "describe"]
    assert (event.disk, event.snapshot) == ("vm", "a")
    await fs.ask("delete", disk="vm")
    await fs.ask("describe", disk="vm", snapshot="a", description="")
    assert fs.pool.catalog.chain("vm").chain["a"].description == ""
    await fails(fs, ENOENT, "describe", disk="vm", snapshot="x", description="")
    await fails(fs, EINVAL, "describe", disk="vm", snapshot="a", description="x" * 65_537)
