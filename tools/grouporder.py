"""Takes consistency groups of two disks under a writer that waits for each sync, and looks for its order in them.

grouporder.py [--groups N] [--kills K] [--single] [--seed N] [--dir DIR]

Needs root. The writer puts record n into a block of one disk, syncs, and then says so on the other. No group may hold
what was said without what it was said of, across kills of the daemon too; a group is whole after a kill or not there.
With --single two single snapshots are taken, one after the other, instead: then the order has to be broken now and
then, or nothing was tested. Exit code 1: it is not as it should be.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rowfs.base.errors import RowfsError
from soaklib.ordered import LOST, Ordered
from soaklib.records import Lost


def order(directory: Path, seed: int, groups: int, kills: int = 0, single: bool = False) -> Counter[str]:
    """Take so many groups, or pairs of single snapshots, with so many kills between them; what was counted."""
    ordered = Ordered(directory, seed, grouped=not single)
    try:
        ordered.start()
        for turn in range(kills + 1):
            aim = groups * (turn + 1) // (kills + 1)
            while ordered.counts["taken"] < aim:
                ordered.take()
            if turn < kills:
                ordered.kill()
        ordered.finish()
    finally:
        ordered.clean()
        print(", ".join(f"{count} {what}" for what, count in ordered.counts.items()), flush=True)
    return ordered.counts


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--single", action="store_true", help="single snapshots: the order has to be broken")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rowfs-order-", dir=options.dir))
    print(f"seed {options.seed}, in {directory}", flush=True)
    kills = 0 if options.single else options.kills
    try:
        counts = order(directory, options.seed, options.groups, kills, options.single)
    except (Lost, RowfsError) as lost:
        print(f"after this, with seed {options.seed}: {lost}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory)
    return int(bool(counts[LOST]) != options.single)


if __name__ == "__main__":
    sys.exit(main())
