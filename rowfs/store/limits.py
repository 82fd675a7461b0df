"""Limits of a pool and of its disks, where the engine does what they limit.

A disk and its chain hold the blocks that were written on it, its snapshots' included; what a clone shares with its
origin, and what was shared by copying, counts where it was written. A deleted snapshot's blocks count until they are
reclaimed. Space is asked for when a claim is renewed, so the C extension never goes beyond what a disk may have.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowfs.base.errors import DiskFullError, LimitError, NoSpaceError
from rowfs.base.names import printable
from rowfs.base.units import BLOCK_BYTES
from rowfs.rules import limits as rules
from rowfs.rules.limits import DiskLimits, Holding, PoolLimits
from rowfs.store.model import Branch, Disk

if TYPE_CHECKING:
    from rowfs.store.pool import Pool


class Limits:
    """The limits of one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._catalog = pool.catalog
        pool.catalog.room_of = self.watch
        for disk in pool.catalog.live():
            assert disk.head is not None
            self.watch(disk, disk.head)

    # Setting

    @property
    def of_pool(self) -> PoolLimits:
        """Those of the pool as a whole."""
        record = self._catalog.pool
        return PoolLimits(
            snapshots=record.limit_snapshots,
            disks=record.limit_disks,
            provisioned_percent=record.limit_provisioned_percent,
            on_warning=tuple(record.limit_hook or ()),
        )

    def set_pool(self, limits: PoolLimits) -> None:
        """Limit the pool from now on; what is there stays. Raises UsageError."""
        self._pool.check_writable()
        rules.check_pool_limits(limits)
        record = self._catalog.pool
        record.limit_snapshots, record.limit_disks = limits.snapshots, limits.disks
        record.limit_provisioned_percent = limits.provisioned_percent
        record.limit_hook = list(limits.on_warning) or None
        self._catalog.touch_pool()
        self._catalog.events.add("limit", text="of the pool")

    def set_disk(self, disk: Disk, limits: DiskLimits) -> None:
        """Limit a disk from now on; what it holds stays. Raises UsageError, LimitError for what cannot be reserved."""
        self._pool.check_writable()
        rules.check_disk_limits(limits)
        self._pool.space.drop_all()
        others = [self._holding(other) for other in self._reserved() if other is not disk]
        free = self._pool.space.unclaimed_blocks() * BLOCK_BYTES
        if limits.reserve_bytes > disk.limits.reserve_bytes:
            wanted = Holding(self.held_bytes(disk), limits.reserve_bytes)
            rules.check_reserve(disk.name, wanted, free, others)
        self._catalog.marks.set_limits(disk, limits)
        self._catalog.events.of_disk("limit", disk)

    # Numbers

    def check_snapshots(self, disk: Disk, adding: int = 1) -> None:
        """Raises LimitError when the chain cannot take so many more."""
        rules.check_snapshots(disk.name, len(disk.chain), adding, disk.limits, self.of_pool)

    def snapshots_beyond(self, disk: Disk, adding: int = 1) -> int:
        """How many of the chain have to go before it can take so many more."""
        return rules.snapshots_beyond(len(disk.chain), adding, disk.limits, self.of_pool)

    def check_disks(self, adding: int, size_bytes: int) -> None:
        """Raises LimitError when there cannot be so many disks more, of this size each."""
        rules.check_disks(sum(1 for _ in self._catalog.live()), adding, self.of_pool)
        self.check_provisioned(adding * size_bytes)

    def check_provisioned(self, adding_bytes: int) -> None:
        """Raises LimitError when disks cannot become larger by so much."""
        limits = self.of_pool
        if limits.provisioned_percent is not None:
            rules.check_provisioned(self.provisioned_bytes(), adding_bytes, self.capacity_bytes(), limits)

    def provisioned_bytes(self) -> int:
        """The sizes of all disks together."""
        return sum(disk.size_bytes for disk in self._catalog.live())

    def capacity_bytes(self) -> int:
        """What the pool can hold, be it what the host has."""
        space = self._pool.space
        blocks = space.allocated_blocks + space.free_blocks()
        return self._catalog.pool.capacity_bytes or blocks * BLOCK_BYTES

    # Space

    @staticmethod
    def held_bytes(disk: Disk) -> int:
        """What a disk and its chain hold."""
        blocks = sum(snapshot.written_blocks for snapshot in disk.chain.values())
        return (blocks + (0 if disk.head is None else disk.head.written_blocks)) * BLOCK_BYTES

    def _holding(self, disk: Disk) -> Holding:
        return Holding(self.held_bytes(disk), disk.limits.reserve_bytes)

    def _reserved(self) -> list[Disk]:
        return [disk for disk in self._catalog.live() if disk.limits.reserve_bytes]

    def watch(self, disk: Disk, head: Branch) -> None:
        """Have a disk's head ask for room."""
        head.claim.room = partial(self._room, disk)

    def _room(self, disk: Disk) -> int | None:
        """How many blocks a disk may still have; None: as many as there are.

        Raises DiskFullError when it may have none, NoSpaceError when others can count on what is left.
        """
        reserved = self._reserved()
        space_bytes = disk.limits.space_bytes
        if space_bytes is None and not reserved:
            return None
        rooms = []
        if space_bytes is not None:
            try:
                rules.check_space(disk.name, held := self.held_bytes(disk), BLOCK_BYTES, disk.limits)
            except LimitError as error:
                raise DiskFullError(str(error)) from None
            rooms.append((space_bytes - held) // BLOCK_BYTES)
        others = [other for other in reserved if other is not disk]
        if others:
            rooms.append(self._beside(others))
            if not rooms[-1]:
                raise NoSpaceError(
                    f"what is left of the pool is reserved for other disks than {printable(disk.name)}: "
                    "delete snapshots or disks"
                )
        return min(rooms) if rooms else None

    def _beside(self, others: list[Disk]) -> int:
        """How many blocks are left beside what `others` can count on."""
        holdings = [self._holding(other) for other in others]
        for dropped in (False, True):
            if dropped:  # what is left may be claimed by writers who do not use it
                self._pool.space.drop_all()
            free = self._pool.space.unclaimed_blocks() * BLOCK_BYTES
            blocks = rules.available_bytes(free, holdings) // BLOCK_BYTES
            if blocks:
                return blocks
        return 0
