"""Commands of rowfs that are interrupted, ended or killed at a random moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from soaklib.rawclients import SNAPSHOTS, VICTIMS
from soaklib.records import Lost

COMMAND = str(Path(sys.executable).parent / "rowfs")  # as installed: it keeps Ctrl-C back until it can be obeyed
MOMENT_S_MAX = 0.6  # until the signal; a command takes some 0.2 s to start on an idle machine
ENDED_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP)
USUAL = (0, 1, 2, 130)


class Commands:
    """Rounds of the command line on a mounted pool."""

    def __init__(self, pool: Path, mnt: Path, directory: Path, known: list[str]) -> None:
        self._pool, self._mnt, self._directory, self._known = pool, mnt, directory, known

    def round(self, rng: random.Random) -> str:
        """One command and, mostly, a signal; which command. Raises Lost."""
        words = self._words(rng)
        process = subprocess.Popen(
            [COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        number = rng.choice(SIGNALS) if rng.random() < 0.8 else None
        try:
            said = self._communicate(process, rng.uniform(0, MOMENT_S_MAX) if number else ENDED_S, number)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Lost(f"rowfs {' '.join(words)} hangs") from None
        if "Traceback" in said or "a fault in rowfs itself" in said:
            raise Lost(f"rowfs {' '.join(words)} and {number!r}: {said}")
        if process.returncode not in USUAL and (number is None or process.returncode not in (-number, 128 + number)):
            raise Lost(f"rowfs {' '.join(words)} and {number!r}: exit code {process.returncode}, {said}")
        return f"rowfs {words[0]}"

    @staticmethod
    def _communicate(process: subprocess.Popen[str], moment_s: float, number: signal.Signals | None) -> str:
        try:
            return process.communicate(timeout=moment_s)[1]
        except subprocess.TimeoutExpired:
            if number is None:
                raise
            process.send_signal(number)
        return process.communicate(timeout=ENDED_S)[1]

    def _words(self, rng: random.Random) -> list[str]:
        victim, other, known = rng.choice(VICTIMS), rng.choice(VICTIMS), rng.choice(self._known)
        disk, snapshot = str(self._mnt / victim), f"{self._mnt / victim}@{rng.choice(SNAPSHOTS)}"
        return rng.choice(
            [
                ["list", str(self._mnt)],
                ["list", "--json", str(self._mnt)],
                ["info", str(self._mnt / known)],
                ["info", str(self._mnt)],
                ["create", disk, "1M"],
                ["resize", disk, rng.choice(["1M", "2M", "+64K"])],
                ["rename", disk, other],
                ["snapshot", snapshot],
                ["snapshot", "--freeze", snapshot],
                ["rollback", snapshot, "--force"],
                ["clone", snapshot, str(self._mnt / other)],
                ["delete", disk, "--yes"],
                ["delete", snapshot],
                ["delete", "--wait", snapshot],
                ["diff", str(self._mnt / known)],
                ["extents", str(self._mnt / known)],
                ["export", str(self._mnt / known), str(self._directory / f"out-{rng.randrange(3)}")],
                ["attach", disk],
                ["detach", disk],
                ["trim", disk],
                ["check", str(self._pool)],
                ["umount", str(self._mnt)],  # refused: it is in use
                ["mount", str(self._pool), str(self._directory / "elsewhere")],  # refused: it is mounted
                ["completion", "bash"],
                ["--help"],
            ]
        )
