"""A guest of QEMU's on a disk: snapshots taken while it writes, QEMU killed, and another guest booted from a clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mount.guest import BOOT_S, RECORD_BYTES, booted, make_initramfs, record
from tests.mount.helpers import Mounted, loop, mounted_device, run, until
from tests.mount.linux import make_file_system

SNAPSHOTS = 4
RECORDS = 5  # that the guest syncs between two snapshots


@pytest.fixture(scope="module")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guests boot from."""
    target = tmp_path_factory.mktemp("guest") / "initramfs"
    make_initramfs(target)
    return target


def whole_records(where: Path) -> int:
    """How many records there are, from the first on, as they were written."""
    number = 0
    while (where / f"{number + 1}").is_file() and (where / f"{number + 1}").read_bytes() == record(number + 1):
        number += 1
    return number


def check_clone(mounted: Mounted, clone: str, where: Path, synced: int) -> int:
    """The file system on a clone is clean once its journal is replayed, and holds what was synced: so many records."""
    with loop(mounted.path(clone)) as device:
        run("e2fsck", "-y", "-E", "journal_only", device)
        run("e2fsck", "-fn", device)
        with mounted_device(device, where) as files:
            found = whole_records(files)
            assert found >= synced
            last = (files / "last").read_bytes()  # overwritten in place each time
            assert len(last) == RECORD_BYTES and int(last.split()[1]) >= synced
    return found


@pytest.mark.parametrize("cache", ["none", "writeback"])
def test_snapshots_of_a_guest_hold_all_that_it_has_synced(
    mounted: Mounted, initramfs: Path, tmp_path: Path, cache: str
) -> None:
    disk = mounted.path("vm")
    mounted.cli("create", ":vm", "256M")
    make_file_system("ext4", disk)
    synced: dict[str, int] = {}
    with booted(initramfs, disk, cache, "write") as guest:
        for turn in range(SNAPSHOTS):
            synced[f"s{turn}"] = guest.wait_synced(max(synced.values(), default=0) + RECORDS)
            mounted.call("snapshot", disk="vm", snapshot=f"s{turn}")
        synced["end"] = guest.wait_synced(synced[f"s{SNAPSHOTS - 1}"] + RECORDS)
        guest.kill()
    mounted.kill()  # the daemon too: what it had said to be durable is
    mounted.mount()
    mounted.cli("snapshot", ":vm@end")
    found = {}
    for name, number in synced.items():
        mounted.cli("clone", f":vm@{name}", f"clone-{name}")
        found[name] = check_clone(mounted, f"clone-{name}", tmp_path / "clone", number)
    assert found["s0"] < found["end"]  # each is of its own time
    mounted.cli("clone", ":vm@s1", "vm2")
    with booted(initramfs, mounted.path("vm2"), cache, "read") as guest:
        until(guest.ended, "the guest to end", BOOT_S)
    assert guest.number("records") == found["s1"] and "wrote" in guest.said(), guest.said()
    assert check_clone(mounted, "vm2", tmp_path / "vm2", found["s1"]) == found["s1"]
    with loop(mounted.path("vm2")) as device, mounted_device(device, tmp_path / "vm2") as files:
        assert (files / "new").read_bytes() == record("new")
