"""Freezes that do not come to an end as they should: nothing is left frozen, and no snapshot says that it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.freezing import freezers, is_frozen, slow_daemon, stuck_writer, thawed
from tests.mount.helpers import COMMAND, ROOT, Mounted, fails, loop, mounted_device, run, until
from tests.mount.linux import file_system, make_file_system

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
LATE = "was not frozen, snapshotted and thawed within {} s: no snapshot was taken"


def test_a_freeze_that_waits_for_a_stuck_writer_is_given_up(mounted: Mounted, tmp_path: Path) -> None:
    with file_system(mounted, "vm", "ext4", tmp_path / "fs") as (where, _):
        with stuck_writer(where):
            assert LATE.format(1) in mounted.refuses("snapshot", "--freeze", "--freeze-timeout", "1", ":vm@s")
            assert freezers(where) != []  # it is in the kernel's hands until the writer ends
            mounted.cli("snapshot", ":vm@crash")
        until(lambda: freezers(where) == [], "the freeze to be undone")
        thawed(where)
        mounted.cli("snapshot", "--freeze", ":vm@frozen")
    found = {item["name"]: item["consistency"] for item in mounted.disk("vm")["snapshots"]}
    assert found == {"crash": "crash", "frozen": "frozen"}


@pytest.fixture
def slow(mounted: Mounted, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A file system whose daemon never ends a snapshot; and the file that shows that it has come to where it stays."""
    mounted.cli("create", ":vm", "64M")
    mounted.umount()
    with slow_daemon(mounted) as frozen, loop(mounted.path("vm")) as device:
        make_file_system("ext4", device)
        with mounted_device(device, tmp_path / "fs") as where:
            yield where, frozen
        if mounted.pid:
            assert mounted.disk("vm")["snapshots"] == []


def snapshot(mounted: Mounted, limit_s: int) -> subprocess.Popen[bytes]:
    """The command, under way."""
    words = ["snapshot", "--freeze", "--freeze-timeout", str(limit_s), mounted.path("vm@s")]
    return subprocess.Popen([*COMMAND, *words], env=ENVIRONMENT, stderr=subprocess.DEVNULL)


def test_what_takes_too_long_while_frozen_is_given_up(mounted: Mounted, slow: tuple[Path, Path]) -> None:
    where, frozen = slow
    # Time for the freeze to come about on a machine that has much else to do.
    assert LATE.format(3) in mounted.refuses("snapshot", "--freeze", "--freeze-timeout", "3", ":vm@s")
    assert frozen.exists()
    until(lambda: freezers(where) == [], "the thaw")
    thawed(where)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_command_killed_while_frozen_leaves_nothing_frozen(
    mounted: Mounted, slow: tuple[Path, Path], number: signal.Signals
) -> None:
    where, frozen = slow
    with snapshot(mounted, limit_s=2) as command:
        until(frozen.exists, "the freeze")
        command.send_signal(number)
        command.wait()
    until(lambda: freezers(where) == [], "the thaw")
    thawed(where)


def test_the_daemon_killed_while_frozen_leaves_nothing_frozen(mounted: Mounted, slow: tuple[Path, Path]) -> None:
    where, frozen = slow
    with snapshot(mounted, limit_s=600) as command:
        until(frozen.exists, "the freeze")
        assert is_frozen(where)
        mounted.kill_daemon()
        assert command.wait() == 1
    until(lambda: freezers(where) == [], "the thaw")
    assert "Invalid argument" in fails("fsfreeze", "--unfreeze", where)  # it is not frozen


def test_a_policy_freezes_what_is_mounted_and_thaws_it(mounted: Mounted, tmp_path: Path) -> None:
    mounted.cli("create", ":plain", "1M")
    with file_system(mounted, "vm", "ext4", tmp_path / "fs") as (where, _):
        mounted.cli("policy", "create", ":", "nightly", "--every", "1d", "--tz", "UTC", "--disks", "*", "--freeze")
        (where / "file").write_bytes(b"of the moment")  # and no sync
        mounted.cli("policy", "run", ":", "nightly")
        thawed(where)
    found = {disk["name"]: disk["snapshots"] for disk in mounted.json("list", ":")}
    assert [item["consistency"] for name in ("plain", "vm") for item in found[name]] == ["crash", "frozen"]
    with loop(mounted.snapshot_path("vm", found["vm"][0]["name"])) as device:
        assert "needs_recovery" not in run("dumpe2fs", "-h", device).stdout
        with mounted_device(device, tmp_path / "old", "-o", "ro") as old:
            assert (old / "file").read_bytes() == b"of the moment"
    assert freezers(where) == []


def test_a_policy_whose_daemon_is_killed_while_frozen_leaves_nothing_frozen(
    mounted: Mounted, slow: tuple[Path, Path]
) -> None:
    where, frozen = slow
    mounted.cli("policy", "create", ":", "nightly", "--every", "1d", "--tz", "UTC", "--disks", "*", "--freeze")
    words = ["policy", "run", mounted.path(""), "nightly"]
    with subprocess.Popen([*COMMAND, *words], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as command:
        until(frozen.exists, "the freeze")
        assert is_frozen(where)
        mounted.kill_daemon()
        assert command.wait() == 1
    until(lambda: freezers(where) == [], "the thaw")
    assert "Invalid argument" in fails("fsfreeze", "--unfreeze", where)  # it is not frozen
