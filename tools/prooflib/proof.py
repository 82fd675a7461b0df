"""A database on a disk under load, and what happens to it: snapshots, kills of the daemon, power cuts."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prooflib.engines import ACCOUNTS, Engine
from rowfs.cli.client import Client as Control
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.records import Lost
from soaklib.system import DAEMON, Daemon, Host, attach, detach, run, umount_whatever, until

RUN_S = (0.5, 4.0)  # of load before something happens
HOST_MIB = 4096  # sparse


class Worker:
    """One client that commits one transaction after the other. `acknowledged`: the last whose commit it was told of."""

    def __init__(self, engine: Engine, number: int, done: int, seed: int) -> None:
        self.acknowledged = done
        self._engine, self._number = engine, number
        self._rng = random.Random(seed)
        self._stopping = False
        self._process = subprocess.Popen(
            engine.client(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            **engine.account(),
        )
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self._stopping and self._commit(self.acknowledged + 1):
                self.acknowledged += 1

    def _commit(self, number: int) -> bool:
        first, second = sorted(self._rng.sample(range(ACCOUNTS), 2))  # in this order nobody waits in a circle
        assert self._process.stdin is not None and self._process.stdout is not None
        line = self._engine.transfer(self._number, number, first, second, self._rng.randint(1, 9))
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline() == f"ack {number}\n"

    def stop(self) -> None:
        """After the transaction that it is at; at once when its database is gone."""
        self._stopping = True
        self._thread.join(5)
        self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()


class Proof:
    """One engine on one disk of one pool."""

    def __init__(
        self,
        directory: Path,
        engine: type[Engine],
        seed: int,
        *,
        power: bool = False,
        run_s: tuple[float, float] = RUN_S,
        daemon: Sequence[str] = DAEMON,
    ) -> None:
        """In an empty directory. `power`: the pool has an ext4 of its own below it, which power cuts shut down."""
        self.rng = random.Random(seed)
        self.host = Host(directory, "ext4", HOST_MIB) if power else None
        self.pool = (self.host.where if self.host else directory) / "pool"
        self.mnt, self.ext, self.copy = directory / "mnt", directory / "ext", directory / "copy"
        for place in (self.mnt, self.ext, self.copy):
            place.mkdir()
        self.engine = engine(self.ext, directory / "run")
        self.other = engine(self.copy, directory / "run-copy")
        self.run_s, self.command = run_s, daemon
        self.daemon: Daemon | None = None
        self.loops: dict[Path, str] = {}
        self.workers: list[Worker] = []
        self.acknowledged = [0] * engine.clients
        self.counts: Counter[str] = Counter()

    # The daemon and the disk

    def start(self) -> None:
        """Make the pool, the disk and the database, and begin to work on it."""
        init_pool(str(self.pool))
        self._mount()
        self._call("create", disk="db", size_bytes=self.engine.disk_bytes)
        run("mkfs.ext4", "-q", "-F", self.mnt / "db")
        self._attach("db", self.ext)
        self.engine.create()
        self._work()

    def _call(self, method: str, **params: object) -> None:
        with Control(str(self.pool)) as control:
            control.call(method, params)

    def _mount(self) -> None:
        self.daemon = Daemon(self.command, self.pool, self.mnt)

    def _attach(self, disk: str, where: Path) -> None:
        self.loops[where] = attach(self.mnt / disk)
        run("mount", self.loops[where], where)

    def _detach(self, where: Path) -> None:
        if os.path.ismount(where):
            until(lambda: _umounted(where), f"{where} to be free")
        if where in self.loops:
            detach(self.loops.pop(where))

    def _work(self) -> None:
        self.workers = [
            Worker(self.engine, number, done, self.rng.getrandbits(32)) for number, done in enumerate(self.acknowledged)
        ]

    def _rest(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.acknowledged = [worker.acknowledged for worker in self.workers] or self.acknowledged
        self.workers = []

    # What happens

    def wait(self) -> None:
        """Some load. Raises Lost when nothing is committed."""
        before = sum(worker.acknowledged for worker in self.workers)
        time.sleep(self.rng.uniform(*self.run_s))
        until(lambda: sum(worker.acknowledged for worker in self.workers) > before, "a commit")

    def snapshot(self) -> None:
        """A snapshot beside the load; a clone of it has to start and hold all that was acknowledged before."""
        self.wait()
        acknowledged = [worker.acknowledged for worker in self.workers]
        self._call("snapshot", disk="db", snapshot="now")
        self._call("clone", disk="db", snapshot="now", targets=["copy"])
        self._attach("copy", self.copy)
        self.other.verify(acknowledged)
        self._detach(self.copy)
        self._call("delete", disk="copy", all_snapshots=True, force=True)
        self._call("delete", disk="db", snapshots=["now"])
        self.counts["snapshots"] += 1

    def crash(self) -> None:
        """The power goes, or the daemon alone; what was acknowledged has to be there when all is up again."""
        self.wait()
        self._crash()
        self._rest()
        self.engine.kill()
        self._detach(self.ext)
        umount_whatever("--lazy", self.mnt)
        if self.host:
            self.host.remount()
        findings, _ = check_pool(str(self.pool))
        if findings:
            raise Lost(f"the pool is damaged: {findings}")
        self._mount()
        self._attach("db", self.ext)
        self.engine.verify(self.acknowledged)
        self.engine.start()
        self.acknowledged = self._committed()
        self._work()
        self.counts["power cuts" if self.host else "kills"] += 1

    def _committed(self) -> list[int]:
        # Of each client, be it that the last was never acknowledged.
        rows = self.engine.ask("SELECT client || ' ' || max(n) FROM commits GROUP BY client;")
        found = {int(client): int(last) for client, last in (row.split() for row in rows)}
        return [found.get(number, 0) for number in range(len(self.acknowledged))]

    def _crash(self) -> None:
        daemon, self.daemon = self.daemon, None
        if self.host:
            self.host.shut_down()
        if daemon is not None:
            daemon.kill(self.mnt)

    def clean(self) -> None:
        """Leave nothing running or mounted."""
        for step in (self._crash, self._rest, self.engine.kill, self.other.kill):
            with contextlib.suppress(Lost, OSError):
                step()
        for where in (self.copy, self.ext):
            with contextlib.suppress(Lost, OSError):
                self._detach(where)
        umount_whatever("--lazy", self.copy, self.ext, self.mnt)
        if self.host:
            self.host.remove()


def _umounted(where: Path) -> bool:
    return subprocess.run(["umount", where], capture_output=True, check=False, timeout=60).returncode == 0
