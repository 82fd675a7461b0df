"""rowfs attach and detach, and what rowfs list tells of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import BusyError
from rowfs.cli import loops
from rowfs.host.loops import FileNumbers, Loop
from tests.mount.helpers import (
    COMMAND,
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    detach,
    fails,
    mounted_device,
    noise,
    read_direct,
    run,
    write_direct,
    write_file,
)
from tests.mount.linux import need

NOBODYS = f"/dev/loop{(1 << 20) - 1}"  # the last that there can be: one that is free now another program takes


@pytest.fixture(autouse=True)
def _nothing_stays_attached(mounted: Mounted) -> Iterator[None]:
    yield
    for device, file in attached().items():
        if file.startswith(str(mounted.mnt)):
            detach(device)


def attached() -> dict[str, str]:
    """Loop devices and their files."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    found = {}
    for file in files:
        try:
            found[f"/dev/{file.parts[3]}"] = os.fsdecode(file.read_bytes().removesuffix(b"\n"))
        except OSError:  # detached meanwhile
            continue
    return found


def flag(device: str, name: str) -> str:
    return Path(f"/sys/block/{Path(device).name}/{name}").read_text().strip()


def a_disk(mounted: Mounted, name: str = "vm") -> str:
    path = mounted.path(name)
    run("truncate", "-s", "64M", path)
    write_file(path, noise(name, MIB), sync=True)
    return path


def test_attach_prints_a_device_that_is_the_disk(mounted: Mounted) -> None:
    path = a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    assert attached()[device] == path
    assert (flag(device, "ro"), flag(device, "loop/dio"), flag(device, "loop/partscan")) == ("0", "1", "1")
    assert read_direct(device, 0, MIB) == noise("vm", MIB)
    write_direct(device, B, noise("device", B))
    assert read_direct(path, B, B) == noise("device", B)
    assert mounted.disk("vm")["attached"] == [{"device": device, "mounts": []}]
    assert mounted.cli("detach", ":vm") == f"{device}: detached\n"
    assert device not in attached()
    assert mounted.disk("vm")["attached"] == []


def test_json_tells_what_was_made(mounted: Mounted) -> None:
    a_disk(mounted)
    mounted.cli("snapshot", ":vm@s")
    made = mounted.json("attach", ":vm@s")
    wanted = {"disk": "vm", "snapshot": "s", "read_only": True, "direct_io": True, "partitions": []}
    assert made == {"device": made["device"]} | wanted
    buffered = mounted.json("attach", "--no-direct-io", ":vm")
    assert (buffered["read_only"], buffered["direct_io"], buffered["snapshot"]) == (False, False, None)
    assert mounted.json("detach", ":vm@s") == {"detached": [made["device"]]}
    assert mounted.json("detach", buffered["device"]) == {"detached": [buffered["device"]]}


@pytest.mark.parametrize(("address", "options"), [(":vm@s", ()), (":vm", ("--read-only",))])
def test_what_is_read_only_cannot_be_written(mounted: Mounted, address: str, options: tuple[str, ...]) -> None:
    a_disk(mounted)
    mounted.cli("snapshot", ":vm@s")
    device = mounted.cli("attach", address, *options).strip()
    assert flag(device, "ro") == "1"
    assert read_direct(device, 0, MIB) == noise("vm", MIB)
    assert "not permitted" in fails("dd", "if=/dev/zero", f"of={device}", "bs=4k", "count=1", "oflag=direct")
    mounted.cli("detach", address)


def test_a_read_only_mount_attaches_read_only(mounted: Mounted) -> None:
    a_disk(mounted)
    mounted.remount("-o", "ro")
    device = mounted.cli("attach", ":vm").strip()
    assert flag(device, "ro") == "1"
    mounted.cli("detach", device)


