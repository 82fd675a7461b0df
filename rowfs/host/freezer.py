"""Keeps file systems frozen while its stdin is open. A process of its own, of the standard library alone.

python -I -S -X utf8 freezer.py LIMIT_S ID:MOUNTPOINT...     ID: the mount's in /proc/self/mountinfo

It is no thread of the daemon because a freeze writes to the daemon's own mount, cannot be interrupted, and must not
outlive the daemon: whatever becomes of the daemon, its end of the pipe closes, and everything is thawed. It says, one
line each:

    frozen               all of them are; they stay so until stdin is closed, or LIMIT_S after the start
    failed ERRNO PLACE   that one (counted from 0) cannot be frozen; none is
    thawed               after `frozen` and the end of stdin: all of them were frozen until then
    late                 LIMIT_S was over before, or someone else has thawed one

A freeze that is still under way when this ends is undone as soon as it comes; only then the process is gone. Signals
are ignored: LIMIT_S bounds everything that is not in the kernel's hands.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from errno import EIO, ESTALE

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h


class Freezer:
    """The file systems of `targets`, each as ID:MOUNTPOINT."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = targets
        self._frozen: list[int] = []  # descriptors of mountpoints
        self._ending = False
        self._lock = threading.Lock()
        self._read_fd, self._write_fd = os.pipe()
        self._failure = ""

    def freeze(self, deadline: float) -> str:
        """Freeze all of them. What came of it: `frozen`, `failed …`, `late`; nothing, if nobody wants it any more."""
        threading.Thread(target=self._freeze_all).start()
        ready = _wait([0, self._read_fd], deadline)
        if self._read_fd in ready:
            return self._failure or "frozen"
        return "" if ready else "late"

    def _freeze_all(self) -> None:
        for place, target in enumerate(self._targets):
            try:
                fd = _open(target)
                fcntl.ioctl(fd, FIFREEZE, 0)
            except OSError as error:
                self._failure = f"failed {error.errno or EIO} {place}"
                break
            with self._lock:
                if self._ending:
                    _thaw(fd)
                    return
                self._frozen.append(fd)
        os.write(self._write_fd, b".")

    def thaw(self) -> bool:
        """Thaw what is frozen, and what still will be. Whether all of it was frozen until now."""
        with self._lock:
            self._ending = True
            thawed = [_thaw(fd) for fd in reversed(self._frozen)]
        return all(thawed)


def _open(target: str) -> int:
    """The mountpoint, if it leads to the very mount that is meant: else another file system would be frozen."""
    number, _, path = target.partition(":")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(f"/proc/self/fdinfo/{fd}") as file:
        found = [line.split()[1] for line in file if line.startswith("mnt_id:")]
    if found != [number]:
        raise OSError(ESTALE, "another mount covers it")
    return fd


def _thaw(fd: int) -> bool:
    try:
        fcntl.ioctl(fd, FITHAW, 0)
    except OSError:  # EINVAL: it is not frozen
        return False
    return True


def _wait(fds: list[int], deadline: float) -> list[int]:
    return select.select(fds, [], [], max(0.0, deadline - time.monotonic()))[0]


def _say(word: str) -> None:
    with contextlib.suppress(OSError):  # the daemon is gone
        os.write(1, f"{word}\n".encode())


def main() -> None:
    """Freeze, wait, thaw."""
    deadline = time.monotonic() + float(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    freezer = Freezer(sys.argv[2:])
    try:
        word = freezer.freeze(deadline)
        if word == "frozen":
            _say(word)
            word = "thawed" if _wait([0], deadline) else "late"
    finally:
        kept = freezer.thaw()
    _say(word if kept or word != "thawed" else "late")


if __name__ == "__main__":
    main()
