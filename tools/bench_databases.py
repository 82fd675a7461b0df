"""Measures databases on a disk of rowfs beside a plain file, qcow2's export and a C server that does only what it must.

bench_databases.py [--quick] [--only NAME...] [--systems NAME...] [--direct] [--rounds N] [--seconds S] [--dir DIR]

All in one run, in turn, each system first as often as last. Nothing is ever failed by a figure: docs/PERFORMANCE.md
says what it means.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchlib import dbwork
from benchlib.dbsystems import SYSTEMS, System, obstacle
from benchlib.ext4load import pack
from benchlib.figures import ROOT, markdown, say
from benchlib.machine import describe
from benchlib.signals import interrupts_later
from rowfs.base.units import GIB
from rowfs.cli.signals import ended_in_order

ROWS = {
    "pgbench-1": "PostgreSQL: pgbench, 1 client",
    "pgbench-8": "PostgreSQL: pgbench, 8 clients",
    "mariadb-1": "MariaDB: sysbench oltp_write_only, 1 thread",
    "mariadb-8": "MariaDB: sysbench oltp_write_only, 8 threads",
    "sqlite-wal": "SQLite: WAL, synchronous=FULL",
    "sqlite-rollback": "SQLite: rollback journal, synchronous=FULL",
    "tree": "a file tree unpacked, and sync (files)",
    "qemu-read": "qemu-img bench (qcow2: QEMU's own driver): reads",
    "qemu-first": "qemu-img bench (qcow2: QEMU's own driver): overwrites, the first after a snapshot",
    "qemu-again": "qemu-img bench (qcow2: QEMU's own driver): overwrites again",
    "qemu-flush": "qemu-img bench (qcow2: QEMU's own driver): overwrites, a flush after each 16",
    "qemu-zeros": "qemu-img bench (qcow2: QEMU's own driver): writes of zeros",
}
GROUPS = ("postgresql", "mariadb", "sqlite", "tree", "qemu")
Samples = dict[str, dict[str, list[float]]]  # of a row, of a system: a value for each round


def main() -> None:
    """Run what was asked for."""
    arguments = _arguments()
    if reason := obstacle():
        sys.exit(f"bench_databases.py: {reason}")
    parent = arguments.dir or ROOT / "build"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="databases-", dir=parent))
    directory.chmod(0o711)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    samples: Samples = defaultdict(lambda: defaultdict(list))
    with ended_in_order():
        try:
            machine = describe(directory)
            with contextlib.ExitStack() as stack:
                measure(directory, arguments, samples, stack)
        finally:
            with interrupts_later():
                shutil.rmtree(directory, ignore_errors=True)
    print(f"loop devices {'direct' if arguments.direct else 'buffered'}; {arguments.rounds} rounds")
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    print("\n".join(markdown(table(samples, [key for key in SYSTEMS if key in arguments.systems]))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_databases.py", description="Measure databases on rowfs and others.")
    parser.add_argument("--quick", action="store_true", help="one round of two seconds each, less steady")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="NAME", help=" ".join(GROUPS))
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME", help=" ".join(SYSTEMS)
    )
    parser.add_argument("--direct", action="store_true", help="loop devices with direct I/O, as rowfs attach has it")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each measurement")
    parser.add_argument("--dir", type=Path, help="on the file system to measure; else ./build. Needs 30 GiB")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (2.0 if arguments.quick else 15.0)
    return arguments


def measure(directory: Path, arguments: argparse.Namespace, samples: Samples, stack: contextlib.ExitStack) -> None:
    """Do it all, and leave nothing behind."""
    systems = [SYSTEMS[key](directory, 4 * GIB, arguments.direct) for key in SYSTEMS if key in arguments.systems]
    for system in systems:
        say(f"{system.label}: an ext4 of 4 GiB")
        system.start(stack)
    works = _works(directory, arguments)
    for number in range(arguments.rounds):
        order = systems if number % 2 else systems[::-1]
        for name, work in works.items():
            say(f"round {number + 1} of {arguments.rounds}: {name}")
            for system in order:
                for row, value in work(system, arguments.seconds).items():
                    samples[row][system.key].append(value)
        if "qemu" in arguments.only:
            say(f"round {number + 1} of {arguments.rounds}: qemu-img bench")
            for row, values in dbwork.qemu(directory, systems, arguments.quick).items():
                for key, value in values.items():
                    samples[row][key].append(value)


def _works(directory: Path, arguments: argparse.Namespace) -> dict[str, Callable[[System, float], dbwork.Values]]:
    works: dict[str, Callable[[System, float], dbwork.Values]] = {
        "postgresql": dbwork.pgbench,
        "mariadb": dbwork.sysbench,
        "sqlite": dbwork.sqlite,
    }
    if "tree" in arguments.only:
        archive = directory / "tree.tar"
        works["tree"] = dbwork.tree(archive, pack(archive, 2_000 if arguments.quick else 10_000))
    for group, reason in dbwork.left_out().items():
        if group in arguments.only:
            say(f"{group}: left out: {reason}")
        works.pop(group, None)
    return {name: work for name, work in works.items() if name in arguments.only}


def table(samples: Samples, systems: list[str]) -> list[tuple[str, ...]]:
    """Heading and rows: of the plain file operations a second, of the others what part of that, with the spread."""
    rows: list[tuple[str, ...]] = [("operations a second", *(SYSTEMS[key].label for key in systems))]
    for row, title in ROWS.items():
        if row in samples:
            plain = samples[row].get("plain")
            rows.append((title, *(_cell(samples[row].get(key), plain) for key in systems)))
    return rows


def _cell(values: list[float] | None, plain: list[float] | None) -> str:
    if not values:
        return ""
    middle, low, high = median(values), min(values), max(values)
    if plain is None or values is plain:
        return f"{middle:,.0f} ({low:,.0f}-{high:,.0f})"
    of = median(plain)
    return f"{middle / of:.2f}x ({low / of:.2f}-{high / of:.2f})"


if __name__ == "__main__":
    main()