def test_what_is_mounted_is_not_detached(mounted: Mounted, tmp_path: Path) -> None:
    a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    run("mkfs.ext4", "-q", device)
    with mounted_device(device, tmp_path / "fs") as where:
        for what in (":vm", device):
            said = mounted.refuses("detach", what)
            assert f"{device} (mounted on {where})" in said and "unmount" in said
        (where / "file").write_text("alive")
        assert f"disk, {device} on {where}\n" in mounted.cli("list", ":")
        assert mounted.disk("vm")["attached"] == [{"device": device, "mounts": [str(where)]}]
        said = mounted.refuses("rollback", ":vm@none") + mounted.refuses("attach", ":vm")
        assert f"attached already as {device} (mounted on {where})" in said
    mounted.cli("detach", ":vm")


def test_what_is_used_otherwise_is_not_detached(mounted: Mounted) -> None:
    a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    fd = os.open(device, os.O_RDONLY | os.O_EXCL)  # as swapon or device-mapper hold it
    try:
        assert "in use" in mounted.refuses("detach", ":vm")
        assert device in attached()
    finally:
        os.close(fd)
    mounted.cli("detach", ":vm")


def test_all_devices_of_a_disk_are_detached_or_the_one_given(mounted: Mounted) -> None:
    path = a_disk(mounted)
    first = mounted.cli("attach", ":vm").strip()
    second = mounted.cli("attach", "--read-only", ":vm").strip()
    third = run("losetup", "--find", "--show", path).stdout.strip()
    mounted.cli("detach", second)
    assert {first, third} <= attached().keys() and second not in attached()
    assert set(mounted.json("detach", ":vm")["detached"]) == {first, third}
    assert not {first, second, third} & attached().keys()


def test_what_is_not_attached_is_not_detached(mounted: Mounted, tmp_path: Path) -> None:
    a_disk(mounted)
    mounted.cli("snapshot", ":vm@s")
    assert "is not attached" in mounted.refuses("detach", ":vm")
    assert "is not attached" in mounted.refuses("detach", ":vm@s")
    assert "is not attached" in mounted.refuses("detach", NOBODYS)
    other = tmp_path / "image"
    other.write_bytes(bytes(MIB))
    device = run("losetup", "--find", "--show", other).stdout.strip()
    try:
        assert "not on a rowfs mount" in mounted.refuses("detach", device, code=2)
        with pytest.raises(BusyError, match="was detached meanwhile"):  # and the number is another file's now
            loops.detach(Loop(device, mounted.path("vm"), FileNumbers("0:1", 4)))
        assert attached()[device] == str(other)
    finally:
        detach(device)
    assert "not on a rowfs mount" in mounted.refuses("detach", str(other))


def test_what_is_not_there_is_not_attached(mounted: Mounted) -> None:
    a_disk(mounted)
    mounted.cli("snapshot", ":vm@s")
    assert "no disk" in mounted.refuses("attach", ":other")
    assert "no snapshot" in mounted.refuses("attach", ":vm@other")
    assert "names no disk" in mounted.refuses("attach", ":", code=2)
    mounted.cli("delete", ":vm")
    assert "deleted" in mounted.refuses("attach", ":vm")
    assert not any(file.startswith(str(mounted.mnt)) for file in attached().values())


def test_a_disk_renamed_while_attached_is_still_known(mounted: Mounted) -> None:
    a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    mounted.cli("rename", ":vm", ":web")
    assert attached()[device] == mounted.path("web")
    assert mounted.disk("web")["attached"] == [{"device": device, "mounts": []}]
    a_disk(mounted, "vm")
    assert "a disk web already" in mounted.refuses("rename", ":vm", ":web")
    assert "a disk vm already" in mounted.refuses("rename", ":web", ":vm")
    mounted.cli("detach", ":web")


def test_what_was_written_is_durable_when_it_is_detached(mounted: Mounted) -> None:
    a_disk(mounted)
    device = mounted.cli("attach", "--no-direct-io", ":vm").strip()
    with open(device, "r+b") as file:
        file.write(noise("late", 8 * MIB))
    mounted.cli("detach", device)
    mounted.kill()
    mounted.mount()
    assert read_direct(mounted.path("vm"), 0, 8 * MIB) == noise("late", 8 * MIB)


