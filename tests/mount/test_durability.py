"""What survives: a killed daemon, signals, and the ways to unmount."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.mount.helpers import (
    COMMAND,
    MIB,
    ROOT,
    B,
    Mounted,
    close_dead,
    fails,
    has_extension,
    is_mounted,
    loop,
    mounted_device,
    noise,
    read_direct,
    read_file,
    run,
    until,
    write_direct,
    write_file,
)

PROMISE_S = 5.0  # of what reached the daemon, at most so much is lost without an fsync


@pytest.fixture
def disk(mounted: Mounted) -> Mounted:
    """A disk of 4 MiB with a snapshot, all of it durable."""
    mounted.cli("create", ":vm", "4M")
    write_file(mounted.path("vm"), noise("old", 4 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@s")
    return mounted


def without_uptime(mounted: Mounted) -> Any:
    """What `list` answers, but who has files open."""
    return [{**disk, "open": 0, "attached": []} for disk in mounted.json("list", ":")]


@pytest.mark.parametrize("how", ["fsync", "fdatasync", "close", "sync -f", "syncfs of the directory"])
def test_what_was_synced_survives_a_kill(disk: Mounted, how: str) -> None:
    path = disk.path("vm")
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, noise("new", MIB), 1000)
    if how == "close":
        os.close(fd)
        disk.kill_daemon()
    else:
        {
            "fsync": lambda: os.fsync(fd),
            "fdatasync": lambda: os.fdatasync(fd),
            "sync -f": lambda: run("sync", "-f", path),
            "syncfs of the directory": lambda: run("sync", "-f", disk.path()),
        }[how]()
        disk.kill_daemon()
        close_dead(fd)
    run("umount", "--lazy", disk.mnt)
    disk.check()
    disk.mount()
    assert read_direct(path) == noise("old", 4 * MIB)[:1000] + noise("new", MIB) + noise("old", 4 * MIB)[1000 + MIB :]
    assert read_direct(disk.snapshot_path("vm", "s")) == noise("old", 4 * MIB)


@pytest.mark.skipif(not has_extension(), reason="the C extension is not built")
def test_what_the_extension_synced_into_the_journal_survives_a_kill(disk: Mounted) -> None:
    expected = bytearray(noise("old", 4 * MIB))
    fd = os.open(disk.path("vm"), os.O_RDWR)

    def synced() -> bool:  # not while a commit runs, and not before the journal is ready
        records = disk.info()["hot"]["records"]
        for _ in range(5):
            block = noise(rng.random(), B)
            at = rng.randrange(len(expected) // B) * B
            os.pwrite(fd, block, at)
            os.fdatasync(fd)
            expected[at : at + B] = block
        return bool(disk.info()["hot"]["records"] >= records + 5)

    rng = random.Random(1)
    until(synced, "the extension answers five syncs in a row with records")
    disk.kill_daemon()
    close_dead(fd)
    run("umount", "--lazy", disk.mnt)
    disk.mount()
    assert read_direct(disk.path("vm")) == expected
    assert read_direct(disk.snapshot_path("vm", "s")) == noise("old", 4 * MIB)


def test_every_verb_that_was_answered_survives_a_kill(disk: Mounted) -> None:
    for verb in (
        ["create", ":new", "3M"],
        ["snapshot", ":vm@t"],
        ["clone", ":vm@s", "c1", "c2"],
        ["rename", ":vm@t", "@u"],
        ["rename", ":c1", "c3"],
        ["rollback", ":vm@u"],
        ["resize", ":new", "1M"],
        ["delete", ":vm@s"],
        ["delete", ":vm"],
    ):
        disk.cli(*verb)
        before = without_uptime(disk)
        disk.kill()
        disk.check()
        disk.mount()
        assert without_uptime(disk) == before, f"{verb} did not survive"
    assert read_direct(disk.path("c3")) == read_direct(disk.snapshot_path("vm", "u")) == noise("old", 4 * MIB)


def test_touch_survives_a_kill(disk: Mounted) -> None:
    run("touch", disk.snapshot_path("vm", "t"))
    disk.kill()
    disk.mount()
    assert os.listdir(disk.path(".snapshots/vm")) == ["s", "t"]


def test_a_pool_mounts_again_although_a_dead_mount_and_socket_are_there(disk: Mounted) -> None:
    disk.kill_daemon()
    assert (disk.pool / "control.sock").exists() and is_mounted(disk.mnt)
    assert "not running" in disk.refuses("list", str(disk.pool))
    disk.mount()
    assert read_direct(disk.path("vm")) == noise("old", 4 * MIB)


def test_a_dead_mount_is_taken_away_by_umount(disk: Mounted) -> None:
    disk.kill_daemon()
    disk.cli("umount", ":")
    assert not is_mounted(disk.mnt)
    disk.mount()
    fd = os.open(disk.path("vm"), os.O_RDONLY)
    disk.kill_daemon()
    disk.refuses("umount", ":")
    disk.cli("umount", "--force", ":")
    close_dead(fd)
    disk.mount()
    assert read_direct(disk.path("vm")) == noise("old", 4 * MIB)


class Journal(threading.Thread):
    """Writes one block after the other past the page cache, and notes when each was answered."""

    def __init__(self, path: str, blocks: int, flags: int) -> None:
        super().__init__()
        self._path, self._blocks, self._flags = path, blocks, flags
        self.answered: list[float] = []

    def run(self) -> None:
        """The thread; it ends with the daemon."""
        fd = os.open(self._path, os.O_WRONLY | os.O_DIRECT | self._flags)
        try:
            with mmap.mmap(-1, B) as buffer:
                for block in range(self._blocks):
                    buffer[:] = block.to_bytes(8) * (B // 8)
                    os.pwritev(fd, [buffer], block * B)
                    self.answered.append(time.monotonic())
                    if not self._flags:
                        time.sleep(0.002)
        except OSError:
            return
        finally:
            close_dead(fd)


def blocks_there(path: str, count: int) -> list[bool]:
    """Which blocks hold their number. The others hold zeros, as before: never a mixture."""
    data = read_direct(path, 0, count * B)
    found = []
    for block in range(count):
        held = data[block * B : (block + 1) * B]
        assert held in (bytes(B), block.to_bytes(8) * (B // 8)), f"block {block} is torn"
        found.append(held != bytes(B) or block == 0)
    return found


def test_without_any_sync_a_kill_loses_the_last_seconds_at_most(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "64M")
    journal = Journal(mounted.path("vm"), 16384, 0)
    journal.start()
    until(lambda: len(journal.answered) > 101 and time.monotonic() - journal.answered[101] > PROMISE_S, "the promise")
    killed = time.monotonic()
    mounted.kill_daemon()
    journal.join()
    run("umount", "--lazy", mounted.mnt)
    mounted.check()
    mounted.mount()
    old = sum(1 for answered in journal.answered if answered < killed - PROMISE_S)
    there = blocks_there(mounted.path("vm"), len(journal.answered))
    assert old > 100 and all(there[:old]), f"block {there.index(False)} is lost, which was written long before"


def test_at_whatever_moment_a_daemon_is_killed_nothing_answered_is_lost(mounted: Mounted) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for turn in range(6):
        name = f"vm{turn}"
        mounted.call("create", disk=name, size_bytes=64 * MIB)
        journal = Journal(mounted.path(name), 16384, os.O_DSYNC)
        journal.start()
        taken: list[tuple[str, int]] = []
        count = 0
        until(lambda: len(journal.answered) > 10, "the writer")  # noqa: B023
        end = time.monotonic() + moments.uniform(0.1, 0.7)
        while time.monotonic() < end:
            answered = len(journal.answered)
            count += 1
            snapshot = f"s{count}"
            mounted.call("snapshot", disk=name, snapshot=snapshot)
            taken.append((snapshot, answered))
            if count % 3 == 0:
                mounted.call("delete", disk=name, snapshots=[taken.pop(0)[0]])
        mounted.kill_daemon()
        journal.join()
        run("umount", "--lazy", mounted.mnt)
        mounted.check()
        mounted.mount()
        assert all(blocks_there(mounted.path(name), len(journal.answered)))
        assert os.listdir(mounted.path(f".snapshots/{name}")) == [snapshot for snapshot, _ in taken]
        for snapshot, answered in taken:
            assert all(blocks_there(mounted.snapshot_path(name, snapshot), answered))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemon_with_everything_durable(disk: Mounted, number: int) -> None:
    fd = os.open(disk.path("vm"), os.O_WRONLY)
    os.write(fd, noise("unsynced", MIB))
    pid = disk.pid
    os.kill(pid, number)
    disk.wait_free(pid)
    close_dead(fd)
    assert not is_mounted(disk.mnt)
    assert not (disk.pool / "control.sock").exists()
    disk.mount()
    assert read_direct(disk.path("vm")) == noise("unsynced", MIB) + noise("old", 4 * MIB)[MIB:]


def test_a_signal_during_heavy_writing_loses_nothing_that_was_answered(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "64M")
    journal = Journal(mounted.path("vm"), 16384, 0)
    journal.start()
    until(lambda: len(journal.answered) > 100, "the writer")
    mounted.call("snapshot", disk="vm", snapshot="s")
    pid = mounted.pid
    os.kill(pid, signal.SIGTERM)
    mounted.wait_free(pid)
    journal.join()
    mounted.mount()
    assert all(blocks_there(mounted.path("vm"), len(journal.answered)))


def test_a_daemon_in_the_foreground_ends_on_ctrl_c_with_exit_code_0(disk: Mounted) -> None:
    disk.umount()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*COMMAND, "mount", "-f", str(disk.pool), str(disk.mnt)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as daemon:
        until(lambda: is_mounted(disk.mnt) and (disk.pool / "control.sock").exists(), "the mount")
        write_file(disk.path("vm"), noise("new", MIB))
        daemon.send_signal(signal.SIGINT)
        _, said = daemon.communicate(timeout=30)
    assert daemon.returncode == 0 and "Traceback" not in said, said
    disk.mount()
    assert read_direct(disk.path("vm"), 0, MIB) == noise("new", MIB)


def test_umount_of_a_busy_mount_names_who_uses_it(disk: Mounted, tmp_path: Path) -> None:
    pid = disk.pid
    with open(disk.path("vm"), "rb"):
        said = disk.refuses("umount", ":")
        assert str(os.getpid()) in said
    with subprocess.Popen(["sleep", "60"], cwd=disk.mnt) as sleeper:
        assert f"sleep ({sleeper.pid})" in disk.refuses("umount", ":")
        sleeper.kill()
    with loop(disk.path("vm")) as device:
        assert device in disk.refuses("umount", ":")
        run("mkfs.ext4", "-q", "-F", device)
        with mounted_device(device, tmp_path / "fs"):
            assert device in disk.refuses("umount", ":")
    assert is_mounted(disk.mnt) and disk.info()["pid"] == pid
    until(lambda: not disk.disk("vm")["open"], "the device to be detached")
    disk.umount()


def test_a_forced_umount_of_a_busy_mount_loses_nothing(disk: Mounted) -> None:
    fd = os.open(disk.path("vm"), os.O_WRONLY)
    os.write(fd, noise("unsynced", MIB))
    disk.umount("--force")
    with pytest.raises(OSError):
        os.fsync(fd)
    close_dead(fd)
    disk.mount()
    assert read_direct(disk.path("vm")) == noise("unsynced", MIB) + noise("old", 4 * MIB)[MIB:]


@pytest.mark.parametrize("command", [["umount"], ["fusermount3", "-u"], ["umount", "--lazy"]])
def test_umount_of_the_system_works_and_is_durable(disk: Mounted, command: list[str]) -> None:
    write_file(disk.path("vm"), noise("last", MIB), 2 * MIB)
    pid = disk.pid
    run(*command, disk.mnt)
    disk.wait_free(pid)
    with open(disk.pool / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not (disk.pool / "control.sock").exists()
    disk.mount()
    assert read_direct(disk.path("vm"), 2 * MIB, MIB) == noise("last", MIB)


def test_rowfs_umount_returns_when_everything_is_durable(disk: Mounted) -> None:
    write_file(disk.path("vm"), noise("last", 4 * MIB))
    disk.umount()
    with open(disk.pool / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    disk.check()
    disk.mount("--read-only")
    assert read_direct(disk.path("vm")) == noise("last", 4 * MIB)


def test_a_second_mount_of_a_pool_names_the_first(disk: Mounted, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    said = disk.refuses("mount", str(disk.pool), str(other))
    assert str(disk.pid) in said
    assert str(disk.pool) in disk.refuses("mount", str(disk.pool), str(disk.mnt))
    assert not is_mounted(other)
    write_direct(disk.path("vm"), 0, noise("still up", B))
    assert read_file(disk.path("vm"), 0, B) == noise("still up", B)


def test_a_dead_mount_is_said_to_be_dead(disk: Mounted) -> None:
    disk.kill_daemon()
    assert "not connected" in fails("ls", disk.path("vm"))
    said = disk.refuses("info", ":")
    assert "not running" in said and "umount" in said
    run("umount", "--lazy", disk.mnt)
    disk.mount()
