"""The block map of a mounted pool that is damaged, by tools/torment_map.py: some rounds.

ROWFS_TORMENT_SEED chooses others.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import torment_map
from soaklib.records import Lost
from tormentlib.mapdamage import KINDS, PAGE, Done, damage, pages_by_kind
from tormentlib.maprounds import MAP, full_pool

SEED = int(os.environ.get("ROWFS_TORMENT_SEED", "1"))
ROUNDS = 5

mounts = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"),
    reason="nothing can be mounted here",
)


@mounts
def test_a_map_that_is_damaged_under_a_mount_ends_no_daemon_and_loses_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    counts = torment_map.torment(tmp_path, ROUNDS, SEED)
    assert counts["rounds in order"] == ROUNDS and not counts["untidy"]


def _cut_off(rng: random.Random, path: Path) -> Done:
    content = path.read_bytes()
    os.truncate(path, 0)
    return Done("all of it is cut off", 0, content, b"")


@mounts
def test_control_a_daemon_that_trusts_lmdb_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWFS_NATIVE", "0")
    monkeypatch.setattr("tormentlib.maprounds.damage", _cut_off)
    with pytest.raises(Lost, match="the daemon ended with -7"):
        torment_map.torment(tmp_path, 1, SEED)


def test_there_are_pages_of_all_kinds_and_damage_to_them_can_be_taken_back(tmp_path: Path) -> None:
    full_pool(tmp_path / "pool")
    path = tmp_path / "pool" / MAP
    intact, kinds = path.read_bytes(), pages_by_kind(path)
    assert all(kinds[kind] for kind in KINDS)
    seen = set()
    for seed in range(60):
        done = damage(random.Random(seed), path)
        changed = path.read_bytes()
        seen |= {kind for kind in KINDS if f"({kind})" in done.what}
        assert changed != intact or "another page" in done.what or "zeros" in done.what
        written = b"later" * (PAGE // 4)
        if len(changed) == len(intact) and done.before == intact[done.at : done.at + PAGE] != done.after:
            path.write_bytes(changed[: done.at] + written[:PAGE] + changed[done.at + PAGE :])
            done.undo(path)
            assert path.read_bytes()[done.at : done.at + PAGE] == written[:PAGE], "what was written since is kept"
            path.write_bytes(changed)
        done.undo(path)
        assert path.read_bytes()[: len(intact)] == intact
    assert seen == set(KINDS)
