"""Host calls of a mounted pool that fail, by tools/torment_host.py: some of them here, each kind as often.

ROWFS_TORMENT_SEED chooses others.
"""

from __future__ import annotations

import os
import sys
from errno import EIO
from pathlib import Path

import pytest

import torment_host
from soaklib.records import Lost
from tormentlib.calls import Case
from tormentlib.model import Image, Model, block_of

SEED = int(os.environ.get("ROWFS_TORMENT_SEED", "1"))
CASES = 10

mounts = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"),
    reason="nothing can be mounted here",
)


@mounts
def test_host_calls_that_fail_lose_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    counts = torment_host.torment(tmp_path, CASES, SEED)
    assert counts["rounds in order"] == CASES


@mounts
def test_control_a_daemon_that_cheats_is_caught(tmp_path: Path) -> None:
    cheating = [sys.executable, "-m", "tests.faults.cheating", "a-snapshot-is-no-obstacle"]
    with pytest.raises(Lost, match="holds record"):
        torment_host.torment(tmp_path, 1, SEED, command=cheating)


@pytest.mark.parametrize(("found", "safe"), [((2, 0), True), ((1, 0), False), ((3, 0), True), ((2, 2), True)])
def test_control_what_may_not_be_is_seen(found: tuple[int, int], safe: bool) -> None:
    model = Model()
    model.disks["d"] = image = Image({8192})
    image.put(0, {1}, True)
    model.synced()
    image.put(0, {2}, True)
    data = b"".join(block_of(*item) for item in enumerate(found))
    if found == (2, 0):
        model.hold({"d": data}, {}, safe)
        model.hold({"d": block_of(0, 1) + data[4096:]}, {}, safe)
        return
    with pytest.raises(Lost):
        model.hold({"d": data}, {}, safe)


def test_control_names_that_are_lost_or_come_back_are_seen() -> None:
    model = Model()
    model.disks["d"] = Image({0})
    for disks in ({}, {"d": b"", "e": b""}):
        with pytest.raises(Lost):
            model.hold(disks, {}, True)
    model.disks["d"].sure = False
    model.hold({}, {}, True)


def test_a_case_says_what_it_is() -> None:
    assert str(Case("pwrite", "data", 3, EIO)) == "pwrite of data, call 3: EIO"
