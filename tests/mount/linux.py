"""What the tests of Linux's view of a disk share: file systems on loop devices, holes, and tools that may be absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.helpers import B, Mounted, loop, mounted_device, run

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MAKE = {"ext4": ["mkfs.ext4", "-q", "-E", "nodiscard"], "xfs": ["mkfs.xfs", "-q", "-K"]}
# A snapshot's file system cannot replay its journal, and an XFS has the UUID of the one it is of.
LOOKING = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}
FILE_SYSTEMS = ["ext4", "xfs"]
XFS_MIB = 320  # mkfs.xfs makes none below 300 MiB


def need(*tools: str) -> None:
    """Skip where one of these programs is not installed."""
    missing = [tool for tool in tools if shutil.which(tool, path=SBIN) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tools/setup --test)")


def make_file_system(kind: str, device: str) -> None:
    """A file system on a device."""
    need(MAKE[kind][0])
    run(*MAKE[kind], device)


@contextlib.contextmanager
def file_system(mounted: Mounted, disk: str, kind: str, where: Path, *options: str) -> Iterator[tuple[Path, str]]:
    """A new file system on a new disk, mounted: its mountpoint and its device."""
    need(MAKE[kind][0])
    mounted.cli("create", f":{disk}", f"{XFS_MIB}M")
    with loop(mounted.path(disk)) as device:
        make_file_system(kind, device)
        with mounted_device(device, where, *options):
            yield where, device


def extents(path: str | Path) -> list[tuple[int, int]]:
    """Where a file has data, as lseek(2) tells: offset and end."""
    found = []
    fd = os.open(path, os.O_RDONLY)
    try:
        end = os.lseek(fd, 0, os.SEEK_END)
        at = 0
        while at < end:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # ENXIO: no more data
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, at))
    finally:
        os.close(fd)
    return found


def data_blocks(data: bytes) -> list[tuple[int, int]]:
    """Where `data` is not zero, in whole blocks: offset and end. What `extents` should say of it."""
    found: list[tuple[int, int]] = []
    for at in range(0, len(data), B):
        if not any(data[at : at + B]):
            continue
        end = min(at + B, len(data))
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], end)
        else:
            found.append((at, end))
    return found


def allocated(path: str | Path) -> int:
    """How many bytes a file takes where it lies."""
    return os.stat(path).st_blocks * 512


def on_host(mounted: Mounted) -> int:
    """How many bytes the pool's data takes on the host."""
    return allocated(mounted.pool / "data")


def qemu_map(path: str, kind: str = "raw") -> list[tuple[int, int]]:
    """Where qemu-img sees data: offset and end."""
    done = run("qemu-img", "map", "--output=json", "-f", kind, path)
    return [(part["start"], part["start"] + part["length"]) for part in json.loads(done.stdout) if part["data"]]


def qemu_io(path: str, *commands: str, options: str = "") -> str:
    """Have qemu-io do something with a raw image."""
    words = [word for command in commands for word in ("-c", command)]
    image = f"driver=raw,file.driver=file,file.filename={path}{',' + options if options else ''}"
    done = run("qemu-io", "--image-opts", image, *words)
    assert not re.search(r"failed|error", done.stdout, re.IGNORECASE), done.stdout
    return done.stdout


def strace_counts(calls: str, *command: str) -> dict[str, int]:
    """How often a program makes which system calls."""
    need("strace")
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", f"trace={calls}", *command], capture_output=True, text=True, check=True
    )
    names = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", done.stderr, re.MULTILINE)
    return {name: names.count(name) for name in set(names)}
