"""The program that ages a disk does all of it in seconds, too, and finds what there is to find."""

from __future__ import annotations

from pathlib import Path

from benchlib.ageing import Ageing, age
from benchlib.figures import Bench
from rowfs.base.units import MIB


def test_a_disk_ages_beside_snapshots_that_come_and_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quick=True, group="ageing")
    wanted = Ageing(size=32 * MIB, rate_mib_s=20, seconds=1.5, every_s=0.3, keep=1, direct=False, rest_s=0.1)
    found = age(bench, wanted)
    assert len(found["snapshots_ms"]) >= 2
    assert found["written_mib_s"] > 0
    assert found["fresh_mib_s"] and found["aged_mib_s"] and found["rested_mib_s"]
    assert found["pool_max"] > 1, "what snapshots hold was not seen"
    assert {figure.target for figure in bench.figures["ageing"]} >= {"< 100 ms", "< 50 ms", "< 0.1x", "> 0.6x"}
