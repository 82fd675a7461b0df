"""Resizing: through truncate and through the command line, without stale pages, and snapshots keep their own size."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.mount.helpers import MIB, B, Mounted, loop, noise, read_direct, read_file, run, write_file

WAYS: dict[str, Callable[[Mounted, int], object]] = {
    "truncate": lambda mounted, size: run("truncate", "-s", str(size), mounted.path("vm")),
    "cli": lambda mounted, size: mounted.cli("resize", ":vm", str(size)),
}


@pytest.fixture
def disk(mounted: Mounted) -> Mounted:
    """A disk of 4 MiB, whose pages the kernel caches, and a snapshot of it."""
    mounted.cli("create", ":vm", "4M")
    write_file(mounted.path("vm"), noise("vm", 4 * MIB))
    mounted.cli("snapshot", ":vm@s")
    assert read_file(mounted.path("vm")) == noise("vm", 4 * MIB)
    return mounted


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_shrunk_and_grown_again_reads_zeros_and_no_stale_page(disk: Mounted, way: str) -> None:
    path = disk.path("vm")
    with open(path, "rb", buffering=0) as file:
        for size in (3 * MIB, 2 * MIB + 1000, MIB - B):
            WAYS[way](disk, size)
            assert os.stat(path).st_size == os.fstat(file.fileno()).st_size == size
            WAYS[way](disk, 4 * MIB)
            expected = noise("vm", size).ljust(4 * MIB, b"\0")
            assert read_file(path) == os.pread(file.fileno(), 4 * MIB, 0) == read_direct(path) == expected
    assert disk.disk("vm")["mapped_bytes"] == MIB - B
    snapshot = disk.snapshot_path("vm", "s")
    assert os.stat(snapshot).st_size == 4 * MIB
    assert read_direct(snapshot) == noise("vm", 4 * MIB)


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_grows_while_it_is_written(disk: Mounted, way: str) -> None:
    with open(disk.path("vm"), "r+b", buffering=0) as file:
        file.write(noise("unsynced", MIB))
        WAYS[way](disk, 6 * MIB)
        file.seek(5 * MIB)
        file.write(noise("tail", MIB))
        file.seek(0)
        expected = noise("unsynced", MIB) + noise("vm", 4 * MIB)[MIB:] + bytes(MIB) + noise("tail", MIB)
        assert file.read() == expected
    assert read_direct(disk.path("vm")) == expected


def test_a_resize_is_relative_with_a_sign(disk: Mounted) -> None:
    disk.cli("resize", ":vm", "+1M")
    assert os.stat(disk.path("vm")).st_size == 5 * MIB
    disk.cli("resize", ":vm", "-2M")
    assert os.stat(disk.path("vm")).st_size == 3 * MIB
    assert disk.json("resize", ":vm", "1.5M")["size_bytes"] == 3 * MIB // 2
    disk.refuses("resize", ":vm", "-2M", code=2)
    assert os.stat(disk.path("vm")).st_size == 3 * MIB // 2


def test_what_is_written_past_the_end_of_the_kernels_idea_of_a_disk_is_there(disk: Mounted) -> None:
    run("truncate", "-s", "0", disk.path("vm"))
    disk.cli("resize", ":vm", "8M")
    run("dd", "if=/dev/zero", f"of={disk.path('vm')}", "bs=1M", "count=1", "seek=7", "conv=notrunc,fsync")
    write_file(disk.path("vm"), b"end", 8 * MIB - 3)
    assert read_direct(disk.path("vm"), 7 * MIB) == bytes(MIB - 3) + b"end"
    assert disk.disk("vm")["mapped_bytes"] == MIB  # zeros are data, too


def test_a_loop_device_sees_a_disk_that_grew(disk: Mounted) -> None:
    with loop(disk.path("vm")) as device:
        run("truncate", "-s", "8M", disk.path("vm"))
        run("losetup", "--set-capacity", device)
        assert run("blockdev", "--getsize64", device).stdout.strip() == str(8 * MIB)
        write_file(device, noise("far", MIB), 7 * MIB, sync=True)
    assert read_direct(disk.path("vm")) == noise("vm", 4 * MIB) + bytes(3 * MIB) + noise("far", MIB)


def test_a_resize_that_was_answered_survives_a_kill(disk: Mounted) -> None:
    disk.cli("resize", ":vm", "2M")
    disk.kill()
    disk.mount()
    assert read_direct(disk.path("vm")) == noise("vm", 2 * MIB)
    disk.cli("resize", ":vm", "4M")
    disk.kill()
    disk.mount()
    assert read_direct(disk.path("vm")) == noise("vm", 2 * MIB) + bytes(2 * MIB)


def test_a_16_tib_disk_works_to_its_end(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "16T")
    path = mounted.path("vm")
    end = 16 << 40
    assert os.stat(path).st_size == end
    write_file(path, noise("end", B), end - B, sync=True)
    assert read_direct(path, end - B) == noise("end", B)
    mounted.cli("snapshot", ":vm@s")
    with pytest.raises(OSError):
        write_file(path, b"x", end, sync=True)
    run("truncate", "-s", str(end - B), path)
    assert mounted.disk("vm")["mapped_bytes"] == 0
    assert read_direct(mounted.snapshot_path("vm", "s"), end - B) == noise("end", B)
