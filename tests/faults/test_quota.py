"""A quota of the host is used up: as a full host. btrfs has quotas of its own, whatever the kernel is built for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from soaklib.system import Host
from tests.mount.helpers import COMMAND, MIB, Mounted, noise, read_direct, run, write_direct, write_file

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not shutil.which("mkfs.btrfs"),
    reason="nothing can be mounted here, or there is no mkfs.btrfs",
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, "btrfs")
    yield host
    host.remove()


def limit(path: Path, size: str) -> None:
    run("btrfs", "qgroup", "limit", size, path)


def test_writes_are_refused_and_go_on_when_the_quota_is_raised(host: Host, tmp_path: Path) -> None:
    # To give blocks back takes some first on btrfs: whether that is tried meanwhile depends on the machine.
    expected = ["nothing can be made durable now", "free blocks were not given back to the host"]
    mounted = Mounted(host.where / "pool", tmp_path / "mnt", expected_log=expected)
    run("btrfs", "subvolume", "create", mounted.pool)
    run("btrfs", "quota", "enable", host.where)
    limit(mounted.pool, "100M")
    mounted.mnt.mkdir()
    mounted.init()
    mounted.mount()
    mounted.cli("create", ":vm", "1G")
    kept = 0
    with pytest.raises(OSError) as caught:
        for kept in range(200):
            write_direct(mounted.path("vm"), kept * MIB, noise(kept, MIB))
            write_file(mounted.path("vm"), noise(("synced", kept), MIB), (500 + kept) * MIB, sync=True)
    assert caught.value.errno == ENOSPC
    assert kept > 10
    for number in range(3):  # more tries do no harm
        with pytest.raises(OSError) as caught:
            write_direct(mounted.path("vm"), 300 * MIB, noise(("lost", number), 8 * MIB))
        assert caught.value.errno == ENOSPC
    # On btrfs a commit of the map may find no space either: its quota counts what has blocks already once more.
    run(*COMMAND, "snapshot", mounted.path("vm@s"), codes=(0, 1))
    assert not mounted.info()["read_only"]
    limit(mounted.pool, "none")
    write_direct(mounted.path("vm"), 300 * MIB, noise("more", 8 * MIB))
    write_file(mounted.path("vm"), noise("more", MIB), 400 * MIB, sync=True)
    mounted.kill()
    mounted.check()
    mounted.mount()
    for number in range(1, kept):
        assert read_direct(mounted.path("vm"), number * MIB, MIB) == noise(number, MIB)
        assert read_direct(mounted.path("vm"), (500 + number) * MIB, MIB) == noise(("synced", number), MIB)
    assert read_direct(mounted.path("vm"), 400 * MIB, MIB) == noise("more", MIB)
    mounted.finish()
