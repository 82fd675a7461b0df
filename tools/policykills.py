"""Kills daemons at the commits of policies' runs: each run has to be there afterwards, once.

policykills.py [--kills N] [--seed N] [--dir DIR]

Two policies of each hour, one of them with a group, over three disks; the daemon's clock is an hour further on with
each kill. It makes every step of a run durable (the record that it began, each snapshot, each one that goes, how it
ended) and kills itself before or after one of these commits. Then the pool is checked, mounted again, and a
minute later the run has to be complete: on each disk one snapshot of each policy for it, none twice, the groups whole.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rowfs.base.errors import RowfsError
from rowfs.cli.client import Client
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.records import Lost
from soaklib.system import MIB, Daemon, umount_whatever, until

DISKS = ("a", "b", "c")
POLICIES = {"each": {}, "together": {"group": True}}
HOUR_S = 3600
COMMITS = 40  # more than two runs have
KEPT = 2
CLOCKED = Path(__file__).with_name("soaklib") / "clocked.py"
STAMP = re.compile(r"(each|together)-(\d{8}-\d{6}Z)(-\d+)?")


class Kills:
    """One pool, its policies, and the daemons that end within their runs."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pool, self.mnt = directory / "pool", directory / "mnt"
        self.mnt.mkdir()
        self.ahead_s = 0.0
        self.counts: Counter[str] = Counter()
        self.daemon: Daemon | None = None

    def mount(self, ahead_s: float, commit: int = 0, when: str = "before") -> None:
        """A daemon whose clock is ahead, and which dies at a commit, perhaps before it is ready."""
        command = (sys.executable, str(CLOCKED), str(ahead_s), str(commit), when)
        self.daemon = Daemon(command, self.pool, self.mnt)

    def kill(self) -> None:
        """SIGKILL, if it has not done that itself; the pool is in order then."""
        if self.daemon is not None:
            if self.daemon.lives:
                self.daemon.kill(self.mnt)
            self.daemon.ended()
            self.daemon = None
        umount_whatever("--force", self.mnt)
        found, _ = check_pool(str(self.pool))
        if found:
            raise Lost(f"the checker finds: {found[0]}")

    def ask(self, method: str, **params: Any) -> Any:
        """What the daemon answers."""
        with Client(str(self.pool)) as client:
            return client.call(method, params)

    def start(self) -> None:
        """The pool, its disks and policies."""
        init_pool(str(self.pool))
        self.mount(0)
        for name in DISKS:
            self.ask("create", disk=name, size_bytes=MIB)
        for name, options in POLICIES.items():
            self.ask("policy_create", policy=name, every="1h", keep_last=KEPT, disks=["*"], **options)
        self.kill()

    def round(self) -> None:
        """An hour later a daemon runs both policies, and dies; the next one finishes what it left."""
        self.ahead_s += HOUR_S
        due = int((time.time() + self.ahead_s) // HOUR_S) * HOUR_S
        commit, when = self.rng.randint(1, COMMITS), self.rng.choice(("before", "after"))
        try:
            self.mount(self.ahead_s, commit, when)
            until(lambda: not self._lives() or self._done(due), "the runs, or the daemon's death")
        except Lost:  # it died before it was ready
            self.daemon = None
        died = not self._lives()
        self.counts["died at a commit" if died else "outlived their runs"] += 1
        self.kill()
        self.mount(self.ahead_s)
        self.counts["left unfinished"] += not self._done(due)
        until(lambda: self._done(due), "the runs to be finished")
        self.look(time.strftime("%Y%m%d-%H%M%SZ", time.gmtime(due)))
        self.kill()

    def _lives(self) -> bool:
        return self.daemon is not None and self.daemon.lives

    def _done(self, due: int) -> bool:
        try:
            shown = [self.ask("policy_show", policy=name) for name in POLICIES]
        except (RowfsError, OSError):
            return False
        wanted = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(due))
        return all(
            not item["running"] and not item["failures"] and item["last"] is not None and item["last"]["due"] >= wanted
            for item in shown
        )

    def look(self, stamp: str) -> None:
        """Every disk has the run of `stamp` of each policy, once, and no more than is kept."""
        for disk in self.ask("list"):
            found = [STAMP.fullmatch(item["name"]) for item in disk["snapshots"]]
            taken = Counter((match[1], match[2]) for match in found if match is not None)
            for name in POLICIES:
                if taken[name, stamp] != 1:
                    raise Lost(f"{disk['name']} has {taken[name, stamp]} snapshots of {name} for {stamp}: {taken}")
            if len(taken) != len(found) or len(found) > KEPT * len(POLICIES):
                raise Lost(f"{disk['name']} has more than it should: {taken}")
            self.counts["snapshots looked at"] += len(found)
        for group in self.ask("group_list"):
            if group["degraded"] or len(group["members"]) != len(DISKS):
                raise Lost(f"the group {group['name']} is not whole: {group}")

    def clean(self) -> None:
        """Leave nothing mounted."""
        if self.daemon is not None and self.daemon.lives:
            self.daemon.kill(self.mnt)
        umount_whatever("--force", self.mnt)


def kill_policies(directory: Path, seed: int, kills: int) -> Counter[str]:
    """So many rounds; what was counted. Raises Lost."""
    made = Kills(directory, seed)
    try:
        made.start()
        for _ in range(kills):
            made.round()
    finally:
        made.clean()
        print(", ".join(f"{count} {what}" for what, count in made.counts.items()), flush=True)
    return made.counts


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rowfs-policies-", dir=options.dir))
    print(f"seed {options.seed}, in {directory}", flush=True)
    try:
        kill_policies(directory, options.seed, options.kills)
    except (Lost, RowfsError) as lost:
        print(f"after this, with seed {options.seed}: {lost}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
