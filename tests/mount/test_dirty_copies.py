"""Copies of a disk that somebody has open for writing hold what was written, be it still in the kernel's cache."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.helpers import MIB, B, Mounted, noise, run
from tests.mount.linux import need

SIZE = 16 * MIB
COPIES = {
    "cp": "cp {source} {target}",
    "cp-sparse": "cp --sparse=always {source} {target}",
    "tar": "tar -C {directory} -Scf - {name} | tar -xOf - > {target}",
    "rsync": "rsync -S --no-whole-file {source} {target}",
    "qemu-img": "qemu-img convert -f raw -O raw {source} {target}",
    "dd": "dd if={source} of={target} bs=64K conv=sparse status=none",
}


WRITER = """
import mmap, os, signal, sys
path, how = sys.argv[1:]
fd = os.open(path, os.O_RDWR | os.O_CREAT)
data = sys.stdin.buffer.read()
if how == "appended":
    os.pwrite(fd, data, 0)
else:
    os.ftruncate(fd, len(data))
    mapped = mmap.mmap(fd, len(data))
    for at in range(0, len(data), 4096):
        block = data[at : at + 4096]
        if any(block):
            if how == "mapped":
                mapped[at : at + 4096] = block
            else:
                os.pwrite(fd, block, at)
print("written", flush=True)
signal.pause()
"""


@contextmanager
def dirty(path: str, how: str) -> Iterator[bytes]:
    """A disk that a process has open, and what that wrote to it. A child of it would have the kernel hand it over."""
    held = bytearray(noise(1, SIZE) if how == "appended" else SIZE)
    for at in range(3 * B, SIZE, 2 * MIB):
        held[at : at + B] = noise(at, B)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(held)
        writer.stdin.close()
        assert writer.stdout.readline() == b"written\n"
        try:
            yield bytes(held)
        finally:
            writer.kill()


@pytest.mark.parametrize("how", ["written", "appended", "mapped"])
def test_copies_of_a_disk_with_a_writer_hold_what_was_written(mounted: Mounted, tmp_path: Path, how: str) -> None:
    need("qemu-img", "rsync")
    for name, command in COPIES.items():
        if name == "qemu-img" and how == "appended":
            command = "qemu-img dd -f raw -O raw if={source} of={target} bs=1M"
        path, target = mounted.path(f"{how}-{name}"), tmp_path / name
        with dirty(path, how) as held:
            words = {"source": path, "target": target, "directory": mounted.path(), "name": f"{how}-{name}"}
            run("sh", "-c", command.format(**words))
            assert target.read_bytes() == held, f"{name} of what was {how}"
    mounted.cli("diff", f":{how}-cp")


def test_each_walk_over_data_and_holes_finds_all_that_was_written_before(mounted: Mounted) -> None:
    path, seed = mounted.path("vm"), random.randrange(1 << 32)
    rnd, written = random.Random(seed), set[int]()
    writer, reader = os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDONLY)
    over = threading.Event()
    others = threading.Thread(target=_rename_until, args=(mounted, over))
    others.start()
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for _ in range(rnd.randrange(1, 8)):
                block, count = rnd.randrange(20_000), rnd.choice([1, 1, 1, 40])
                os.pwrite(writer, b"x" * B * count, block * B)
                written.update(range(block, block + count))
            missing = written - _told_as_data(reader)
            assert not missing, f"seed {seed}: blocks {sorted(missing)[:5]} are told to be holes"
            assert os.fstat(reader).st_blocks
    finally:
        over.set()
        others.join()
        os.close(reader)
        os.close(writer)


def _told_as_data(fd: int) -> set[int]:
    found, at = set[int](), 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return found
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        found.update(range(at // B, -(-hole // B)))
        at = hole


def _rename_until(mounted: Mounted, over: threading.Event) -> None:
    """Has the kernel take its locks on the directory and the file, again and again."""
    while not over.is_set():
        for old, new in (("vm", "vm2"), ("vm2", "vm")):
            run("mv", mounted.path(old), mounted.path(new))
            os.listdir(mounted.path())


def test_a_killed_daemon_leaves_nobody_waiting(mounted: Mounted) -> None:
    Path(mounted.path("vm")).touch()
    with subprocess.Popen(
        [sys.executable, "-c", WALK, mounted.path("vm")], stdout=subprocess.PIPE, text=True
    ) as walker:
        assert walker.stdout is not None and walker.stdout.readline() == "walking\n"
        mounted.kill_daemon()
        assert walker.wait(timeout=30) == 0
    run("umount", "--lazy", mounted.mnt)
    mounted.mount()


WALK = """
import os, sys
fd, writer = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[1], os.O_WRONLY)
print("walking", flush=True)
try:
    while True:
        os.pwrite(writer, b"x", 4096 * 77)
        os.lseek(fd, 0, os.SEEK_HOLE)
except OSError:
    pass
"""
