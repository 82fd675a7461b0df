"""The host's file system is shut down under the pool: what that loses, and how the daemon on it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from errno import EIO, EROFS
from pathlib import Path

import pytest

from soaklib.system import HOSTS, Host
from tests.mount.helpers import MIB, B, Mounted, close_dead, noise, read_direct, run, until, write_direct, write_file

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"),
    reason="nothing can be mounted here",
)


@pytest.fixture(params=HOSTS)
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host(tmp_path, request.param)
    yield host
    host.remove()


@pytest.fixture
def mounted(host: Host, tmp_path: Path) -> Iterator[Mounted]:
    """A pool on the host, with a disk and a snapshot that are durable."""
    mounted = Mounted(host.where / "pool", tmp_path / "mnt", expected_log=["I/O error", "Input/output error"])
    mounted.mnt.mkdir()
    mounted.init()
    mounted.mount()
    mounted.cli("create", ":vm", "4M")
    write_file(mounted.path("vm"), noise("old", 4 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@s")
    yield mounted
    mounted.finish()


def test_control_a_shutdown_loses_what_was_not_synced(host: Host) -> None:
    """Or else it would show nothing that the rest survives it."""
    files = {name: host.where / name for name in ("synced", "overwritten", "new", "renamed over")}
    for name in ("synced", "overwritten", "renamed over"):
        files[name].write_bytes(noise("old", MIB))
    run("sync", "--file-system", host.where)
    write_file(str(files["synced"]), noise("new", MIB), sync=True)
    write_file(str(files["overwritten"]), noise("new", MIB))
    files["new"].write_bytes(noise("new", MIB))
    (host.where / "temporary").write_bytes(noise("new", MIB))
    os.rename(host.where / "temporary", files["renamed over"])
    host.shut_down()
    with pytest.raises(OSError) as caught:
        (host.where / "after").write_bytes(b"")
    assert caught.value.errno in (EIO, EROFS)
    host.remount()
    assert files["synced"].read_bytes() == noise("new", MIB)
    assert files["overwritten"].read_bytes() == noise("old", MIB)
    assert not files["new"].exists() or files["new"].read_bytes() != noise("new", MIB)
    assert files["renamed over"].read_bytes() != noise("new", MIB)


def _shut_down_amid_writing(host: Host, mounted: Mounted) -> None:
    """Some of it synced, some not; whoever asks for more hears that it fails, and the pool says why."""
    fd = os.open(mounted.path("vm"), os.O_RDWR)
    os.pwrite(fd, noise("synced", MIB), MIB)
    os.fsync(fd)
    host.shut_down()
    os.pwrite(fd, noise("lost", MIB), 2 * MIB)
    with pytest.raises(OSError) as caught:
        os.fsync(fd)
    assert caught.value.errno in (EIO, EROFS)
    close_dead(fd)
    with pytest.raises(OSError):
        write_direct(mounted.path("vm"), 0, noise("lost", B))
    info = mounted.info()
    assert info["read_only"] and "commit failed" in info["read_only_reason"]
    mounted.refuses("snapshot", ":vm@lost")


def _assert_nothing_acknowledged_is_lost(host: Host, mounted: Mounted) -> None:
    assert not os.path.ismount(mounted.mnt)
    host.remount()  # nobody holds it any more
    mounted.check()
    mounted.mount()
    now, old = read_direct(mounted.path("vm")), noise("old", 4 * MIB)
    assert now == old[:MIB] + noise("synced", MIB) + old[2 * MIB :]
    assert read_direct(mounted.snapshot_path("vm", "s")) == old
    assert os.listdir(mounted.path(".snapshots/vm")) == ["s"]


@pytest.mark.parametrize("options", [[], ["--force"]], ids=["umount", "umount --force"])
def test_a_daemon_on_a_dead_host_is_unmounted(host: Host, mounted: Mounted, options: list[str]) -> None:
    _shut_down_amid_writing(host, mounted)
    pid, mounted.pid = mounted.pid, 0
    said = mounted.refuses("umount", ":", *options)
    assert "unmounted, but not everything could be made durable" in said
    mounted.wait_free(pid)
    _assert_nothing_acknowledged_is_lost(host, mounted)


def test_a_daemon_on_a_dead_host_ends_on_sigterm(host: Host, mounted: Mounted) -> None:
    _shut_down_amid_writing(host, mounted)
    pid, mounted.pid = mounted.pid, 0
    os.kill(pid, signal.SIGTERM)
    mounted.wait_free(pid)
    until(lambda: not os.path.ismount(mounted.mnt), "the mount to go")
    _assert_nothing_acknowledged_is_lost(host, mounted)


def test_a_dead_daemon_on_a_dead_host_is_taken_away(host: Host, mounted: Mounted) -> None:
    _shut_down_amid_writing(host, mounted)
    mounted.kill_daemon()
    run(*["umount", mounted.mnt])
    _assert_nothing_acknowledged_is_lost(host, mounted)
