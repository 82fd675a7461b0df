"""What plain tools do with disks and snapshots."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import threading
from collections.abc import Callable
from errno import EACCES, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, EPERM, EROFS, EXDEV
from pathlib import Path

import pytest

from tests.mount.helpers import (
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    close_dead,
    fails,
    forget_pages,
    noise,
    read_direct,
    read_file,
    run,
    until,
    write_direct,
    write_file,
)


def make(mounted: Mounted, name: str, size: int, data: bytes = b"") -> str:
    """A disk that begins with `data`, durable."""
    path = mounted.path(name)
    run("truncate", "-s", str(size), path)
    if data:
        write_file(path, data, sync=True)
    return path


def test_truncate_makes_grows_and_shrinks_a_disk(mounted: Mounted) -> None:
    path = make(mounted, "vm", 10 * MIB)
    run("truncate", "-s", "+1M", path)
    assert os.stat(path).st_size == mounted.disk("vm")["size_bytes"] == 11 * MIB
    run("truncate", "-s", "4097", path)
    assert read_direct(path) == bytes(4097)


def test_cp_brings_an_image_in_and_out(mounted: Mounted, tmp_path: Path) -> None:
    data = noise("image", 3 * MIB) + bytes(MIB) + noise("tail", 5000)
    (tmp_path / "image").write_bytes(data)
    run("cp", tmp_path / "image", mounted.path("vm"))
    assert read_direct(mounted.path("vm")) == data
    forget_pages(mounted.path("vm"))
    run("cp", mounted.path("vm"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert mounted.disk("vm")["mapped_bytes"] == 4 * MIB + 2 * B  # zeros are data
    run("cp", tmp_path / "image", mounted.path("vm"))  # over what is there
    forget_pages(mounted.path("vm"))
    assert read_file(mounted.path("vm")) == data
    run("truncate", "-s", "1M", tmp_path / "image")
    run("cp", tmp_path / "image", mounted.path("vm"))  # a shorter one
    assert read_direct(mounted.path("vm")) == data[:MIB]


def test_cp_copies_a_disk_and_a_snapshot_on_the_mount(mounted: Mounted) -> None:
    data = noise(1, MIB) + bytes(MIB) + noise(2, B)
    path = make(mounted, "vm", 4 * MIB, data)
    mounted.cli("snapshot", ":vm@s")
    write_file(path, noise(3, MIB), sync=True)
    run("cp", "--sparse=always", mounted.snapshot_path("vm", "s"), mounted.path("copy"))
    assert read_direct(mounted.path("copy")) == data.ljust(4 * MIB, b"\0")
    run("cp", path, mounted.path("second"))
    assert read_direct(mounted.path("second"), 0, MIB) == noise(3, MIB)


def test_dd_writes_into_a_disk(mounted: Mounted, tmp_path: Path) -> None:
    path = make(mounted, "vm", 8 * MIB)
    for flags in ("fullblock", "direct", "sync", "dsync,direct"):
        (tmp_path / "in").write_bytes(noise(flags, MIB))
        place = "iflag" if flags == "fullblock" else "oflag"
        run("dd", f"if={tmp_path}/in", f"of={path}", "bs=64k", "seek=16", "conv=notrunc", f"{place}={flags}")
        assert read_direct(path) == bytes(MIB) + noise(flags, MIB) + bytes(6 * MIB)


def test_dd_writes_odd_sizes_at_odd_places(mounted: Mounted, tmp_path: Path) -> None:
    expected = bytearray(noise("before", 2 * MIB))
    path = make(mounted, "vm", 2 * MIB, bytes(expected))
    for block in (1, 511, 1000, 4095, 4097, 65537):
        mounted.call("snapshot", disk="vm", snapshot=f"s{block}")
        before = bytes(expected)
        data = noise(block, block * min(100, MIB // block))
        (tmp_path / "in").write_bytes(data)
        run("dd", f"if={tmp_path}/in", f"of={path}", f"bs={block}", "seek=3", "conv=notrunc,fsync")
        expected[3 * block : 3 * block + len(data)] = data
        assert read_direct(path) == expected
        assert read_direct(mounted.snapshot_path("vm", f"s{block}")) == before


def test_dd_without_notrunc_empties_the_disk_first(mounted: Mounted, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"new")
    path = make(mounted, "vm", MIB, noise(1, MIB))
    run("dd", f"if={tmp_path}/in", f"of={path}", "conv=fsync")
    assert read_direct(path) == b"new"
    assert mounted.disk("vm")["mapped_bytes"] == B


def test_qemu_img_makes_and_converts_disks(mounted: Mounted, tmp_path: Path) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("this machine has no qemu-img")
    data = noise(1, MIB) + bytes(2 * MIB) + noise(2, MIB)
    (tmp_path / "image").write_bytes(data)
    run("qemu-img", "create", "-q", "-f", "raw", mounted.path("vm"), "64M")
    assert os.stat(mounted.path("vm")).st_size == 64 * MIB
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", tmp_path / "image", tmp_path / "qcow2")
    run("qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", tmp_path / "qcow2", mounted.path("vm"))
    assert read_direct(mounted.path("vm")) == data
    run("qemu-img", "convert", "-q", "-n", "-f", "raw", "-O", "raw", tmp_path / "image", mounted.path("vm"))
    forget_pages(mounted.path("vm"))
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", tmp_path / "image", mounted.path("vm"))
    assert "file format: raw" in run("qemu-img", "info", "-f", "raw", mounted.path("vm")).stdout


def test_mv_renames_a_disk_with_its_chain(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB, noise(1, MIB))
    mounted.cli("snapshot", ":vm@s")
    run("mv", path, mounted.path("web"))
    assert os.listdir(mounted.path()) == ["web"] or set(os.listdir(mounted.path())) == {".snapshots", "web"}
    assert os.listdir(mounted.path(".snapshots")) == ["web"]
    assert read_direct(mounted.snapshot_path("web", "s")) == read_direct(mounted.path("web")) == noise(1, MIB)


def test_mv_over_a_disk_replaces_it(mounted: Mounted) -> None:
    make(mounted, "a", MIB, noise("a", MIB))
    make(mounted, "b", MIB, noise("b", MIB))
    run("mv", mounted.path("a"), mounted.path("b"))
    assert read_direct(mounted.path("b")) == noise("a", MIB)
    assert mounted.used() == MIB + LABEL_BYTES


def test_mv_brings_a_file_in_from_elsewhere(mounted: Mounted, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(noise(1, MIB))
    run("mv", tmp_path / "image", mounted.path("vm"))
    assert read_direct(mounted.path("vm")) == noise(1, MIB)
    run("mv", mounted.path("vm"), tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == noise(1, MIB)
    assert mounted.used() == LABEL_BYTES


def test_ls_shows_disks_and_snapshots(mounted: Mounted) -> None:
    make(mounted, "vm", 10 * MIB, noise(1, MIB))
    mounted.cli("snapshot", ":vm@s")
    disk = run("ls", "-ls", mounted.path("vm")).stdout.split()
    assert (disk[0], disk[1], disk[5]) == ("1024", "-rw-r--r--", str(10 * MIB))
    snapshot = run("ls", "-ls", mounted.snapshot_path("vm", "s")).stdout.split()
    assert (snapshot[0], snapshot[1], snapshot[5]) == ("1024", "-r--r--r--", str(10 * MIB))
    assert run("ls", "-A", mounted.path()).stdout.split() == [".snapshots", "vm"]
    assert run("find", mounted.path(), "-type", "f").stdout.count("\n") == 2


def test_stat_tells_what_is_mapped_and_when(mounted: Mounted) -> None:
    path = make(mounted, "vm", 64 * MIB, noise(1, 3 * B))
    write_file(path, noise(2, B), 32 * MIB, sync=True)
    assert os.stat(path).st_blocks * 512 == mounted.disk("vm")["mapped_bytes"] == 4 * B
    mounted.cli("snapshot", ":vm@s")
    taken = os.stat(mounted.snapshot_path("vm", "s"))
    assert taken.st_blocks * 512 == 4 * B
    write_file(path, noise(3, 8 * B), sync=True)
    assert os.stat(path).st_blocks * 512 == 9 * B
    later = os.stat(mounted.snapshot_path("vm", "s"))
    assert (later.st_blocks, later.st_mtime_ns) == (taken.st_blocks, taken.st_mtime_ns)
    assert os.stat(path).st_mtime_ns >= taken.st_mtime_ns
    assert (os.stat(path).st_nlink, taken.st_nlink) == (1, 1)


def used_and_free(mounted: Mounted) -> tuple[int, int]:
    data = os.statvfs(mounted.path())
    return (data.f_blocks - data.f_bfree) * data.f_frsize, data.f_bavail * data.f_frsize


def test_df_tells_the_truth(make_mounted: type[Mounted]) -> None:
    mounted = make_mounted("--capacity", "64M")
    assert used_and_free(mounted) == (LABEL_BYTES, 64 * MIB - LABEL_BYTES)
    path = make(mounted, "vm", 32 * MIB, noise(1, 8 * MIB))
    assert used_and_free(mounted) == (8 * MIB + LABEL_BYTES, 56 * MIB - LABEL_BYTES)
    mounted.cli("snapshot", ":vm@s")
    write_file(path, noise(2, 2 * MIB), sync=True)
    assert used_and_free(mounted)[0] == 10 * MIB + LABEL_BYTES == mounted.info()["used_bytes"]
    mounted.cli("delete", "--wait", ":vm@s")
    assert used_and_free(mounted)[0] == 8 * MIB + LABEL_BYTES
    os.unlink(path)
    assert mounted.used() == used_and_free(mounted)[0] == LABEL_BYTES
    shown = run("df", "--output=size,avail", "-B1", mounted.path()).stdout.split()[2:]
    assert shown == [str(64 * MIB), str(64 * MIB - LABEL_BYTES)]
    data = mounted.pool / "data"
    until(lambda: os.stat(data).st_blocks * 512 <= 2 * LABEL_BYTES, "the host to get its space back")


def test_chmod_and_chown_are_kept(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB)
    run("chmod", "640", path)
    run("chown", "1234:567", path)
    run("touch", "-d", "2020-01-02 03:04:05 UTC", path)
    mounted.remount()
    found = os.stat(path)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1234, 567)
    assert found.st_mtime == 1577934245
    run("touch", path)
    assert os.stat(path).st_mtime > 1577934245


def test_touch_takes_rm_deletes_and_mv_renames_a_snapshot(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB, noise(1, MIB))
    run("touch", mounted.snapshot_path("vm", "a"), mounted.snapshot_path("vm", "b"))
    write_file(path, noise(2, MIB), sync=True)
    run("mv", mounted.snapshot_path("vm", "a"), mounted.snapshot_path("vm", "z"))
    assert [item["name"] for item in mounted.disk("vm")["snapshots"]] == ["z", "b"]
    run("rm", "-f", mounted.snapshot_path("vm", "b"))
    assert read_direct(mounted.snapshot_path("vm", "z")) == noise(1, MIB)
    mounted.remount()
    assert os.listdir(mounted.path(".snapshots/vm")) == ["z"]
    assert read_direct(path) == noise(2, MIB)


def test_a_snapshot_cannot_be_changed_by_any_tool(mounted: Mounted, tmp_path: Path) -> None:
    make(mounted, "vm", MIB, noise(1, MIB))
    make(mounted, "other", MIB)
    mounted.cli("snapshot", ":vm@s")
    snapshot = mounted.snapshot_path("vm", "s")
    for command in (
        ["truncate", "-s", "0", snapshot],
        ["dd", "if=/dev/zero", f"of={snapshot}", "conv=notrunc", "count=1"],
        ["cp", "/bin/true", snapshot],
        ["chmod", "600", snapshot],
        ["chown", "1:1", snapshot],
        ["touch", snapshot],
        ["mv", snapshot, mounted.path("vm2")],
        ["mv", "-T", snapshot, mounted.snapshot_path("other", "s")],
        ["ln", snapshot, mounted.path("link")],
    ):
        assert fails(*command)
    with pytest.raises(OSError) as caught:
        os.truncate(snapshot, 5)
    assert caught.value.errno == EROFS
    assert read_direct(snapshot) == noise(1, MIB)
    run("cmp", mounted.path("vm"), snapshot)


ATTEMPTS: list[tuple[Callable[[str], object], int]] = [
    (lambda at: os.mkdir(f"{at}/dir"), EPERM),
    (lambda at: os.symlink("vm", f"{at}/link"), EPERM),
    (lambda at: os.link(f"{at}/vm", f"{at}/link"), EPERM),
    (lambda at: os.mkfifo(f"{at}/fifo"), EPERM),
    (lambda at: Path(f"{at}/a@b").write_bytes(b""), EINVAL),
    (lambda at: Path(f"{at}/.hidden").write_bytes(b""), EINVAL),
    (lambda at: Path(f"{at}/{'x' * 256}").write_bytes(b""), ENAMETOOLONG),
    (lambda at: Path(f"{at}/vm").touch(exist_ok=False), EEXIST),
    (lambda at: Path(f"{at}/.snapshots/new").write_bytes(b""), EPERM),
    (lambda at: Path(f"{at}/.snapshots/vm").write_bytes(b""), EISDIR),
    (lambda at: os.rmdir(f"{at}/.snapshots"), EPERM),
    (lambda at: os.rename(f"{at}/vm", f"{at}/a@b"), EINVAL),
    (lambda at: os.rename(f"{at}/vm", "/tmp/vm"), EXDEV),
    (lambda at: os.setxattr(f"{at}/vm", "user.rowfs.size_bytes", b"1"), EACCES),
    (lambda at: os.getxattr(f"{at}/vm", "user.rowfs.nothing"), ENODATA),
]


def test_what_a_mount_cannot_do_has_its_errno(mounted: Mounted) -> None:
    make(mounted, "vm", MIB)
    for number, (attempt, code) in enumerate(ATTEMPTS):
        with pytest.raises(OSError) as caught:
            attempt(mounted.path())
        assert caught.value.errno == code, f"attempt {number}"
    assert set(os.listdir(mounted.path())) == {".snapshots", "vm"}


def test_extended_attributes_tell_the_figures(mounted: Mounted) -> None:
    path = make(mounted, "vm", 4 * MIB, noise(1, MIB))
    mounted.cli("snapshot", ":vm@s", "--description", "why \u00fc")
    write_file(path, noise(2, B), sync=True)
    snapshot = mounted.snapshot_path("vm", "s")
    assert os.getxattr(path, "user.rowfs.mapped_bytes") == str(MIB).encode()
    assert os.getxattr(snapshot, "user.rowfs.freed_if_deleted_bytes") == str(B).encode()
    assert os.getxattr(snapshot, "user.rowfs.description").decode() == "why \u00fc"
    assert os.getxattr(mounted.path(), "user.rowfs.pool") == str(mounted.pool).encode()
    for file in (path, snapshot, mounted.path()):
        assert os.listxattr(file) == []


def test_an_open_disk_that_is_removed_lives_on(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB, noise(1, MIB))
    with open(path, "r+b", buffering=0) as file:
        run("rm", path)
        make(mounted, "vm", MIB, noise("other", MIB))
        os.pwrite(file.fileno(), noise(2, B), 0)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), MIB, 0) == noise(2, B) + noise(1, MIB)[B:]
        assert os.fstat(file.fileno()).st_nlink == 0
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), noise(3, 4 * B), 0)
    assert read_direct(path) == noise("other", MIB)
    assert mounted.used() == MIB + LABEL_BYTES


def test_an_open_snapshot_that_is_renamed_or_removed_lives_on(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB, noise(1, MIB))
    run("touch", mounted.snapshot_path("vm", "a"))
    write_file(path, noise(2, MIB), sync=True)
    flags = (os.O_RDONLY | os.O_DIRECT, os.O_RDONLY)
    fds = [os.open(mounted.snapshot_path("vm", "a"), flag) for flag in flags]
    with mmap.mmap(-1, MIB) as buffer:
        for command in (
            ["mv", mounted.snapshot_path("vm", "a"), mounted.snapshot_path("vm", "b")],
            ["rm", "-f", mounted.snapshot_path("vm", "b")],
        ):
            run(*command)
            for fd in fds:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.preadv(fd, [buffer], 0) == MIB
                assert buffer[:] == noise(1, MIB), f"wrong after {command[0]}"
    for fd in fds:
        os.close(fd)
    assert mounted.used() == MIB + LABEL_BYTES


def test_a_deleted_disk_is_not_reached_through_an_old_path_descriptor(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB, noise("secret", MIB))
    fd = os.open(path, os.O_PATH)
    try:
        os.unlink(path)
        assert mounted.used() == LABEL_BYTES
        make(mounted, "other", MIB, noise("other", MIB))
        with pytest.raises(OSError):
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
    finally:
        os.close(fd)
    assert read_direct(mounted.path("other")) == noise("other", MIB)


def test_holes_take_no_space_and_read_as_zeros(mounted: Mounted) -> None:
    path = make(mounted, "vm", 1 << 40)
    for offset in (0, 5 * MIB + 3, (1 << 40) - 10):
        write_file(path, b"0123456789", offset, sync=True)
    assert mounted.disk("vm")["mapped_bytes"] == 3 * B
    assert read_direct(path, 5 * MIB, 2 * B) == (bytes(3) + b"0123456789").ljust(2 * B, b"\0")
    assert read_direct(path, (1 << 40) - B) == bytes(B - 10) + b"0123456789"
    write_file(path, bytes(B), 0, sync=True)
    assert mounted.disk("vm")["mapped_bytes"] == 3 * B  # zeros are data
    assert "4.0K of zeros would become holes" in mounted.cli("trim", "--dry-run", ":vm")
    assert "4.0K of zeros are holes now, 4.0K came back" in mounted.cli("trim", ":vm")
    assert mounted.disk("vm")["mapped_bytes"] == 2 * B
    assert read_direct(path, 0, B) == bytes(B)


def test_zeros_become_holes_by_themselves_after_the_time_that_the_mount_says(mounted: Mounted) -> None:
    mounted.remount("-o", "zeros=1")
    path = make(mounted, "vm", 64 * MIB)
    run("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=20", "conv=notrunc,fsync")
    assert mounted.disk("vm")["mapped_bytes"] == 20 * MIB
    until(lambda: mounted.disk("vm")["mapped_bytes"] == 0, "holes")
    until(lambda: mounted.info()["used_bytes"] < MIB, "their space")


def test_append_and_reads_past_the_end(mounted: Mounted) -> None:
    path = make(mounted, "vm", 0)
    for number in range(50):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, noise(number, 777))
        os.close(fd)
    expected = b"".join(noise(number, 777) for number in range(50))
    assert read_direct(path) == expected
    assert read_direct(path, 40 * B, B) == b"" and read_file(path, 10 * MIB, 10) == b""
    assert read_file(path, len(expected) - 5, 100) == expected[-5:]


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_DIRECT])
def test_a_synchronous_write_survives_a_kill(mounted: Mounted, flag: int) -> None:
    path = make(mounted, "vm", MIB)
    fd = os.open(path, os.O_RDWR | flag)
    with mmap.mmap(-1, 2 * B) as buffer:
        buffer[:] = noise(1, 2 * B)
        assert os.pwritev(fd, [buffer], B) == 2 * B
    mounted.kill_daemon()
    close_dead(fd)
    run("umount", "--lazy", mounted.mnt)
    mounted.mount()
    assert read_direct(path, B, 2 * B) == noise(1, 2 * B)


def test_what_is_written_through_a_mapping_arrives(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB, noise(1, MIB))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), MIB) as mapping:
        assert mapping[:] == noise(1, MIB)
        mapping[5000:15000] = noise(2, 10000)
        mapping.flush()
        expected = noise(1, MIB)[:5000] + noise(2, 10000) + noise(1, MIB)[15000:]
        assert read_direct(path) == expected
        mounted.cli("snapshot", ":vm@s")
        mapping[0:B] = noise(3, B)
    assert read_direct(mounted.snapshot_path("vm", "s")) == expected
    assert read_direct(path) == noise(3, B) + expected[B:]


@pytest.mark.parametrize("direct", [False, True])
def test_eight_writers_at_once_lose_nothing(mounted: Mounted, direct: bool) -> None:
    path = make(mounted, "vm", 32 * MIB)
    mounted.cli("snapshot", ":vm@before")

    def write(number: int) -> None:
        for step in range(32):
            data, offset = noise((number, step), 4 * B), (step * 8 + number) * 4 * B
            write_direct(path, offset, data) if direct else write_file(path, data, offset)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    mounted.cli("snapshot", ":vm@s")
    for thread in threads:
        thread.join()
    forget_pages(path)
    expected = b"".join(noise((number, step), 4 * B) for step in range(32) for number in range(8))
    assert read_direct(path, 0, len(expected)) == expected
    assert read_file(path, 0, len(expected)) == expected
    assert mounted.disk("vm")["mapped_bytes"] == len(expected)


def test_a_new_time_changes_nothing_else(mounted: Mounted) -> None:
    path = make(mounted, "vm", MIB + 100, noise("time", 3 * B))
    os.chmod(path, 0o640)
    os.chown(path, 7, 8)
    before = os.stat(path)
    run("touch", "--no-create", "-m", "--date=@1577934245.25", path)
    after = os.stat(path)
    assert after.st_mtime_ns == 1577934245_250_000_000
    for field in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize"):
        assert getattr(after, field) == getattr(before, field), field
