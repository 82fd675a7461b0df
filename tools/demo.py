"""Plays the transcript of README.md for real, command by command, and holds what comes against what is written there.

demo.py [README]     exits 1 at the first difference, naming its line; cleans up whatever happens. Needs root.

Played are the ```console blocks: a line that begins with `$ ` is a command, the lines up to the next one are its
output. A command whose output ends in a line beginning with `rowfs: ` has to fail. All happens in a directory made for
it: `/srv/` and `/mnt/` in the transcript are directories in there. Where mount(8) does not know rowfs, it does
meanwhile. What differs from run to run need not be the same:

    ...                 stands for any text in a line
    blanks              as many as there are, since columns move
    dates and times     any other
    pid 4711            any other
    /dev/loop0          any other where losetup prints it; from then on that one, in commands too
    41M, 1.2K           within a tenth, since file systems lay themselves out differently
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rowfs.base.mountinfo import parse

ROOT = Path(__file__).resolve().parents[1]
COMMAND_S = 60.0  # the slowest command takes about a second
SETTLE_S = 10.0  # udev may hold a detached loop device a little longer
TOLERANCE = 0.1

ANY = re.compile(
    r"(?P<any>\.\.\.)|(?P<blanks>\s+)|(?P<date>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d)"
    r"|(?P<pid>(?<=pid )\d+)|(?P<size>(?<![\w.])\d+(?:\.\d)?[KM]\b)"
)
PATTERNS = {
    "any": r".*",
    "blanks": r"\s+",
    "date": r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d)",
    "pid": r"\d+",
    "size": r"(\d+(?:\.\d)?[KM])",
}
LOOP = re.compile(r"/dev/loop\d+")
HELPER = Path("/sbin/mount.rowfs")
HELPER_SCRIPT = f"""\
#!{sys.executable} -B
import sys
sys.path.insert(0, {str(ROOT)!r})
from rowfs.cli.mount_helper import mount
mount()
"""
PLACE = re.compile(r"(?<![\w./])/(?=(?:srv|mnt)/)")


@contextlib.contextmanager
def mount_helper() -> Iterator[bool]:
    """mount(8)'s helper, where alone it looks for it; one of ours at a time. False: there is one already."""
    with contextlib.ExitStack() as stack:
        directory = os.open(HELPER.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        fcntl.flock(directory, fcntl.LOCK_EX)  # until it is closed
        if ours := not os.path.lexists(HELPER):
            HELPER.touch(mode=0o755)
            stack.callback(HELPER.unlink)
            HELPER.write_text(HELPER_SCRIPT)
        yield ours


class Mismatch(Exception):
    """Raised when the transcript and what really happens differ."""


@dataclass
class Step:
    """A command of the transcript, its line there, and the output it should have."""

    line: int
    command: str
    output: list[str] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """The commands in the ```console blocks of a Markdown text."""
    found: list[Step] = []
    playing = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            playing = line == "```console"
        elif playing and line.startswith("$ "):
            found.append(Step(number, line[2:]))
        elif playing:
            found[-1].output.append(line)
    return found


def same_line(written: str, real: str) -> bool:
    """Whether a line of output is what the transcript says."""
    pattern, sizes, at = "", [], 0
    for token in ANY.finditer(written):
        kind = str(token.lastgroup)
        pattern += re.escape(written[at : token.start()]) + PATTERNS[kind]
        sizes += [token[0]] * (kind == "size")
        at = token.end()
    match = re.fullmatch(pattern + re.escape(written[at:]), real)
    return match is not None and all(map(_near, sizes, match.groups()))


def _near(written: str, real: str) -> bool:
    wanted, got = (float(size[:-1]) * {"K": 1, "M": 1024}[size[-1]] for size in (written, real))
    return abs(got - wanted) <= TOLERANCE * wanted


class Player:
    """Plays steps in a directory of its own, which is gone, with all mounts and loop devices in it, on exit."""

    def __init__(self) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="rowfs-demo-")).resolve()
        self.helper = contextlib.ExitStack()
        self.loops: dict[str, str] = {}  # as the transcript calls them -> as they are called here

    def __enter__(self) -> Player:
        for name in ("srv", "mnt", "bin"):
            (self.work / name).mkdir()
        rowfs = self.work / "bin" / "rowfs"
        rowfs.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rowfs "$@"\n')
        rowfs.chmod(0o755)
        self.helper.enter_context(mount_helper())
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for mountpoint in [place for kind, _, place in self.mounts() if kind != "fuse.rowfs"][::-1]:
            self._tidy(f"umount {mountpoint}")
        for device in self.attached():
            self._tidy(f"losetup -d {device}")
        for mountpoint in [place for _, _, place in self.mounts()][::-1]:
            self._tidy(f"rowfs umount --force {mountpoint} || umount --lazy {mountpoint}")
        self.loops.clear()
        self._settle()
        self.helper.close()
        left = [*self.attached(), *(place for _, _, place in self.mounts())]
        if left:  # what is below a mount is not ours to remove
            print(f"demo: could not clean up {', '.join(left)} in {self.work}", file=sys.stderr)
        else:
            shutil.rmtree(self.work)

    def _tidy(self, command: str) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # whatever hangs is named in the end
            self.run(command)

    def mounts(self) -> Iterator[tuple[str, str, str]]:
        """Type, source and mountpoint of what is mounted in our directory, in the order of mounting."""
        for mount in parse(Path("/proc/self/mountinfo").read_bytes()):
            if mount.mountpoint.startswith(f"{self.work}/"):
                yield mount.fs_type, mount.source, mount.mountpoint

    def attached(self) -> list[str]:
        """The loop devices on files in our directory."""
        ours = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # detached meanwhile
                if file.read_bytes().startswith(os.fsencode(f"{self.work}/")):
                    ours.append(f"/dev/{file.parts[3]}")
        return ours

    def run(self, command: str) -> tuple[int, list[str]]:
        """Exit code and output of a command."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {
            "PATH": f"{self.work}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": path,
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
        return done.returncode, done.stdout.splitlines()

    def play(self, step: Step) -> None:
        """Do one step. Raises Mismatch."""
        print(f"$ {step.command}", flush=True)
        code, real = self.run(PLACE.sub(f"{self.work}/", LOOP.sub(self._loop, step.command)))
        real = [line.replace(str(self.work), "") for line in real]
        print("".join(f"{line}\n" for line in real), end="", flush=True)
        self._learn(step, real)
        for at, (wanted, came) in enumerate(itertools.zip_longest(step.output, real), 1):
            if wanted is None or came is None or not same_line(LOOP.sub(self._loop, wanted), came):
                raise Mismatch(f"line {step.line + at}: not as written\nwritten: {wanted}\ncame:    {came}")
        fails = bool(step.output) and step.output[-1].startswith("rowfs: ")
        if (code != 0) != fails:
            raise Mismatch(f"line {step.line}: the exit code is {code}")
        self._settle()

    def _loop(self, name: re.Match[str]) -> str:
        return self.loops.get(name[0], name[0])

    def _learn(self, step: Step, real: list[str]) -> None:
        for name, device in zip(step.output, real, strict=False):
            if LOOP.fullmatch(name) and LOOP.fullmatch(device):
                self.loops[name] = device
        if step.command.startswith("losetup -d "):
            self.loops.pop(step.command.split()[-1], None)

    def _settle(self) -> None:
        """Wait until the loop devices are gone that the transcript has detached or unmounted."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            held = {source for _, source, _ in self.mounts()} | set(self.loops.values())
            if all(device in held for device in self.attached()):
                return
            time.sleep(0.02)


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    readme = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    if os.geteuid() != 0:
        print("demo: loop devices and mount(8) need root: run it as root, in a container or a test machine")
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    played = steps(readme.read_text())
    with Player() as player:
        try:
            for step in played:
                player.play(step)
        except (Mismatch, subprocess.TimeoutExpired) as error:
            print(f"\n{readme}: {error}")
            return 1
    print(f"\n{readme}: {len(played)} commands, all as written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
