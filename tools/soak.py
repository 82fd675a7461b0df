"""Crashes a mounted rowfs again and again, and checks that nothing acknowledged is ever lost.

soak.py [--kills N] [--minutes M] [--run FROM TO] [--host ext4|xfs] [--seed N] [--dir DIR] [--keep]
soak.py --seconds S [--seed N] [--dir DIR] [--keep]

Needs root; ends at the first thing that is wrong. Beside each other work on a pool, until SIGKILL at a random moment:

    direct      writes records of 4 KiB with O_DIRECT, fsync now and then
    buffered    the same through the page cache
    ext4        writes files into an ext4 on a loop device (--direct-io=on) on a third disk, fsync of file and directory
    keeper      takes snapshots and checksums them, clones them, or copies them in parts, which shares their blocks;
                deletes all of these; rolls a fourth disk back and forth

Then the pool is checked, mounted again, and has to hold: every record that an fsync followed, or a later one of its
place; every file; every snapshot and clone with its checksum; nothing of what was deleted. A record says where it
belongs, so one that is torn, old or elsewhere is seen. All is read with O_DIRECT, from a mount that has cached nothing.

With --host the pool lies on a file system of its own, which is shut down hard before the daemon is killed: whatever the
pool had not synced is gone, as after a power cut.

With --seconds nothing crashes: everybody works for so long, and the daemon's memory, open descriptors and LMDB readers
have to stay as they are after the first fifth of it.
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
from soaklib.lives import RUN_S, Soak
from soaklib.records import Lost
from soaklib.steady import CACHE, watch
from soaklib.system import DAEMON, HOSTS


def soak(
    directory: Path, seed: int, crashes: int = 0, minutes: float = 0.0, seconds: float = 0.0, **how: Any
) -> Counter[str]:
    """So many crashes, or for so long, or none for so many seconds; what was done. `how`: see Soak. Raises Lost."""
    if seconds:
        how["daemon"] = (*how.get("daemon", DAEMON), "-o", f"cache={CACHE}")
    begun, soaked = time.monotonic(), Soak(directory, seed, **how)
    try:
        soaked.start()
        while soaked.counts[soaked.crash_called] < crashes or time.monotonic() - begun < minutes * 60:
            soaked.life()
        if seconds:
            watch(soaked, seconds)
        soaked.finish()
    finally:
        soaked.clean()
        print(", ".join(f"{count} {what}" for what, count in soaked.counts.items()), flush=True)
    return soaked.counts


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long even when all kills are done")
    parser.add_argument("--host", choices=HOSTS, help="shut down a file system that holds the pool, too")
    parser.add_argument("--seconds", type=float, default=0.0, help="instead: no kill, and memory has to stay flat")
    parser.add_argument(
        "--run", type=float, nargs=2, default=RUN_S, metavar="S", help="how long until a crash: from, to"
    )
    parser.add_argument("--daemon", type=shlex.split, default=DAEMON, help="another one; what cheats has to be noticed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the pool there, unmounted")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rowfs-soak-", dir=options.dir))
    print(f"seed {options.seed}, in {directory}", flush=True)
    how = {"host": options.host, "run_s": options.run, "daemon": options.daemon}
    kills = 0 if options.seconds else options.kills
    try:
        soak(directory, options.seed, kills, options.minutes, options.seconds, **how)
    except (Lost, RowfsError) as lost:
        options.keep = True
        print(f"after this, with seed {options.seed}: {lost}\nthe pool is left in {directory}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
