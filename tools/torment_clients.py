"""Torments a mounted pool with clients that misbehave, beside I/O that is verified: the daemon minds none of it.

torment_clients.py [--rounds N | --seconds S] [--processes SHARE] [--seed N] [--dir DIR] [--keep]

Needs root; ends at the first thing that is wrong. A round is one client, four at a time:

    on the socket   random verbs with random parameters, alone or many at once; garbage, half requests, floods; hanging
                    up with answers unread, half read, or under way
    a process       any command of rowfs, and at a random moment of it Ctrl-C, SIGTERM, SIGHUP or SIGKILL

Beside them two disks, one through the page cache and one past it, are written, read, synced, snapshotted, cloned and
rolled back; the oracle is a bytes for each disk and for each snapshot. The daemon has to live on as the same process,
everybody has to get on, every byte has to be right; at the end the log has no traceback and no error, and the pool is
in order.

The seed decides what everybody does, not who comes first.
"""

from __future__ import annotations

import argparse
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rowfs.base.errors import RowfsError
from soaklib.records import Lost
from soaklib.system import DAEMON
from soaklib.torment import HUNG_S, PROCESSES, Torment


def torment(directory: Path, seed: int, rounds: int = 0, seconds: float = 0.0, **how: Any) -> Counter[str]:
    """So many rounds, or for so long; what was done. `how`: see Torment. Raises Lost."""
    tormented, begun = Torment(directory, seed, **how), time.monotonic()
    try:
        tormented.run(rounds, seconds)
        tormented.finish()
    finally:
        tormented.clean()
        print(", ".join(f"{count} {what}" for what, count in sorted(tormented.counts.items())), flush=True)
        print(f"{sum_rounds(tormented.counts)} rounds in {time.monotonic() - begun:.0f} s", flush=True)
    return tormented.counts


def sum_rounds(counts: Counter[str]) -> int:
    """How many clients there were."""
    return sum(count for what, count in counts.items() if not what.endswith(" of a disk"))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="instead of so many rounds: for so long")
    parser.add_argument("--processes", type=float, default=PROCESSES, metavar="SHARE", help="of all rounds")
    parser.add_argument("--hung", type=float, default=HUNG_S, metavar="S", help="what takes longer hangs")
    parser.add_argument(
        "--daemon", type=shlex.split, default=DAEMON, help="another one; what is wrong has to be noticed"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the pool there, unmounted")
    options = parser.parse_args()
    rounds = options.rounds or (0 if options.seconds else 1000)
    directory = Path(tempfile.mkdtemp(prefix="rowfs-clients-", dir=options.dir))
    print(f"seed {options.seed}, in {directory}", flush=True)
    how = {"daemon": options.daemon, "processes": options.processes, "hung_s": options.hung}
    try:
        torment(directory, options.seed, rounds, options.seconds, **how)
    except (Lost, RowfsError, OSError) as error:
        options.keep = True
        print(f"after this, with seed {options.seed}: {error}\nthe pool is left in {directory}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(directory)
    print("0 lost, 0 hung, 0 dead")
    return 0


if __name__ == "__main__":
    sys.exit(main())
