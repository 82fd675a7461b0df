"""Rollback: refused while the disk is in use, no stale page afterwards, and what was is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.helpers import (
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    loop,
    mounted_device,
    noise,
    read_direct,
    read_file,
    run,
    until,
    write_file,
)


@pytest.fixture
def changed(mounted: Mounted) -> Mounted:
    """A disk with a snapshot `s` of what it held before."""
    mounted.cli("create", ":vm", "4M")
    write_file(mounted.path("vm"), noise("old", 4 * MIB))
    mounted.cli("snapshot", ":vm@s")
    write_file(mounted.path("vm"), noise("new", 4 * MIB))
    return mounted


@pytest.mark.parametrize("name", [b"holder", b"\xff no UTF-8"])
def test_rollback_of_an_open_disk_names_the_process(changed: Mounted, name: bytes) -> None:
    program = (
        f"import sys; open('/proc/self/comm', 'wb').write({name!r}); "
        "f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, changed.path("vm")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        said = changed.refuses("rollback", ":vm@s")
        assert f"{name.decode(errors='backslashreplace')} ({holder.pid})" in said
        holder.stdin.close()
        holder.wait()
    assert read_direct(changed.path("vm")) == noise("new", 4 * MIB)
    until(lambda: not changed.disk("vm")["open"], "the file to be closed")
    changed.cli("rollback", ":vm@s")
    assert read_direct(changed.path("vm")) == noise("old", 4 * MIB)


def test_rollback_of_an_attached_disk_names_the_device_and_where_it_is_mounted(
    changed: Mounted, tmp_path: Path
) -> None:
    with loop(changed.path("vm")) as device:
        assert device in changed.refuses("rollback", ":vm@s")
        run("mkfs.ext4", "-q", "-F", device)
        with mounted_device(device, tmp_path / "fs") as where:
            said = changed.refuses("rollback", ":vm@s")
            assert device in said and str(where) in said
            assert changed.disk("vm")["attached"] == [{"device": device, "mounts": [str(where)]}]
            assert device in changed.cli("list", ":")
    until(lambda: not changed.disk("vm")["open"], "the device to be detached")
    changed.cli("rollback", ":vm@s")
    assert read_direct(changed.path("vm")) == noise("old", 4 * MIB)


def test_rollback_leaves_no_stale_page(changed: Mounted) -> None:
    path = changed.path("vm")
    assert read_file(path) == read_direct(path) == noise("new", 4 * MIB)
    changed.cli("rollback", ":vm@s")
    assert read_file(path) == read_direct(path) == noise("old", 4 * MIB)
    changed.cli("rollback", ":vm@before-rollback")
    assert read_file(path) == read_direct(path) == noise("new", 4 * MIB)


@pytest.mark.parametrize("direct", [False, True])
def test_a_forced_rollback_shows_at_once_to_who_has_the_disk_open(changed: Mounted, direct: bool) -> None:
    path = changed.path("vm")
    with open(path, "r+b", buffering=0) as file:
        assert file.read() == noise("new", 4 * MIB)
        changed.cli("rollback", "--force", ":vm@s")
        file.seek(0)
        assert (read_direct(path) if direct else file.read()) == noise("old", 4 * MIB)
        file.seek(MIB)
        file.write(noise("after", MIB))
    expected = noise("old", 4 * MIB)[:MIB] + noise("after", MIB) + noise("old", 4 * MIB)[2 * MIB :]
    assert read_direct(path) == expected
    assert read_direct(changed.snapshot_path("vm", "before-rollback")) == noise("new", 4 * MIB)
    assert read_direct(changed.snapshot_path("vm", "s")) == noise("old", 4 * MIB)


def test_a_forced_rollback_keeps_what_was_written_and_not_synced(changed: Mounted) -> None:
    with open(changed.path("vm"), "r+b", buffering=0) as file:
        file.write(noise("last", MIB))
        changed.cli("rollback", "--force", ":vm@s")
        assert read_file(changed.path("vm")) == noise("old", 4 * MIB)
    assert read_direct(changed.path("vm")) == noise("old", 4 * MIB)
    kept = read_direct(changed.snapshot_path("vm", "before-rollback"))
    assert kept == noise("last", MIB) + noise("new", 4 * MIB)[MIB:]


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 7), (0, 4)])
def test_a_rollback_brings_the_size_back(mounted: Mounted, before: int, after: int) -> None:
    path = mounted.path("vm")
    mounted.cli("create", ":vm", f"{before}M")
    write_file(path, noise("old", before * MIB))
    mounted.cli("snapshot", ":vm@s")
    run("truncate", "-s", f"{after}M", path)
    write_file(path, noise("new", after * MIB))
    assert os.stat(path).st_size == after * MIB
    mounted.cli("rollback", ":vm@s")
    assert os.stat(path).st_size == before * MIB == mounted.disk("vm")["size_bytes"]
    assert read_file(path) == read_direct(path) == noise("old", before * MIB)


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
def test_a_forced_rollback_brings_the_size_back_under_an_open_file(mounted: Mounted, before: int, after: int) -> None:
    path = mounted.path("vm")
    mounted.cli("create", ":vm", f"{before}M")
    write_file(path, noise("old", before * MIB))
    mounted.cli("snapshot", ":vm@s")
    with open(path, "r+b", buffering=0) as file:
        file.truncate(after * MIB)
        file.write(noise("new", after * MIB))
        mounted.cli("rollback", "--force", ":vm@s")
        assert os.fstat(file.fileno()).st_size == before * MIB
        file.seek(0)
        assert file.read() == noise("old", before * MIB)
        assert file.seek(0, os.SEEK_END) == before * MIB
    assert read_direct(path) == noise("old", before * MIB)


def test_the_state_before_is_kept_until_the_next_rollback(changed: Mounted) -> None:
    assert changed.json("rollback", ":vm@s") == {"kept": "before-rollback"}
    assert read_direct(changed.snapshot_path("vm", "before-rollback")) == noise("new", 4 * MIB)
    kept = changed.disk("vm")["snapshots"][-1]
    assert (kept["name"], kept["kind"]) == ("before-rollback", "rollback")
    write_file(changed.path("vm"), noise("third", 4 * MIB))
    changed.cli("rollback", ":vm@s")
    assert read_direct(changed.snapshot_path("vm", "before-rollback")) == noise("third", 4 * MIB)
    assert changed.used() == 2 * 4 * MIB + LABEL_BYTES


def test_discard_keeps_nothing(changed: Mounted) -> None:
    assert changed.json("rollback", "--discard", ":vm@s") == {"kept": None}
    assert os.listdir(changed.path(".snapshots/vm")) == ["s"]
    assert changed.used() == 4 * MIB + LABEL_BYTES


def test_newer_snapshots_stay(changed: Mounted) -> None:
    changed.cli("snapshot", ":vm@newer")
    write_file(changed.path("vm"), noise("third", B), sync=True)
    changed.cli("snapshot", ":vm@newest")
    changed.cli("rollback", ":vm@s")
    assert [item["name"] for item in changed.disk("vm")["snapshots"]] == ["s", "newer", "newest", "before-rollback"]
    assert read_direct(changed.snapshot_path("vm", "newer")) == noise("new", 4 * MIB)
    changed.cli("rollback", ":vm@newest")
    assert read_direct(changed.path("vm")) == noise("third", B) + noise("new", 4 * MIB)[B:]


def test_a_disk_goes_back_to_its_own_snapshots_alone(changed: Mounted) -> None:
    changed.cli("create", ":other", "1M")
    assert "no snapshot s" in changed.refuses("rollback", ":other@s")
    changed.cli("clone", ":vm@s", "copy")
    assert "no snapshot s" in changed.refuses("rollback", ":copy@s")
    changed.refuses("rollback", ":vm", code=2)
    assert read_direct(changed.path("vm")) == noise("new", 4 * MIB)


def test_a_rollback_is_durable_when_it_is_answered(changed: Mounted) -> None:
    changed.cli("rollback", ":vm@s")
    changed.kill()
    changed.mount()
    assert read_direct(changed.path("vm")) == noise("old", 4 * MIB)
    assert read_direct(changed.snapshot_path("vm", "before-rollback")) == noise("new", 4 * MIB)


def test_a_rolled_back_file_system_is_what_it_was(mounted: Mounted, tmp_path: Path) -> None:
    mounted.cli("create", ":vm", "32M")
    with loop(mounted.path("vm")) as device:
        run("mkfs.ext4", "-q", device)
        with mounted_device(device, tmp_path / "fs") as where:
            (where / "kept").write_bytes(noise("kept", MIB))
    mounted.cli("snapshot", ":vm@s")
    with loop(mounted.path("vm")) as device, mounted_device(device, tmp_path / "fs") as where:
        (where / "kept").unlink()
        (where / "later").write_bytes(noise("later", 5 * MIB))
    until(lambda: not mounted.disk("vm")["open"], "the device to be detached")
    mounted.cli("rollback", ":vm@s")
    with loop(mounted.path("vm"), direct=False) as device:
        run("e2fsck", "-fn", device)
        with mounted_device(device, tmp_path / "fs") as where:
            assert (where / "kept").read_bytes() == noise("kept", MIB)
            assert not (where / "later").exists()
