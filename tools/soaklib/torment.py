"""Everybody who torments a daemon, everybody whose bytes are verified meanwhile, and who watches over them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rowfs.base.errors import RowfsError
from rowfs.cli.client import Client
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.commands import Commands
from soaklib.rawclients import RawClients
from soaklib.records import Lost
from soaklib.system import DAEMON, Daemon, backing_file, run, umount_whatever, until
from soaklib.verified import VerifiedDisk

CLIENTS = 4
PROCESSES = 0.04  # the share of rounds that start a process
HUNG_S = 120.0
DESCRIPTORS = 10  # that the daemon may have more of than at the start
DYING_S = 1.0
DEAD = "dead: the daemon has ended"
DISKS = {"direct": True, "buffered": False}


class Actor:
    """Somebody who does one thing after the other, in a thread."""

    def __init__(self, name: str, task: Callable[[], str | None]) -> None:
        """`task` tells what it did; None when there is nothing left to be done."""
        self.name, self._task = name, task
        self.counts: Counter[str] = Counter()
        self.begun: float | None = None  # since when it does what it is doing
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self.begun = time.monotonic()
            while (what := self._task()) is not None:
                self.counts[what] += 1
                self.begun = time.monotonic()
        except BaseException as error:
            self.error = error
        self.begun = None


class Torment:
    """One pool, mounted once, and all of them."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        daemon: Sequence[str] = DAEMON,
        processes: float = PROCESSES,
        hung_s: float = HUNG_S,
    ) -> None:
        """In an empty directory."""
        self.directory, self._seed, self._hung_s, self._processes = directory, seed, hung_s, processes
        self.pool, self.mnt = directory / "pool", directory / "mnt"
        for place in (self.mnt, directory / "elsewhere"):
            place.mkdir()
        init_pool(str(self.pool))
        self.daemon = Daemon(daemon, self.pool, self.mnt)
        self._disks: list[VerifiedDisk] = []
        self.actors: list[Actor] = []
        self._rounds = itertools.count()
        self._until: tuple[int, float] = (0, 0.0)
        self._descriptors = 0

    @property
    def counts(self) -> Counter[str]:
        """What was done."""
        return sum((actor.counts for actor in self.actors), Counter())

    def run(self, rounds: int, seconds: float) -> None:
        """So many rounds, or (0) for so long. Raises Lost at the first thing that is wrong."""
        self._until = (rounds, time.monotonic() + seconds)
        self._disks = [VerifiedDisk(self.pool, self.mnt, name, direct) for name, direct in DISKS.items()]
        self._descriptors = self._open_descriptors()
        raw, commands = RawClients(self.pool, list(DISKS)), Commands(self.pool, self.mnt, self.directory, list(DISKS))
        clients = [Actor(f"client {n}", self._client(n, raw, commands)) for n in range(CLIENTS)]
        stop = threading.Event()
        writers = [Actor(f"the disk {disk.name}", self._writer(disk, stop)) for disk in self._disks]
        self.actors = clients + writers
        for actor in self.actors:
            actor.thread.start()
        self._watch(clients)
        stop.set()
        self._watch(writers)

    def _client(self, n: int, raw: RawClients, commands: Commands) -> Callable[[], str | None]:
        rng = random.Random(f"{self._seed} {n}")

        def task() -> str | None:
            if self._over(next(self._rounds)):
                return None
            return (commands if rng.random() < self._processes else raw).round(rng)

        return task

    def _over(self, done: int) -> bool:
        rounds, end = self._until
        return done >= rounds if rounds else time.monotonic() > end

    def _writer(self, disk: VerifiedDisk, stop: threading.Event) -> Callable[[], str | None]:
        rng = random.Random(f"{self._seed} {disk.name}")
        return lambda: None if stop.is_set() else f"{disk.step(rng)} of a disk"

    def _watch(self, those: list[Actor]) -> None:
        """Return when they have ended. Raises Lost when the daemon dies, somebody hangs, or finds something wrong."""
        while any(actor.thread.is_alive() for actor in those):
            if not self.daemon.lives:
                raise Lost(DEAD)
            for actor in self.actors:
                if actor.begun is not None and time.monotonic() - actor.begun > self._hung_s:
                    raise Lost(f"hung: {actor.name} for {self._hung_s:.0f} s")
            self._raise_errors()
            time.sleep(0.05)
        self._raise_errors()

    def _raise_errors(self) -> None:
        for actor in self.actors:
            if actor.error is not None:
                with contextlib.suppress(Lost):  # whose end is noticed by those who speak with it first
                    until(lambda: not self.daemon.lives, "its end", DYING_S)
                if not self.daemon.lives:
                    raise Lost(DEAD)
                raise Lost(f"lost: {actor.name}: {actor.error}") from actor.error

    # The end

    def finish(self) -> None:
        """All is as it should be: the bytes, the daemon's process, its log, the pool. Raises Lost."""
        for disk in self._disks:
            disk.verify()
        with Client(str(self.pool)) as client:
            if client.call("info")["pid"] != self.daemon.pid or client.call("info")["read_only"]:
                raise Lost("lost: the pool is not as it was")
        self._detach_all()
        for disk in self._disks:
            disk.close()
        until(
            lambda: self._open_descriptors() <= self._descriptors + DESCRIPTORS, "the daemon to close what clients had"
        )
        with Client(str(self.pool)) as client:
            client.call("umount", {})
        if code := self.daemon.ended():
            raise Lost(f"lost: the daemon's exit code is {code}")
        self._check_log()
        findings, _ = check_pool(str(self.pool))
        if findings:
            raise Lost("\n".join(map(str, findings)))

    def _check_log(self) -> None:
        for line in (self.pool / "rowfs.log").read_text(errors="replace").splitlines():
            if line.startswith("Traceback") or " ERROR " in line or " CRITICAL " in line:
                raise Lost(f"lost: the log says {line}")

    def _open_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def _detach_all(self) -> None:
        """What a killed `rowfs attach` left."""
        for loop in Path("/sys/block").glob("loop*"):
            if (backing_file(loop.name) or b"").startswith(os.fsencode(self.mnt) + b"/"):
                run("losetup", "--detach", f"/dev/{loop.name}")

    def clean(self) -> None:
        """Leave nothing behind, whatever happened."""
        with contextlib.suppress(Lost, OSError, RowfsError):
            self._detach_all()
        if self.daemon.lives:
            with contextlib.suppress(Lost, OSError):
                self.daemon.kill(self.mnt)
        for disk in self._disks:
            disk.close()
        umount_whatever("--lazy", self.mnt, self.directory / "elsewhere")
