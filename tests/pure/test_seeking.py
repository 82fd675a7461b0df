"""Whether one hole lies within another, and which Linux waits for what it writes back."""

from __future__ import annotations

import pytest

from rowfs.service.kernelcache import waits_for_pages
from rowfs.service.seeking import Hole


@pytest.mark.parametrize(
    ("known", "other", "covers"),
    [
        ((0, 10), (0, 10), True),
        ((0, 10), (3, 7), True),
        ((0, 10), (3, 8), False),
        ((5, 10), (4, 2), False),
        ((5, 0), (5, 0), True),
        ((5, 0), (9, 0), True),
        ((5, 0), (9, 100), True),
        ((5, 0), (4, 0), False),
        ((5, 0), (4, 3), False),
        ((5, 100), (50, 0), False),
    ],
)
def test_a_hole_within_one_that_is_known_is_known(known: tuple[int, int], other: tuple[int, int], covers: bool) -> None:
    assert Hole(*known).covers(Hole(*other)) == covers


@pytest.mark.parametrize(
    ("release", "waits"),
    [("6.1.0-18-amd64", False), ("5.15.0", False), ("6.9.3", False), ("6.16.0", True), ("6.18.44-x", True)]
    + [("7.0", True), ("10.2.1", True), ("nonsense", False), ("", False)],
)
def test_linux_waits_for_pages_of_fuse_since_6_16(release: str, waits: bool) -> None:
    assert waits_for_pages(release) == waits
