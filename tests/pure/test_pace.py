"""The more is owed, the larger reclaim's share of the time; and how long it will take."""

from __future__ import annotations

import pytest

from rowfs.service.pace import BUSY_PAUSE_S, LONG_SLICE_S, PAUSE_S, SLICE_S, Rate, pause_s, pressure, slice_s


@pytest.mark.parametrize(("owed", "expected"), [(0, 0), (50, 0.5), (100, 1), (5000, 1)])
def test_a_tenth_of_what_is_allocated_may_be_owed(owed: int, expected: float) -> None:
    assert pressure(owed, 1000) == expected
    assert pressure(owed, 0) == min(owed, 1)


def test_the_share_of_time_grows_with_what_is_owed() -> None:
    shares = [slice_s(part / 10) / (slice_s(part / 10) + pause_s(part / 10, 1)) for part in range(11)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(SLICE_S / (SLICE_S + BUSY_PAUSE_S))
    assert shares[-1] == pytest.approx(LONG_SLICE_S / (LONG_SLICE_S + PAUSE_S))


def test_the_pause_is_the_shorter_the_more_removals_wait() -> None:
    pauses = [pause_s(0, removals) for removals in (0, 1, 2, 8, 100)]
    assert pauses == [BUSY_PAUSE_S, BUSY_PAUSE_S, BUSY_PAUSE_S / 2, BUSY_PAUSE_S / 8, PAUSE_S]


def test_how_long_it_takes_follows_from_what_was_done_of_late() -> None:
    rate = Rate()
    assert (rate.seconds(0), rate.seconds(100)) == (0, None)
    rate.note(10.0, 1000)
    rate.note(10.1, 9000)
    assert rate.seconds(100) is None, "too short to tell"
    rate.note(11.0, 2000)
    assert rate.seconds(500) == pytest.approx(0.5)
    rate.rest()
    rate.note(100.0, 2000)  # what was not worked does not count
    rate.note(101.0, 5000)
    assert rate.seconds(4000) == pytest.approx(2.0)
