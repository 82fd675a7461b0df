"""`list`, `info`, `diff`, and what the shell completes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.base.errors import NotFoundError
from tests.pure.test_cli_fakes import Notify, World, attached, disk, snapshot


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


# Looking


def test_list_takes_the_only_mount(world: World) -> None:
    world.answer(list=[disk("vm1", snapshot("a"))])
    code, out, _ = world.run("list")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["NAME", "vm1", "@a"])
    assert json.loads(world.run("list", "--no-figures", "--json")[1]) == [disk("vm1", snapshot("a"))]
    asked = [question for question in world.asked() if question[0] == "list"]
    assert asked == [("list", {"figures": True}), ("list", {"figures": False})]


def test_list_takes_the_pool_the_mount_disks_and_snapshots(world: World) -> None:
    world.answer(list=[disk("vm1", snapshot("a"), snapshot("b"))])
    assert world.run("list", world.pool)[0] == 0
    assert world.run("list", world.mount / "vm1", world.mount / ".snapshots" / "vm2")[0] == 0
    _, out, _ = world.run("list", world.mount / "vm1@b")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "vm1", "@b"]
    asked = [params.get("disks") for method, params in world.asked() if method == "list"]
    assert asked == [None, ["vm1", "vm2"], ["vm1"]]


@pytest.mark.parametrize("option", ["--no-figures", "--json"])
def test_list_says_on_stderr_what_the_pool_warns_of(world: World, option: str) -> None:
    world.answer(list=[disk("vm1")], info={"warnings": ["the pool is 85 % full: delete snapshots or disks"]})
    code, out, err = world.run("list", option)
    assert code == 0 and "vm1" in out and "full" not in out
    assert err == "rowfs: warning: the pool is 85 % full: delete snapshots or disks\n"
    world.answer(info={"warnings": []})
    assert world.run("list", option)[2] == ""


def test_without_a_path_there_must_be_one_mount(world: World, tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    other = "51 27 0:9000041 / /mnt/b rw - fuse.rowfs /srv/b rw,user_id={}\n"
    one = mountinfo.read_text()
    mountinfo.write_text(one + other.format(os.geteuid() + 1))  # whatever others mount is not in the way
    world.answer(list=[])
    assert world.run("list")[0] == 0
    mountinfo.write_text(one + other.format(os.geteuid()))
    code, _, err = world.run("list")
    assert code == 2
    assert "there are several rowfs mounts: name one of /mnt/b, " in err
    mountinfo.write_text("")
    assert world.run("info")[::2] == (
        1,
        "rowfs: nothing is mounted: mount a pool first with rowfs mount POOL DIR\n",
    )


INFO = {
    "pid": 7,
    "pool": "/srv/pool",
    "mountpoint": "/mnt/rowfs",
    "uuid": "u",
    "version": "0.1.0",
    "format": 1,
    "capacity_bytes": 1 << 30,
    "used_bytes": 0,
    "free_bytes": 1 << 30,
    "read_only": True,
    "read_only_reason": "mounted so",
    "disks": 1,
    "snapshots": 2,
    "reclaiming": True,
    "warnings": ["the host file system is nearly full"],
}


def test_info_of_a_mount(world: World) -> None:
    world.answer(info=INFO)
    code, out, _ = world.run("info")
    assert (code, out.splitlines()) == (
        0,
        [
            "pool        /srv/pool",
            "mounted on  /mnt/rowfs",
            "daemon      pid 7, rowfs 0.1.0, format 1",
            "capacity    1.0G, 0B used, 1.0G free",
            "holds       1 disk, 2 snapshots",
            "state       read-only: mounted so, freeing what was deleted",
            "warning     the host file system is nearly full",
        ],
    )
    assert json.loads(world.run("info", world.mount, "--json")[1]) == INFO


@pytest.mark.parametrize(
    ("owed_s", "how_long"),
    [(None, ""), (0.2, ", in 1 s"), (99.4, ", in 99 s"), (150, ", in 2 min"), (9000, ", in 2 h")],
)
def test_what_is_still_to_be_freed_is_told(world: World, owed_s: float | None, how_long: str) -> None:
    owed = {"owed_bytes": 300 << 20, "owed_s": owed_s, "read_only": False, "read_only_reason": None}
    world.answer(info=INFO | owed, list=[disk("vm1")])
    line = f"freeing what was deleted, up to 300M{how_long}"
    assert f"state       read-write, {line}\n" in world.run("info")[1]
    assert world.run("list")[1].endswith(f"\n{line}\n")
    world.answer(info=INFO | owed | {"owed_bytes": 1 << 20}, list=[disk("vm1")])
    assert "freeing" not in world.run("list")[1]


def test_info_of_disks_and_snapshots(world: World) -> None:
    before = snapshot("before", description="why")
    world.answer(list=[disk("vm1", before)])
    assert json.loads(world.run("info", world.mount / "vm1", "--json")[1]) == disk("vm1", before)
    assert json.loads(world.run("info", world.mount / "vm1@before", "--json")[1]) == before
    assert "size          20G (21474836480 bytes)\n" in world.run("info", world.mount / "vm1")[1]
    assert "why\n" in world.run("info", world.mount / "vm1@before")[1]
    assert world.run("info", world.mount / "vm1@x")[::2] == (
        1,
        "rowfs: the disk vm1 has no snapshot x: rowfs list shows those it has\n",
    )
    world.answer(list=[disk("vm1", before, trimmed_held_bytes=3 << 20, attached=attached("/dev/loop4"))])
    world.asked()
    shown = world.run("info", world.mount / "vm1")[1]
    assert "trimmed       3.0M held by snapshots\n" in shown and "attached      /dev/loop4\n" in shown
    assert world.asked() == [("list", {"disks": ["vm1"], "figures": False, "trimmed": True})]
    world.answer(list=[disk("vm1", before, deleted=True)])
    assert world.run("info", world.mount / "vm1")[1].splitlines() == ["deleted disk  vm1", "snapshots     1"]


def changes(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
    notify("part", items=[[0, 4096, "data"]])
    notify("part", items=[])
    notify("part", items=[[1 << 44, 8192, "zero"]])
    return {"changed_bytes": 12288}


@pytest.mark.parametrize(
    ("addresses", "params"),
    [
        (["vm1"], {}),
        (["vm1@a"], {"from_snapshot": "a"}),
        (["vm1@a", "vm1"], {"from_snapshot": "a"}),
        (["vm1@a", "vm1@b"], {"from_snapshot": "a", "to_snapshot": "b"}),
        (["vm1@a", ".snapshots/vm1/x..y"], {"from_snapshot": "a", "to_snapshot": "x..y"}),
        (["vm1@a..b"], {"from_snapshot": "a", "to_snapshot": "b"}),
        (["vm1@..b"], {"to_snapshot": "b"}),
        (["vm1@x..y"], {"from_snapshot": "x..y"}),
    ],
)
def test_diff(world: World, addresses: list[str], params: dict[str, Any]) -> None:
    world.answer(diff=changes, list=[disk("vm1", snapshot("x..y"))])
    code, out, _ = world.run("diff", *(world.mount / address for address in addresses))
    assert (code, out.splitlines()) == (
        0,
        [
            "        OFFSET          LENGTH  KIND",
            "             0            4096  data",
            "17592186044416            8192  zero",
            "12K changed in 2 ranges",
        ],
    )
    assert world.asked()[-1] == ("diff", {"disk": "vm1"} | params)


def test_diff_as_json(world: World) -> None:
    world.answer(diff=changes)
    _, out, _ = world.run("diff", world.mount / "vm1@a", "--json")
    assert json.loads(out) == {"ranges": [[0, 4096, "data"], [1 << 44, 8192, "zero"]], "changed_bytes": 12288}


def test_the_errors_of_an_unknown_disk_come_from_the_daemon(world: World) -> None:
    def missing(params: dict[str, Any], notify: Notify) -> None:
        raise NotFoundError("there is no disk 'vm9'")

    world.answer(list=missing)
    assert world.run("delete", world.mount / "vm9") == (1, "", "rowfs: there is no disk 'vm9'\n")
    world.answer(list=[])
    assert world.run("info", world.mount / "vm9")[0] == 1


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(world: World, shell: str) -> None:
    code, out, _ = world.run("completion", shell)
    assert code == 0
    assert "_ROWFS_COMPLETE" in out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", ["plain,MNT/vm1", "plain,MNT/vm2"]),
        ("vm2", ["plain,MNT/vm2", "plain,MNT/vm2@a", "plain,MNT/vm2@b"]),
        ("vm2@", ["plain,MNT/vm2@a", "plain,MNT/vm2@b"]),
        ("vm2@b", ["plain,MNT/vm2@b"]),
        ("none@", []),
    ],
)
def test_addresses_complete(world: World, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]) -> None:
    for snapshot_name in ("a", "b"):
        (world.mount / ".snapshots" / "vm2" / snapshot_name).mkdir(parents=True)
    (world.mount / "vm1").touch()
    (world.mount / "vm2").touch()
    monkeypatch.setenv("_ROWFS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"rowfs diff {world.mount}/{typed}")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        world.run()
    assert world._capfd.readouterr().out.split() == [line.replace("MNT", str(world.mount)) for line in offered]


def test_outside_of_mounts_the_shell_completes_files(world: World) -> None:
    from rowfs.cli.completing import complete_address

    for typed in ("/etc/pass", f"{world.mount}/.snap", f"{world.mount}/.snapshots/vm"):
        (item,) = complete_address(typed)
        assert (item.type, item.value) == ("file", typed)
