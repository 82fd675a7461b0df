"""Clients that misbehave, some of them killed, beside I/O that is verified: tools/torment_clients.py, for seconds.

Then the same with daemons that are not as they should be, which it has to notice. ROWFS_TORMENT_SEED chooses another
run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import torment_clients
from tests.mount.helpers import ROOT

SEED = int(os.environ.get("ROWFS_TORMENT_SEED", "1"))
ROUNDS, FEW_ROUNDS = 250, 60
CONTROLS = {  # what is wrong: the daemon, and what is said of it
    "a byte is wrong": (
        "cheating",
        "a-snapshot-is-no-obstacle",
        "lost: .* holds a wrong byte|is not as the snapshot|has changed",
    ),
    "the daemon dies": ("faulty", "its-end", "dead: the daemon has ended"),
    "a request is never answered": ("faulty", "silence", "hung: client"),
    "a method has a fault": ("faulty", "a-method", "a fault of the daemon"),
    "the log has a traceback": ("faulty", "tuning", "lost: the log says"),
}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"),
    reason="nothing can be mounted here",
)


def test_no_client_ends_holds_up_or_changes_anything(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    # A daemon that tells of late imports in its log, too: one in a commit may fail, for want of a descriptor.
    daemon = (sys.executable, "-m", "tests.faults.faulty", "late-imports")
    counts = torment_clients.torment(tmp_path, SEED, ROUNDS, daemon=daemon)
    assert torment_clients.sum_rounds(counts) == ROUNDS
    assert counts["asks"] and counts["resets"] and any(what.startswith("rowfs ") for what in counts)
    assert counts["write of a disk"] > 20 and counts["snapshot of a disk"], counts


@pytest.mark.parametrize("what", CONTROLS)
def test_control_what_is_wrong_is_noticed(tmp_path: Path, what: str) -> None:
    module, how, said = CONTROLS[what]
    rounds = ROUNDS if module == "cheating" else FEW_ROUNDS
    hung_s = 3 if how == "silence" else 60
    daemon = shlex.join([sys.executable, "-m", f"tests.faults.{module}", how])
    command = [sys.executable, str(ROOT / "tools/torment_clients.py"), "--seed", str(SEED), "--dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--rounds", str(rounds), "--hung", str(hung_s), "--processes", "0", "--daemon", daemon],
        env=os.environ | {"ROWFS_NATIVE": "0"},  # which would write by itself
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 1 and done.stderr.startswith(f"after this, with seed {SEED}: "), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert re.search(said, done.stderr), done.stderr
