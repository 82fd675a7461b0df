"""`mount -o remount`, and the words of fstab that change how writes are made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.helpers import MIB, Mounted, mounts, noise, read_file, run, write_file

BY = {
    "rowfs": ["mount", "--", "{pool}", "{mnt}", "-o"],  # as mount.rowfs asks for it
    "the kernel alone": ["mount", "--internal-only", "{mnt}", "-o"],
}


@pytest.fixture(params=list(BY))
def way(request: pytest.FixtureRequest, mounted: Mounted) -> Iterator[list[str]]:
    yield [word.format(pool=mounted.pool, mnt=mounted.mnt) for word in BY[request.param]]


def remount(mounted: Mounted, way: list[str], options: str) -> None:
    if way[1] == "--":
        mounted.cli("mount", "-o", options, str(mounted.pool), str(mounted.mnt))
    else:
        run(*way, options)


def test_a_live_mount_becomes_read_only_and_is_writable_again(mounted: Mounted, way: list[str]) -> None:
    mounted.cli("create", ":vm", "1M")
    write_file(mounted.path("vm"), noise("before", MIB))
    mounted.cli("snapshot", ":vm@s")
    remount(mounted, way, "remount,ro")
    with pytest.raises(OSError) as caught:
        write_file(mounted.path("vm"), b"no")
    assert caught.value.errno == errno.EROFS
    for words in (["create", ":new", "1M"], ["snapshot", ":vm@t"], ["delete", ":vm@s"], ["rollback", ":vm@s"]):
        assert "read-only" in mounted.refuses(*words)
    assert mounted.info()["read_only"] is True
    assert read_file(mounted.path("vm")) == noise("before", MIB)
    assert [disk["name"] for disk in mounted.json("list", ":")] == ["vm"]
    remount(mounted, way, "remount,rw")
    write_file(mounted.path("vm"), b"yes", sync=True)
    mounted.cli("snapshot", ":vm@t")
    assert mounted.info()["read_only"] is False


def test_what_cannot_be_remounted_says_why(mounted: Mounted, tmp_path: Path) -> None:
    mounted.cli("create", ":vm", "1M")
    with open(mounted.path("vm"), "r+b"):
        assert "open for writing" in mounted.refuses("mount", "-o", "remount,ro", str(mounted.pool), ":")
    assert "no pool is mounted on" in mounted.refuses("mount", "-o", "remount,ro", str(mounted.pool), str(tmp_path))
    (before,) = (line.flags for line in mounts() if line.mountpoint == str(mounted.mnt))
    mounted.cli("mount", "-o", "remount,ro", str(mounted.pool), ":")
    (after,) = (line.flags for line in mounts() if line.mountpoint == str(mounted.mnt))
    assert after == before.replace("rw", "ro")  # what was not mentioned stays
    mounted.remount("-o", "ro")
    said = mounted.refuses("mount", "-o", "remount,rw", str(mounted.pool), ":")
    assert "was opened read-only" in said and "mount it again" in said


def test_sync_makes_each_write_durable(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "1M")
    mounted.remount("-o", "sync,default_permissions,silent,noauto,_netdev,x-systemd.requires=x,nofail,nodev,relatime")
    fd = os.open(mounted.path("vm"), os.O_WRONLY)
    try:
        os.pwrite(fd, noise("durable", MIB), 0)
        mounted.kill()
    finally:
        with open(os.devnull, "rb") as null:
            os.dup2(null.fileno(), fd)
        os.close(fd)
    mounted.mount()
    assert read_file(mounted.path("vm")) == noise("durable", MIB)
