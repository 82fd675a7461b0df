"""A full host that copies on write: what has its blocks may need new ones. No mapping of the daemon's lies there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from rowfs.base.errors import RowfsError
from soaklib.system import Host
from tests.mount.helpers import COMMAND, MIB, Mounted, noise, read_direct, run, until, write_direct, write_file

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not shutil.which("mkfs.btrfs"),
    reason="nothing can be mounted here, or there is no mkfs.btrfs",
)


@pytest.fixture(params=["btrfs", "xfs"])
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """A pool that shares all of its blocks with a copy, made while it is mounted."""
    host = Host(tmp_path, request.param)
    mounted = Mounted(
        host.where / "pool", tmp_path / "mnt", expected_log=["nothing can be made durable now", "journal"]
    )
    mounted.mnt.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(host.remove)
        if request.param == "btrfs":
            run("btrfs", "subvolume", "create", mounted.pool)
        mounted.init()
        mounted.mount()
        stack.callback(mounted.finish)
        mounted.cli("create", ":vm", "1G")
        write_file(mounted.path("vm"), noise("old", 16 * MIB), sync=True)
        copy = {"btrfs": ("btrfs", "subvolume", "snapshot"), "xfs": ("cp", "-a", "--reflink=always")}[request.param]
        run(*copy, mounted.pool, host.where / "copy")
        yield mounted


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for piece in (8 * MIB, MIB, 4096):
            with contextlib.suppress(OSError):  # ENOSPC
                while file.write(os.urandom(piece)) == piece:
                    pass
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())


def test_the_daemon_lives_on_and_goes_on_when_there_is_space_again(mounted: Mounted) -> None:
    pid, foreign = mounted.pid, mounted.pool.parent / "foreign"
    fill(foreign)
    for number in range(4):
        run(
            "sync", "--file-system", mounted.pool
        )  # what was mapped is clean then, and wants blocks when it is written to
        for at, data in ((0, noise(number, MIB)), (300 * MIB, noise(number, 8 * MIB))):
            with contextlib.suppress(OSError):
                write_direct(mounted.path("vm"), at, data)
        run(*COMMAND, "snapshot", mounted.path(f"vm@s{number}"), codes=(0, 1))
        run(*COMMAND, "check", mounted.pool)
    assert mounted.info()["pid"] == pid and not mounted.info()["read_only"]
    foreign.unlink()

    def written() -> bool:
        try:
            write_direct(mounted.path("vm"), 300 * MIB, noise("more", 8 * MIB))
            mounted.call("snapshot", disk="vm", snapshot="last")
        except (OSError, RowfsError) as error:
            assert error.errno == ENOSPC
            return False
        return True

    until(written, "space")  # btrfs gives it back with its next commit
    mounted.kill()
    mounted.check()
    mounted.mount()
    assert read_direct(mounted.snapshot_path("vm", "last"), 300 * MIB, 8 * MIB) == noise("more", 8 * MIB)
    assert read_direct(mounted.path("vm"), 8 * MIB, 8 * MIB) == noise("old", 16 * MIB)[8 * MIB :]
