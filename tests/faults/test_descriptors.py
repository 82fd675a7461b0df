"""A daemon that has no file descriptor left: disks are written and durable, clients are told, and later all is well."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from errno import EMFILE
from pathlib import Path

import pytest

from rowfs.base.errors import RowfsError
from rowfs.cli.client import Client
from rowfs.control import server
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.system import DAEMON, Daemon, read_direct, umount_whatever
from tests.mount.helpers import MIB, noise, write_direct, write_file

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="nothing can be mounted here"
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A pool and a mountpoint."""
    pool, mnt = tmp_path / "pool", tmp_path / "mnt"
    mnt.mkdir()
    init_pool(str(pool))
    yield pool, mnt
    umount_whatever("--lazy", mnt)


@contextlib.contextmanager
def none_left(pid: int, pool: Path) -> Iterator[None]:
    """A daemon has the descriptors that it has, and no others: clients take those in between."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(taken) + 1, limits[1]))
    with contextlib.ExitStack() as clients:
        for _ in set(range(max(taken))) - taken:
            clients.enter_context(Client(str(pool))).call("extents", {"disk": "direct"})  # which opens nothing
        assert len(os.listdir(f"/proc/{pid}/fd")) == max(taken) + 1
        yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def rename_durably(mnt: Path, old: str, new: str) -> None:
    """A rename that is durable on return."""
    os.rename(mnt / old, mnt / new)
    directory = os.open(mnt, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def test_a_daemon_without_descriptors_keeps_its_pool_writable(place: tuple[Path, Path]) -> None:
    pool, mnt = place
    daemon = Daemon(DAEMON, pool, mnt)
    for name in ("direct", "buffered"):
        os.close(os.open(mnt / name, os.O_CREAT))
        os.truncate(mnt / name, 4 * MIB)
    with none_left(daemon.pid, pool):
        for step in range(4):
            write_direct(str(mnt / "direct"), step * MIB, noise(step, MIB))
            write_file(str(mnt / "buffered"), noise(step, MIB), step * MIB, sync=True)
            rename_durably(mnt, "direct", "other")  # which is nothing for the journal: it takes a commit of the map
            rename_durably(mnt, "other", "direct")
        with pytest.raises(RowfsError, match="no file descriptors left") as refused, Client(str(pool)) as client:
            client.call("extents", {"disk": "direct"})
        assert refused.value.errno == EMFILE
        os.unlink(mnt / "buffered")
    with Client(str(pool)) as client:
        assert client.call("info")["read_only_reason"] is None
    assert read_direct(mnt / "direct") == b"".join(noise(step, MIB) for step in range(4))
    os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.ended() == 0 and check_pool(str(pool))[0] == []
    assert "Traceback" not in (pool / "rowfs.log").read_text()


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(resource.RLIM_INFINITY, 256), (1024, 256), (256, 128), (64, 4)]
)
def test_connections_leave_descriptors_for_everything_else(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert server._connections_max() == connections
