"""The file system that holds a pool is full, to the last block: somebody else has written a file there.

What was acknowledged stays, the daemon too. What needs no space goes on, and writing does when there is space again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from rowfs.base.errors import RowfsError
from soaklib.system import HOSTS, Host
from tests.mount.helpers import MIB, B, Mounted, noise, read_direct, until, write_direct, write_file

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
    """A pool without a capacity of its own, that holds a disk with a snapshot."""
    mounted = Mounted(host.where / "pool", tmp_path / "mnt")
    mounted.mnt.mkdir()
    mounted.init()
    mounted.mount()
    mounted.cli("create", ":vm", "1G")
    write_file(mounted.path("vm"), noise("old", 16 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@s")
    write_file(mounted.path("vm"), noise("new", 8 * MIB), sync=True)
    yield mounted
    mounted.finish()


class Foreign:
    """A file that takes all that is left of a host."""

    def __init__(self, host: Host) -> None:
        self._path = host.where / "foreign"

    def fill(self, left_bytes: int = 0) -> None:
        """Until not one block more is to be had; then `left_bytes` are given back."""
        with open(self._path, "ab", buffering=0) as file:
            for piece in (64 * MIB, MIB, B):
                with contextlib.suppress(OSError):  # ENOSPC
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, piece)
            os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - left_bytes)

    def remove(self) -> None:
        """All of it is free again."""
        self._path.unlink()


@pytest.fixture
def foreign(host: Host) -> Foreign:
    return Foreign(host)


@pytest.mark.parametrize("left_bytes", [0, B, 3 * B, 8 * B])
def test_no_pool_is_made_on_a_full_host(host: Host, foreign: Foreign, tmp_path: Path, left_bytes: int) -> None:
    mounted = Mounted(host.where / "pool", tmp_path / "mnt")
    mounted.pool.mkdir()
    foreign.fill(left_bytes)
    said = mounted.refuses("init", str(mounted.pool))
    assert "No space left on device" in said or "is full: free some space there" in said
    assert os.listdir(mounted.pool) == []
    foreign.remove()
    mounted.init()


@pytest.mark.parametrize("host", ["ext4"], indirect=True)  # on XFS the lock's first block is not to be had: no mount
def test_umount_on_a_host_that_was_full_from_the_start_says_once_what_is_lost(
    host: Host, foreign: Foreign, tmp_path: Path
) -> None:
    expected = ["nothing can be made durable now", "the last commit failed"]
    mounted = Mounted(host.where / "pool", tmp_path / "mnt", expected_log=expected)
    mounted.mnt.mkdir()
    mounted.init()
    foreign.fill()
    mounted.mount()
    why = "not everything could be made durable: the file system that holds the pool is full: free some space there"
    assert mounted.refuses("create", ":vm", "1M") == why
    assert mounted.refuses("umount", ":") == f"unmounted, but {why}"
    foreign.remove()
    mounted.pid = 0
    mounted.finish()


def test_a_full_host_refuses_what_needs_space_and_nothing_else(mounted: Mounted, foreign: Foreign) -> None:
    foreign.fill()
    path, pid = mounted.path("vm"), mounted.pid
    with pytest.raises(OSError) as caught:
        write_direct(path, 100 * MIB, noise("more", 4 * MIB))
    assert caught.value.errno == ENOSPC
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, noise("cached", 4 * MIB), 200 * MIB)
    with pytest.raises(OSError) as caught:
        os.fsync(fd)
    assert caught.value.errno == ENOSPC
    with contextlib.suppress(OSError):  # says once more what fsync has said
        os.close(fd)
    write_direct(path, 0, noise("in place", MIB))  # the disk's own blocks
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.close(fd)
    mounted.cli("snapshot", ":vm@full")
    mounted.cli("clone", ":vm@s", "clone")
    mounted.cli("rename", ":vm", "renamed")
    assert "full" in mounted.run("list", mounted.path()).stderr
    info = mounted.info()
    assert info["pid"] == pid and not info["read_only"] and "full" in info["warnings"][0]
    mounted.check()
    assert read_direct(mounted.path("renamed"), 0, 16 * MIB) == _now()
    assert read_direct(mounted.path("clone"), 0, 16 * MIB) == noise("old", 16 * MIB)
    mounted.umount()
    mounted.check()
    mounted.mount()
    assert read_direct(mounted.snapshot_path("renamed", "full"), 0, 16 * MIB) == _now()
    mounted.cli("delete", "--wait", ":renamed@s")


def _now() -> bytes:
    """What the disk of these tests begins with once its first MiB is written in place."""
    return noise("in place", MIB) + noise("new", 8 * MIB)[MIB:] + noise("old", 16 * MIB)[8 * MIB :]


@pytest.mark.parametrize("way", ["elsewhere", "in the pool"])
def test_writing_goes_on_when_there_is_space_again(mounted: Mounted, foreign: Foreign, way: str) -> None:
    write_file(mounted.path("vm"), noise("old", 112 * MIB), 300 * MIB, sync=True)
    mounted.cli("snapshot", ":vm@big")
    mounted.cli("delete", ":vm@s")
    write_file(mounted.path("vm"), noise("new", 112 * MIB), 300 * MIB, sync=True)
    foreign.fill()
    pid = mounted.pid
    for turn in range(2):
        with pytest.raises(OSError) as caught:
            for piece in range(16):  # what is free in the pool and the host holds is written first
                write_direct(mounted.path("vm"), (100 + 64 * turn + 4 * piece) * MIB, noise(("lost", turn), 4 * MIB))
        assert caught.value.errno == ENOSPC
    if way == "elsewhere":
        foreign.remove()
    else:
        mounted.cli("delete", "--wait", ":vm@big")
    write_direct(mounted.path("vm"), 100 * MIB, noise("more", 4 * MIB))
    write_file(mounted.path("vm"), noise("cached", 4 * MIB), 200 * MIB, sync=True)
    mounted.cli("snapshot", ":vm@t")
    assert mounted.info()["pid"] == pid
    mounted.kill()
    mounted.check()
    mounted.mount()
    for target in (mounted.path("vm"), mounted.snapshot_path("vm", "t")):
        assert read_direct(target, 100 * MIB, 4 * MIB) == noise("more", 4 * MIB)
        assert read_direct(target, 200 * MIB, 4 * MIB) == noise("cached", 4 * MIB)


class Worker(threading.Thread):
    """Does one thing until the host is full; keeps what was acknowledged."""

    def __init__(self, task: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self._task = task
        self.done = 0
        self.error: BaseException | None = None
        self.enough = threading.Event()

    def run(self) -> None:
        """The thread. No space: try again, so that more than one kind of work sees it."""
        while not self.enough.is_set():
            try:
                self._task(self.done)
                self.done += 1
            except (OSError, RowfsError) as error:
                if error.errno != ENOSPC:
                    self.error = error
                    return
                self.enough.wait(0.02)
            except BaseException as error:
                self.error = error
                return


def test_the_host_fills_up_amid_all_kinds_of_work(mounted: Mounted, foreign: Foreign) -> None:
    """Writers past the cache and through it, snapshots, clones, deletes; commits and reclaim run with them."""
    for name in ("direct", "buffered"):
        mounted.cli("create", f":{name}", "1G")
    taken: list[tuple[str, int]] = []
    names = itertools.count(1)

    def write_past_the_cache(number: int) -> None:
        fd = os.open(mounted.path("direct"), os.O_WRONLY)
        try:
            write_direct(mounted.path("direct"), number * 64 * 1024, noise(("direct", number), 64 * 1024))
            os.fsync(fd)
        finally:
            os.close(fd)

    def write_through_the_cache(number: int) -> None:
        write_file(mounted.path("buffered"), noise(("buffered", number), 64 * 1024), number * 64 * 1024, sync=True)

    def snapshot_and_delete(number: int) -> None:
        done, name = direct.done, f"s{next(names)}"
        mounted.call("snapshot", disk="direct", snapshot=name)
        taken.append((name, done))
        if len(taken) > 3:
            mounted.call("delete", disk="direct", snapshots=[taken.pop(0)[0]])

    direct, buffered = Worker(write_past_the_cache), Worker(write_through_the_cache)
    workers = [direct, buffered, Worker(snapshot_and_delete)]
    for worker in workers:
        worker.start()
    until(lambda: all(worker.done > 20 for worker in workers), "the work to begin")
    for _ in range(3):  # what is deleted meanwhile makes room once more
        foreign.fill()
    for worker in workers:
        worker.enough.set()
        worker.join()
    assert [worker.error for worker in workers] == [None] * 3
    assert not mounted.info()["read_only"]

    def verify() -> None:
        for name, worker in (("direct", direct), ("buffered", buffered)):
            expected = b"".join(noise((name, number), 64 * 1024) for number in range(worker.done))
            assert read_direct(mounted.path(name), 0, len(expected)) == expected
        for name, count in taken:
            expected = b"".join(noise(("direct", number), 64 * 1024) for number in range(count))
            assert read_direct(mounted.snapshot_path("direct", name), 0, len(expected)) == expected

    verify()
    mounted.kill()
    mounted.check()
    mounted.mount()
    verify()
    foreign.remove()
    for number in range(20):
        write_past_the_cache(direct.done + number)
