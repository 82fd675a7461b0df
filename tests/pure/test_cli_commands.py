"""What each verb that changes something asks the daemon for, what it prints, and how it exits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pure.test_cli_fakes import Notify, World, disk, snapshot


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


# Disks


@pytest.mark.parametrize(("size", "left_out"), [(123_456_789, 277), (511, 511), (513, 1)])
def test_create_and_resize_warn_of_a_size_that_a_loop_device_cannot_show(
    world: World, size: int, left_out: int
) -> None:
    vm1 = world.mount / "vm1"
    for verb in ("create", "resize"):
        world.answer(**{verb: disk("vm1", size_bytes=size)})
        code, _, said = world.run(verb, vm1, str(size))
        assert code == 0
        assert said == (
            f"rowfs: warning: {vm1}: a loop device has whole sectors of 512 bytes, and leaves out the last {left_out} "
            f"of {size}: rowfs resize {vm1} +{512 - left_out} rounds the size up\n"
        )


def test_create(world: World) -> None:
    world.answer(create=disk("vm1"))
    assert world.run("create", world.mount / "vm1", "20G") == (0, f"{world.mount}/vm1: created, 20G\n", "")
    assert world.asked() == [("create", {"disk": "vm1", "size_bytes": 20 << 30})]
    assert json.loads(world.run("create", world.mount / "vm1", "20G", "--json")[1]) == disk("vm1")


@pytest.mark.parametrize(("size", "size_gib"), [("30G", 30), ("+10G", 30), ("-5G", 15), ("-20G", 0)])
def test_resize(world: World, size: str, size_gib: int) -> None:
    world.answer(list=[disk("vm1")], resize=lambda params, notify: disk("vm1", size_bytes=params["size_bytes"]))
    code, _, err = world.run("resize", world.mount / "vm1", size)
    assert (code, err) == (0, "")
    assert world.asked()[-1] == ("resize", {"disk": "vm1", "size_bytes": size_gib << 30})


def test_resize_cannot_take_more_than_there_is(world: World) -> None:
    world.answer(list=[disk("vm1")])
    assert world.run("resize", world.mount / "vm1", "-21G")[::2] == (
        2,
        "rowfs: 'vm1' has only 20G: it cannot lose 21G\n",
    )


def test_trim(world: World) -> None:
    world.answer(trim={"trimmed_bytes": 3 << 20, "freed_bytes": 1 << 20})
    assert world.run("trim", world.mount / "vm1")[:2] == (
        0,
        f"{world.mount}/vm1: 3.0M of zeros are holes now, 1.0M came back\n",
    )
    assert world.run("trim", "--dry-run", world.mount / "vm1")[:2] == (
        0,
        f"{world.mount}/vm1: 3.0M of zeros would become holes\n",
    )
    _, out, _ = world.run("trim", "--json", world.mount / "vm1")
    assert json.loads(out) == {"trimmed_bytes": 3 << 20, "freed_bytes": 1 << 20}
    assert world.asked() == [("trim", {"disk": "vm1", **dry}) for dry in ({}, {"dry_run": True}, {})]
    code, _, error = world.run("trim", world.mount / "vm1@a")
    assert (code, "vm1@a" in error) == (2, True)


@pytest.mark.parametrize(
    ("old", "new", "params"),
    [
        ("vm1", "MNT/vm2", {"disk": "vm1", "to": "vm2"}),
        ("vm1", "vm2", {"disk": "vm1", "to": "vm2"}),
        ("vm1@a", "MNT/vm1@b", {"disk": "vm1", "snapshot": "a", "to": "b"}),
        ("vm1@a", "@b", {"disk": "vm1", "snapshot": "a", "to": "b"}),
        ("vm1@a", "b", {"disk": "vm1", "snapshot": "a", "to": "b"}),
        (".snapshots/vm1/a", "MNT/.snapshots/vm1/b", {"disk": "vm1", "snapshot": "a", "to": "b"}),
    ],
)
def test_rename(world: World, old: str, new: str, params: dict[str, Any]) -> None:
    world.answer(rename={})
    code, out, _ = world.run("rename", world.mount / old, new.replace("MNT", str(world.mount)))
    shown = f"{params['disk']}@{params['to']}" if "snapshot" in params else params["to"]
    assert (code, out.splitlines()[0].endswith(f": is now {world.mount}/{shown}")) == (0, True)
    assert world.asked() == [("rename", params)]


# Snapshots


def test_snapshot_prints_the_addresses(world: World) -> None:
    def take(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        return snapshot(params.get("snapshot", "vm2-20261120-142501"), disk=params["disk"])

    world.answer(snapshot=take)
    code, out, _ = world.run("snapshot", world.mount / "vm1@a", world.mount / "vm2", "--description", "why")
    assert (code, out) == (0, f"{world.mount}/vm1@a\n{world.mount}/vm2@vm2-20261120-142501\n")
    assert [params for _, params in world.asked()] == [
        {"disk": "vm1", "snapshot": "a", "description": "why"},
        {"disk": "vm2", "description": "why"},
    ]
    assert [item["name"] for item in json.loads(world.run("snapshot", world.mount / "vm1@a", "--json")[1])] == ["a"]


def test_a_name_that_is_not_utf8_reaches_the_daemon_and_back(world: World) -> None:
    name = os.fsdecode(b"\xff")
    world.answer(snapshot=lambda params, notify: snapshot(params["snapshot"]))
    code, out, _ = world.run("snapshot", f"{world.mount}/vm1@{name}", "--json")
    assert (code, json.loads(out)[0]["name"]) == (0, name)


def test_rollback(world: World) -> None:
    world.answer(rollback={"kept": "before-rollback"})
    code, out, _ = world.run("rollback", world.mount / "vm1@a", "--force")
    vm1 = world.mount / "vm1"
    assert (code, out) == (0, f"{vm1}: is as it was at a: the state before is kept as {vm1}@before-rollback\n")
    world.answer(rollback={"kept": None})
    assert world.run("rollback", world.mount / "vm1@a", "--discard")[1] == f"{vm1}: is as it was at a\n"
    assert [params for _, params in world.asked()] == [
        {"disk": "vm1", "snapshot": "a", "force": True},
        {"disk": "vm1", "snapshot": "a", "discard": True},
    ]


def test_clone_makes_many_at_once(world: World) -> None:
    world.answer(clone=lambda params, notify: [disk(name) for name in params["targets"]])
    code, out, _ = world.run("clone", world.mount / "vm1@a", world.mount / "b", "c", "--count", 2, "--name", "vm-{:02}")
    names = ["b", "c", "vm-01", "vm-02"]
    assert (code, out) == (0, "".join(f"{world.mount}/{name}\n" for name in names))
    assert world.asked() == [("clone", {"disk": "vm1", "snapshot": "a", "targets": names})]


# Deleting


DELETED = {"disk": False, "snapshots": ["a", "b"], "freed_bytes": 4096}


@pytest.mark.parametrize(
    ("address", "params"),
    [
        ("vm1@a", {"snapshots": ["a"]}),
        ("vm1@a..c", {"snapshots": ["a..c"]}),
        ("vm1@a,b", {"snapshots": ["a", "b"]}),
        ("vm1@x..y", {"snapshots": ["x..y"]}),
        (".snapshots/vm1/p,q", {"snapshots": ["p,q"]}),
        (".snapshots/vm1", {"all_snapshots": True, "keep_disk": True}),
    ],
)
def test_delete_snapshots(world: World, address: str, params: dict[str, Any]) -> None:
    world.answer(delete=DELETED, list=[disk("vm1", snapshot("x..y"))])
    code, out, _ = world.run("delete", world.mount / address)
    assert (code, out) == (0, f"{world.mount}/vm1@a, {world.mount}/vm1@b: deleted, 4.0K comes back\n")
    assert world.asked()[-1] == ("delete", {"disk": "vm1"} | params)


def test_delete_tells_what_it_would_do(world: World) -> None:
    names = [f"s{number}" for number in range(6)]
    world.answer(delete=DELETED | {"snapshots": names}, list=[disk("vm1")])
    _, out, _ = world.run("delete", world.mount / "vm1@..s5", "--dry-run")
    assert out == f"6 snapshots of {world.mount}/vm1 (s0 to s5): would be deleted, 4.0K would come back\n"
    assert world.asked()[-1] == ("delete", {"disk": "vm1", "snapshots": ["..s5"], "dry_run": True})


def test_delete_a_disk_says_which_snapshots_stay(world: World) -> None:
    gone = {"disk": True, "snapshots": [], "freed_bytes": 0}
    world.answer(delete=gone, list=[disk("vm1", snapshot("a"), snapshot("b"))])
    code, out, _ = world.run("delete", world.mount / "vm1", "--wait")
    where = f"{world.mount}/.snapshots/vm1"
    assert (code, out.splitlines()) == (
        0,
        [
            f"{world.mount}/vm1: deleted, 0B came back",
            f"2 snapshots stay in {where} (delete that, or use --snapshots delete)",
        ],
    )
    assert world.asked()[-1] == ("delete", {"disk": "vm1", "wait": True})
    world.run("delete", world.mount / "vm1", "--snapshots", "delete")
    assert world.asked() == [("delete", {"disk": "vm1", "all_snapshots": True})]


def test_delete_several_asks_for_all_of_them_at_once(world: World) -> None:
    both = [DELETED | {"name": "vm1", "freed_bytes": 0}, DELETED | {"name": "vm2", "disk": True, "snapshots": []}]
    world.answer(delete_several={"deleted": both, "freed_bytes": 4096}, list=[disk("vm2", snapshot("k"))])
    what = [world.mount / name for name in ("vm1@a,b", ".snapshots/vm3", "vm2")]
    code, out, _ = world.run("delete", *what, "--dry-run")
    assert (code, out.splitlines()) == (
        0,
        [
            f"{world.mount}/vm1@a, {world.mount}/vm1@b: would be deleted",
            f"{world.mount}/vm2: would be deleted",
            f"1 snapshot would stay in {world.mount}/.snapshots/vm2 (delete that, or use --snapshots delete)",
            "together 4.0K would come back",
        ],
    )
    addresses = ["vm1@a", "vm1@b", "vm3@", "vm2"]
    assert world.asked()[-1] == ("delete_several", {"addresses": addresses, "dry_run": True})
    code, out, _ = world.run("delete", *what, "--json", "--wait", "--snapshots", "delete")
    assert (code, json.loads(out)) == (0, both)
    assert world.asked()[-1] == ("delete_several", {"addresses": addresses, "all_snapshots": True, "wait": True})
    world.answer(delete_several={"deleted": [each | {"trash": True} for each in both], "freed_bytes": 0})
    out = world.run("delete", world.mount / "vm1@a", world.mount / "vm2@b")[1]
    assert out.splitlines()[-1] == f"{world.mount}/vm2: deleted, into the trash"


def test_nothing_is_deleted_when_one_address_is_wrong(world: World) -> None:
    world.answer(delete=DELETED)
    assert world.run("delete", world.mount / "vm1@a", world.mount / "vm2@.x")[0] == 2
    assert world.asked() == []
