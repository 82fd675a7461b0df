"""Ages a disk under a mount and tells what of it users notice: writers, snapshots, the debt, reads in sequence.

bench_ageing.py [--size GIB] [--rate MIB] [--seconds S] [--every S] [--keep N] [--buffered] [--rest S] [--dir DIR]

A disk is written in sequence and read cold. Then writers overwrite random places of 4 to 64 KiB at a given rate, while
snapshots come and the oldest go. At the end the disk is read cold once more, at once, and after a rest. Nothing is ever
failed by a figure, but for what is wrong: a write or a verb that fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchlib.ageing import Ageing, age
from benchlib.figures import ROOT, Bench, markdown


def main() -> None:
    """Run what was asked for."""
    options = _options()
    parent = options.dir or ROOT / "build"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="ageing-", dir=parent))
    bench = Bench(directory, quick=False, group="ageing")
    wanted = Ageing(
        size=int(options.size * (1 << 30)),
        rate_mib_s=options.rate,
        seconds=options.seconds,
        every_s=options.every,
        keep=options.keep,
        direct=not options.buffered,
        writers=options.writers,
        rest_s=options.rest,
    )
    try:
        found = age(bench, wanted)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    rows = [("figure", "target", "measured", "met")]
    met = {True: "yes", False: "NO", None: ""}
    rows += [(figure.name, figure.target, figure.measured, met[figure.met]) for figure in bench.figures["ageing"]]
    print("\n".join(markdown(rows)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_ageing.py", description="Age a disk and tell what users notice.")
    parser.add_argument("--size", type=float, default=12, help="of the disk, GiB (12); takes up to three times that")
    parser.add_argument("--rate", type=float, default=200, help="that is overwritten, MiB a second (200)")
    parser.add_argument("--seconds", type=float, default=300, help="how long (300)")
    parser.add_argument("--every", type=float, default=5, help="seconds from snapshot to snapshot (5)")
    parser.add_argument("--keep", type=int, default=3, help="how many snapshots stay (3)")
    parser.add_argument("--writers", type=int, default=1, help="processes that share the rate (1)")
    parser.add_argument("--buffered", action="store_true", help="through the kernel's cache, else O_DIRECT")
    parser.add_argument("--rest", type=float, default=60, help="seconds of rest before the last read (60)")
    parser.add_argument("--dir", type=Path, help="on the file system to measure; else ./build")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
