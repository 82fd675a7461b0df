"""What is refused at which limit, what is owed to a reservation."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowfs.base.errors import LimitError, UsageError
from rowfs.base.units import GIB
from rowfs.rules.limits import (
    DiskLimits,
    Holding,
    PoolLimits,
    available_bytes,
    check_disk_limits,
    check_disks,
    check_pool_limits,
    check_provisioned,
    check_reserve,
    check_snapshots,
    check_space,
    crossed,
    reached,
)

NONE, POOL = DiskLimits(), PoolLimits(snapshots=10, disks=3, provisioned_percent=200)


def refused(check: Callable[[], None]) -> str:
    with pytest.raises(LimitError) as caught:
        check()
    assert "\n" not in str(caught.value)
    assert caught.value.errno == errno.EDQUOT != errno.ENOSPC
    return str(caught.value)


def test_l4_a_refusal_names_the_limit_and_what_to_do_and_not_space() -> None:
    own = DiskLimits(snapshots=4, space_bytes=20 * GIB)
    lines = [
        refused(lambda: check_snapshots("vm1", 4, 1, own, POOL)),
        refused(lambda: check_snapshots("vm1", 10, 1, NONE, POOL)),
        refused(lambda: check_disks(3, 1, POOL)),
        refused(lambda: check_provisioned(15 * GIB, 10 * GIB, 10 * GIB, POOL)),
        refused(lambda: check_space("vm1", 19 * GIB, 2 * GIB, own)),
        refused(lambda: check_reserve("vm1", Holding(0, 5 * GIB), 4 * GIB, [])),
    ]
    assert lines[0] == (
        "the disk vm1 has 4 snapshots, and its limit is 4: "
        "delete some, or raise it with rowfs limit MNT/vm1 --snapshots N"
    )
    assert "the pool's limit for a chain is 10" in lines[1]
    assert "its limit is 3" in lines[2]
    assert "25G together, and the pool's limit is 200 % of 10G" in lines[3]
    assert "hold 19G, and its limit is 20G" in lines[4]
    assert "4.0G are neither used nor promised" in lines[5]


def test_up_to_the_limit_nothing_is_refused() -> None:
    check_snapshots("vm1", 9, 1, NONE, POOL)
    check_snapshots("vm1", 63, 1, DiskLimits(snapshots=64), POOL)
    check_snapshots("vm1", 1 << 20, 1, NONE, PoolLimits())
    check_disks(2, 1, POOL)
    check_provisioned(10 * GIB, 10 * GIB, 10 * GIB, POOL)
    check_space("vm1", GIB, GIB, DiskLimits(space_bytes=2 * GIB))


def test_a_limit_below_what_is_there_keeps_nobody_from_going_down() -> None:
    check_provisioned(50 * GIB, -GIB, 10 * GIB, POOL)
    check_space("vm1", 5 * GIB, 0, DiskLimits(space_bytes=GIB))


@pytest.mark.parametrize(
    "limits",
    [
        DiskLimits(snapshots=-1),
        DiskLimits(snapshots=1 << 32),
        DiskLimits(space_bytes=1 << 63),
        DiskLimits(reserve_bytes=-1),
        DiskLimits(space_bytes=GIB, reserve_bytes=2 * GIB),
    ],
)
def test_what_is_no_limit_of_a_disk_is_refused(limits: DiskLimits) -> None:
    with pytest.raises(UsageError):
        check_disk_limits(limits)


@pytest.mark.parametrize("limits", [PoolLimits(disks=-1), PoolLimits(snapshots=-1), PoolLimits(provisioned_percent=0)])
def test_what_is_no_limit_of_a_pool_is_refused(limits: PoolLimits) -> None:
    with pytest.raises(UsageError):
        check_pool_limits(limits)


def test_limits_that_can_be_are_taken() -> None:
    assert check_pool_limits(POOL) is POOL
    assert check_disk_limits(NONE) is NONE


# Reservations


def test_a_reservation_is_owed_until_it_is_used() -> None:
    assert Holding(0, 5 * GIB).owed_bytes == 5 * GIB
    assert Holding(4 * GIB, 5 * GIB).owed_bytes == GIB
    assert Holding(6 * GIB, 5 * GIB).owed_bytes == 0
    assert available_bytes(10 * GIB, [Holding(4 * GIB, 5 * GIB), Holding(0, 2 * GIB)]) == 7 * GIB
    assert available_bytes(GIB, [Holding(0, 2 * GIB)]) == 0


HOLDINGS = st.builds(Holding, st.integers(0, 100), st.integers(0, 100))


@given(
    disks=st.lists(HOLDINGS, min_size=1, max_size=6),
    free=st.integers(0, 400),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30))),
)
def test_whatever_others_write_a_disk_gets_what_was_promised(
    disks: list[Holding], free: int, steps: list[tuple[int, int]]
) -> None:
    promised: list[Holding] = []
    for number, disk in enumerate(disks):
        others = [*promised, *[Holding(later.held_bytes) for later in disks[number + 1 :]]]
        try:
            check_reserve("d", disk, free, others)
            promised.append(disk)
        except LimitError:
            promised.append(Holding(disk.held_bytes))
    for who, size in steps:
        number = who % len(promised)
        disk = promised[number]
        if size <= available_bytes(free, [*promised[:number], *promised[number + 1 :]]):
            promised[number] = Holding(disk.held_bytes + size, disk.reserve_bytes)
            free -= size
        assert sum(disk.owed_bytes for disk in promised) <= free


# Warnings


@pytest.mark.parametrize(
    ("used", "percent"), [(0, None), (74, None), (75, 75), (84, 75), (85, 85), (95, 95), (300, 95)]
)
def test_warnings_come_at_75_85_and_95_percent(used: int, percent: int | None) -> None:
    assert reached(used, 100) == percent
    assert reached(used, None) is None


def test_a_warning_comes_once_and_only_on_the_way_up() -> None:
    levels = [reached(used, 100) for used in (10, 76, 80, 96, 86, 70, 75)]
    said = [crossed(before, now) for before, now in zip([None, *levels], levels, strict=False)]
    assert said == [None, 75, None, 95, None, None, 75]
