"""Real kills of a real daemon, and real shutdowns of the file system that it writes to: nothing acknowledged is lost.

All of it is done by tools/soak.py. Then the same with daemons that cheat, which it has to notice. ROWFS_SOAK_SEED
chooses another run; how far threads and kernel have come at a crash no seed decides.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import soak
from soaklib.system import HOSTS
from tests.mount.helpers import ROOT

SEED = int(os.environ.get("ROWFS_SOAK_SEED", "1"))
RUN_S = (0.1, 0.8)  # between mount and crash; with mounting and looking at everything that makes 1.5 s a round
KILLS, SHUTDOWNS, CAUGHT_WITHIN = 100, 6, 8
CHEATS_SEEN_BY = {
    "kills": ["fsync-answers-at-once", "a-write-is-lost", "a-snapshot-is-no-obstacle"],
    "ext4": ["data-is-not-synced", "the-map-is-not-synced"],
    "xfs": ["data-is-not-synced", "the-map-is-not-synced"],
}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"),
    reason="nothing can be mounted here",
)


def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    counts = soak.soak(tmp_path, SEED, KILLS, run_s=RUN_S)
    assert counts["kills"] == KILLS
    done = ("records", "files", "snapshots", "clones", "copies", "rollbacks", "deletes")
    assert all(counts[what] > KILLS / 10 for what in done), counts  # a busy machine does less between two kills
    assert counts["snapshots verified"] > KILLS and counts["clones verified"] > KILLS / 10


@pytest.mark.parametrize("host", HOSTS)
def test_shutdowns_of_the_file_system_below_lose_nothing(tmp_path: Path, host: str) -> None:
    print(f"seed {SEED}")
    counts = soak.soak(tmp_path, SEED, SHUTDOWNS, run_s=RUN_S, host=host)
    assert counts["host shutdowns"] == SHUTDOWNS
    assert counts["records"] > SHUTDOWNS and counts["files"] and counts["snapshots verified"]


@pytest.mark.parametrize(("crash", "how"), [(crash, how) for crash, ways in CHEATS_SEEN_BY.items() for how in ways])
def test_control_a_daemon_that_cheats_is_caught(tmp_path: Path, crash: str, how: str) -> None:
    daemon = shlex.join([sys.executable, "-m", "tests.faults.cheating", how])
    command = [sys.executable, str(ROOT / "tools/soak.py"), "--seed", str(SEED), "--dir", str(tmp_path)]
    command += ["--kills", str(CAUGHT_WITHIN), "--run", *map(str, RUN_S), "--daemon", daemon]
    # The C extension writes in place by itself, so that a DataFile which loses writes would get few of them.
    environment = os.environ | ({"ROWFS_NATIVE": "0"} if how == "a-write-is-lost" else {})
    done = subprocess.run(
        [*command, *(["--host", crash] if crash in HOSTS else [])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 1 and done.stderr.startswith(f"after this, with seed {SEED}: "), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
