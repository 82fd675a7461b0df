"""Proves that databases on a disk lose nothing: snapshots under load, kills of the daemon, power cuts.

proof_databases.py [--engines NAME…] [--snapshots N] [--kills N] [--power N] [--seed N] [--dir DIR] [--daemon COMMAND]

Needs root; engines that are not installed are left out, and said (tools/setup --bench installs them). Each runs on an
ext4 on a loop device (--direct-io=on) on a disk of its own pool, with clients that move money between accounts and note
each commit that was acknowledged. Then, at random moments:

    snapshots   a snapshot beside the load, a clone of it, and the database started on the clone
    kills       SIGKILL of the daemon, the database killed, all of it mounted and started again
    power cuts  the same, the host's file system shut down first: what was not synced is gone

Each has to start, its balances to agree, its own checks to find nothing (pg_amcheck --heapallindexed, pg_checksums,
CHECK TABLE, integrity_check), and each commit that was acknowledged before to be there. Ends at the first that is not.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prooflib.engines import ENGINES
from prooflib.proof import Proof
from rowfs.base.errors import RowfsError
from soaklib.records import Lost


def prove(
    directory: Path, engine: str, seed: int, snapshots: int = 0, kills: int = 0, power: int = 0, **how: Any
) -> Counter[str]:
    """So many of each with one engine, in a random order; what was done. `how`: see Proof. Raises Lost, RowfsError."""
    counts: Counter[str] = Counter()
    for number, (crashes, takes, cut) in enumerate(((kills, snapshots, False), (power, 0, True))):
        if crashes or takes:
            place = directory / f"{engine}-{number}"
            place.mkdir()
            counts += _prove(Proof(place, ENGINES[engine], seed, power=cut, **how), crashes, takes, seed)
    return counts


def _prove(proof: Proof, crashes: int, snapshots: int, seed: int) -> Counter[str]:
    steps = [proof.crash] * crashes + [proof.snapshot] * snapshots
    random.Random(seed).shuffle(steps)
    try:
        proof.start()
        for step in steps:
            step()
        proof.counts["commits"] = sum(proof.acknowledged)
        return proof.counts
    finally:
        proof.clean()


def main() -> int:
    """Run what was asked for; 1 when something was lost."""
    parser = argparse.ArgumentParser(prog="proof_databases.py", description="Prove that databases lose nothing.")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME")
    parser.add_argument("--snapshots", type=int, default=10, metavar="N")
    parser.add_argument("--kills", type=int, default=10, metavar="N")
    parser.add_argument("--power", type=int, default=10, metavar="N")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32), metavar="N")
    parser.add_argument("--run", nargs=2, type=float, metavar="S", help="shortest and longest load before each")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where to make a directory for it all")
    parser.add_argument("--daemon", type=shlex.split, metavar="COMMAND", help="instead of rowfs itself")
    arguments = parser.parse_args()
    if os.geteuid():
        parser.error("only root attaches loop devices")
    how = {"run_s": tuple(arguments.run)} if arguments.run else {}
    how |= {"daemon": arguments.daemon} if arguments.daemon else {}
    print(f"seed {arguments.seed}", flush=True)
    for engine in arguments.engines:
        if reason := ENGINES[engine].obstacle():
            print(f"{engine}: left out: {reason}", flush=True)
            continue
        directory = Path(tempfile.mkdtemp(prefix="rowfs-proof-", dir=arguments.dir))
        directory.chmod(0o711)  # databases do not run as root
        try:
            counts = prove(
                directory, engine, arguments.seed, arguments.snapshots, arguments.kills, arguments.power, **how
            )
        except (Lost, RowfsError, OSError) as error:
            print(f"{engine}, with seed {arguments.seed}: {error}", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"{engine}: nothing lost: {', '.join(f'{count} {what}' for what, count in counts.items())}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
