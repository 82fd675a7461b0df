"""What attach and detach ask the daemon for and refuse; the devices themselves are looked at by tests/mount."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.cli import loops
from rowfs.cli.loops import CONFIG, CONFIGURE, DIRECT_IO, PARTSCAN, READ_ONLY, Loop
from tests.pure.test_cli_fakes import World, attached, disk, snapshot


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /sys/block of our own, with no loop device in it, and nothing mounted from any."""
    block = tmp_path / "block"
    block.mkdir()
    monkeypatch.setattr(loops, "SYS_BLOCK", str(block))
    nothing = tmp_path / "mountinfo-of-loops"
    nothing.touch()
    monkeypatch.setattr(loops, "MOUNTINFO", str(nothing))
    return block


def add_device(devices: Path, name: str, file: object, read_only: bool = False) -> None:
    (devices / name / "loop").mkdir(parents=True)
    (devices / name / "loop" / "backing_file").write_text(f"{file}\n")
    (devices / name / "loop" / "dio").write_text("1\n")
    (devices / name / "ro").write_text(f"{int(read_only)}\n")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, bool]]:
    """What would have been attached: path, read-only, direct I/O."""
    calls: list[tuple[str, bool, bool]] = []

    def attach(path: str, read_only: bool, direct_io: bool) -> Loop:
        calls.append((path, read_only, direct_io))
        return Loop("/dev/loop7", path, [])

    monkeypatch.setattr(loops, "attach", attach)
    return calls


def test_the_structure_is_as_large_as_the_kernels() -> None:
    assert CONFIG.size == 304  # struct loop_config of linux/loop.h
    assert (CONFIGURE, READ_ONLY, PARTSCAN, DIRECT_IO) == (0x4C0A, 1, 8, 16)


@pytest.mark.parametrize(
    ("words", "place", "read_only", "direct_io"),
    [
        (["vm1"], "vm1", False, True),
        (["vm1", "--read-only"], "vm1", True, True),
        (["vm1", "--no-direct-io"], "vm1", False, False),
        (["vm1@a"], ".snapshots/vm1/a", True, True),
        ([".snapshots/vm1/a"], ".snapshots/vm1/a", True, True),
    ],
)
def test_attach(
    world: World,
    devices: Path,
    made: list[tuple[str, bool, bool]],
    words: list[str],
    place: str,
    read_only: bool,
    direct_io: bool,
) -> None:
    world.answer(list=[disk("vm1", snapshot("a"))])
    address, *options = words
    assert world.run("attach", world.mount / address, *options) == (0, "/dev/loop7\n", "")
    assert made == [(f"{world.mount}/{place}", read_only, direct_io)]


def test_a_disk_is_attached_once(world: World, devices: Path, made: list[tuple[str, bool, bool]]) -> None:
    world.answer(list=[disk("vm1", snapshot("a"), attached=attached("/dev/loop2", "/dev/loop3"))])
    add_device(devices, "loop2", world.mount / "vm1", read_only=True)
    add_device(devices, "loop3", "/other/name/of/vm1")
    code, _, err = world.run("attach", world.mount / "vm1")
    assert (code, made) == (1, []) and "attached already as /dev/loop3" in err
    assert world.run("attach", world.mount / "vm1", "--read-only")[0] == 0
    assert world.run("attach", world.mount / "vm1@a")[0] == 0


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("", 2, "names no disk and no snapshot"),
        (".snapshots/vm1", 2, "names no disk and no snapshot"),
        ("vm1@b", 1, "the disk vm1 has no snapshot b: rowfs list shows those it has"),
        ("gone", 1, "is deleted"),
    ],
)
def test_attach_refuses(
    world: World, devices: Path, made: list[tuple[str, bool, bool]], address: str, code: int, says: str
) -> None:
    def found(params: dict[str, list[str]], notify: object) -> list[object]:
        return [disk(name, snapshot("a"), deleted=name == "gone") for name in params["disks"]]

    world.answer(list=found)
    got, _, err = world.run("attach", world.mount / address)
    assert (got, made) == (code, []) and says in err


