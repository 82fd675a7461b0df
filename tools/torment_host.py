#!/usr/bin/env python3
"""Has every host call that the daemon makes fail, one by one, and checks that nothing acknowledged is lost.

torment_host.py [--sample N] [--seed N] [--jobs N] [--only REGEX] [--dir DIR] [--go-on]

Needs root and a C compiler. A first round counts the calls: what the daemon, LMDB in it and the C extension ask of the
host for the files of the pool (opening, reads, writes, syncs, holes, sizes, names, locks, mappings). Then each call of
each kind fails once with each error that it may have (tormentlib/calls.py): EIO, ENOSPC, EDQUOT, EMFILE, ENOMEM and
others, or a write is done by half. The pool is as a crash left it: its journal is replayed. A script creates, writes,
syncs, snapshots, clones, rolls back, shares, trims, resizes, renames, deletes and unmounts. After each round

    the daemon has ended in order, at the end or before it was ready: no signal, no hanging
    what could be read was right
    the pool opens again, with all that was acknowledged, and `check` finds nothing

With --sample only so many of the cases are tried, of each kind of call about as many. Ends at the first that is lost,
or with --go-on at the end, and prints which ones were.
"""

from __future__ import annotations

import argparse
import random
import re
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
from tormentlib.calls import Case, build, cases, counted, sample
from tormentlib.rounds import Rounds, crashed_pool


def torment(
    directory: Path,
    size: int | None,
    seed: int,
    jobs: int = 1,
    only: str = "",
    go_on: bool = False,
    command: Sequence[str] = DAEMON,
) -> Counter[str]:
    """Try all cases, or so many, on daemons that `command` starts; what came of them. Raises Lost."""
    preloaded, fresh = build(directory), directory / "fresh"
    begin = crashed_pool(fresh)
    places: SimpleQueue[Rounds] = SimpleQueue()
    for number in range(jobs):
        place = directory / str(number)
        place.mkdir()
        places.put(Rounds(place, preloaded, fresh, begin, command))
    first = places.get()
    if refused := first.run(None).refused:
        raise Lost(f"{refused} steps fail without any fault of the host")
    calls = counted(first.log)
    places.put(first)
    wanted = list(cases(calls)) if size is None else sample(calls, size, random.Random(seed))
    wanted = [case for case in wanted if re.search(only, str(case))]
    print(f"{calls.total()} host calls of {len(calls)} kinds, {len(wanted)} cases, seed {seed}", flush=True)
    counts: Counter[str] = Counter()

    def attempt(case: Case) -> None:
        place = places.get()
        try:
            outcome = place.run(case)
        except Exception as error:
            counts["lost"] += 1
            print(f"LOST: {case}: {error}", flush=True)
            if not go_on:
                raise Lost(f"{case}: {error}") from error
        else:
            counts["rounds in order"] += 1
            counts["not mounted"] += not outcome.started
            counts["with refused steps"] += outcome.refused > 0
            counts["untidy"] += bool(outcome.untidy)
            if outcome.untidy:
                print(f"untidy: {case}: {outcome.untidy[0]}", flush=True)
        finally:
            places.put(place)

    with ThreadPoolExecutor(jobs) as pool:
        for done in pool.map(attempt, wanted):
            assert done is None
    return counts


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, help="not all cases, but so many")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=1, help="rounds beside each other")
    parser.add_argument("--only", default="", help="of these the ones whose line has this regular expression")
    parser.add_argument("--go-on", action="store_true", help="do not end at the first that is lost")
    parser.add_argument("--dir", type=Path, help="where the pools lie; default: a new directory in /tmp")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rowfs-torment-", dir=arguments.dir))
    try:
        counts = torment(directory, arguments.sample, arguments.seed, arguments.jobs, arguments.only, arguments.go_on)
    except Lost as lost:
        print(f"lost, with seed {arguments.seed}: {lost}; {directory} is kept", file=sys.stderr)
        return 1
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    shutil.rmtree(directory)
    return 1 if counts["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
