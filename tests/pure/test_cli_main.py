"""The frame around every verb: help, errors in one line, exit codes, a quick start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs import __version__
from rowfs.base.errors import BusyError
from rowfs.cli.main import COMMANDS
from tests.pure.test_cli_fakes import Notify, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def test_every_verb_has_help_with_an_example(world: World) -> None:
    for verb in COMMANDS:
        code, out, err = world.run(verb, "--help")
        assert (code, err) == (0, "")
        assert f"rowfs {verb}" in out.partition("Example")[2]


def test_the_group_lists_its_verbs_in_order(world: World) -> None:
    code, out, _ = world.run("--help")
    shown = [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()]
    assert (code, shown) == (0, list(COMMANDS))
    assert world.run("--version") == (0, f"rowfs {__version__}\n", "")
    assert world.run()[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["create", "MNT/vm1"], "Missing argument 'SIZE' (see rowfs create --help)"),
        (["create", "MNT/vm1", "x"], "'x' is not a size"),
        (["create", "MNT/vm1", "-5G"], "'-5G' is not a size"),
        (["create", "MNT/vm1", "17T"], "17T is more than the largest disk"),
        (["create", "MNT/.vm1", "1G"], "'.vm1' cannot be a disk name"),
        (["create", "MNT", "1G"], "names no disk"),
        (["list", "--frob"], "No such option"),
        (["snapshot", "MNT/vm1@.x"], "'.x' cannot be a snapshot name"),
        (["rollback", "MNT/vm1"], "names no snapshot: write it as MNT/vm1@name"),
        (["clone", "MNT/vm1@a"], "clone to what?"),
        (["clone", "MNT/vm1@a", "--count", "3"], "--count and --name belong together"),
        (["clone", "MNT/vm1@a", "--count", "3", "--name", "x"], "makes the same name again"),
        (["clone", "MNT/vm1@a", "--count", "3", "--name", "{x}"], "is no pattern"),
        (["clone", "MNT/vm1@a", "--count", "3", "--name", "{:99999999999d}"], "is no pattern"),
        (["clone", "MNT/vm1@a", "--count", "3", "--name", "{:999d}"], "at most 255 bytes"),
        (["rename", "MNT/vm1", "@b"], "cannot be a disk name"),
        (["rename", "MNT/vm1@a", "MNT/vm2@b"], "a snapshot stays with its disk 'vm1'"),
        (["diff", "MNT/vm1@a", "MNT/vm2@b"], "both have to be of one disk"),
        (["delete", "MNT/vm1", "--snapshots", "maybe"], "Invalid value for '--snapshots'"),
        (["completion", "tcsh"], "Invalid value"),
        (["completion"], "Choose from: bash, zsh, fish (see"),
        *(([verb, "", "1G"], "a path cannot be empty") for verb in ("create", "resize", "rename", "clone", "export")),
        *(([verb, ""], "a path cannot be empty") for verb in ("init", "check", "umount", "list", "snapshot", "delete")),
        *((["mount", *places], "a path cannot be empty") for places in (["", "MNT"], ["MNT", ""])),
        (["export", "MNT/vm1", ""], "a path cannot be empty"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(world: World, arguments: list[str], message: str) -> None:
    code, out, err = world.run(*(argument.replace("MNT", str(world.mount)) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("rowfs: ")
    assert err.count("\n") == 1
    assert message.replace("MNT", str(world.mount)) in err
    assert world.asked() == []


def test_what_the_daemon_refuses_is_one_line_and_exit_code_1(world: World) -> None:
    def busy(params: dict[str, Any], notify: Notify) -> None:
        raise BusyError("'vm1' is open:\nclose it first")

    world.answer(rollback=busy)
    assert world.run("rollback", world.mount / "vm1@a") == (1, "", "rowfs: 'vm1' is open:\\nclose it first\n")


def test_a_path_that_is_on_no_mount_fails(world: World, tmp_path: Path) -> None:
    code, _, err = world.run("create", tmp_path / "vm1", "1G")
    assert code == 1
    assert err == f"rowfs: '{tmp_path}/vm1' is not on a rowfs mount: name a path on {world.mount}\n"


@pytest.mark.parametrize("arguments", [["init", "x"], ["check", "x"], ["list", "x"], ["export", "MNT/vm1", "x"]])
def test_a_current_directory_that_was_removed_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = world.run(*(argument.replace("MNT", str(world.mount)) for argument in arguments))
    assert (code, err) == (1, "rowfs: the current directory: No such file or directory\n")


def test_a_fault_of_our_own_is_one_line_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answer(list=[{"strange": "disk"}])
    code, _, err = world.run("list")
    assert (code, err) == (1, "rowfs: a fault in rowfs itself: KeyError: 'name' (ROWFS_DEBUG=1 shows where)\n")
    monkeypatch.setenv("ROWFS_DEBUG", "1")
    assert "Traceback" in world.run("list")[2]


def test_ctrl_c_is_exit_code_130(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rowfs.cli.client.Client.call", interrupt)
    code, out, err = world.run("list")
    assert (code, out, err.strip()) == (130, "", "rowfs: interrupted")


def test_a_reader_that_leaves_is_no_news() -> None:
    child = subprocess.Popen([sys.executable, "-m", "rowfs", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait() == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_stdout_is_told(world: World, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    world.answer(list=[])
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert world.run("list", *options)[::2] == (1, "rowfs: stdout: No space left on device\n")
        patch.undo()
        with contextlib.suppress(OSError):  # it tries again
            full.close()


def test_start_up_imports_nothing_heavy() -> None:
    code = """
import sys
from rowfs.cli.declared import find_command
from rowfs.verbs.declare import each_verb
from rowfs.verbs.table import DECLARED
for verb in each_verb(DECLARED):
    if verb.place:
        find_command(verb)
print(*({"numpy", "lmdb", "trio", "pyfuse3", "asyncio"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# A locale in which Python takes names for ASCII, unless it is told better.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("words", [["-m", "rowfs"], ["-I", "-m", "rowfs"]])
def test_names_are_bytes_whatever_the_locale(words: list[str], tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/k\xc3\xbcche\r\xff"
    done = subprocess.run(
        [os.fsencode(sys.executable), *map(os.fsencode, words), b"info", name],
        capture_output=True,
        check=False,
        env=os.environ | ASCII,
    )
    assert done.returncode == 1
    assert b"/k\xc3\xbcche\\r\\xff' is not on a rowfs mount" in done.stderr.replace(b"\\udcff", b"\\xff")


def test_the_daemon_refuses_to_take_names_for_anything_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rowfs.process.daemon", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ASCII)
    assert done.returncode == 2
    assert done.stderr == "rowfs: the daemon runs in UTF-8 alone: start it as python -X utf8, as rowfs mount does\n"
