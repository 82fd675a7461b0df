"""A disk used by another path than the mountpoint's: through bind mounts, and from other mount namespaces."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from soaklib.system import backing_file
from tests.mount.helpers import (
    MIB,
    Mounted,
    detach,
    is_mounted,
    mounted_device,
    noise,
    read_direct,
    run,
    unsynced,
)
from tests.mount.linux import make_file_system
from tests.mount.namespaces import another_namespace


@contextlib.contextmanager
def bound(source: str, where: Path) -> Iterator[Path]:
    """A bind mount of a directory or a file."""
    if os.path.isdir(source):
        where.mkdir()
    else:
        where.touch()
    run("mount", "--bind", source, where)
    try:
        yield where
    finally:
        if is_mounted(where):
            run("umount", where)


def attach_to(path: str) -> str:
    return run("losetup", "--find", "--show", path).stdout.strip()


@contextlib.contextmanager
def by_bind_mount(mounted: Mounted, where: Path) -> Iterator[str]:
    with bound(mounted.path(), where):
        yield attach_to(f"{where}/vm")


@contextlib.contextmanager
def by_bind_mount_of_the_file(mounted: Mounted, where: Path) -> Iterator[str]:
    with bound(mounted.path("vm"), where):
        yield attach_to(str(where))


@contextlib.contextmanager
def from_another_namespace(mounted: Mounted, where: Path) -> Iterator[str]:
    where.mkdir()
    script = f"mount --bind {mounted.path()} {where}; losetup --find --show {where}/vm"
    with another_namespace(where.parent, script) as there:
        yield there.said


Way = Callable[[Mounted, Path], AbstractContextManager[str]]


@pytest.fixture(params=[by_bind_mount, by_bind_mount_of_the_file, from_another_namespace], ids=lambda way: way.__name__)
def device(request: pytest.FixtureRequest, mounted: Mounted, tmp_path: Path) -> Iterator[str]:
    """A loop device on the disk `vm`, attached through another path."""
    mounted.cli("create", ":vm", "64M")
    way: Way = request.param
    with way(mounted, tmp_path / "where") as made:
        file = backing_file(made)
        try:
            yield made
        finally:
            if backing_file(made) == file:  # once the test has detached it, it is anybody's
                detach(made)


def test_what_is_written_through_it_is_in_a_snapshot(mounted: Mounted, device: str) -> None:
    with unsynced(device, noise("new", MIB)):
        mounted.cli("snapshot", ":vm@s")
        assert read_direct(mounted.snapshot_path("vm", "s"), 0, MIB) == noise("new", MIB)


def test_it_is_told_of_and_respected(mounted: Mounted, device: str) -> None:
    mounted.cli("snapshot", ":vm@s")
    assert mounted.disk("vm")["attached"] == [{"device": device, "mounts": []}]
    assert f"in use by {device}" in mounted.refuses("rollback", ":vm@s")
    assert f"attached already as {device}" in mounted.refuses("attach", ":vm")
    assert mounted.cli("detach", ":vm") == f"{device}: detached\n"
    assert mounted.disk("vm")["attached"] == []


def test_what_is_mounted_from_it_is_frozen(mounted: Mounted, device: str, tmp_path: Path) -> None:
    make_file_system("ext4", device)
    with mounted_device(device, tmp_path / "fs") as where:
        (where / "file").write_bytes(noise("file", MIB))
        mounted.cli("snapshot", "--freeze", ":vm@s")
        assert mounted.disk("vm")["attached"] == [{"device": device, "mounts": [str(where)]}]
    run("e2fsck", "-fn", mounted.snapshot_path("vm", "s"))


def test_an_attached_snapshot_is_listed(mounted: Mounted, tmp_path: Path) -> None:
    mounted.cli("create", ":vm", "64M")
    make_file_system("ext4", mounted.path("vm"))
    mounted.cli("snapshot", ":vm@s")
    with bound(mounted.path(".snapshots/vm"), tmp_path / "where") as part:
        first, second = mounted.cli("attach", ":vm@s").strip(), attach_to(f"{part}/s")
        try:
            with mounted_device(first, tmp_path / "fs", "-o", "ro,noload") as where:
                (found,) = mounted.disk("vm")["snapshots"]
                assert found["attached"] == [
                    {"device": first, "mounts": [str(where)]},
                    {"device": second, "mounts": []},
                ]
                for shown in (mounted.cli("list", ":"), mounted.cli("list", ":vm@s")):
                    assert f"crash, {first} on {where}, {second}\n" in shown
                assert f"attached                      {first} on {where}\n" in mounted.cli("info", ":vm@s")
        finally:
            mounted.cli("detach", ":vm@s")
    assert mounted.disk("vm")["snapshots"][0]["attached"] == []


# Unmounting


def test_a_bind_mount_keeps_the_mount_from_ending(mounted: Mounted, tmp_path: Path) -> None:
    with bound(mounted.path(), tmp_path / "where") as where:
        assert f"can also be seen on {where}" in mounted.refuses("umount", ":")
        assert is_mounted(mounted.mnt)
    mounted.umount()


def test_a_bind_mount_is_unmounted_alone(mounted: Mounted, tmp_path: Path) -> None:
    with bound(mounted.path(), tmp_path / "where") as where:
        mounted.cli("umount", str(where))
        assert not os.path.ismount(where) and os.path.ismount(mounted.mnt)


def test_force_takes_bind_mounts_away_as_well(mounted: Mounted, tmp_path: Path) -> None:
    with bound(mounted.path(), tmp_path / "where") as where:
        mounted.umount("--force")
        assert not is_mounted(where)


def test_another_namespace_that_keeps_the_mount_is_named(mounted: Mounted, tmp_path: Path) -> None:
    with another_namespace(tmp_path, "echo") as there:
        assert f"in the mount namespaces of sh ({there.pid})" in mounted.refuses("umount", ":")
        assert not is_mounted(mounted.mnt)
    mounted.wait_free(mounted.pid)
    mounted.pid = 0
