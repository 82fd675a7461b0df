"""What `make bench-peers` makes of what it measures: ratios, verdicts, tables, fio's logs."""

from __future__ import annotations

import pytest

from benchlib import fio, ratios
from benchlib.figures import markdown
from benchlib.ratios import PYTHON, QCOW2, RAW, ROWFS, Row

RATIO = Row("read", "read", at_least=1.1)
BESIDE = Row("with", "with", at_least=0.9, without="alone")
LIMIT = Row("slowest", "slowest", "ms", at_most=100, worst=True)


def test_a_value_is_the_median_of_all_rounds_or_the_worst() -> None:
    samples = {"read": {ROWFS: [1.0, 50.0, 3.0]}}
    assert ratios.value(samples, "read", ROWFS) == 3.0
    assert ratios.value(samples, "read", ROWFS, worst=True) == 50.0
    assert ratios.value(samples, "read", QCOW2) is None
    assert ratios.value(samples, "write", ROWFS) is None


@pytest.mark.parametrize(("rowfs", "qcow2", "says"), [(110.0, 100.0, True), (109.0, 100.0, False)])
def test_a_target_is_a_ratio_of_medians_to_qcow2(rowfs: float, qcow2: float, says: bool) -> None:
    samples = {"read": {ROWFS: [1.0, rowfs, 1e6], QCOW2: [qcow2, 1.0, 1e6], RAW: [5.0]}}
    assert ratios.ratio(RATIO, samples) == pytest.approx(rowfs / qcow2)
    assert ratios.met(RATIO, samples) is says


def test_a_target_may_be_about_the_same_system_without_something() -> None:
    samples = {"with": {ROWFS: [80.0], PYTHON: [95.0]}, "alone": {ROWFS: [100.0], PYTHON: [100.0], QCOW2: [1.0]}}
    assert ratios.met(BESIDE, samples) is False
    assert ratios.met(BESIDE, samples, PYTHON) is True


def test_a_target_may_be_a_limit_that_no_round_exceeds() -> None:
    assert ratios.met(LIMIT, {"slowest": {ROWFS: [3.0, 100.0, 4.0]}}) is True
    assert ratios.met(LIMIT, {"slowest": {ROWFS: [3.0, 100.1, 4.0]}}) is False
    assert ratios.ratio(LIMIT, {"slowest": {ROWFS: [3.0]}}) is None


@pytest.mark.parametrize("samples", [{}, {"read": {ROWFS: [1.0]}}, {"read": {QCOW2: [1.0]}}])
def test_nothing_is_said_of_what_was_not_measured(samples: dict[str, dict[str, list[float]]]) -> None:
    assert ratios.ratio(RATIO, samples) is None
    assert ratios.met(RATIO, samples) is None


def test_what_is_left_without_the_extension() -> None:
    assert ratios.python_share(RATIO, {"read": {ROWFS: [100.0], PYTHON: [60.0]}}) == pytest.approx(0.6)
    assert ratios.python_share(LIMIT, {"slowest": {ROWFS: [10.0], PYTHON: [40.0]}}) == pytest.approx(0.25)
    assert ratios.python_share(RATIO, {"read": {ROWFS: [100.0]}}) is None


def test_rows_are_what_they_compare_with() -> None:
    keys = [row.key for row in ratios.ROWS]
    assert len(set(keys)) == len(keys)
    for row in ratios.ROWS:
        assert not row.without or row.without in keys
        assert row.to in ratios.LABELS
        assert row.at_least is None or row.at_most is None


def test_the_tables_show_what_was_measured_and_no_more() -> None:
    samples = {
        "read-4k": {ROWFS: [30_000.0, 31_000.0, 20_000.0], QCOW2: [25_000.0], PYTHON: [10_000.0]},
        "redirect-bytes": {ROWFS: [1.2], QCOW2: [8.0]},
    }
    heading, reads, written = ratios.main_table(samples, [ROWFS, QCOW2])
    assert heading[2:4] == ("rowfs", "qcow2, FUSE export")
    assert reads[2:] == ("30,000", "25,000", "1.20x", ">= 1.1x of qcow2", "yes")
    assert written[2:] == ("1.2", "8", "", "<= 1.1x", "NO")
    (_, only) = ratios.python_table(samples)
    assert only[2:] == ("30,000", "10,000", "0.33x", ">= 0.5x", "NO")
    (_, host) = ratios.bytes_table({"overwrite-4k": {QCOW2: [1.0, 3.0]}}, [ROWFS, QCOW2])
    assert host[1:] == ("", "2.00x")


def test_a_table_is_markdown() -> None:
    assert markdown([("a", "long"), ("wide", "b")]) == ["| a    | long |", "|------|------|", "| wide | b    |"]


# fio


def test_figures_of_a_job_count_the_fsync_at_its_end() -> None:
    found = {"total_ios": 500, "io_bytes": 4 << 20, "runtime": 250, "iops": 9e9, "bw_bytes": 9e9}
    assert fio.operations_a_second(found) == 2_000
    assert fio.mib_a_second(found) == 16
    assert fio.operations_a_second({"total_ios": 5, "runtime": 0}) == 5_000  # shorter than a millisecond


def test_a_log_is_read_and_a_span_of_it_averaged() -> None:
    samples = fio.logged("1000050, 100, 1, 4096, 0\n1000100, 200, 1, 4096, 0\n\n1000150, 600, 1, 4096, 0\n")
    assert samples == [(1000.05, 100.0), (1000.1, 200.0), (1000.15, 600.0)]
    assert fio.mean_between(samples, 1000.06, 1000.14, 0.05) == 400  # the two intervals that it meets
    assert fio.mean_between(samples, 1000.06, 1000.07, 0.05) == 200
    with pytest.raises(ValueError, match="nothing"):
        fio.mean_between(samples, 1001.0, 1002.0, 0.05)
