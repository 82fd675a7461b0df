"""One round: a daemon of which one host call fails, the script on its mount, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rowfs.base.errors import BusyError, RowfsError
from rowfs.store.check import check_pool
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool, init_pool
from soaklib.records import B, Lost
from soaklib.system import DAEMON, environment, umount_whatever
from tormentlib.calls import Case
from tormentlib.model import Image, Model, block_of
from tormentlib.script import Script

ROUND_S = 40.0  # until a daemon or a client is taken for hung
FREE_S = 5.0
OLD_BLOCKS = 16
IN_ORDER = (0, 1)  # exit codes

T = TypeVar("T")


@dataclass
class Outcome:
    """How a round ended."""

    refused: int = 0  # steps that failed
    started: bool = True  # there was a mount
    untidy: list[str] = field(default_factory=list)  # lines of the log that speak of a fault of rowfs itself


class Rounds:
    """Rounds in one directory, each with a pool of its own."""

    def __init__(
        self, directory: Path, preloaded: Path, fresh: Path, begin: Model, command: Sequence[str] = DAEMON
    ) -> None:
        """`fresh` is a pool that is copied, `begin` what it holds; `command` starts the daemon."""
        self._command = command
        self._preloaded, self._fresh, self._begin = preloaded, fresh, begin
        self._pool, self._mnt = directory / "pool", directory / "mnt"
        self._mnt.mkdir()
        self.options: tuple[str, ...] = ()
        self.round_s = ROUND_S
        self.log = directory / "calls"  # of the daemon's host calls, if there is no case

    def run(self, case: Case | None) -> Outcome:
        """One round. Raises Lost when anything is wrong that must not be."""
        how = {"LD_PRELOAD": str(self._preloaded), "TORMENT_POOL": str(self._pool)}
        return self.round(how | ({"TORMENT_LOG": str(self.log)} if case is None else case.environment))

    def round(
        self,
        how: dict[str, str],
        begun: Callable[[Model], None] = lambda model: None,
        ended: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """A round of a daemon with such an environment. `begun` is called before the script, `ended` before the pool is
        opened again. Raises Lost.
        """
        if self._pool.exists():
            shutil.rmtree(self._pool)
        shutil.copytree(self._fresh, self._pool)
        model, outcome = copy.deepcopy(self._begin), Outcome()
        with self._daemon(how) as daemon, _deadline(daemon, self.round_s) as hung:
            assert daemon.stdout is not None
            word = daemon.stdout.readline()
            if word == b"ready\n":
                script = Script(self._pool, self._mnt, model)
                begun(model)
                script.run()
                with contextlib.suppress(RowfsError):
                    script.ask("umount")
                self._end(daemon)
            else:
                outcome.started = False
                outcome.untidy = [word.decode(errors="replace").strip()] * (b"error: " not in word or b"fault" in word)
            code = daemon.wait()
            if hung:
                raise Lost(f"the daemon hung: {self._last_words()}")
        if code not in IN_ORDER:
            raise Lost(f"the daemon ended with {code}: {self._last_words()}")
        ended()
        outcome.refused = model.refused
        self._hold(model)
        outcome.untidy += self._untidy()
        return outcome

    @contextlib.contextmanager
    def _daemon(self, how: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        daemon = subprocess.Popen(
            [*self._command, str(self._pool), str(self._mnt), "--ready-fd", "1", *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment() | how,
            start_new_session=True,
        )
        try:
            yield daemon
        finally:  # if all went well it has ended
            daemon.kill()
            umount_whatever("--lazy", *[self._mnt] * _is_mountpoint(self._mnt))
            with daemon:
                pass

    def _end(self, daemon: subprocess.Popen[bytes]) -> None:
        """By the socket if that did it, else by a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(10)
            return
        daemon.send_signal(signal.SIGTERM)

    def _hold(self, model: Model) -> None:
        """Open the pool again: all is there that was acknowledged, and nothing contradicts itself."""
        pool = _when_free(lambda: Pool(str(self._pool)))
        try:
            if pool.read_only_reason:
                raise Lost(f"the pool is read-only when it is opened again: {pool.read_only_reason}")
            disks = {disk.name: bytes(pool.read(disk, 0, disk.size_bytes)) for disk in pool.catalog.live()}
            snapshots = {(s.owner.name, s.name): _read(pool, s) for s in pool.catalog.snapshots.values()}
            model.hold(disks, snapshots, safe=True)
            pool.reclaim()
        finally:
            pool.close()
        findings, _ = _when_free(lambda: check_pool(str(self._pool)))
        if findings:
            raise Lost(f"check finds {findings[0]}")

    def _log(self) -> list[str]:
        path = self._pool / "rowfs.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def _last_words(self) -> str:
        return " / ".join(self._log()[-40:])

    def _untidy(self) -> list[str]:
        return [line for line in self._log() if "unexpected" in line or "Traceback" in line or "fault" in line]


def crashed_pool(path: Path) -> Model:
    """Make a pool as a crash leaves it: not clean, and with a record in the journal. What it holds."""
    init_pool(str(path))
    model, pool = Model(), Pool(str(path))
    image = model.disks["old"] = Image({OLD_BLOCKS * B})
    disk = pool.create_disk("old", OLD_BLOCKS * B)
    for first in (0, OLD_BLOCKS // 2):
        for block in range(first, first + OLD_BLOCKS // 2):
            pool.write(disk, block * B, block_of(block, block + 1))
            image.put(block, {block + 1}, True)
        if not first:
            pool.commits.journal.state.wanted = True
            pool.commit()
    model.synced()
    appended = pool.commits.begin_record()
    assert appended is not None, "a few blocks fit into a record"
    pool.commits.append(appended)
    pool.commits.end_record()
    pool.abandon()
    return model


def _when_free(opened: Callable[[], T]) -> T:
    # A daemon that another round forks has the lock of a pool that is open just then, until it is another program.
    deadline = time.monotonic() + FREE_S
    while True:
        try:
            return opened()
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _is_mountpoint(path: Path) -> bool:
    try:
        return os.path.ismount(path)
    except OSError:  # a mount whose daemon is gone
        return True


def _read(pool: Pool, target: Disk | Snapshot) -> bytes:
    return bytes(pool.read(target, 0, target.size_bytes))


@contextlib.contextmanager
def _deadline(daemon: subprocess.Popen[bytes], seconds: float) -> Iterator[list[bool]]:
    """Kill a daemon that takes too long, which ends whoever waits for it; the list is not empty then."""
    hung: list[bool] = []

    def kill() -> None:
        hung.append(True)
        daemon.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield hung
    finally:
        timer.cancel()
