#!/usr/bin/env python3
"""Damages the block map of a mounted pool, again and again, and checks that the daemon lives and answers nothing wrong.

torment_map.py [--rounds N] [--seed N] [--jobs N] [--dir DIR] [--go-on]

Needs root. In each round a pool whose map has pages of all kinds is mounted, with little memory for page versions. A
script creates, writes, syncs, snapshots, clones, rolls back, shares, trims, resizes, renames, deletes, reads everything
and unmounts. At one of its steps, or while it is under way, a page of the map's file is overwritten (a meta page, a
branch, a leaf, one of a long value, of the free list, or one that is not in use; with zeros, random bytes or another
page, with flipped bits), or the file is cut off. After each round

    the daemon has ended in order, by `umount`: no signal, no hanging
    what could be read was right, all else an error
    with the damage taken back the pool opens, with all that was acknowledged, and `check` finds nothing

A round is its seed: --seed 17 --rounds 1 is the round that was printed as 17. Ends at the first that is lost, or with
--go-on at the end.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from soaklib.records import Lost
from soaklib.system import DAEMON
from tormentlib.maprounds import MapRounds, full_pool

TELLING = 50  # rounds between two lines


def torment(
    directory: Path, rounds: int, seed: int, jobs: int = 1, go_on: bool = False, command: Sequence[str] = DAEMON
) -> Counter[str]:
    """So many rounds, on daemons that `command` starts; what came of them. Raises Lost."""
    fresh = directory / "fresh"
    begin = full_pool(fresh)
    places: SimpleQueue[MapRounds] = SimpleQueue()
    for number in range(jobs):
        place = directory / str(number)
        place.mkdir()
        places.put(MapRounds(place, fresh, begin, command))
    counts: Counter[str] = Counter()

    def attempt(number: int) -> None:
        place = places.get()
        try:
            what, outcome = place.torment(number)
        except Lost as error:
            counts["lost"] += 1
            print(f"LOST: {error}", flush=True)
            if not go_on:
                raise
        else:
            counts["rounds in order"] += 1
            if counts["rounds in order"] % TELLING == 0:
                print(f"{counts['rounds in order']} rounds in order", flush=True)
            counts["noticed"] += place.noticed
            counts["with refused steps"] += outcome.refused > 0
            counts["untidy"] += bool(outcome.untidy)
            if outcome.untidy:
                print(f"untidy: seed {number}, {what}: {outcome.untidy[0]}", flush=True)
        finally:
            places.put(place)

    with ThreadPoolExecutor(jobs) as pool:
        for done in pool.map(attempt, range(seed, seed + rounds)):
            assert done is None
    return counts


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of the first round")
    parser.add_argument("--jobs", type=int, default=1, help="rounds beside each other")
    parser.add_argument("--go-on", action="store_true", help="do not end at the first that is lost")
    parser.add_argument("--dir", type=Path, help="where the pools lie; default: a new directory in /tmp")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rowfs-torment-", dir=arguments.dir))
    print(f"rounds {arguments.seed} to {arguments.seed + arguments.rounds - 1}", flush=True)
    try:
        counts = torment(directory, arguments.rounds, arguments.seed, arguments.jobs, arguments.go_on)
    except Lost:
        print(f"{directory} is kept", file=sys.stderr)
        return 1
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    shutil.rmtree(directory)
    return 1 if counts["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
