"""Copies by plain tools: holes stay holes, and each byte is right."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EINVAL, EROFS
from pathlib import Path

import pytest

from tests.mount.helpers import (
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    digest,
    drop_caches,
    noise,
    read_direct,
    read_file,
    run,
    write_direct,
    write_file,
)
from tests.mount.linux import (
    allocated,
    data_blocks,
    extents,
    make_file_system,
    need,
    qemu_io,
    qemu_map,
    strace_counts,
)

GIB = 1024 * MIB
SIZE = 64 * MIB


def image() -> bytearray:
    """Mostly holes; data at the start, at an odd place and at the very end."""
    data = bytearray(SIZE)
    data[: 3 * B] = noise("start", 3 * B)
    data[10 * MIB : 12 * MIB] = noise("middle", 2 * MIB)
    data[SIZE - B :] = noise("end", B)
    return data


def a_disk(mounted: Mounted, name: str = "vm") -> bytearray:
    """A sparse disk with a snapshot `s`; the disk itself was written to afterwards."""
    data = image()
    path = mounted.path(name)
    run("truncate", "-s", str(SIZE), path)
    for start, end in data_blocks(bytes(data)):
        write_file(path, bytes(data[start:end]), start, sync=True)
    mounted.cli("snapshot", f":{name}@s")
    write_file(path, noise("later", MIB), 30 * MIB, sync=True)
    return data


def tar(source: str, target: Path) -> None:
    archive = target.parent / "archive.tar"
    run("tar", "-cSf", archive, "-C", os.path.dirname(source), os.path.basename(source))
    assert archive.stat().st_size < 4 * MIB
    run("tar", "-xSf", archive, "-C", target.parent)
    (target.parent / os.path.basename(source)).rename(target)


TOOLS: dict[str, Callable[[str, Path], object]] = {
    "cp": lambda source, target: run("cp", source, target),
    "cp --sparse=always": lambda source, target: run("cp", "--sparse=always", source, target),
    "tar -S": tar,
    "rsync -S --inplace": lambda source, target: (need("rsync"), run("rsync", "-S", "--inplace", source, target)),
    "dd conv=sparse": lambda source, target: run("dd", f"if={source}", f"of={target}", "bs=64k", "conv=sparse"),
    "qemu-img convert": lambda source, target: (
        need("qemu-img"),
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", source, target),
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_copy_out_is_sparse_and_right(mounted: Mounted, tmp_path: Path, tool: str) -> None:
    data = a_disk(mounted)
    drop_caches()
    TOOLS[tool](mounted.snapshot_path("vm", "s"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert allocated(tmp_path / "copy") < 4 * MIB


@pytest.mark.parametrize("tool", TOOLS)
def test_a_copy_in_is_sparse_and_right(mounted: Mounted, tmp_path: Path, tool: str) -> None:
    data = image()
    with (tmp_path / "image").open("wb") as file:
        file.truncate(SIZE)
        for start, end in data_blocks(bytes(data)):
            file.seek(start)
            file.write(data[start:end])
    if tool == "tar -S":  # it renames beside its target: let it make the disk of that name
        run("tar", "-cSf", tmp_path / "a.tar", "-C", tmp_path, "image")
        run("tar", "-xSf", tmp_path / "a.tar", "--no-same-owner", "-C", mounted.mnt)
        name = "image"
    else:
        TOOLS[tool](str(tmp_path / "image"), Path(mounted.path("copy")))
        name = "copy"
    drop_caches()
    assert read_direct(mounted.path(name)) == data
    assert mounted.disk(name)["mapped_bytes"] < 4 * MIB


def test_cp_of_a_snapshot_on_the_mount_is_a_clone(mounted: Mounted) -> None:
    data = a_disk(mounted)
    used = mounted.used()
    run("cp", mounted.snapshot_path("vm", "s"), mounted.path("vm2"))
    drop_caches()
    assert read_direct(mounted.path("vm2")) == data
    assert extents(mounted.path("vm2")) == data_blocks(bytes(data))
    assert mounted.used() <= used + 2 * MIB + 8 * B  # at most the data; none when cp asks to copy ranges


def copy_range(source: str, target: str, length: int, at: int = 0, to: int = 0) -> int:
    """copy_file_range(2): how much was copied, by whatever way the kernel found."""
    with open(source, "rb") as reader, open(target, "r+b", buffering=0) as writer:
        return os.copy_file_range(reader.fileno(), writer.fileno(), length, at, to)


def test_a_whole_file_into_an_empty_disk_shares_every_block(mounted: Mounted) -> None:
    data = a_disk(mounted)
    used = mounted.used()
    run("touch", mounted.path("vm2"))
    assert copy_range(mounted.snapshot_path("vm", "s"), mounted.path("vm2"), SIZE) == SIZE
    assert mounted.used() == used
    assert read_direct(mounted.path("vm2")) == data
    write_file(mounted.path("vm2"), noise("own", B), 0, sync=True)
    assert read_direct(mounted.snapshot_path("vm", "s")) == data
    assert read_direct(mounted.path("vm2"), 0, B) == noise("own", B)
    mounted.cli("delete", ":vm", "--snapshots", "delete", "--wait")
    data[:B] = noise("own", B)
    assert read_direct(mounted.path("vm2")) == data


def test_a_full_file_is_cloned_by_one_call_of_cp(mounted: Mounted) -> None:
    data = noise("full", 8 * MIB)
    run("truncate", "-s", str(len(data)), mounted.path("vm"))
    write_file(mounted.path("vm"), data, sync=True)
    mounted.cli("snapshot", ":vm@s")
    used = mounted.used()
    counts = strace_counts("copy_file_range,read,pread64", "cp", mounted.snapshot_path("vm", "s"), mounted.path("vm2"))
    assert read_direct(mounted.path("vm2")) == data
    assert mounted.used() == used, counts
    assert 1 <= counts.get("copy_file_range", 0) <= 2


@pytest.mark.parametrize("from_snapshot", [True, False])
def test_a_part_is_shared_and_both_sides_live_apart(mounted: Mounted, from_snapshot: bool) -> None:
    data = a_disk(mounted)
    source = mounted.snapshot_path("vm", "s") if from_snapshot else mounted.path("vm")
    target = mounted.path("vm2")
    write_file(target, noise("old", 3 * MIB), flags=os.O_CREAT, sync=True)
    wanted = bytearray(noise("old", 3 * MIB))
    assert read_file(target) == wanted  # now the kernel caches what will be wrong
    if not from_snapshot:
        data[10 * MIB + 5 : 10 * MIB + 9] = b"late"
        write_file(source, b"late", 10 * MIB + 5)  # and what the daemon has not seen
    write_file(target, b"lost", MIB + 7)
    mounted.cli("snapshot", ":vm2@t")
    write_file(target, b"lost too", MIB + 7)
    used = mounted.used()
    assert copy_range(source, target, MIB, 10 * MIB, MIB - B) == MIB
    wanted[MIB - B : 2 * MIB - B] = data[10 * MIB : 11 * MIB]
    assert mounted.used() <= used
    assert read_file(target) == wanted
    assert read_direct(target) == wanted
    write_file(target, noise("new", B), MIB, sync=True)
    wanted[MIB : MIB + B] = noise("new", B)
    if not from_snapshot:
        write_direct(source, 11 * MIB - B, noise("newer", B))
    drop_caches()
    assert read_file(source, 10 * MIB, MIB - B) == data[10 * MIB : 11 * MIB - B]
    assert read_direct(target) == wanted
    mounted.kill()
    mounted.mount()
    assert read_direct(target) == wanted
    old = bytearray(noise("old", 3 * MIB))
    old[MIB + 7 : MIB + 11] = b"lost"
    assert read_direct(mounted.snapshot_path("vm2", "t")) == old


def test_a_part_is_put_back_from_a_snapshot_of_the_same_disk(mounted: Mounted) -> None:
    data = a_disk(mounted)
    path = mounted.path("vm")
    write_file(path, noise("oops", 2 * MIB), 10 * MIB + B, sync=True)
    assert copy_range(mounted.snapshot_path("vm", "s"), path, 4 * MIB, 9 * MIB, 9 * MIB) == 4 * MIB
    data[30 * MIB : 31 * MIB] = noise("later", MIB)
    assert read_file(path) == data
    assert read_direct(path) == data
    changed = mounted.json("diff", ":vm@s", ":vm")["changed_bytes"]
    assert changed == MIB, "what was put back is the same"
    mounted.cli("delete", ":vm@s", "--wait")
    assert read_direct(path) == data


def test_a_disk_of_more_than_4_gib_is_shared_by_cp(mounted: Mounted) -> None:
    size = 5 * GIB
    path = mounted.path("vm")
    run("truncate", "-s", str(size), path)
    write_file(path, noise("begin", 8 * MIB), sync=True)
    have = 8 * MIB
    while have < size:
        have += copy_range(path, path, min(have, size - have), 0, have)
    write_file(path, noise("end", MIB), size - MIB, sync=True)
    used = mounted.used()
    counts = strace_counts("copy_file_range,read,pread64", "cp", path, mounted.path("copy"))
    assert mounted.used() == used, counts
    assert mounted.disk("copy")["mapped_bytes"] == size
    for at in (0, 2 * GIB, 4 * GIB - MIB, size - MIB):  # the kernel asks for 4 GiB less a page at once
        assert read_direct(mounted.path("copy"), at, MIB) == read_direct(path, at, MIB)
    assert read_direct(mounted.path("copy"), size - MIB) == noise("end", MIB)
    mounted.cli("delete", ":vm", "--wait")
    assert read_direct(mounted.path("copy"), 2 * GIB, MIB) == noise("begin", 8 * MIB)[:MIB]


@pytest.mark.parametrize(
    ("at", "to", "length"), [(B, 0, MIB), (0, B, MIB), (1, 3, 10_000), (0, 0, 5000), (B - 1, B, 9 * B)]
)
def test_what_is_shared_in_part_or_not_at_all_is_right_to_the_byte(
    mounted: Mounted, at: int, to: int, length: int
) -> None:
    data = a_disk(mounted)
    run("truncate", "-s", "2M", mounted.path("vm2"))
    done = 0
    while done < length:
        moved = copy_range(mounted.snapshot_path("vm", "s"), mounted.path("vm2"), length - done, at + done, to + done)
        assert moved > 0
        done += moved
    drop_caches()
    wanted = bytearray(2 * MIB)
    wanted[to : to + length] = data[at : at + length]
    assert read_direct(mounted.path("vm2")) == wanted


def test_a_snapshot_is_no_target_and_a_file_does_not_overlap_itself(mounted: Mounted) -> None:
    a_disk(mounted)
    with pytest.raises(OSError) as caught:
        copy_range(mounted.path("vm"), mounted.snapshot_path("vm", "s"), B)
    assert caught.value.errno == EROFS
    with pytest.raises(OSError) as caught:
        copy_range(mounted.path("vm"), mounted.path("vm"), 4 * B, 0, B)
    assert caught.value.errno == EINVAL


def test_qemu_sees_the_holes(mounted: Mounted) -> None:
    need("qemu-img", "qemu-io")
    data = a_disk(mounted)
    path = mounted.snapshot_path("vm", "s")
    assert qemu_map(path) == data_blocks(bytes(data))
    qemu_io(mounted.path("vm"), "write -P 7 20M 64k", "read -P 7 20M 64k", "flush")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", path, path)
    assert (
        "mismatch" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", path, mounted.path("vm"), codes=(1,)).stdout
    )


def test_a_qcow2_overlay_on_a_snapshot(mounted: Mounted, tmp_path: Path) -> None:
    need("qemu-img", "qemu-io")
    data = a_disk(mounted)
    base, overlay = mounted.snapshot_path("vm", "s"), str(tmp_path / "overlay.qcow2")
    run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 10M 1M", "-c", "flush", overlay)
    run("qemu-img", "check", overlay)
    run("qemu-img", "convert", "-O", "raw", overlay, tmp_path / "flat")
    data[10 * MIB : 11 * MIB] = b"\x09" * MIB
    assert (tmp_path / "flat").read_bytes() == data
    assert digest(base) != digest(tmp_path / "flat")
    assert mounted.used() >= LABEL_BYTES


def test_without_the_extension_all_else_works(
    make_mounted: Callable[..., Mounted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("mkfs.ext4")
    monkeypatch.setenv("ROWFS_NATIVE", "0")
    mounted = make_mounted()
    mounted.expected_log.append("the C extension is not loaded")
    data = a_disk(mounted)
    assert read_direct(mounted.snapshot_path("vm", "s")) == data
    run("cp", "--sparse=always", mounted.snapshot_path("vm", "s"), mounted.path("vm2"))
    drop_caches()
    assert read_direct(mounted.path("vm2")) == data
    mounted.cli("create", ":fs", "64M")
    device = mounted.cli("attach", ":fs").strip()
    make_file_system("ext4", device)
    where = tmp_path / "fs"
    where.mkdir()
    run("mount", device, where)
    try:
        (where / "file").write_bytes(data[: 3 * B])
        mounted.cli("snapshot", "--freeze", ":fs@s")
    finally:
        run("umount", where)
    mounted.cli("detach", ":fs")
    mounted.remount()
    log = (mounted.pool / "rowfs.log").read_text()
    assert log.count("the C extension is not loaded") == 2  # once for each mount
