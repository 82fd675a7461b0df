"""What a mount tells of files beside their bytes: times, owners, modes, descriptions."""

from __future__ import annotations

import os
import subprocess
import time
from errno import EFBIG
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMounted
from tests.mount.helpers import MIB, Mounted, noise, read_direct, run, until, write_file
from tests.mount.linux import need

TIMES = ["2300-01-01", "1600-01-01", "1900-01-01", "9999-12-31", "@253402300800", "@-99999999999", "2024-02-29"]


def make(mounted: Mounted, name: str, data: bytes) -> str:
    """A disk that holds `data`: its path."""
    path = mounted.path(name)
    Path(path).write_bytes(data)
    return path


def test_any_time_can_be_set_and_the_pool_is_mounted_again(mounted: Mounted) -> None:
    paths = [make(mounted, f"vm{number}", noise(number, MIB)) for number in range(len(TIMES))]
    for path, wanted in zip(paths, TIMES, strict=True):
        run("touch", "-d", wanted, path)
    assert len(mounted.json("list", ":")) == len(TIMES)
    mounted.remount()
    for number, path in enumerate(paths):
        assert read_direct(path) == noise(number, MIB)
        assert mounted.json("info", f":vm{number}")["modified"] == os.getxattr(path, "user.rowfs.modified").decode()
    assert os.stat(paths[0]).st_mtime_ns == 2**63 - 1
    assert os.stat(paths[1]).st_mtime_ns == -(2**63)
    assert os.stat(paths[6]).st_mtime == pytest.approx(1_709_164_800, abs=86_400)


def test_a_description_is_as_long_as_an_extended_attribute(mounted: Mounted) -> None:
    make(mounted, "vm", b"x")
    mounted.call("snapshot", disk="vm", snapshot="s", description="x" * 65_536)
    assert os.getxattr(mounted.snapshot_path("vm", "s"), "user.rowfs.description") == b"x" * 65_536
    assert "65536 bytes" in mounted.refuses("snapshot", ":vm@t", "--description", "x" * 65_537, code=2)


NOBODY = 65534
CLOCK_REALTIME_COARSE = 5  # by which Linux stamps files


def may_read(mounted: Mounted, path: str) -> bool:
    """Whether another user may read a file of the mount; he gets there through a descriptor of ours."""
    there = os.open(mounted.mnt, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = subprocess.run(
            ["cat", f"/proc/self/fd/{there}/{path}"],
            pass_fds=[there],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    finally:
        os.close(there)
    assert done.returncode == 0 or b"Permission denied" in done.stderr, done.stderr
    return done.returncode == 0


def test_what_is_taken_from_others_of_a_disk_is_taken_of_its_snapshots(make_mounted: MakeMounted) -> None:
    mounted = make_mounted(mount=("--allow-other",))
    disk, snapshot = make(mounted, "vm", b"secret"), ".snapshots/vm/s"
    mounted.cli("snapshot", ":vm@s")
    assert may_read(mounted, "vm") and may_read(mounted, snapshot)
    os.chmod(disk, 0o600)
    assert not may_read(mounted, "vm") and not may_read(mounted, snapshot)
    mounted.cli("clone", ":vm@s", "clone")
    assert not may_read(mounted, "clone")
    os.chown(disk, NOBODY, NOBODY)
    assert may_read(mounted, snapshot)
    os.chown(disk, 0, 0)
    os.unlink(disk)
    assert not may_read(mounted, snapshot)
    mounted.remount("--allow-other")
    assert not may_read(mounted, snapshot)


def test_the_time_of_change_advances_and_survives(mounted: Mounted) -> None:
    path = make(mounted, "vm", noise(1, MIB))
    seen = [os.stat(path).st_ctime_ns]
    renamed = mounted.path("vm2")
    for change in (
        lambda: os.chmod(path, 0o600),
        lambda: os.utime(path, ns=(5, 5)),
        lambda: os.truncate(path, 2 * MIB),
        lambda: write_file(path, b"x", sync=True),
        lambda: os.utime(path, ns=(7, 7)),
        lambda: os.rename(path, renamed),
    ):
        until(lambda: time.clock_gettime_ns(CLOCK_REALTIME_COARSE) > seen[-1], "the kernel's clock")
        change()
        seen.append(os.stat(renamed if os.path.exists(renamed) else path).st_ctime_ns)
    assert seen == sorted(set(seen))
    mounted.remount()
    assert (os.stat(renamed).st_mtime_ns, os.stat(renamed).st_ctime_ns) == (7, seen[-1])


def test_programs_that_copy_attributes_find_none_to_copy(mounted: Mounted, tmp_path: Path) -> None:
    need("rsync")
    path = make(mounted, "vm", noise(1, MIB))
    for command in (
        ["rsync", "-aX", path, f"{tmp_path}/rsync"],
        ["tar", "--xattrs", "--xattrs-include=*", "-C", mounted.path(), "-cf", tmp_path / "tar", "vm"],
        ["cp", "--preserve=all", path, tmp_path / "cp"],
        ["mv", path, tmp_path / "mv"],
        ["mv", tmp_path / "mv", path],
    ):
        assert run(*command).stderr == "", command
    assert os.listxattr(path) == []
    assert os.getxattr(path, "user.rowfs.size_bytes") == str(MIB).encode()
    for refused in (
        lambda: os.setxattr(path, "user.rowfs.size_bytes", b"1"),
        lambda: os.removexattr(path, "user.rowfs.size_bytes"),
    ):
        with pytest.raises(PermissionError):
            refused()


def test_attach_says_what_the_device_leaves_out(mounted: Mounted) -> None:
    done = mounted.run("create", mounted.path("vm"), "123456789")
    assert "+235 rounds the size up" in done.stderr
    done = mounted.run("attach", mounted.path("vm"))
    assert "leaves out the last 277 of 123456789" in done.stderr
    assert "leaves out the last 277" in mounted.cli("info", ":vm")
    mounted.cli("resize", ":vm", "+235")
    assert run("blockdev", "--getsize64", done.stdout.strip()).stdout.strip() == "123457024"
    mounted.cli("detach", ":vm")
    for at in (mounted.path("vm"), mounted.path("new")):
        with pytest.raises(OSError) as caught, open(at, "ab") as file:
            os.truncate(file.fileno(), (16 << 40) + 1)
        assert caught.value.errno == EFBIG
