"""Measures rowfs beside others that show a disk: all in one run, in turn. docs/PERFORMANCE.md says what it means.

bench_peers.py [--quick] [--only NAME...] [--systems NAME...] [--json FILE] [--png FILE] [--dir DIR]

Nothing is ever failed by a figure: a machine that is busy or slow is no fault in rowfs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchlib import beside, ext4load, ratios
from benchlib.figures import ROOT, markdown, say
from benchlib.machine import describe
from benchlib.peers import PEERS, Peer, Rowfs, find
from benchlib.peerwork import FULL, QUICK, WORKS, Run, compare
from benchlib.plot import can_plot, plot
from benchlib.signals import interrupts_later
from rowfs.base.units import GIB
from rowfs.cli.signals import ended_in_order

GROUPS = (*WORKS, "ext4", "beside")
USUAL = [key for key in PEERS if key != ratios.PYTHON]
TOOLS = {"fio": ["fio", "--version"], "qemu": ["qemu-storage-daemon", "--version"]}
QUICK_SYSTEMS = [ratios.ROWFS, ratios.QCOW2, ratios.RAW]


def main() -> None:
    """Run what was asked for."""
    arguments = _arguments()
    parent = arguments.dir or ROOT / "build"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="peers-", dir=parent))
    run = Run(directory, QUICK if arguments.quick else FULL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    with ended_in_order():
        try:
            machine = describe(directory) | _versions()
            systems = measure(run, arguments)
        finally:
            with interrupts_later():
                shutil.rmtree(directory, ignore_errors=True)
    machine["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    machine["took"] = f"{time.monotonic() - run.started:.0f} s{', --quick' if arguments.quick else ''}"
    print(report(run, machine, systems))
    _keep(run, machine, systems, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_peers.py", description="Measure rowfs beside others.")
    parser.add_argument("--quick", action="store_true", help="under two minutes, disks of 1 GiB; less steady")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="NAME", help=" ".join(GROUPS))
    names = f"some of: {' '.join(PEERS)}; else all but python, with --quick {' '.join(QUICK_SYSTEMS)}"
    parser.add_argument("--systems", nargs="+", choices=PEERS, metavar="NAME", help=names)
    parser.add_argument("--json", type=Path, metavar="FILE", help="for all numbers; else build/bench-peers.json")
    parser.add_argument("--png", type=Path, metavar="FILE", help="for the plot; else build/bench-peers.png")
    parser.add_argument("--dir", type=Path, help="on the file system to measure; else ./build. Needs 40 GiB")
    return parser.parse_args()


def measure(run: Run, arguments: argparse.Namespace) -> list[str]:
    """Do it all, as far as there is time, and leave nothing behind. The systems that took part."""
    peers: list[Peer] = []
    with _put_back() as stack, _ended_in_time(run):
        for peer in _wanted(run, arguments):
            say(f"{peer.label}: a disk of {run.sizes.disk / GIB:.0f} GiB, filled")
            peer.start(stack)
            peers.append(peer)
        _compare(run, peers, arguments.only)
    return [peer.key for peer in peers]


def _compare(run: Run, peers: list[Peer], groups: Collection[str]) -> None:
    sizes = run.sizes
    ours = [peer for peer in peers if isinstance(peer, Rowfs)] if "beside" in groups else []
    ext4 = [peer for peer in peers if isinstance(peer, Rowfs) or peer.key == ratios.RAW] if "ext4" in groups else []
    beside_s = (sizes.snapshots_reserve_s + sizes.others_reserve_s) * len(ours)
    ext4_s = sizes.ext4_reserve_s * len(ext4)
    works = [work for name, work in WORKS.items() if name in groups]
    if works:
        compare(run, peers, works, ext4_s + beside_s)
    if ext4 and os.geteuid():
        run.note("ext4 on the loop device: left out, only root attaches loop devices")
    elif ext4 and run.has_time("ext4 on the loop device", ext4_s / sizes.rounds):
        ext4load.run_all(run, ext4, beside_s)
    if ours:
        beside.run_all(run, ours)


class TimeIsUpError(Exception):
    """Raised by the clock."""


@contextlib.contextmanager
def _ended_in_time(run: Run) -> Iterator[None]:
    """Ends what is measured where a machine is so slow that counting rounds was not enough."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, run.sizes.limit_s)
    try:
        yield
    except TimeIsUpError:
        run.note(f"ended after {run.sizes.limit_s:.0f} s, in the middle of it")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _put_back() -> Iterator[contextlib.ExitStack]:
    """Ctrl-C ends what is measured, and not the ending of it; a second one does."""
    stack = contextlib.ExitStack()
    try:
        yield stack
    finally:
        with interrupts_later():
            stack.close()


def _wanted(run: Run, arguments: argparse.Namespace) -> Iterator[Peer]:
    """The systems that were asked for and can be measured here, in the order of the table."""
    wanted = arguments.systems or (QUICK_SYSTEMS if arguments.quick else USUAL)
    free, need = shutil.disk_usage(run.directory).free, 2 * len(wanted) * run.sizes.disk
    if free < need:
        sys.exit(f"bench_peers.py: {run.directory} has {free >> 30} GiB free, and {need >> 30} are needed: see --dir")
    for key in filter(wanted.__contains__, PEERS):
        peer = PEERS[key](run.directory, run.sizes.disk)
        if reason := peer.obstacle():
            run.note(f"{peer.label}: left out, {reason}")
        else:
            yield peer


def _versions() -> dict[str, str]:
    found = {}
    for name, command in TOOLS.items():
        if program := find(command[0]):
            said = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=True).stdout
            found[name] = said.splitlines()[0].strip()
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found | {"rowfs": done.stdout.strip() or "unknown"}


def report(run: Run, machine: dict[str, str], systems: list[str]) -> str:
    """The machine, and the tables."""
    lines = [f"{name}: {text}" for name, text in machine.items()]
    lines += [*run.notes, "", *markdown(ratios.main_table(run.samples, systems))]
    for rows in (ratios.bytes_table(run.written, systems), ratios.python_table(run.samples)):
        if len(rows) > 1:
            lines += ["", *markdown(rows)]
    verdicts = [verdict for row in ratios.ROWS if (verdict := ratios.met(row, run.samples)) is not None]
    return "\n".join([*lines, "", f"{verdicts.count(False)} of {len(verdicts)} targets missed."])


def _keep(run: Run, machine: dict[str, str], systems: list[str], arguments: argparse.Namespace) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    file = arguments.json or ROOT / "build" / "bench-peers.json"
    rows = {
        row.key: {"work": row.work.strip(), "unit": row.unit, "ratio": ratios.ratio(row, run.samples)}
        | {"target": row.at_least or row.at_most, "met": ratios.met(row, run.samples), "rounds": run.samples[row.key]}
        | {"host_bytes": run.written.get(row.key, {}), "device_bytes": run.device.get(row.key, {})}
        for row in ratios.ROWS
        if row.key in run.samples
    }
    file.write_text(json.dumps({"machine": machine, "notes": run.notes, "rows": rows}, indent=2) + "\n")
    if not can_plot():
        say("no plot: matplotlib is not installed (tools/setup --bench)")
    elif ratios.QCOW2 in systems:
        title = f"rowfs {machine['rowfs']}, {machine['date']}, Linux {machine['kernel']}, {machine['cpus']}"
        plot(run.samples, systems, title, arguments.png or ROOT / "build" / "bench-peers.png")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("bench_peers.py: interrupted, all is taken down", file=sys.stderr)
        sys.exit(130)