def test_partitions_are_scanned_for_where_the_kernel_can(mounted: Mounted) -> None:
    need("sfdisk")
    path = a_disk(mounted)
    run("truncate", "-s", "0", path)
    run("truncate", "-s", "64M", path)
    subprocess.run(["sfdisk", "--quiet", path], input="label: gpt\nsize=16M\nsize=16M\n", text=True, check=True)
    made = mounted.json("attach", ":vm")
    device = made["device"]
    mounted.cli("detach", ":vm")
    found = [f"{device}p1", f"{device}p2"]
    assert made["partitions"] in (found, [])  # a kernel without a parser finds none


def size_of(device: str) -> int:
    return int(flag(device, "size")) * 512


def test_a_resize_reaches_the_loop_devices(mounted: Mounted, tmp_path: Path) -> None:
    a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    reading = mounted.cli("attach", "--read-only", ":vm").strip()
    run("mkfs.ext4", "-q", device)
    with mounted_device(device, tmp_path / "fs") as where:
        assert mounted.cli("resize", ":vm", "+32M") == f"{mounted.path('vm')}: resized to 96M\n"
        assert (size_of(device), size_of(reading)) == (96 * MIB, 96 * MIB)
    run("e2fsck", "-fp", device)
    run("resize2fs", device)
    with mounted_device(device, tmp_path / "fs") as where:
        (where / "file").write_bytes(noise("file", 70 * MIB))
        run("sync", "-f", where)
        assert mounted.disk("vm")["mapped_bytes"] > 70 * MIB


def test_an_attached_disk_is_not_made_smaller_unless_forced(mounted: Mounted) -> None:
    path = a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    said = mounted.refuses("resize", ":vm", "-1M")
    assert f"attached as {device}: unmount and detach it, or shrink it with --force" in said
    assert os.stat(path).st_size == size_of(device) == 64 * MIB
    mounted.cli("resize", ":vm", "64M")
    mounted.cli("resize", "--force", ":vm", "-1M")
    assert os.stat(path).st_size == size_of(device) == 63 * MIB
    detach(device)
    mounted.cli("resize", ":vm", "-1M")


def test_a_device_that_may_not_be_told_of_a_resize_is_named(mounted: Mounted) -> None:
    need("setpriv")
    a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    words = [*COMMAND, "resize", mounted.path("vm"), "96M"]
    done = run("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *words)
    assert done.stdout == f"{mounted.path('vm')}: resized to 96M\n"
    assert done.stderr.startswith("rowfs: warning: ") and done.stderr.count("\n") == 1
    assert f"until root runs losetup -c {device}" in done.stderr
    assert size_of(device) == 64 * MIB
    run("losetup", "-c", device)
    assert size_of(device) == 96 * MIB


@pytest.mark.parametrize("command", ["rm", "mv"])
def test_rm_and_mv_over_an_attached_disk_leave_the_device_what_it_was(mounted: Mounted, command: str) -> None:
    path = a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    if command == "mv":
        run("mv", a_disk(mounted, "other"), path)
    else:
        run("rm", path)
        a_disk(mounted)
        write_file(path, noise("other", MIB), sync=True)
    write_direct(device, B, noise("device", B))
    assert read_direct(device, 0, 2 * B) == noise("vm", MIB)[:B] + noise("device", B)
    assert read_direct(path, 0, MIB) == noise("other", MIB)
    assert mounted.disk("vm")["attached"] == []
    detach(device)
    assert mounted.used() == MIB + LABEL_BYTES


def test_an_attached_disk_is_not_deleted_unless_forced(mounted: Mounted) -> None:
    path = a_disk(mounted)
    device = mounted.cli("attach", ":vm").strip()
    assert f"attached as {device}: unmount and detach it" in mounted.refuses("delete", ":vm")
    assert "would be deleted" in mounted.cli("delete", "--dry-run", ":vm")
    assert read_direct(path, 0, MIB) == noise("vm", MIB)
    mounted.cli("delete", "--force", ":vm")
    assert not os.path.exists(path)
    detach(device)
