"""What attach and detach ask the daemon for and refuse; the devices themselves are looked at by tests/mount."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rowfs.cli import attach as attaching
from rowfs.cli import loops
from rowfs.cli.loops import CONFIG, CONFIGURE, DIRECT_IO, PARTSCAN, READ_ONLY
from rowfs.host.loops import GET_STATUS64, INFO, FileNumbers, Loop
from tests.pure.test_cli_fakes import World, disk, snapshot


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


@dataclass(frozen=True)
class FakeLoop(Loop):
    """A loop device that there need not be."""

    writable: bool = True
    where: tuple[str, ...] = ()

    @property
    def read_only(self) -> bool:
        """As told."""
        return not self.writable


class Devices:
    """The loop devices that the kernel would tell of."""

    def __init__(self) -> None:
        self.found: list[Loop] = []

    def add(self, name: str, file: object, shows: FileNumbers | None, writable: bool = True, where: str = "") -> None:
        """One more; `shows` None: its server is gone."""
        error = 0 if shows else errno.ENOTCONN
        self.found.append(FakeLoop(f"/dev/{name}", str(file), shows, error, writable, (where,) if where else ()))


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    """No loop device yet."""
    made = Devices()
    for module in (loops, attaching):
        monkeypatch.setattr(module, "loops", lambda: list(made.found))
    monkeypatch.setattr(loops, "mounted_on", lambda loop: list(loop.where))
    return made


DISK, SNAPSHOT = FileNumbers("0:9000040", 12), FileNumbers("0:9000040", 6)  # those of the fakes


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, FileNumbers, bool, bool]]:
    """What would have been attached: path, numbers, read-only, direct I/O."""
    calls: list[tuple[str, FileNumbers, bool, bool]] = []

    def attach(path: str, numbers: FileNumbers, read_only: bool, direct_io: bool) -> Loop:
        calls.append((path, numbers, read_only, direct_io))
        return Loop("/dev/loop7", path, numbers)

    monkeypatch.setattr(loops, "attach", attach)
    return calls


def test_the_structure_is_as_large_as_the_kernels() -> None:
    assert CONFIG.size == 304  # struct loop_config of linux/loop.h
    assert (INFO.size, GET_STATUS64) == (232, 0x4C05)  # struct loop_info64
    assert (CONFIGURE, READ_ONLY, PARTSCAN, DIRECT_IO) == (0x4C0A, 1, 8, 16)


def test_attach_warns_of_what_the_device_leaves_out(world: World, devices: Devices, made: list[Any]) -> None:
    world.answer(list=[disk("vm1", snapshot("a", size_bytes=1000), size_bytes=123_456_789)])
    code, out, said = world.run("attach", world.mount / "vm1")
    assert (code, out) == (0, "/dev/loop7\n")
    assert "leaves out the last 277 of 123456789: rowfs resize" in said
    code, out, said = world.run("attach", world.mount / "vm1@a", "--json")
    assert (code, json.loads(out)["left_out_bytes"]) == (0, 488)
    assert "leaves out the last 488 of 1000: clone the snapshot" in said


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
    devices: Devices,
    made: list[tuple[str, FileNumbers, bool, bool]],
    words: list[str],
    place: str,
    read_only: bool,
    direct_io: bool,
) -> None:
    world.answer(list=[disk("vm1", snapshot("a"))])
    address, *options = words
    assert world.run("attach", world.mount / address, *options) == (0, "/dev/loop7\n", "")
    assert made == [(f"{world.mount}/{place}", DISK if place == "vm1" else SNAPSHOT, read_only, direct_io)]


def test_a_disk_is_attached_once(
    world: World, devices: Devices, made: list[tuple[str, FileNumbers, bool, bool]]
) -> None:
    world.answer(list=[disk("vm1", snapshot("a"))])
    devices.add("loop2", world.mount / "vm1", DISK, writable=False)
    devices.add("loop3", "/other/name/of/it\n", DISK)
    devices.add("loop4", world.mount / "vm1", FileNumbers("0:9000041", DISK.inode))
    code, _, err = world.run("attach", world.mount / "vm1")
    assert (code, made) == (1, []) and "attached already as /dev/loop3:" in err
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
    world: World, devices: Devices, made: list[tuple[str, FileNumbers, bool, bool]], address: str, code: int, says: str
) -> None:
    def found(params: dict[str, list[str]], notify: object) -> list[object]:
        return [disk(name, snapshot("a"), deleted=name == "gone") for name in params["disks"]]

    world.answer(list=found)
    got, _, err = world.run("attach", world.mount / address)
    assert (got, made) == (code, []) and says in err


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been detached."""
    found: list[str] = []
    monkeypatch.setattr(loops, "detach", lambda loop: found.append(loop.device))
    return found


