"""A snapshot's file that is made through the mount: the snapshot is taken, and no byte written to it is ever seen."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from errno import ENODEV, EROFS
from pathlib import Path

import pytest

from tests.mount.helpers import MIB, Mounted, fails, noise, read_direct, run

WRITES: list[Callable[[int], object]] = [
    lambda fd: os.write(fd, b"x" * 5000),
    lambda fd: os.pwrite(fd, b"x", 5 * MIB),
    lambda fd: os.pwritev(fd, [b"x" * MIB] * 4, 0),
    lambda fd: os.ftruncate(fd, 5),
    lambda fd: os.ftruncate(fd, 5 * MIB),
    lambda fd: os.posix_fallocate(fd, 0, 8 * MIB),
    lambda fd: os.copy_file_range(fd, fd, 64 << 10, 0, MIB),
    lambda fd: os.fchmod(fd, 0o600),
    lambda fd: os.fchown(fd, 1, 1),
]


def test_whoever_makes_a_snapshots_file_cannot_write_to_it(mounted: Mounted, tmp_path: Path) -> None:
    data, other = noise(1, 2 * MIB), tmp_path / "other"
    Path(mounted.path("vm")).write_bytes(data)
    other.write_bytes(noise(2, 5 * MIB))
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_DIRECT):
        path = mounted.snapshot_path("vm", f"s{flags}")
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        for number, write in enumerate(WRITES):
            with pytest.raises(OSError) as caught:
                write(fd)
            assert caught.value.errno in ((EROFS,) if flags != os.O_WRONLY else (EROFS, 9)), f"attempt {number}"
        if flags == os.O_RDWR:
            with pytest.raises(OSError) as caught:
                mmap.mmap(fd, 2 * MIB)
            assert caught.value.errno == ENODEV
        assert Path(path).read_bytes() == data  # while the first handle is open
        with pytest.raises(OSError) as caught:
            os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        assert caught.value.errno == EROFS
        os.utime(fd)  # as touch(1)
        os.close(fd)
    for name, command in {
        "cp": ["cp", other],
        "direct": ["dd", f"if={other}", "bs=1M", "oflag=direct", "conv=notrunc"],
        "notrunc": ["dd", f"if={other}", "bs=64K", "conv=notrunc"],
        "trunc": ["dd", f"if={other}", "bs=64K"],
        "clobber": ["sh", "-c", f': > "{mounted.snapshot_path("vm", "clobber")}"'],
        "shared": ["cp", "--reflink=auto", mounted.path("vm")],
    }.items():
        path = mounted.snapshot_path("vm", name)
        last = [] if name == "clobber" else [f"of={path}" if command[0] == "dd" else path]
        assert "Read-only file system" in run(*command, *last, codes=(1, 2)).stderr, name
    run("touch", mounted.snapshot_path("vm", "touched"))
    for name in ("touched", "cp"):  # an mtime that is not refused the kernel would show
        shown = os.stat(mounted.snapshot_path("vm", name)).st_mtime_ns
        said = fails("touch", "--no-create", "-m", "--date=2001-02-03", mounted.snapshot_path("vm", name))
        assert "Read-only file system" in said
        assert os.stat(mounted.snapshot_path("vm", name)).st_mtime_ns == shown
    run("mv", mounted.snapshot_path("vm", "touched"), mounted.snapshot_path("vm", "moved"))  # whose times Linux sends
    run("sync", mounted.snapshot_path("vm", "moved"))
    names = set(os.listdir(mounted.path(".snapshots/vm")))
    assert names >= {"cp", "direct", "notrunc", "shared", "moved"} and not names & {"trunc", "clobber"}
    for name in names:
        path = mounted.snapshot_path("vm", name)
        assert Path(path).read_bytes() == read_direct(path) == data, name
        mounted.cli("export", f":vm@{name}", str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == data, name
