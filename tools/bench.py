"""Measures and prints the figures that docs/PERFORMANCE.md explains: what is promised, what it is here, is it met.

bench.py [--quick] [--json FILE] [--only NAME...] [--dir DIR]

Nothing is ever failed by a figure: a machine that is busy or slow is no fault in rowfs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchlib import engine, maps, mounted, scale, seals, writing
from benchlib.figures import ROOT, Bench, Figure, markdown
from benchlib.machine import describe

GROUPS: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "operations": ("Snapshot, clone, rollback, delete (engine)", engine.run),
    "writes": ("Writes (engine)", writing.run),
    "crash": ("After a crash, and memory (engine)", maps.crash),
    "map": ("Size of the block map", maps.sizes),
    "freed": ("What a snapshot would free (engine)", maps.freed),
    "cli": ("Command line", mounted.cli),
    "list": ("Long chains (mount)", mounted.listing),
    "scale": ("Many disks, snapshots and policies", scale.run),
    "mount": ("Mount", mounted.fio),
    "seals": ("Checksums (mount)", seals.run),
}


def main() -> None:
    """Run what was asked for."""
    arguments = _arguments()
    started = time.monotonic()
    parent = arguments.dir or ROOT / "build"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    bench = Bench(directory, arguments.quick)
    try:
        machine = describe(directory)
        for name in arguments.only or GROUPS:
            bench.group = name
            print(f"{GROUPS[name][0]}", file=sys.stderr, flush=True)
            begun = time.monotonic()
            GROUPS[name][1](bench)
            print(f"  took {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    machine["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    machine["took"] = f"{time.monotonic() - started:.0f} s{', --quick' if bench.quick else ''}"
    print(table(machine, bench.figures))
    if arguments.json:
        found: dict[str, Any] = {name: [asdict(figure) for figure in held] for name, held in bench.figures.items()}
        arguments.json.write_text(json.dumps({"machine": machine, "figures": found}, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure what docs/PERFORMANCE.md explains.")
    parser.add_argument("--quick", action="store_true", help="a minute and a half; figures are less steady")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="NAME", help=f"some of: {' '.join(GROUPS)}")
    parser.add_argument("--dir", type=Path, help="on the file system to measure; else ./build. Needs 12 GiB")
    return parser.parse_args()


def table(machine: dict[str, str], figures: dict[str, list[Figure]]) -> str:
    """The machine and a Markdown table for each group."""
    lines = [f"{name}: {text}" for name, text in machine.items()]
    for name, held in figures.items():
        rows = [("figure", "target", "measured", "met"), *map(_row, held)]
        lines += ["", f"## {GROUPS[name][0]}", "", *markdown(rows)]
    missed = sum(figure.met is False for held in figures.values() for figure in held)
    return "\n".join([*lines, "", f"{missed} targets missed." if missed else "All targets met."])


def _row(figure: Figure) -> tuple[str, str, str, str]:
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    return figure.name, figure.target, figure.measured, met


if __name__ == "__main__":
    main()
