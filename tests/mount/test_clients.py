"""Two hundred clients at once, on the socket and on files: all are served, and the daemon keeps nothing of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from rowfs.cli.client import Client
from tests.mount.helpers import (
    DEADLINE_S,
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    noise,
    read_direct,
    until,
    write_direct,
    write_file,
)

CLIENTS = 200


def all_at_once(mounted: Mounted, task: Callable[[int], None]) -> None:
    """Run a task in as many threads as there are clients. Whoever fails, fails the test.

    The daemon is stopped until all have asked for something on the mount, so that they really come at once.
    """
    errors: list[BaseException] = []
    os.stat(mounted.path(".snapshots"))  # a name that the kernel does not know yet it asks for once, for all of them
    os.kill(mounted.pid, signal.SIGSTOP)

    def run(number: int) -> None:
        try:
            task(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(asleep_in_fuse(thread) for thread in threads), "all to have asked")
    finally:
        os.kill(mounted.pid, signal.SIGCONT)
    for thread in threads:
        thread.join(4 * DEADLINE_S)
    stuck = sum(thread.is_alive() for thread in threads)
    if stuck:
        mounted.kill()  # or they would be there for ever
    assert not stuck, f"{stuck} clients were never answered"
    assert errors == []


def asleep_in_fuse(thread: threading.Thread) -> bool:
    """Whether a thread of this process waits in the kernel for the daemon's answer."""
    return Path(f"/proc/self/task/{thread.native_id}/wchan").read_text() == "request_wait_answer"


def descriptors(mounted: Mounted) -> int:
    """How many the daemon has open."""
    return len(os.listdir(f"/proc/{mounted.pid}/fd"))


def test_two_hundred_clients_are_served_at_once(mounted: Mounted) -> None:
    before = descriptors(mounted)

    def work(number: int) -> None:
        os.stat(mounted.path(".snapshots"))
        disk, path = f"d{number}", mounted.path(f"d{number}")
        with Client(str(mounted.pool)) as client:
            client.call("create", {"disk": disk, "size_bytes": 64 * B})
            write_direct(path, 0, noise(number, 4 * B))
            write_file(path, noise((number, "cached"), 4 * B), 8 * B, sync=True)
            client.call("snapshot", {"disk": disk, "snapshot": "s"})
            write_file(path, noise((number, "later"), 4 * B), 0, sync=True)
            client.call("clone", {"disk": disk, "snapshot": "s", "targets": [f"clone{number}"]})
            (shown,) = client.call("list", {"disks": [disk]})
            assert [snapshot["name"] for snapshot in shown["snapshots"]] == ["s"]
            assert client.call("info")["pid"] == mounted.pid
            if number % 2:
                client.call("rollback", {"disk": disk, "snapshot": "s", "discard": True})
            client.call("delete", {"disk": disk, "snapshots": ["s"]})

    all_at_once(mounted, work)
    until(lambda: descriptors(mounted) <= before + 8, "the daemon to close what its clients had")
    mounted.kill()
    mounted.check()
    mounted.mount()
    for number in range(CLIENTS):
        first, cached = noise(number, 4 * B), noise((number, "cached"), 4 * B)
        old = first + bytes(4 * B) + cached
        now = old if number % 2 else noise((number, "later"), 4 * B) + old[4 * B :]
        assert read_direct(mounted.path(f"clone{number}"))[: 12 * B] == old
        assert read_direct(mounted.path(f"d{number}"))[: 12 * B] == now
        mounted.call("delete", disk=f"d{number}")
        mounted.call("delete", disk=f"clone{number}")
    assert mounted.used() == LABEL_BYTES


def test_two_hundred_snapshots_by_touch_at_once(mounted: Mounted) -> None:
    """Each is a request that waits until the kernel has written back the disk, for which it makes requests itself."""
    files = []
    for number in range(CLIENTS):
        mounted.call("create", disk=f"d{number}", size_bytes=MIB)
        files.append(os.open(mounted.path(f"d{number}"), os.O_RDWR))
        os.pwrite(files[number], noise(number, MIB), 0)

    def touch(number: int) -> None:
        os.close(os.open(mounted.snapshot_path(f"d{number}", "s"), os.O_WRONLY | os.O_CREAT))

    try:
        all_at_once(mounted, touch)
    finally:
        for fd in files:
            os.close(fd)
    for number in range(CLIENTS):
        assert read_direct(mounted.snapshot_path(f"d{number}", "s")) == noise(number, MIB)
