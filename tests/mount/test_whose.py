"""Whose a mount, a device, a socket is: told by what the kernel numbers, not by what anybody calls it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import RowfsError
from tests.mount.helpers import (
    MIB,
    Mounted,
    detach,
    is_mounted,
    mounted_device,
    mounts,
    noise,
    read_file,
    run,
    write_file,
)
from tests.mount.linux import make_file_system

STRANGER = 4242  # a user


@contextlib.contextmanager
def strangers_mount(where: Path, source: str) -> Iterator[Path]:
    """What a user can make with fusermount3: a mount of our type that calls itself what it likes, and never answers."""
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id={STRANGER},group_id={STRANGER}".encode()
    assert libc.mount(os.fsencode(source), os.fsencode(where), b"fuse.rowfs", 0, options) == 0
    try:
        yield where
    finally:
        os.close(fd)
        run("umount", "--lazy", where, codes=(0, 32))


def test_a_mount_that_calls_itself_ours_is_in_nobodys_way(mounted: Mounted, tmp_path: Path) -> None:
    with strangers_mount(tmp_path / "theirs", str(mounted.pool)) as theirs:
        mounted.cli("create", ":vm", "1M")
        assert [disk["name"] for disk in mounted.json("list", ":")] == ["vm"]
        assert mounted.json("info", str(mounted.pool))["mountpoint"] == str(mounted.mnt)
        assert "is not running" in mounted.refuses("info", str(theirs))
        assert "is not running" in mounted.refuses("delete", f"{theirs}/vm")
        assert "is alive, but its daemon cannot be reached" in mounted.refuses("umount", "--force", str(theirs))
        mounted.cli("umount", str(mounted.pool))
        assert (is_mounted(mounted.mnt), is_mounted(theirs)) == (False, True)
        mounted.mount()


# A pool that was moved, a socket that was removed


def moved(mounted: Mounted) -> None:
    new = mounted.pool.with_name("elsewhere")
    mounted.pool.rename(new)
    mounted.pool = new


def without_its_socket(mounted: Mounted) -> None:
    (mounted.pool / "control.sock").unlink()


@pytest.mark.parametrize("change", [moved, without_its_socket])
def test_a_live_mount_is_found_and_never_taken_away(mounted: Mounted, change: Callable[[Mounted], None]) -> None:
    mounted.cli("create", ":vm", "1M")
    change(mounted)
    assert [disk["name"] for disk in mounted.json("list", ":")] == ["vm"]
    said = mounted.refuses("mount", str(mounted.pool), ":")
    assert said.startswith(f"process {mounted.pid} shows {mounted.pool} on {mounted.mnt} already: ")
    other = mounted.mnt.with_name("other")
    other.mkdir()
    said = mounted.refuses("mount", str(mounted.pool), str(other))
    assert said == f"the pool {mounted.pool} is in use by process {mounted.pid}, mounted on {mounted.mnt}"
    write_file(mounted.path("vm"), noise("alive", MIB), sync=True)
    mounted.cli("snapshot", ":vm@s")
    mounted.umount()
    mounted.mount()
    assert read_file(mounted.snapshot_path("vm", "s")) == noise("alive", MIB)


# Loop devices


def test_a_disk_whose_name_ends_in_a_newline_is_attached_once(mounted: Mounted) -> None:
    mounted.cli("create", ":vm\n", "1M")
    device = mounted.json("attach", ":vm\n")["device"]
    assert f"attached already as {device}" in mounted.refuses("attach", ":vm\n")
    assert f"attached as {device}" in mounted.refuses("delete", ":vm\n")
    assert mounted.json("detach", ":vm\n") == {"detached": [device]}


def test_a_device_on_a_deleted_disk_is_not_anothers(mounted: Mounted) -> None:
    mounted.cli("create", ":x", "1M")
    device = mounted.json("attach", ":x")["device"]
    os.unlink(mounted.path("x"))
    try:
        mounted.cli("create", ":x (deleted)", "1M")
        assert mounted.disk("x (deleted)")["attached"] == []
        assert f"still attached: {device}" in mounted.refuses("detach", ":x (deleted)")
        other = mounted.json("attach", ":x (deleted)")["device"]
        assert mounted.json("detach", ":x (deleted)") == {"detached": [other]}
        assert mounted.json("detach", device) == {"detached": [device]}
    except BaseException:
        detach(device)
        raise


def test_what_is_mounted_from_a_device_is_told_by_its_number(mounted: Mounted, tmp_path: Path) -> None:
    mounted.cli("create", ":vm", "64M")
    device = mounted.json("attach", ":vm")["device"]
    try:
        make_file_system("ext4", device)
        alias = tmp_path / "alias"
        run("mknod", alias, "b", "7", device.removeprefix("/dev/loop"))
        with contextlib.ExitStack() as stack:
            (tmp_path / "lies").mkdir()
            run("mount", "-t", "tmpfs", device, tmp_path / "lies")
            stack.callback(run, "umount", tmp_path / "lies")
            assert mounted.disk("vm")["attached"] == [{"device": device, "mounts": []}]
            assert "there is nothing to freeze" in mounted.refuses("snapshot", "--freeze", ":vm@s")
            where = stack.enter_context(mounted_device(str(alias), tmp_path / "fs"))
            assert mounted.disk("vm")["attached"] == [{"device": device, "mounts": [str(where)]}]
            mounted.cli("snapshot", "--freeze", ":vm@s")
    finally:
        mounted.cli("detach", device)


# What covers our mount


def test_what_is_mounted_over_ours_is_left_alone(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "1M")
    with open(mounted.path("vm"), "r+b", buffering=0) as held:
        run("mount", "-t", "tmpfs", "tmpfs", mounted.mnt)
        (mounted.mnt / "vm").write_bytes(bytes(3))
        with pytest.raises(RowfsError, match="mounted over"):
            mounted.call("resize", disk="vm", size_bytes=2 * MIB)
        with pytest.raises(RowfsError, match="mounted over"):
            mounted.call("umount", force=True)
        assert (mounted.mnt / "vm").stat().st_size == 3
        held.write(b"alive")
        run("umount", mounted.mnt)
    assert [line.fs_type for line in mounts() if line.mountpoint == str(mounted.mnt)] == ["fuse.rowfs"]
