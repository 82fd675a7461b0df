"""What `make bench-databases` makes of what it measures."""

from __future__ import annotations

import pytest

from bench_databases import ROWS, table
from benchlib.dbsystems import SYSTEMS
from benchlib.dbwork import number_in


def test_others_are_told_as_a_part_of_the_plain_file_with_their_spread() -> None:
    samples = {"sqlite-wal": {"plain": [100.0, 50.0, 2000.0], "rowfs": [80.0, 90.0, 40.0]}}
    heading, row = table(samples, ["plain", "qcow2", "rowfs"])
    assert heading == ("operations a second", *(SYSTEMS[key].label for key in ("plain", "qcow2", "rowfs")))
    assert row == (ROWS["sqlite-wal"], "100 (50-2,000)", "", "0.80x (0.40-0.90)")


def test_without_a_plain_file_each_is_told_by_itself() -> None:
    assert table({"tree": {"rowfs": [7.0]}}, ["rowfs"])[1:] == [(ROWS["tree"], "7 (7-7)")]


@pytest.mark.parametrize(
    ("pattern", "text", "value"),
    [
        (r"tps = ([\d.]+) \(without", "x\ntps = 812.5 (without initial connection time)\n", 812.5),
        (r"transactions:\s+\d+\s+\(([\d.]+) per sec", "  transactions:   410    (204.52 per sec.)\n", 204.52),
        (r"Run completed in ([\d.]+) seconds", "Run completed in 0.250 seconds.\n", 0.25),
    ],
)
def test_figures_are_found_in_what_programs_say(pattern: str, text: str, value: float) -> None:
    assert number_in(pattern, text) == value
    with pytest.raises(RuntimeError, match="no figure"):
        number_in(pattern, "nothing of that kind")
