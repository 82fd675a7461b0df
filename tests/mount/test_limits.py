"""Read-only mounts, full pools, and names and paths of all kinds."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from errno import ENOSPC, EROFS
from pathlib import Path

import pytest

from rowfs.base.names import for_snapshots
from tests.mount.conftest import MakeMounted
from tests.mount.helpers import (
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    fails,
    loop,
    noise,
    read_direct,
    read_file,
    run,
    unsynced,
    write_direct,
    write_file,
)
from tests.mount.linux import need

NAMES = {
    "spaces": "a disk with spaces",
    "unicode": "d\u00efsk \u2603 \U0001f4be",
    "newline": "two\nlines",
    "bytes": os.fsdecode(b"\xff\xfe not utf-8 \x80"),
    "longest": "n" * 255,
    "longest in bytes": "\u00fc" * 127 + "x",
    "comma and dots": "a,b..c",
    "dash": "-rf",
    "quotes": "'\"`$(id)`\\",
}
PATHS = {
    "spaces and commas": "a pool, with=spaces",
    "unicode": "\u2603\u00fc",
    "backslash": "back\\slash\\,comma",
    "newline": "two\nlines",
    "hash": "#hash%20",
    "bytes": os.fsdecode(b"\xff\xfe"),
    "long": "x" * 100 + "/" + "y" * 100,
}


def sums(pool: Path) -> dict[str, str]:
    """The checksums of what a pool is made of."""
    files = (pool / "data", pool / "map" / "data.mdb")
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("killed", [False, True])
def test_a_read_only_mount_changes_not_one_byte(mounted: Mounted, killed: bool) -> None:
    mounted.cli("create", ":vm", "2M")
    write_file(mounted.path("vm"), noise("vm", 2 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@s")
    if killed:
        mounted.kill()
    else:
        mounted.umount()
    before = sums(mounted.pool)
    mounted.mount("--read-only")
    assert mounted.info()["read_only"] is True
    assert read_direct(mounted.path("vm")) == read_file(mounted.snapshot_path("vm", "s")) == noise("vm", 2 * MIB)
    for args in (
        ["create", ":new", "1M"],
        ["resize", ":vm", "1M"],
        ["rename", ":vm", "new"],
        ["snapshot", ":vm@t"],
        ["rollback", ":vm@s"],
        ["clone", ":vm@s", "new"],
        ["delete", ":vm@s"],
        ["delete", ":vm"],
    ):
        assert "read-only" in mounted.refuses(*args)
    for command in (
        ["touch", mounted.path("new")],
        ["truncate", "-s", "0", mounted.path("vm")],
        ["rm", "-f", mounted.path("vm")],
        ["touch", mounted.snapshot_path("vm", "t")],
        ["mv", mounted.path("vm"), mounted.path("new")],
        ["chmod", "600", mounted.path("vm")],
    ):
        assert "Read-only file system" in fails(*command)
    with pytest.raises(OSError) as caught:
        os.open(mounted.path("vm"), os.O_RDWR)
    assert caught.value.errno == EROFS
    assert mounted.json("list", ":")[0]["snapshots"][0]["name"] == "s"
    mounted.umount()
    assert sums(mounted.pool) == before
    mounted.mount()
    write_file(mounted.path("vm"), noise("new", B), sync=True)
    assert read_direct(mounted.path("vm"), 0, B) == noise("new", B)


@pytest.fixture
def small(make_mounted: MakeMounted) -> Mounted:
    """A pool that holds 16 MiB, its label included, and a disk in it that is larger."""
    mounted = make_mounted("--capacity", "16M")
    mounted.cli("create", ":vm", "64M")
    return mounted


def fill_direct(path: str) -> int:
    """Write past the page cache until there is no space: how many MiB were answered."""
    for number in range(64):
        try:
            write_direct(path, number * MIB, noise(number, MIB))
        except OSError as error:
            assert error.errno == ENOSPC
            return number
    pytest.fail("the pool never gets full")


def test_a_full_pool_says_so_to_the_writer_and_loses_nothing_it_has_answered(small: Mounted) -> None:
    answered = fill_direct(small.path("vm"))
    assert answered == 15
    expected = b"".join(noise(number, MIB) for number in range(answered))
    assert read_direct(small.path("vm"), 0, answered * MIB) == expected
    small.kill()
    small.mount()
    data = os.statvfs(small.path())
    assert data.f_bavail * data.f_frsize <= MIB
    assert "full" in small.json("info", ":")["warnings"][0]


def test_a_full_pool_is_told_through_fsync_or_close_when_the_write_was_cached(small: Mounted) -> None:
    fd = os.open(small.path("vm"), os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        for number in range(40):
            os.pwrite(fd, noise(number, MIB), number * MIB)
        os.fsync(fd)
    assert caught.value.errno == ENOSPC
    close_full(fd)
    fd = os.open(small.path("vm"), os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        for number in range(40, 60):
            os.pwrite(fd, noise(number, MIB), number * MIB)
        os.close(fd)
    assert caught.value.errno == ENOSPC
    assert small.info()["read_only"] is False


@pytest.mark.parametrize("native", ["1", "0"])
def test_a_disk_that_grows_into_a_pool_with_less_room_hears_of_it_and_ends(
    make_mounted: MakeMounted, tmp_path: Path, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWFS_NATIVE", native)
    small = make_mounted("--capacity", "16M")
    small.expected_log += ["the C extension is not loaded"] if native == "0" else []
    image = tmp_path / "image"
    image.write_bytes(noise("image", 20 * MIB))
    command = [sys.executable, "-c", "import shutil, sys; shutil.copyfile(*sys.argv[1:])"]
    assert "No space left on device" in fails("cp", image, small.path("copied"))
    assert "No space left on device" in fails(*command, image, small.path("sent"))
    assert "No space left on device" in fails(
        "dd", f"if={image}", f"of={small.path('direct')}", "bs=1M", "oflag=direct"
    )
    for name in ("copied", "sent", "direct"):
        run("truncate", "-s", "0", small.path(name))
    run("dd", f"if={image}", f"of={small.path('direct')}", "bs=1M", "count=15", "oflag=direct")
    assert read_direct(small.path("direct"), 0, 15 * MIB) == noise("image", 20 * MIB)[: 15 * MIB]


def test_qemu_img_hears_of_a_full_pool_as_the_readme_says(small: Mounted, tmp_path: Path) -> None:
    need("qemu-img")
    image = tmp_path / "image"
    image.write_bytes(noise("image", 20 * MIB))
    for options in (["-t", "none"], ["-t", "writethrough"], ["-o", "preallocation=falloc"]):
        said = fails("qemu-img", "convert", "-f", "raw", "-O", "raw", *options, image, small.path("copy"))
        assert "No space left on device" in said
    for copy in (["cp"], ["dd", "bs=1M"]):
        paths = [f"if={image}", f"of={small.path('copy')}"] if copy[0] == "dd" else [image, small.path("copy")]
        assert "No space left on device" in fails(*copy, *paths)


def test_list_and_info_warn_from_85_percent_on(small: Mounted) -> None:
    for full_mib, warned in ((13, False), (14, True)):  # of 16: 81 % and 87 %
        write_direct(small.path("vm"), 0, noise("vm", full_mib * MIB))
        said = small.run("list", small.path()).stderr
        assert said.startswith("rowfs: warning: the pool is 87 % full") if warned else said == ""
        assert small.run("list", "--json", small.path()).stderr == said
        assert bool(small.json("info", ":")["warnings"]) is warned
        assert ("87 % full" in small.cli("info", ":")) is warned


def close_full(fd: int) -> None:
    """close(2) may say once more what fsync(2) has said already."""
    try:
        os.close(fd)
    except OSError as error:
        assert error.errno == ENOSPC


def test_a_deletion_makes_room_on_a_full_pool_without_a_remount(small: Mounted) -> None:
    fill_direct(small.path("vm"))
    small.cli("snapshot", ":vm@s")
    small.cli("clone", ":vm@s", "copy")
    with pytest.raises(OSError) as caught:
        write_direct(small.path("copy"), 0, noise("copy", 2 * MIB))
    assert caught.value.errno == ENOSPC
    small.cli("delete", ":vm@s")
    small.cli("delete", ":vm")
    write_direct(small.path("copy"), 0, noise("in place", 2 * MIB))  # which nobody else has any more
    run("truncate", "-s", "4M", small.path("copy"))
    write_direct(small.path("copy"), 0, noise("copy", 4 * MIB))
    assert read_direct(small.path("copy")) == noise("copy", 4 * MIB)
    small.cli("create", ":next", "16M")
    for number in range(10):
        write_file(small.path("next"), noise(("next", number), MIB), number * MIB, sync=True)
    assert read_direct(small.path("next"), 9 * MIB, MIB) == noise(("next", 9), MIB)


def test_many_writers_to_a_full_pool_share_what_a_deletion_gives_back(small: Mounted) -> None:
    fill_direct(small.path("vm"))
    small.cli("create", ":next", "64M")
    os.unlink(small.path("vm"))
    errors: list[OSError] = []

    def write(number: int) -> None:
        try:
            write_direct(small.path("next"), number * MIB, noise(number, MIB))
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number in range(12):
        assert read_direct(small.path("next"), number * MIB, MIB) == noise(number, MIB)


def test_a_full_pool_still_snapshots_rolls_back_and_unmounts(small: Mounted) -> None:
    answered = fill_direct(small.path("vm"))
    small.cli("snapshot", ":vm@s")
    small.cli("rollback", ":vm@s")
    small.cli("rename", ":vm", "full")
    small.umount()
    small.mount()
    assert read_direct(small.path("full"), 0, MIB) == noise(0, MIB)
    small.cli("delete", "--wait", ":full", "--snapshots", "delete")
    assert small.used() == LABEL_BYTES and answered > 10


@pytest.mark.parametrize("place", ["file", "device"])
def test_a_snapshot_that_cannot_hold_all_that_was_written_is_refused(small: Mounted, place: str) -> None:
    with loop(small.path("vm"), direct=False) as device:
        fd = os.open(device if place == "device" else small.path("vm"), os.O_WRONLY)
        try:
            for number in range(24):  # all of it fits into the kernel's cache
                os.pwrite(fd, noise(number, MIB), number * MIB)
            small.refuses("snapshot", ":vm@s")
            assert small.disk("vm")["snapshots"] == []
        finally:
            close_full(fd)


def test_a_disk_and_a_snapshot_may_have_any_name(mounted: Mounted) -> None:
    for title, name in NAMES.items():
        path = mounted.path(name)
        run("truncate", "-s", "1M", path)
        write_file(path, noise(title, MIB))
        snapshot = for_snapshots(name)
        run("touch", mounted.snapshot_path(name, snapshot))
        write_file(path, noise("new", MIB))
        mounted.cli("rename", mounted.snapshot_path(name, snapshot), f"@{title.split()[0]}")
        assert read_direct(f"{mounted.path('.snapshots')}/{name}/{title.split()[0]}") == noise(title, MIB), title
        mounted.cli("rollback", f"{path}@{title.split()[0]}")
        assert read_direct(path) == noise(title, MIB), title
    listed = json.loads(mounted.cli("list", "--json", ":"))
    assert {disk["name"] for disk in listed} == set(NAMES.values())
    assert {os.fsencode(name) for name in os.listdir(mounted.path())} >= {os.fsencode(name) for name in NAMES.values()}
    mounted.cli("list", ":")
    mounted.remount()
    for title, name in NAMES.items():
        assert read_direct(mounted.path(name)) == noise(title, MIB), title
        mounted.cli("delete", mounted.path(name), "--snapshots", "delete")
    assert mounted.used() == LABEL_BYTES


@pytest.mark.parametrize("title", ["spaces", "newline", "bytes"])
def test_a_loop_device_on_a_disk_of_any_name_is_found(mounted: Mounted, title: str) -> None:
    path = mounted.path(NAMES[title])
    run("truncate", "-s", "4M", path)
    with loop(path, direct=False) as device, unsynced(device, noise(title, MIB)):
        mounted.cli("snapshot", f"{path}@s")
        assert read_direct(mounted.snapshot_path(NAMES[title], "s"), 0, MIB) == noise(title, MIB)
        assert device in mounted.refuses("rollback", f"{path}@s")


@pytest.mark.parametrize("title", PATHS)
def test_a_pool_and_its_mount_may_have_any_path(make_mounted: MakeMounted, title: str) -> None:
    name = PATHS[title]
    mounted = make_mounted(pool=f"pool {name}", mnt=f"mnt {name}")
    assert mounted.info()["pool"] == str(mounted.pool)
    mounted.cli("create", ":vm", "1M")
    with loop(mounted.path("vm"), direct=False) as device, unsynced(device, noise(title, MIB)):
        mounted.cli("snapshot", ":vm@s")
        assert device in mounted.refuses("rollback", ":vm@s")
    assert read_direct(mounted.snapshot_path("vm", "s")) == noise(title, MIB)
    assert len(json.loads(mounted.cli("list", "--json", str(mounted.pool)))) == 1
    with open(mounted.path("vm"), "rb"):
        assert str(os.getpid()) in mounted.refuses("umount", ":")
    mounted.remount()
    assert read_direct(mounted.path("vm")) == noise(title, MIB)