def test_detach_finds_the_devices_of_a_file(world: World, devices: Devices, gone: list[str], tmp_path: Path) -> None:
    devices.add("loop2", world.mount / "vm1", DISK)
    devices.add("loop10", "/bind/vm1", DISK)
    devices.add("loop3", world.mount / ".snapshots/vm1/a", SNAPSHOT, writable=False)
    devices.add("loop4", tmp_path / "other", FileNumbers("8:1", DISK.inode))
    devices.add("loop6", world.mount / "vm1", FileNumbers("0:9000041", DISK.inode))  # another mount, by the same path
    there = disk("vm1", snapshot("a"))
    world.answer(list=lambda params, notify: [there | {"name": name} for name in params["disks"] if name == "vm1"])
    assert world.run("detach", world.mount / "vm1") == (0, "/dev/loop2: detached\n/dev/loop10: detached\n", "")
    assert world.run("detach", world.mount / "vm1@a", "--json") == (0, '{"detached":["/dev/loop3"]}\n', "")
    assert world.run("detach", "/dev/loop2")[0] == 0
    assert gone == ["/dev/loop2", "/dev/loop10", "/dev/loop3", "/dev/loop2"]
    for other in ("/dev/loop4", "/dev/loop6"):
        assert "not on a rowfs mount: use losetup -d" in world.run("detach", other)[2]
    assert "/dev/loop5 is not attached" in world.run("detach", "/dev/loop5")[2]
    assert "there is no disk vm2: rowfs list shows those there are" in world.run("detach", world.mount / "vm2")[2]
    assert len(gone) == 4


def test_a_device_on_a_file_of_the_same_name_is_another_one(world: World, devices: Devices, gone: list[str]) -> None:
    devices.add("loop2", world.mount / "vm1 (deleted)", DISK)  # of vm1, which was removed
    world.answer(list=lambda params, notify: [disk(name, inode=16) for name in params["disks"] if name != "vm1"])
    code, _, err = world.run("detach", world.mount / "vm1 (deleted)")
    assert (code, gone) == (1, []) and "is not attached" in err and "(deleted, but still attached: /dev/loop2)" in err
    assert "deleted, but still attached: /dev/loop2" in world.run("detach", world.mount / "vm1")[2]
    assert world.run("detach", "/dev/loop2")[0] == 0 and gone == ["/dev/loop2"]


def test_nothing_is_detached_when_one_device_is_mounted(world: World, devices: Devices, gone: list[str]) -> None:
    devices.add("loop2", world.mount / "vm1", DISK)
    devices.add("loop3", world.mount / "vm1", DISK, where="/mnt/a b")
    world.answer(list=[disk("vm1")])
    code, _, err = world.run("detach", world.mount / "vm1")
    assert (code, gone) == (1, []) and "/dev/loop3 (mounted on /mnt/a b)" in err
    _, _, err = world.run("detach", "/dev/loop3")
    assert err == "rowfs: /dev/loop3 (mounted on /mnt/a b) is in use: unmount that first\n"


def test_who_may_not_ask_a_device_is_told_so(world: World, devices: Devices, gone: list[str]) -> None:
    devices.found.append(Loop("/dev/loop2", str(world.mount / "vm1"), None, errno.EACCES))
    world.answer(list=[disk("vm1")])
    for what in (world.mount / "vm1", "/dev/loop2"):
        code, _, err = world.run("detach", what)
        assert code == 1 and "only root can use loop devices (/dev/loop2: Permission denied)" in err
    assert gone == []


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


def test_detach_works_when_the_daemon_is_gone(world: World, devices: Devices, gone: list[str]) -> None:
    devices.add("loop2", world.mount / "vm1", None)
    devices.add("loop3", world.mount / ".snapshots/vm1/a", None)
    devices.add("loop4", world.mount / "vm1", FileNumbers("8:1", 3))
    (world.pool / "control.sock").unlink()
    assert world.run("detach", world.mount / "vm1")[0] == world.run("detach", world.mount / "vm1@a")[0] == 0
    assert gone == ["/dev/loop2", "/dev/loop3"]