def test_detach_finds_the_devices_of_a_file(
    world: World, devices: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone: list[str] = []
    monkeypatch.setattr(loops, "detach", lambda loop: gone.append(loop.device))
    add_device(devices, "loop10", "/bind/vm1")
    add_device(devices, "loop2", world.mount / "vm1")
    add_device(devices, "loop3", world.mount / ".snapshots/vm1/a", read_only=True)
    add_device(devices, "loop4", tmp_path / "other")
    (devices / "loop5").mkdir()
    (devices / "vda").mkdir()
    there = disk("vm1", snapshot("a", attached=attached("/dev/loop3")), attached=attached("/dev/loop2", "/dev/loop10"))
    world.answer(list=lambda params, notify: [there | {"name": name} for name in params["disks"] if name == "vm1"])
    assert world.run("detach", world.mount / "vm1") == (0, "/dev/loop2: detached\n/dev/loop10: detached\n", "")
    assert world.run("detach", world.mount / "vm1@a", "--json") == (0, '{"detached":["/dev/loop3"]}\n', "")
    assert world.run("detach", "/dev/loop2")[0] == 0
    assert gone == ["/dev/loop2", "/dev/loop10", "/dev/loop3", "/dev/loop2"]
    assert "not on a rowfs mount: use losetup -d" in world.run("detach", "/dev/loop4")[2]
    assert "/dev/loop5 is not attached" in world.run("detach", "/dev/loop5")[2]
    assert "is not attached" in world.run("detach", world.mount / "vm2")[2]
    assert len(gone) == 4


def test_nothing_is_detached_when_one_device_is_mounted(
    world: World, devices: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone: list[str] = []
    monkeypatch.setattr(loops, "detach", lambda loop: gone.append(loop.device))
    mountinfo = tmp_path / "mountinfo-with-loop"
    line = f"50 27 0:40 / {world.mount} rw - fuse.rowfs {world.pool} rw\n"
    mountinfo.write_text(f"{line}51 27 259:1 / /mnt/a\\040b rw - ext4 /dev/loop3p1 rw\n")
    monkeypatch.setattr("rowfs.cli.mounts.MOUNTINFO", str(mountinfo))
    monkeypatch.setattr(loops, "MOUNTINFO", str(mountinfo))
    add_device(devices, "loop2", world.mount / "vm1")
    add_device(devices, "loop3", world.mount / "vm1")
    world.answer(list=[disk("vm1", attached=attached("/dev/loop2", "/dev/loop3"))])
    code, _, err = world.run("detach", world.mount / "vm1")
    assert (code, gone) == (1, []) and "/dev/loop3 (mounted on /mnt/a b)" in err


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["--freeze"], {"freeze": True}),
        (["--freeze", "--freeze-timeout", "2.5"], {"freeze": True, "freeze_timeout_s": 2.5}),
        ([], {}),
    ],
)
def test_freeze_is_asked_for(world: World, words: list[str], params: dict[str, object]) -> None:
    world.answer(snapshot=snapshot("a", consistency="frozen"))
    assert world.run("snapshot", *words, world.mount / "vm1@a")[0] == 0
    assert world.asked() == [("snapshot", {"disk": "vm1", "snapshot": "a"} | params)]


def test_a_limit_without_a_freeze_is_refused(world: World) -> None:
    assert world.run("snapshot", "--freeze-timeout", "5", world.mount / "vm1@a")[0] == 2
    assert world.asked() == []


def test_detach_works_when_the_daemon_is_gone(world: World, devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    monkeypatch.setattr(loops, "detach", lambda loop: gone.append(loop.device))
    add_device(devices, "loop2", world.mount / "vm1")
    add_device(devices, "loop3", world.mount / ".snapshots/vm1/a")
    (world.pool / "control.sock").unlink()
    assert world.run("detach", world.mount / "vm1")[0] == world.run("detach", world.mount / "vm1@a")[0] == 0
    assert gone == ["/dev/loop2", "/dev/loop3"]
