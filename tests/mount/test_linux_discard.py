"""fallocate and discard: what is trimmed comes back to the pool and to the host, unless a snapshot holds it."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable
from errno import EFBIG, EINVAL, ENOSPC, ENXIO, EOPNOTSUPP, EROFS, errorcode
from pathlib import Path

import pytest

from tests.mount.helpers import (
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    drop_caches,
    loop,
    mounted_device,
    noise,
    read_direct,
    run,
    until,
    write_direct,
    write_file,
)
from tests.mount.linux import (
    FILE_SYSTEMS,
    LOOKING,
    data_blocks,
    extents,
    file_system,
    need,
    on_host,
    qemu_io,
)

KEEP_SIZE, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
SEED = 4
_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(path: str, mode: int, offset: int, length: int, flags: int = os.O_RDWR) -> int:
    """fallocate(2): 0 or the errno."""
    fd = os.open(path, flags)
    try:
        done = _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
        return ctypes.get_errno() if done else 0
    finally:
        os.close(fd)


def a_disk(mounted: Mounted, data: bytes, name: str = "vm") -> str:
    path = mounted.path(name)
    run("truncate", "-s", str(len(data)), path)
    write_file(path, data, sync=True)
    return path


def space_is_back(mounted: Mounted, used: int) -> None:
    """The pool uses `used` bytes, and the host no more than that, but for its own bookkeeping."""
    assert mounted.used() == used
    until(lambda: on_host(mounted) <= used + 64 * B, "the host to get its space back")


# fallocate


@pytest.mark.parametrize("mode", [PUNCH | KEEP_SIZE, ZERO, ZERO | KEEP_SIZE])
@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, MIB), (B, B), (1, 1), (B - 1, 2), (1, 3 * B), (5000, 100_000), (MIB - 100, 100), (MIB - 5000, 9000), (0, B)],
)
def test_a_range_is_zeroed_to_the_byte(mounted: Mounted, mode: int, offset: int, length: int) -> None:
    data = bytearray(noise((mode, offset), MIB))
    path = a_disk(mounted, data)
    assert fallocate(path, mode, offset, length) == 0
    end = min(offset + length, MIB)
    data[offset:end] = bytes(end - offset)
    if not mode & KEEP_SIZE:
        data += bytes(max(0, offset + length - MIB))
    assert os.stat(path).st_size == len(data)
    drop_caches()
    assert read_direct(path) == data
    assert extents(path) == data_blocks(data)


def test_what_is_punched_past_the_end_changes_nothing(mounted: Mounted) -> None:
    data = noise("end", 3 * B)
    path = a_disk(mounted, data)
    assert fallocate(path, PUNCH | KEEP_SIZE, 3 * B, MIB) == 0
    assert fallocate(path, PUNCH | KEEP_SIZE, 100 * MIB, MIB) == 0
    assert fallocate(path, ZERO | KEEP_SIZE, 100 * MIB, MIB) == 0
    assert (os.stat(path).st_size, read_direct(path)) == (3 * B, data)


def test_plain_allocation_grows_the_disk_and_writes_nothing(mounted: Mounted) -> None:
    path = a_disk(mounted, noise("plain", B))
    assert fallocate(path, 0, 0, 10 * MIB) == 0
    assert os.stat(path).st_size == 10 * MIB
    assert fallocate(path, KEEP_SIZE, 0, 20 * MIB) == 0
    assert os.stat(path).st_size == 10 * MIB
    assert read_direct(path, 0, 2 * B) == noise("plain", B) + bytes(B)
    assert mounted.disk("vm")["mapped_bytes"] == B
    run("fallocate", "--length", "30M", path)
    assert os.stat(path).st_size == 30 * MIB


@pytest.mark.parametrize(
    ("mode", "offset", "length", "number"),
    [
        (COLLAPSE, 0, B, EOPNOTSUPP),
        (INSERT, 0, B, EOPNOTSUPP),
        (UNSHARE, 0, B, EOPNOTSUPP),
        (PUNCH, 0, B, EOPNOTSUPP),  # the kernel wants KEEP_SIZE with it
        (0, -1, B, EINVAL),
        (0, 0, 0, EINVAL),
        (0, 16 << 40, B, EFBIG),
        (ZERO, (16 << 40) - B, 2 * B, EFBIG),
    ],
)
def test_what_cannot_be_has_its_errno(mounted: Mounted, mode: int, offset: int, length: int, number: int) -> None:
    data = noise("errno", 2 * B)
    path = a_disk(mounted, data)
    assert errorcode.get(fallocate(path, mode, offset, length)) == errorcode[number]
    assert read_direct(path) == data


def test_allocation_without_space_says_so(make_mounted: type[Mounted]) -> None:
    mounted = make_mounted("--capacity", "4M")
    path = a_disk(mounted, noise("full", B))
    assert errorcode.get(fallocate(path, 0, 0, 5 * MIB)) == errorcode[ENOSPC]
    assert os.stat(path).st_size == B
    assert fallocate(path, 0, 0, 2 * MIB) == 0


def test_a_snapshot_is_no_target(mounted: Mounted) -> None:
    path = a_disk(mounted, noise("snapshot", MIB))
    mounted.cli("snapshot", ":vm@s")
    with pytest.raises(OSError) as caught:
        fallocate(mounted.snapshot_path("vm", "s"), PUNCH | KEEP_SIZE, 0, B)
    assert caught.value.errno == EROFS
    assert fallocate(path, PUNCH | KEEP_SIZE, 0, MIB) == 0
    assert read_direct(mounted.snapshot_path("vm", "s")) == noise("snapshot", MIB)
    assert read_direct(path) == bytes(MIB)


# SEEK_DATA and SEEK_HOLE


def test_holes_and_data_are_found_as_the_oracle_has_them(mounted: Mounted) -> None:
    chance = random.Random(SEED)
    blocks = 1200  # more than two pages of the map
    data = bytearray(blocks * B + 100)
    for _ in range(40):
        at, length = chance.randrange(blocks), chance.choice((1, 1, 3, 40))
        length = min(length, blocks - at)
        data[at * B : (at + length) * B] = noise(at, length * B)
    path = mounted.path("vm")
    run("truncate", "-s", str(len(data)), path)
    for start, end in data_blocks(data):
        write_file(path, bytes(data[start:end]), start, sync=True)
    wanted = data_blocks(data)
    assert extents(path) == wanted
    mounted.cli("snapshot", ":vm@s")
    write_file(path, noise("later", B), blocks * B // 2, sync=True)
    assert extents(mounted.snapshot_path("vm", "s")) == wanted
    holds = [any(start <= at < end for start, end in wanted) for at in range(0, len(data), B)]
    fd = os.open(mounted.snapshot_path("vm", "s"), os.O_RDONLY)
    try:
        for _ in range(300):
            at = chance.randrange(len(data))
            for whence, kind in ((os.SEEK_DATA, True), (os.SEEK_HOLE, False)):
                assert sought(fd, at, whence) == oracle(holds, at, kind, len(data)), (SEED, at, kind)
    finally:
        os.close(fd)


def sought(fd: int, at: int, whence: int) -> int:
    try:
        return os.lseek(fd, at, whence)
    except OSError as error:
        assert error.errno == ENXIO
        return -1


def oracle(holds: list[bool], at: int, kind: bool, size: int) -> int:
    """Where the next data or hole is; -1: ENXIO."""
    if holds[at // B] is kind:
        return at
    for block in range(at // B + 1, len(holds)):
        if holds[block] is kind:
            return block * B
    return -1 if kind else size


def test_at_and_past_the_end_there_is_nothing(mounted: Mounted) -> None:
    path = a_disk(mounted, noise("end", B))
    run("truncate", "-s", str(2 * B), path)
    fd = os.open(path, os.O_RDONLY)
    try:
        for at in (2 * B, 2 * B + 1, 1 << 40):
            assert sought(fd, at, os.SEEK_DATA) == sought(fd, at, os.SEEK_HOLE) == -1
        assert sought(fd, B, os.SEEK_DATA) == -1
        assert sought(fd, B, os.SEEK_HOLE) == B
        with pytest.raises(OSError, match="Invalid argument|No such device or address"):
            os.lseek(fd, -1, os.SEEK_DATA)
    finally:
        os.close(fd)


# Discard end to end


def space_after_removal(where: Path, way: str, back: Callable[[], bool], what: str) -> None:
    """Have the file system discard what was removed until the pool has it back.

    Once is not enough on XFS: it frees a removed file's blocks by and by in the background (inode inactivation), and
    what is not yet free is not yet trimmed. `mount -o discard` discards after the journal was written.
    """

    def discarded() -> bool:
        run("sync", "--file-system", where)
        if way == "fstrim":
            run("fstrim", where)
        return back()

    until(discarded, what)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("way", ["fstrim", "mount -o discard"])
def test_deleted_files_give_their_space_back(mounted: Mounted, tmp_path: Path, kind: str, way: str) -> None:
    online = ["-o", "discard"] if way != "fstrim" else []
    with file_system(mounted, "vm", kind, tmp_path / "fs", *online) as (where, _):
        (where / "kept").write_bytes(noise("kept", 3 * MIB))
        run("sync", "--file-system", where)
        before = mounted.used()
        (where / "big").write_bytes(noise("big", 40 * MIB))
        run("sync", "--file-system", where)
        full, full_host = mounted.used(), on_host(mounted)
        assert full - before >= 40 * MIB
        (where / "big").unlink()
        space_after_removal(where, way, lambda: mounted.used() <= before + 2 * MIB, "the pool to get its space back")
        until(lambda: on_host(mounted) <= full_host - 38 * MIB, "the host to get its space back")
        drop_caches()
        assert (where / "kept").read_bytes() == noise("kept", 3 * MIB)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_what_a_snapshot_holds_stays_until_it_goes(mounted: Mounted, tmp_path: Path, kind: str) -> None:
    with file_system(mounted, "vm", kind, tmp_path / "fs") as (where, _):
        (where / "big").write_bytes(noise("big", 24 * MIB))
        run("sync", "--file-system", where)
        mounted.cli("snapshot", "--freeze", ":vm@before")
        full = mounted.disk("vm")["mapped_bytes"]
        (where / "big").unlink()
        space_after_removal(
            where, "fstrim", lambda: mounted.disk("vm")["mapped_bytes"] <= full - 23 * MIB, "the disk to let go"
        )
        assert mounted.used() >= 24 * MIB
        with (
            loop(mounted.snapshot_path("vm", "before")) as device,
            mounted_device(device, tmp_path / "old", "-o", LOOKING[kind]) as old,
        ):
            assert (old / "big").read_bytes() == noise("big", 24 * MIB)
        (snapshot,) = mounted.json("list", ":vm@before")[0]["snapshots"]
        assert snapshot["freed_if_deleted_bytes"] >= 23 * MIB
        before = mounted.used()
        mounted.cli("delete", "--wait", ":vm@before")
        assert before - mounted.used() == snapshot["freed_if_deleted_bytes"]


@pytest.mark.parametrize("zeroing", [[], ["-z"]])
def test_blkdiscard_empties_a_device(mounted: Mounted, zeroing: list[str]) -> None:
    need("blkdiscard")
    path = a_disk(mounted, noise("disk", 8 * MIB))
    with loop(path) as device:
        run("blkdiscard", *zeroing, "--offset", "1M", "--length", "2M", device)
        wanted = bytearray(noise("disk", 8 * MIB))
        wanted[MIB : 3 * MIB] = bytes(2 * MIB)
        assert read_direct(device) == wanted
        assert mounted.disk("vm")["mapped_bytes"] == 6 * MIB
        run("blkdiscard", *zeroing, "--force", device)
        assert read_direct(device) == bytes(8 * MIB)
    assert mounted.disk("vm")["mapped_bytes"] == 0
    space_is_back(mounted, LABEL_BYTES)
    assert read_direct(path) == bytes(8 * MIB)


def test_mkfs_discards_what_was_there(mounted: Mounted) -> None:
    path = a_disk(mounted, noise("disk", 64 * MIB))
    with loop(path) as device:
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", device)
    until(lambda: mounted.disk("vm")["mapped_bytes"] < 8 * MIB, "the old data to go")


@pytest.mark.parametrize("command", ["discard 1M 2M", "write -z -u 1M 2M"])
def test_qemu_discards(mounted: Mounted, command: str) -> None:
    need("qemu-io")
    data = bytearray(noise("qemu", 4 * MIB))
    path = a_disk(mounted, data)
    mounted.cli("snapshot", ":vm@s")
    qemu_io(path, command, "flush", options="discard=unmap")
    data[MIB : 3 * MIB] = bytes(2 * MIB)
    assert read_direct(path) == data
    assert mounted.disk("vm")["mapped_bytes"] == 2 * MIB
    assert read_direct(mounted.snapshot_path("vm", "s")) == noise("qemu", 4 * MIB)
    used = mounted.used()
    mounted.cli("delete", "--wait", ":vm@s")
    assert used - mounted.used() == 2 * MIB
    assert read_direct(path) == data


def test_qemu_turns_zeros_into_holes(mounted: Mounted) -> None:
    need("qemu-io")
    path = a_disk(mounted, noise("qemu", MIB))
    qemu_io(path, "write -P 0 0 512k", "flush", options="discard=unmap,detect-zeroes=unmap")
    assert mounted.disk("vm")["mapped_bytes"] == 512 << 10
    assert read_direct(path) == bytes(512 << 10) + noise("qemu", MIB)[512 << 10 :]


def test_what_was_discarded_is_gone_after_a_crash(mounted: Mounted) -> None:
    path = a_disk(mounted, noise("crash", 4 * MIB))
    fd = os.open(path, os.O_RDWR)
    assert _libc.fallocate(fd, PUNCH | KEEP_SIZE, ctypes.c_int64(MIB), ctypes.c_int64(MIB)) == 0
    os.fsync(fd)
    os.close(fd)
    mounted.kill()
    mounted.mount()
    wanted = bytearray(noise("crash", 4 * MIB))
    wanted[MIB : 2 * MIB] = bytes(MIB)
    assert read_direct(path) == wanted
    assert mounted.used() == 3 * MIB + LABEL_BYTES
    write_direct(path, MIB, noise("again", MIB))
    wanted[MIB : 2 * MIB] = noise("again", MIB)
    assert read_direct(path) == wanted
