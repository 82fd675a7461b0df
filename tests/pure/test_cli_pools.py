"""`init`, `check`, `mount`, `umount`: pools, and daemons that are not there yet or any more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.base.errors import BusyError, PoolError
from rowfs.cli import mounting
from tests.pure.test_cli_fakes import Notify, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    monkeypatch.chdir(tmp_path)  # umount leaves the current directory
    with made.daemon:
        yield made


class FakeStore:
    """Stands in for rowfs.store, which is a floor of its own with tests of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
        for module in ("pool", "check"):
            monkeypatch.setitem(sys.modules, f"rowfs.store.{module}", self)
        self.__dict__.update(functions)


def test_init(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    FakeStore(monkeypatch, init_pool=lambda path, capacity_bytes, other_owner: made.append((path, capacity_bytes)))
    monkeypatch.chdir(tmp_path)
    code, out, _ = world.run("init", "new", "--capacity", "200G")
    assert (code, out) == (0, f"{tmp_path}/new: a pool now; mount it with rowfs mount new DIR\n")
    assert json.loads(world.run("init", "new", "--json")[1]) == {"pool": f"{tmp_path}/new", "capacity_bytes": None}
    assert made == [(f"{tmp_path}/new", 200 << 30), (f"{tmp_path}/new", None)]


@pytest.mark.parametrize(
    ("findings", "code", "out"),
    [([], 0, "/p: clean\n"), (["block 3: no owner"], 1, "block 3: no owner\n/p: 1 problem found\n")],
)
def test_check(world: World, monkeypatch: pytest.MonkeyPatch, findings: list[str], code: int, out: str) -> None:
    FakeStore(monkeypatch, check_pool=lambda path, progress, repair, hold, other_owner, data: (findings, False))
    assert world.run("check", "/p") == (code, out, "")
    as_json = world.run("check", "/p", "--json")
    said = {"pool": "/p", "usable": True, "findings": findings, "mended": False}
    assert (as_json[0], json.loads(as_json[1])) == (code, said)


@pytest.mark.parametrize(
    ("mended", "code", "outcome"),
    [(True, 0, "1 problem found and mended"), (False, 1, "1 problem found, not all of them can be mended")],
)
def test_check_repairs_only_when_asked(
    world: World, monkeypatch: pytest.MonkeyPatch, mended: bool, code: int, outcome: str
) -> None:
    def found(
        path: str, progress: Any, repair: bool, hold: Any, other_owner: bool, data: bool
    ) -> tuple[list[str], bool]:
        return ["block 3: no owner"], repair and mended

    FakeStore(monkeypatch, check_pool=found)
    assert world.run("check", "/p")[0] == 1
    assert world.run("check", "/p", "--repair") == (code, f"block 3: no owner\n/p: {outcome}\n", "")


def test_check_of_what_is_no_pool(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, progress: Any, repair: bool, hold: Any, other_owner: bool, data: bool) -> None:
        raise PoolError("/p is no pool")

    FakeStore(monkeypatch, check_pool=refuse)
    assert world.run("check", "/p") == (2, "", "rowfs: /p is no pool\n")
    assert json.loads(world.run("check", "/p", "--json")[1])["usable"] is False


STAND_IN = """
import json, os, sys
fd = int(sys.argv[sys.argv.index("--ready-fd") + 1]) if "--ready-fd" in sys.argv else None
with open(os.environ["STAND_IN_LOG"], "w") as log:
    json.dump({"argv": sys.argv[1:], "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid()}, log)
with open(os.environ["STAND_IN_LOG"].replace("stand-in.json", "mountinfo"), "a") as mountinfo:
    mountinfo.write(os.environ.get("STAND_IN_MOUNTS", ""))
import rowfs
if fd is not None:
    os.write(fd, os.environ["STAND_IN_WORD"].encode())
    if "STAND_IN_SIGNAL" in os.environ:
        os.kill(os.getpid(), int(os.environ["STAND_IN_SIGNAL"]))
"""


class StandIn:
    """A module that is started as the daemon: it notes how, says one word on the pipe, and ends."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._log = tmp_path / "stand-in.json"
        (tmp_path / "stand_in.py").write_text(STAND_IN)
        monkeypatch.setattr("rowfs.cli.mounting.DAEMON_MODULE", "stand_in")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("STAND_IN_LOG", str(self._log))
        monkeypatch.setenv("STAND_IN_WORD", "ready\n")
        monkeypatch.chdir(tmp_path)

    def started(self) -> dict[str, Any]:
        """How it was started."""
        return dict(json.loads(self._log.read_text()))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path, monkeypatch)


def test_mount_starts_a_daemon_of_its_own_and_waits_for_its_word(
    world: World, stand_in: StandIn, tmp_path: Path
) -> None:
    code, out, err = world.run("mount", "pool", "new/../elsewhere/", "--cache", "1K", "-o", "x,y", "--read-only")
    assert (code, out, err) == (0, f"{world.pool}: mounted on {tmp_path}/elsewhere\n", "")
    started = stand_in.started()
    assert started["argv"][:4] == [str(world.pool), f"{tmp_path}/elsewhere", "-o", "x,y,ro,cache=1024"]
    assert started["argv"][4] == "--ready-fd"
    assert (started["cwd"], started["session"]) == ("/", True)


def test_mount_as_json_tells_what_is_mounted(world: World, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answer(info={"pid": 7}, hello={"device": "0:9000041"})
    line = f"50 27 0:9000041 / {Path.cwd()}/elsewhere rw - fuse.rowfs {world.pool} rw,user_id={os.geteuid()}\n"
    monkeypatch.setenv("STAND_IN_MOUNTS", line)
    assert json.loads(world.run("mount", "pool", "elsewhere", "--json")[1]) == {"pid": 7}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("error: POOL is in use by pid 7\n", "POOL is in use by pid 7"),
        ("", "the daemon ended before the mount was ready: see POOL/rowfs.log"),
        ("rea", "the daemon ended before the mount was ready: see POOL/rowfs.log"),
    ],
)
def test_a_mount_that_fails_says_why(
    world: World, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.setenv("STAND_IN_WORD", word.replace("POOL", str(world.pool)))
    assert world.run("mount", "pool", "elsewhere") == (1, "", f"rowfs: {message.replace('POOL', str(world.pool))}\n")


def test_a_daemon_that_crashes_is_told_with_its_signal(
    world: World, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_WORD", "")
    monkeypatch.setenv("STAND_IN_SIGNAL", str(int(signal.SIGKILL)))
    said = f"rowfs: the daemon was ended by SIGKILL before the mount was ready: see {world.pool}/rowfs.log\n"
    assert world.run("mount", "pool", "elsewhere") == (1, "", said)


def test_a_mount_in_the_foreground_becomes_the_daemon(world: World, stand_in: StandIn, tmp_path: Path) -> None:
    code = "import sys, rowfs.cli.mounting as m; m.DAEMON_MODULE = 'stand_in'; from rowfs.cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", code, "mount", "-f", "pool", "elsewhere"]
    subprocess.run(command, env=environment, check=True)
    started = stand_in.started()
    assert started["argv"] == [str(world.pool), f"{tmp_path}/elsewhere", "--foreground"]
    assert started["cwd"] == "/"


def test_what_is_mounted_is_not_mounted_over(world: World, stand_in: StandIn) -> None:
    world.answer(info={"mountpoint": str(world.mount)})
    code, _, err = world.run("mount", "pool", "mnt")
    what = f"process {os.getpid()} shows {world.pool} on {world.mount}"
    assert (code, err) == (1, f"rowfs: {what} already: end that first with rowfs umount\n")


def test_umount_returns_when_the_daemon_is_gone(world: World) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:

        def end(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
            assert process.stdin is not None
            process.stdin.close()
            return {}

        world.answer(hello={"pid": process.pid, "device": "0:9000040"}, umount=end)
        code, out, _ = world.run("umount", world.mount, "--force")
        exited = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
    assert (code, out) == (0, f"{world.pool}: unmounted from {world.mount}\n")
    assert exited is not None
    assert world.asked() == [("umount", {"force": True})]


def test_a_daemon_that_cannot_be_seen_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unseen(pid: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr("os.pidfd_open", unseen)
    world.answer(hello={"pid": 7, "device": "0:9000040"}, umount={})
    assert world.run("umount", world.mount, "--json") == (0, "{}\n", "")


def test_a_mount_in_use_stays(world: World) -> None:
    def busy(params: dict[str, Any], notify: Notify) -> None:
        raise BusyError("/mnt is in use by cat (pid 8)")

    world.answer(umount=busy)
    assert world.run("umount", world.pool) == (1, "", "rowfs: /mnt is in use by cat (pid 8)\n")


@pytest.mark.parametrize(("flags", "options"), [([], "-u"), (["--force"], "-u -z")])
def test_a_mount_whose_daemon_died_is_taken_away(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], options: str
) -> None:
    (world.pool / "control.sock").unlink()
    monkeypatch.setattr(mounting, "is_dead", lambda mount: True)
    tool = tmp_path / "fusermount3"
    tool.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/ran\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert world.run("umount", world.mount, *flags)[0] == 0
    assert (tmp_path / "ran").read_text() == f"{options} -- {world.mount}\n"
    tool.write_text("#!/bin/sh\necho 'fusermount3: busy' >&2\nexit 1\n")
    code, _, err = world.run("umount", world.mount)
    why = f"the daemon of {world.pool} is gone, and its mount cannot be taken away: fusermount3: busy"
    assert (code, err) == (1, f"rowfs: {why}\n")


def test_a_mount_that_is_alive_is_never_taken_away(world: World, stand_in: StandIn) -> None:
    (world.pool / "control.sock").unlink()  # nobody answers, yet the kernel says that somebody serves it
    code, _, err = world.run("umount", world.mount, "--force")
    assert code == 1 and f"{world.mount} is alive, but its daemon cannot be reached" in err
    code, _, err = world.run("mount", "pool", world.mount)
    assert code == 1 and f"{world.mount} shows {world.pool} already" in err
