"""A database on a disk loses nothing: SQLite, in seconds. tools/proof_databases.py does it at length, with others too.

Then the same with a daemon that drops syncs, which it has to notice. ROWFS_SOAK_SEED chooses another run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from proof_databases import prove
from rowfs.base.errors import RowfsError
from soaklib.records import Lost

SEED = int(os.environ.get("ROWFS_SOAK_SEED", "1"))
RUN_S = (0.2, 0.6)
CUTS_MAX = 5

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"),
    reason="nothing can be mounted here",
)


def test_sqlite_loses_nothing_in_snapshots_kills_and_power_cuts(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    counts = prove(tmp_path, "sqlite", SEED, snapshots=2, kills=2, power=1, run_s=RUN_S)
    assert (counts["snapshots"], counts["kills"], counts["power cuts"]) == (2, 2, 1)
    assert counts["commits"] > 5


def test_control_a_daemon_that_drops_syncs_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFS_NATIVE", "0")  # the C extension syncs by itself
    daemon = (sys.executable, "-m", "tests.faults.cheating", "data-is-not-synced")
    with pytest.raises((Lost, RowfsError, OSError)):
        prove(tmp_path, "sqlite", SEED, power=CUTS_MAX, run_s=RUN_S, daemon=daemon)
