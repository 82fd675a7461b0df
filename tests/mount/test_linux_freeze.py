"""rowfs snapshot --freeze: the file system in the snapshot is clean, and nothing is ever left frozen."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import RowfsError
from rowfs.host import freezer
from tests.mount.freezing import FROZEN_S, freezers, is_frozen, thawed
from tests.mount.helpers import MIB, Mounted, fails, loop, mounted_device, mounts, noise, run, until
from tests.mount.linux import FILE_SYSTEMS, LOOKING, file_system, make_file_system


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_frozen_snapshot_is_a_clean_file_system(mounted: Mounted, tmp_path: Path, kind: str) -> None:
    with file_system(mounted, "vm", kind, tmp_path / "fs") as (where, _):
        (where / "file").write_bytes(noise("file", 5 * MIB))  # and no sync
        mounted.cli("snapshot", "--freeze", ":vm@frozen")
        mounted.cli("snapshot", ":vm@crash")
        thawed(where)
    found = {item["name"]: item["consistency"] for item in mounted.disk("vm")["snapshots"]}
    assert found == {"frozen": "frozen", "crash": "crash"}
    with loop(mounted.snapshot_path("vm", "frozen")) as device:
        if kind == "ext4":
            assert "needs_recovery" not in run("dumpe2fs", "-h", device).stdout
            run("e2fsck", "-fn", device)
            options = "ro"  # no `noload` needed: its journal is empty
        else:
            options = LOOKING[kind]  # XFS leaves a record in its log even when frozen
        with mounted_device(device, tmp_path / "old", "-o", options) as old:
            assert (old / "file").read_bytes() == noise("file", 5 * MIB)
    until(lambda: freezers(where) == [], "the child to end")


def test_writers_go_on_after_each_of_many_freezes(mounted: Mounted, tmp_path: Path) -> None:
    with file_system(mounted, "vm", "ext4", tmp_path / "fs") as (where, _):
        ending, written = threading.Event(), 0

        def write() -> None:
            nonlocal written
            while not ending.is_set():
                (where / f"file{written % 50}").write_bytes(noise(written, 20_000))
                written += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(10):
                before = written
                mounted.call("snapshot", disk="vm", freeze=True)
                until(lambda before=before: written > before, "the writer to go on")  # type: ignore[misc]
        finally:
            ending.set()
            writer.join()
    for number, item in enumerate(mounted.disk("vm")["snapshots"]):
        assert item["consistency"] == "frozen"
        clone = mounted.call("clone", disk="vm", snapshot=item["name"], targets=[f"clone{number}"])
        run("e2fsck", "-fn", mounted.path(clone[0]["name"]))


def test_what_is_not_mounted_cannot_be_frozen(mounted: Mounted, tmp_path: Path) -> None:
    mounted.cli("create", ":vm", "64M")
    said = mounted.refuses("snapshot", "--freeze", ":vm@s")
    assert "no file system is mounted" in said and "nothing to freeze" in said
    with pytest.raises(RowfsError) as caught:
        mounted.call("snapshot", disk="vm", freeze=True)
    assert caught.value.errno == errno.EINVAL
    with loop(mounted.path("vm")) as device:
        assert "nothing to freeze" in mounted.refuses("snapshot", "--freeze", ":vm@s")
        make_file_system("ext4", device)
    assert mounted.disk("vm")["snapshots"] == []


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "3601"])
def test_a_limit_that_is_none_is_refused(mounted: Mounted, limit: str) -> None:
    mounted.cli("create", ":vm", "1M")
    assert "3600 seconds" in mounted.refuses("snapshot", "--freeze", "--freeze-timeout", limit, ":vm@s", code=2)
    assert "together" in mounted.refuses("snapshot", "--freeze-timeout", "5", ":vm@s", code=2)


def test_what_somebody_else_has_frozen_is_left_so(mounted: Mounted, tmp_path: Path) -> None:
    with file_system(mounted, "vm", "ext4", tmp_path / "fs") as (where, _):
        run("fsfreeze", "--freeze", where)
        try:
            assert "frozen already by someone else" in mounted.refuses("snapshot", "--freeze", ":vm@s")
            assert "Device or resource busy" in fails("fsfreeze", "--freeze", where)  # it is still frozen
            mounted.cli("snapshot", ":vm@own")
        finally:
            run("fsfreeze", "--unfreeze", where)
        thawed(where)
    assert [item["name"] for item in mounted.disk("vm")["snapshots"]] == ["own"]


def test_what_cannot_be_frozen_says_so_and_the_others_are_thawed(mounted: Mounted, tmp_path: Path) -> None:
    with file_system(mounted, "vm", "ext4", tmp_path / "first") as (first, device):
        with mounted_device(device, tmp_path / "again") as again:
            mounted.cli("snapshot", "--freeze", ":vm@once")  # mounted twice, frozen once
        covered = tmp_path / "cover"
        covered.mkdir()
        run("mount", "--bind", covered, first)
        try:
            said = mounted.refuses("snapshot", "--freeze", ":vm@s")
            assert "another mount covers it" in said
        finally:
            run("umount", first)
        thawed(first)
        assert not (again / "thawed").exists()
    until(lambda: freezers(first) == freezers(again) == [], "the children to end")


# The child alone, on a file system of its own


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A file system that has nothing to do with rowfs."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    with loop(str(image)) as device:
        make_file_system("ext4", device)
        with mounted_device(device, tmp_path / "fs") as where:
            yield where


def start(where: Path, limit_s: float = 60) -> subprocess.Popen[str]:
    (number,) = (line.mount_id for line in mounts() if line.mountpoint == str(where))
    command = [sys.executable, "-I", "-S", str(freezer.__file__), str(limit_s), f"{number}:{where}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_is_frozen_until_the_pipe_closes(ext4: Path, number: signal.Signals | None) -> None:
    with start(ext4) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "frozen\n"
        assert is_frozen(ext4)
        if number is not None:
            child.send_signal(number)
            assert is_frozen(ext4)
        child.stdin.close()
        assert child.stdout.readline() == "thawed\n"
        assert child.wait(FROZEN_S) == 0
    assert not is_frozen(ext4)


def test_whoever_holds_the_pipe_may_be_killed(ext4: Path) -> None:
    (mount_id,) = (line.mount_id for line in mounts() if line.mountpoint == str(ext4))
    code = (
        "import subprocess, sys, time\nchild = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-I", "-S", str(freezer.__file__), "60", f"{mount_id}:{ext4}"]
    holder = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "frozen\n"
    assert is_frozen(ext4)
    holder.kill()
    assert holder.stdout.read() == "thawed\n"
    holder.wait()
    holder.stdout.close()
    assert not is_frozen(ext4)


def test_it_thaws_by_itself_when_the_time_is_over(ext4: Path) -> None:
    with start(ext4, 0.3) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.read() in ("frozen\nlate\n", "late\n")
        assert child.wait(FROZEN_S) == 0
    assert not is_frozen(ext4)


def test_it_says_when_someone_else_has_thawed_it(ext4: Path) -> None:
    with start(ext4) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "frozen\n"
        run("fsfreeze", "--unfreeze", ext4)
        child.stdin.close()
        assert child.stdout.readline() == "late\n"


def test_a_file_system_without_freezing_says_so(tmp_path: Path) -> None:
    where = tmp_path / "tmpfs"
    where.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", where)
    try:
        with start(where) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == f"failed {errno.EOPNOTSUPP} 0\n"
    finally:
        run("umount", where)
