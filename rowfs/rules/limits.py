"""Limits of a pool and of its disks: what is refused at which.

A limit is reached when what is there and what is asked for come to more than it. It is asked in the step that makes the
thing, with nothing in between, so that of two for one place one gets it.
A limit that is set below what is there takes nothing away; it refuses what comes next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rowfs.base.errors import LimitError, UsageError
from rowfs.base.names import printable
from rowfs.base.units import DISK_BYTES_MAX, format_size
from rowfs.rules.hooks import check_hook

WARN_PERCENT = (75, 85, 95)
NUMBER_MAX = (1 << 32) - 1
BYTES_MAX = (1 << 63) - 1
RATIO_PERCENT = (1, 100_000)  # provisioned beside capacity: 1 % to 1000 times


@dataclass(frozen=True, kw_only=True)
class DiskLimits:
    """Of one disk and its chain. None: no limit of its own."""

    snapshots: int | None = None
    space_bytes: int | None = None  # what the disk and its chain may hold
    reserve_bytes: int = 0  # what the disk and its chain can count on


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """Of a pool. None: no limit."""

    snapshots: int | None = None  # of each chain that has no limit of its own
    disks: int | None = None
    provisioned_percent: int | None = None  # the sizes of all disks together, of the pool's capacity
    on_warning: tuple[str, ...] = ()  # what is run when any limit of the pool or a disk comes near, as words


def check_disk_limits(limits: DiskLimits) -> DiskLimits:
    """`limits`, if a disk may have them. Raises UsageError otherwise."""
    _check_number("snapshots", limits.snapshots, 0, NUMBER_MAX)
    _check_number("space", limits.space_bytes, 0, BYTES_MAX)
    _check_number("reserve", limits.reserve_bytes, 0, DISK_BYTES_MAX)
    if limits.space_bytes is not None and limits.reserve_bytes > limits.space_bytes:
        reserve, space = format_size(limits.reserve_bytes), format_size(limits.space_bytes)
        raise UsageError(f"a reserve of {reserve} is more than the {space} that the disk may hold: raise --space")
    return limits


def check_pool_limits(limits: PoolLimits) -> PoolLimits:
    """`limits`, if a pool may have them. Raises UsageError otherwise."""
    _check_number("snapshots", limits.snapshots, 0, NUMBER_MAX)
    _check_number("disks", limits.disks, 0, NUMBER_MAX)
    _check_number("provisioned", limits.provisioned_percent, *RATIO_PERCENT)
    check_hook(limits.on_warning)
    return limits


def _check_number(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise UsageError(f"--{name} {value} cannot be a limit: it is {least} to {most}")


# What is refused


def snapshots_limit(limits: DiskLimits, pool: PoolLimits) -> int | None:
    """How many snapshots a chain may have; None: as many as there are."""
    return pool.snapshots if limits.snapshots is None else limits.snapshots


def snapshots_beyond(there: int, adding: int, limits: DiskLimits, pool: PoolLimits) -> int:
    """How many of a chain of `there` snapshots have to go before it can take `adding` more."""
    limit = snapshots_limit(limits, pool)
    return 0 if limit is None else max(there + adding - limit, 0)


def check_snapshots(disk: str, there: int, adding: int, limits: DiskLimits, pool: PoolLimits) -> None:
    """Raises LimitError when a chain of `there` snapshots cannot take `adding` more."""
    if not snapshots_beyond(there, adding, limits, pool):
        return
    own, limit = limits.snapshots is not None, snapshots_limit(limits, pool)
    whose, where = ("its limit", f"MNT/{printable(disk)}") if own else ("the pool's limit for a chain", "MNT")
    raise LimitError(
        f"the disk {printable(disk)} has {there} snapshots, and {whose} is {limit}: "
        f"delete some, or raise it with rowfs limit {where} --snapshots N"
    )


def check_disks(there: int, adding: int, pool: PoolLimits) -> None:
    """Raises LimitError when a pool of `there` disks cannot take `adding` more."""
    if pool.disks is not None and there + adding > pool.disks:
        raise LimitError(
            f"the pool has {there} disks, and its limit is {pool.disks}: "
            "delete some, or raise it with rowfs limit MNT --disks N"
        )


def check_provisioned(sizes_bytes: int, adding_bytes: int, capacity_bytes: int, pool: PoolLimits) -> None:
    """Raises LimitError when the disks, `sizes_bytes` together, would become too large for the pool's capacity."""
    percent = pool.provisioned_percent
    if adding_bytes <= 0 or percent is None or (sizes_bytes + adding_bytes) * 100 <= percent * capacity_bytes:
        return
    raise LimitError(
        f"all disks would have {format_size(sizes_bytes + adding_bytes)} together, and the pool's limit is {percent} % "
        f"of {format_size(capacity_bytes)}: ask for less, or raise it with rowfs limit MNT --provisioned PERCENT"
    )


def check_space(disk: str, held_bytes: int, adding_bytes: int, limits: DiskLimits) -> None:
    """Raises LimitError when a disk and its chain, which hold `held_bytes`, cannot have `adding_bytes` more."""
    limit = limits.space_bytes
    if adding_bytes > 0 and limit is not None and held_bytes + adding_bytes > limit:
        raise LimitError(
            f"the disk {printable(disk)} and its snapshots hold {format_size(held_bytes)}, and its limit is "
            f"{format_size(limit)}: delete snapshots, or raise it with rowfs limit MNT/{printable(disk)} --space SIZE"
        )


# Reservations


@dataclass(frozen=True)
class Holding:
    """What a disk and its chain hold, and what they can count on."""

    held_bytes: int
    reserve_bytes: int = 0

    @property
    def owed_bytes(self) -> int:
        """What is kept free for it alone: a reservation that is used is used, not kept a second time."""
        return max(self.reserve_bytes - self.held_bytes, 0)


def available_bytes(free_bytes: int, others: Iterable[Holding]) -> int:
    """What of `free_bytes` a disk can have beside what is owed to the others. Its own share is not taken off."""
    return max(free_bytes - sum(other.owed_bytes for other in others), 0)


def check_reserve(disk: str, wanted: Holding, free_bytes: int, others: Iterable[Holding]) -> None:
    """Raises LimitError when the pool cannot promise what `disk` would be owed."""
    there_bytes = available_bytes(free_bytes, others)
    if wanted.owed_bytes > there_bytes:
        raise LimitError(
            f"{format_size(wanted.reserve_bytes)} cannot be reserved for {printable(disk)}: it holds "
            f"{format_size(wanted.held_bytes)}, and {format_size(there_bytes)} are neither used nor promised: "
            "reserve less, or free space"
        )


# Warnings


def reached(used: int, limit: int | None) -> int | None:
    """The highest of WARN_PERCENT that `used` has reached of `limit`; None: not even the lowest, or no limit."""
    if limit is None:
        return None
    return max((percent for percent in WARN_PERCENT if used * 100 >= percent * limit), default=None)


def crossed(before: int | None, now: int | None) -> int | None:
    """The warning to give when `reached` went from `before` to `now`: only on the way up, and once."""
    return now if now is not None and now > (before or 0) else None
