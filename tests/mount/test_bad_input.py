"""Wrong input on the command line: one line, the exit code that fits, nothing changed, and the daemon stays up."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import MakeMounted
from tests.mount.helpers import (
    COMMAND,
    LABEL_BYTES,
    MIB,
    Mounted,
    fails,
    is_mounted,
    noise,
    read_direct,
    run,
    write_file,
)
from tests.mount.linux import need

FAILED, USAGE = 1, 2
LONG = "x" * 256

REFUSED: list[tuple[int, str, list[str]]] = [
    # exit code, a part of the line, arguments; what begins with a `:` is on the mount
    (USAGE, "@", ["create", ":a@b", "1M"]),
    (USAGE, "dot", ["create", ":.hidden", "1M"]),
    (USAGE, "255", ["create", f":{LONG}", "1M"]),
    (USAGE, "name", ["create", ":a/b", "1M"]),
    (USAGE, "no disk", ["create", ":", "1M"]),
    (FAILED, "already", ["create", ":vm", "1M"]),
    (USAGE, "size", ["create", ":new", "big"]),
    (USAGE, "size", ["create", ":new", "-1"]),
    (USAGE, "size", ["create", ":new", "1X"]),
    (USAGE, "whole", ["create", ":new", "0.3"]),
    (USAGE, "16 TiB", ["create", ":new", "17T"]),
    (USAGE, "16 TiB", ["create", ":new", "99999999999999999999999"]),
    (USAGE, "", ["create", ":new"]),
    (FAILED, "no disk other", ["resize", ":other", "1M"]),
    (USAGE, "16 TiB", ["resize", ":vm", "17T"]),
    (USAGE, "cannot lose", ["resize", ":vm", "-100M"]),
    (FAILED, "other", ["resize", ":other", "+1M"]),
    (FAILED, "no disk other", ["snapshot", ":other"]),
    (FAILED, "already", ["snapshot", ":vm@s"]),
    (USAGE, "@", ["snapshot", ":vm@a@b"]),
    (USAGE, "255", ["snapshot", f":vm@{LONG}"]),
    (USAGE, "empty", ["snapshot", ":vm@"]),
    (FAILED, "no snapshot x", ["rollback", ":vm@x"]),
    (FAILED, "other", ["rollback", ":other@s"]),
    (USAGE, "no snapshot", ["rollback", ":vm"]),
    (FAILED, "no snapshot x", ["clone", ":vm@x", "new"]),
    (FAILED, "already", ["clone", ":vm@s", "vm"]),
    (USAGE, "to what", ["clone", ":vm@s"]),
    (USAGE, "--count", ["clone", ":vm@s", "--count", "3"]),
    (USAGE, "same name", ["clone", ":vm@s", "--count", "3", "--name", "new"]),
    (FAILED, "no disk other", ["rename", ":other", "new"]),
    (USAGE, "dot", ["rename", ":vm", ".new"]),
    (FAILED, "already", ["rename", ":vm", "second"]),
    (FAILED, "no snapshot x", ["rename", ":vm@x", "y"]),
    (FAILED, "already", ["rename", ":vm@s", "t"]),
    (USAGE, "stays with", ["rename", ":vm@s", ":second@s"]),
    (FAILED, "other", ["delete", ":other"]),
    (FAILED, "no snapshot x", ["delete", ":vm@x"]),
    (FAILED, "the disk vm has no snapshot x: rowfs list", ["delete", ":vm@s,x"]),
    (USAGE, "empty", ["delete", ":vm@t..s"]),
    (FAILED, "no snapshots", ["delete", ":second@a..b"]),
    (FAILED, "no snapshot x", ["delete", ":vm@s..x"]),
    (USAGE, "twice", ["clone", ":vm@s", "new", "new"]),
    (USAGE, "together", ["snapshot", ":vm@u", "--freeze-timeout", "1"]),
    (USAGE, "freeze lasts", ["snapshot", ":vm@u", "--freeze", "--freeze-timeout", "0"]),
    (USAGE, "freeze lasts", ["snapshot", ":vm@u", "--freeze", "--freeze-timeout", "nan"]),
    (USAGE, "freeze lasts", ["snapshot", ":vm@u", "--freeze", "--freeze-timeout=-1"]),
    (FAILED, "nothing to freeze", ["snapshot", ":vm@u", "--freeze"]),
    (USAGE, "no disk", ["delete", ":"]),
    (FAILED, "other", ["list", ":other"]),
    (FAILED, "", ["info", ":other"]),
    (FAILED, "the disk vm has no snapshot x: rowfs list", ["info", ":vm@x"]),
    (FAILED, "no snapshot x", ["diff", ":vm@x"]),
    (USAGE, "", ["diff", ":vm@s", ":second"]),
    (FAILED, "no snapshot x", ["export", ":vm@x", "/tmp/rowfs-no-such-image"]),
    (FAILED, "directory", ["export", ":vm@s", "/no/such/directory/image"]),
    (FAILED, "not on a rowfs mount", ["list", "/"]),
    (FAILED, "not on a rowfs mount", ["create", "/tmp/vm", "1M"]),
    (USAGE, "explode", ["explode", ":vm"]),
    (USAGE, "--explode", ["list", "--explode"]),
]


@pytest.fixture
def pool(mounted: Mounted) -> Mounted:
    """Two disks, the first with two snapshots."""
    mounted.cli("create", ":vm", "2M")
    mounted.cli("create", ":second", "1M")
    write_file(mounted.path("vm"), noise("vm", 2 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@s", ":vm@t")
    return mounted


def test_bad_input_is_one_line_and_changes_nothing(pool: Mounted) -> None:
    before, used, pid = pool.call("list"), pool.used(), pool.info()["pid"]
    wrong = []
    for code, part, args in REFUSED:
        try:
            said = pool.refuses(*args, code=code)
        except AssertionError as error:
            wrong.append(str(error))
            continue
        if part not in said:
            wrong.append(f"{args} says: {said}")
    assert wrong == []
    assert (pool.call("list"), pool.used(), pool.info()["pid"]) == (before, used, pid)
    assert read_direct(pool.path("vm")) == noise("vm", 2 * MIB)


def test_what_is_no_pool_is_not_mounted(pool: Mounted, tmp_path: Path) -> None:
    empty, other, file = tmp_path / "empty", tmp_path / "other", tmp_path / "file"
    empty.mkdir()
    other.mkdir()
    file.write_text("x")
    for code, part, args in (
        (FAILED, "no", ["mount", str(tmp_path / "nothing"), str(other)]),
        (FAILED, "rowfs init", ["mount", str(empty), str(other)]),
        (FAILED, "rowfs init", ["mount", str(file), str(other)]),
        (FAILED, "already", ["mount", str(pool.pool), ":"]),
        (FAILED, str(pool.pid), ["mount", str(pool.pool), str(other)]),
        (FAILED, "not a directory", ["mount", str(pool.pool), str(tmp_path / "nothing")]),
        (FAILED, "not a directory", ["mount", str(pool.pool), str(file)]),
        (USAGE, "", ["mount", str(pool.pool)]),
        (FAILED, "already", ["init", str(pool.pool)]),
        (FAILED, "not empty", ["init", str(tmp_path)]),
        (FAILED, "is not a directory", ["init", str(file)]),
        (USAGE, "1M", ["init", str(tmp_path / "new"), "--capacity", "1000"]),
        (USAGE, "size", ["init", str(tmp_path / "new"), "--capacity", "much"]),
        (2, "not a rowfs pool", ["check", str(empty)]),
        (2, "not a rowfs pool", ["check", str(tmp_path / "nothing")]),
    ):
        said = pool.refuses(*args, code=code)
        assert part in said, f"{args} says: {said}"
    for verb, path in (("list", empty), ("umount", tmp_path / "nothing"), ("info", file)):
        said = pool.refuses(verb, str(path))
        assert "is not on a rowfs mount: name a path on " in said and str(pool.mnt) in said  # others may be there, too
    assert not (tmp_path / "new").exists() and os.listdir(empty) == []
    assert not is_mounted(other)


def test_a_mountpoint_in_use_and_a_pool_below_it_are_refused(make_mounted: MakeMounted, tmp_path: Path) -> None:
    first = make_mounted()
    second = make_mounted(pool="pool2", mnt="mnt2")
    second.umount()
    for words in (["umount", str(second.pool)], ["create", f"{second.pool}/vm", "1M"]):
        assert f"the pool {second.pool} is not mounted: mount it first" in second.refuses(*words)
    assert "already" in second.refuses("mount", str(second.pool), str(first.mnt))
    (second.pool / "inside").mkdir()
    for mountpoint in (second.pool, second.pool / "inside", tmp_path):
        second.refuses("mount", str(second.pool), str(mountpoint), code=USAGE)
    (second.pool / "inside").rmdir()
    tmpfs = tmp_path / "tmpfs"
    tmpfs.mkdir()
    run("mount", "-t", "tmpfs", "none", tmpfs)
    try:
        assert "already" in second.refuses("mount", str(second.pool), str(tmpfs))
    finally:
        run("umount", tmpfs)
    assert "explode" in second.refuses("mount", str(second.pool), str(second.mnt), "-o", "explode", code=USAGE)
    for option in (("-o", "cache=1"), ("--cache", "1")):
        assert "cache" in second.refuses("mount", str(second.pool), str(second.mnt), *option, code=USAGE)
    assert "cache" in second.refuses("mount", "-f", str(second.pool), str(second.mnt), "--cache", "1", code=USAGE)
    second.mount("-o", "noatime,nosuid", "--cache", "1M")


def test_a_read_only_host_is_told_in_plain_words(mounted: Mounted, tmp_path: Path) -> None:
    host, mnt = tmp_path / "host", tmp_path / "other"
    host.mkdir()
    mnt.mkdir()
    mounted.cli("create", ":vm", "1M")
    mounted.cli("snapshot", ":vm@s")
    run("mount", "-t", "tmpfs", "none", host)
    try:
        mounted.cli("init", f"{host}/pool")
        run("mount", "-o", "remount,ro", host)
        why = "Read-only file system"
        said = mounted.refuses("mount", f"{host}/pool", str(mnt))
        assert said == f"{host}/pool is on a host that is read-only: mount it with -o ro, which writes nothing"
        said = mounted.refuses("check", "--repair", f"{host}/pool")
        assert said == f"{host}/pool is on a host that is read-only: only check without --repair is possible there"
        mounted.cli("mount", "--read-only", f"{host}/pool", str(mnt))  # which writes nothing
        assert "read-only" in mounted.refuses("create", f"{mnt}/vm", "1M")
        mounted.cli("umount", str(mnt))
        assert mounted.refuses("export", ":vm@s", f"{host}/image") == f"cannot write {host}/image: {why}"
        assert mounted.refuses("init", f"{host}/new") == f"cannot make a pool in {host}/new: {why}"
    finally:
        run("umount", host)


def test_a_mount_that_the_kernel_refuses_says_why_in_one_line(mounted: Mounted) -> None:
    need("setpriv")
    mounted.umount()
    said = fails("setpriv", "--bounding-set=-sys_admin", *COMMAND, "mount", mounted.pool, mounted.mnt)
    assert said.startswith(f"rowfs: cannot mount on {mounted.mnt}: ") and said.count("\n") == 1
    assert "Operation not permitted" in said
    mounted.mount()


def test_a_pool_of_a_newer_format_is_refused_by_name(mounted: Mounted) -> None:
    mounted.umount()
    data = mounted.pool / "data"
    label = data.read_bytes()[:12]
    with open(data, "r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", 99))
    said = mounted.refuses("mount", str(mounted.pool), str(mounted.mnt))
    assert "99" in said and "format" in said
    assert "99" in mounted.refuses("check", str(mounted.pool), code=2)
    with open(data, "r+b") as file:
        file.write(label)
    mounted.mount()
    assert mounted.used() == LABEL_BYTES


def test_a_pool_without_its_data_or_its_map_is_refused(mounted: Mounted) -> None:
    mounted.umount()
    for name in ("data", "map"):
        os.rename(mounted.pool / name, mounted.pool / "away")
        assert "not a rowfs pool" in mounted.refuses("mount", str(mounted.pool), str(mounted.mnt))
        os.rename(mounted.pool / "away", mounted.pool / name)
    mounted.mount()


def test_a_map_of_another_pool_is_refused(make_mounted: MakeMounted) -> None:
    first, second = make_mounted(), make_mounted(pool="pool2", mnt="mnt2")
    first.umount()
    second.umount()
    for one, other in ((first, second), (second, first)):
        os.rename(one.pool / "data", one.pool / "away")
        os.rename(other.pool / "data", one.pool / "data")
        assert "different pools" in one.refuses("mount", str(one.pool), str(one.mnt))
        os.rename(one.pool / "data", other.pool / "data")
        os.rename(one.pool / "away", one.pool / "data")


def test_a_pool_whose_data_file_was_cut_off_is_read_only(mounted: Mounted) -> None:
    path = mounted.path("vm")
    run("truncate", "-s", "8M", path)
    write_file(path, noise("cut", 8 * MIB), sync=True)
    mounted.umount()
    whole = (mounted.pool / "data").read_bytes()
    os.truncate(mounted.pool / "data", 4 * MIB)
    mounted.expected_log.append("the data file ends")
    mounted.mount()
    assert mounted.info()["read_only"] and "the data file ends at byte" in mounted.info()["read_only_reason"]
    assert "read-only" in mounted.refuses("create", ":new", "1M")
    assert read_direct(path, 0, MIB) == noise("cut", 8 * MIB)[:MIB]
    mounted.umount()
    (mounted.pool / "data").write_bytes(whole)


def test_names_reach_a_terminal_and_the_log_escaped_and_a_pipe_as_they_are(make_mounted: MakeMounted) -> None:
    mounted = make_mounted(pool="po\n\x1bol")
    disk, address = os.fsdecode(b"a\n\x1bb\xff"), mounted.path(os.fsdecode(b"a\n\x1bb\xff"))
    for args in (["create", address, "1M"], ["snapshot", f"{address}@s"], ["delete", f"{address}@s"]):
        ours, theirs = os.openpty()
        subprocess.run([*COMMAND, *args], stdout=theirs, check=True)
        os.close(theirs)
        with open(ours, "rb", buffering=0) as seen:
            said = seen.read(4096)
        assert f"{mounted.mnt}/a\\n\\x1bb\\xff".encode() in said
        assert b"\x1b" not in said and said.count(b"\n") == 1
    assert mounted.cli("snapshot", f"{address}@s") == f"{address}@s\n"
    assert [found["name"] for found in mounted.json("list", ":")] == [disk]
    assert "a\\n\\x1bb\\xff" in mounted.cli("list", ":")
    log = (mounted.pool / "rowfs.log").read_text()
    assert f"{mounted.pool.parent}/po\\n\\x1bol is mounted on" in log and "\x1b" not in log


def test_df_counts_inodes(mounted: Mounted) -> None:
    found = os.statvfs(mounted.mnt)
    assert found.f_files >= found.f_ffree > 0
