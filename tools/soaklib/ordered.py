"""A writer to two disks, each of whose writes waits for the sync of the one before; and its order in snapshots.

It writes record n into a block of `data`, syncs, and then says so in a block of `log`. In a group of both, whoever said
n has its data: the block holds n or a later record. Single snapshots, one after the other, break that.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rowfs.base.errors import RowfsError
from rowfs.cli.client import Client
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.records import B, Lost, number_of, record
from soaklib.system import DAEMON, Daemon, opened, read_direct, umount_whatever, until, write_aligned

BLOCKS = {"data": 64, "log": 16}
LOST = "order violations"
KEPT = 4  # groups, until the oldest goes


class Ordered:
    """One pool with both disks, and the writer."""

    def __init__(self, directory: Path, seed: int, grouped: bool = True) -> None:
        """In an empty directory. `grouped` False: single snapshots, of data and then of log."""
        self.rng = random.Random(seed)
        self.pool, self.mnt = directory / "pool", directory / "mnt"
        self.mnt.mkdir()
        self.grouped = grouped
        self.counts: Counter[str] = Counter()
        self.names: list[str] = []
        self._number = 0
        self._stopping = False
        self._daemon: Daemon | None = None
        self._writer: threading.Thread | None = None
        init_pool(str(self.pool))

    def start(self) -> None:
        """Mount, and have the writer write."""
        self._daemon = Daemon(DAEMON, self.pool, self.mnt)
        if not (self.mnt / "data").exists():
            for disk, blocks in BLOCKS.items():
                self._ask("create", disk=disk, size_bytes=blocks * B)
        self._stopping = False
        self._writer = threading.Thread(target=self._write)
        self._writer.start()
        begun = self._number
        until(lambda: self._number > begun, "the writer to begin")

    def _write(self) -> None:
        """Until the daemon is gone, or nobody wants it any more. O_DIRECT and the page cache take turns."""
        with contextlib.suppress(OSError):
            while not self._stopping:
                flags = self._number // 50 % 2 * os.O_DIRECT
                with opened(self.mnt / "data", os.O_RDWR | flags) as data, opened(self.mnt / "log", os.O_RDWR) as log:
                    for _ in range(50):
                        self._number += 1
                        self._put(data, "data")
                        os.fsync(data)
                        self._put(log, "log")
                        os.fsync(log)
                        self.counts["writes"] += 1

    def _put(self, fd: int, disk: str) -> None:
        block = self._number % BLOCKS[disk]
        write_aligned(fd, block * B, record(disk, block, self._number))

    def _ask(self, method: str, **params: Any) -> Any:
        with Client(str(self.pool)) as client:
            return client.call(method, params)

    # Taking and looking

    def take(self) -> None:
        """One more group, or pair of single snapshots; look at it, and let the oldest go."""
        name = f"g{self.counts['taken']}"
        if self.grouped:
            self._ask("group_snapshot", group=name, disks=["data", "log"])
        else:
            for disk in BLOCKS:
                self._ask("snapshot", disk=disk, snapshot=name)
        self.counts["taken"] += 1
        self.names.append(name)
        self._look(name)
        if len(self.names) > KEPT:
            self._forget(self.names.pop(0))

    def _forget(self, name: str) -> None:
        if self.grouped:
            self._ask("group_delete", group=name)
        else:
            for disk in BLOCKS:
                self._ask("delete", disk=disk, snapshots=[name])

    def _look(self, name: str) -> None:
        held = {disk: self._numbers(disk, name) for disk in BLOCKS}
        said = max(held["log"])
        if held["data"][said % BLOCKS["data"]] < said:
            self.counts[LOST] += 1

    def _numbers(self, disk: str, name: str) -> list[int]:
        image = read_direct(self.mnt / ".snapshots" / disk / name)
        return [number_of(disk, at // B, image[at : at + B]) for at in range(0, len(image), B)]

    # Ending

    def kill(self) -> None:
        """SIGKILL the daemon while a group is taken, perhaps; what it left has to be whole groups, in order."""
        assert self._daemon is not None and self._writer is not None
        taking = threading.Thread(target=self._take_until_dead)
        taking.start()
        time.sleep(self.rng.uniform(0, 0.05))
        self._daemon.kill(self.mnt)
        taking.join()
        self._writer.join()
        umount_whatever("--lazy", self.mnt)
        findings, _ = check_pool(str(self.pool))
        if findings:
            raise Lost(f"after a kill: {findings[0]}")
        self.counts["kills"] += 1
        self.start()
        self._settle()

    def _take_until_dead(self) -> None:
        with contextlib.suppress(RowfsError, OSError):
            while True:
                self.take()

    def _settle(self) -> None:
        """Which groups there are after a crash: those that were answered, and of the last two anything but halves."""
        groups = {group["name"]: group for group in self._ask("group_list")}
        for group in groups.values():
            if group["degraded"] or len(group["members"]) != len(BLOCKS):
                raise Lost(f"the group {group['name']} is not whole after a crash")
        lost = set(self.names) - groups.keys()
        if lost:
            raise Lost(f"groups that were acknowledged are gone: {sorted(lost)}")
        strange = {name for name in groups if name not in self.names}
        for name in sorted(strange, key=lambda name: int(name[1:])):
            self._look(name)
            self._forget(name)
        for name in self.names:
            self._look(name)
        self.counts["taken"] += 1  # the name of one that was not acknowledged is not used again

    def finish(self) -> None:
        """Unmount; the pool has to be in order."""
        assert self._daemon is not None and self._writer is not None
        self._stopping = True
        self._writer.join()
        self._ask("umount")
        self._daemon.ended()
        self._daemon = None
        findings, _ = check_pool(str(self.pool))
        if findings:
            raise Lost(f"in the end: {findings[0]}")

    def clean(self) -> None:
        """Leave nothing running."""
        self._stopping = True
        if self._daemon is not None:
            self._daemon.kill(self.mnt)
        if self._writer is not None:
            self._writer.join()
        umount_whatever("--lazy", self.mnt)
