"""A minute of everything at once: the daemon's memory, open descriptors and LMDB readers stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import soak
from soaklib.records import Lost
from soaklib.steady import DESCRIPTORS, MEMORY_BYTES, READERS, Held, judge

SECONDS = 60.0
SEED = int(os.environ.get("ROWFS_SOAK_SEED", "1"))
STEADY = Held(memory=50 << 20, descriptors=20, readers=1)


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"),
    reason="nothing can be mounted here",
)
def test_what_a_daemon_holds_does_not_grow_in_a_minute_of_everything(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    counts = soak.soak(tmp_path, SEED, seconds=SECONDS)
    assert all(counts[what] for what in ("records", "files", "snapshots", "clones", "rollbacks", "deletes")), counts


def test_a_peak_is_no_growth() -> None:
    peak = Held(memory=500 << 20, descriptors=200, readers=20)
    judge([STEADY, peak, STEADY, peak, STEADY, peak, STEADY, STEADY])


@pytest.mark.parametrize(
    ("what", "more"), [("memory", MEMORY_BYTES), ("descriptors", DESCRIPTORS), ("readers", READERS)]
)
def test_control_growth_is_seen(what: str, more: int) -> None:
    grown = Held(**(vars(STEADY) | {what: getattr(STEADY, what) + more + 1}))
    with pytest.raises(Lost, match=f"the daemon's {what} have grown"):
        judge([STEADY, STEADY, STEADY, STEADY, grown, grown, grown, grown])
