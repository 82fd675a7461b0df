"""What both machines of test_model.py stand on: a pool beside the oracle, and that they are the same."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EINVAL, EOPNOTSUPP
from pathlib import Path
from typing import TypeVar

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition

from rowfs.base.errors import RowfsError
from rowfs.base.ranges import Span
from rowfs.base.units import BLOCK_BYTES
from rowfs.store.commit import Batch
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool, init_pool
from rowfs.store.sealing import Piece
from tests.store.faults import Volatile
from tests.store.helpers import assert_exact, findings
from tests.store.oracle import Image, Oracle

B = BLOCK_BYTES
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where a sync costs nothing
T = TypeVar("T")

numbers = st.integers(0, 99)
caches = st.sampled_from([0, 1 << 20])  # bytes; 0 gives the least there can be
disk_names = st.sampled_from("abcde")
snapshot_names = st.sampled_from("stuvw")


def machine_settings(examples: int, steps: int) -> settings:
    """How long to search. ROWFS_EXAMPLES and ROWFS_STEPS say otherwise, as in ROWFS_EXAMPLES=5000 ROWFS_STEPS=200."""
    return settings(
        max_examples=int(os.environ.get("ROWFS_EXAMPLES", examples)),
        stateful_step_count=int(os.environ.get("ROWFS_STEPS", steps)),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Handle:
    """An open file: of a disk, and its image, or of a snapshot, and its bytes."""

    target: Disk | Snapshot
    image: Image | bytes

    @property
    def data(self) -> bytes:
        """What reading it gives."""
        return self.image if isinstance(self.image, bytes) else bytes(self.image.data)


@dataclass
class ColdRead:
    """A read of a whole open disk that a worker is at: where it reads, and what may come of it."""

    ticket: int
    spans: list[Span]
    disk: Disk
    image: Image
    life: int
    before: bytes
    writes: int


class Machine(RuleBasedStateMachine):
    """A pool and what it ought to be. No rules yet."""

    pool: Pool

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp(prefix="rowfs-model-", dir=SHM)
        self.oracle = Oracle()
        self.handles: list[Handle] = []
        self.reads: list[ColdRead] = []
        self.batch: Batch | None = None
        self.piece: tuple[Piece, np.ndarray, int] | None = None  # that is being sealed, its sums, a read ticket
        self.written = False  # the batch is durable, and not yet finished
        self.count = 0

    @initialize(cache=caches)
    def start(self, cache: int) -> None:
        init_pool(f"{self.path}/pool")
        self._open(cache)
        self.oracle.commit()

    def _open(self, cache: int) -> None:
        self.pool = Pool(f"{self.path}/pool", cache_bytes=cache, open_data=Volatile)

    def _let_go(self) -> None:
        self.handles.clear()
        self.reads.clear()
        self.batch = self.piece = None

    # Choosing

    has_disk = staticmethod(precondition(lambda self: self.oracle.now.disks))
    has_snapshot = staticmethod(precondition(lambda self: self.oracle.now.chains))
    idle = staticmethod(precondition(lambda self: self.batch is None))

    def _disk(self, number: int) -> tuple[str, Disk, Image]:
        name = pick(list(self.oracle.now.disks), number)
        return name, self.pool.catalog.disk(name), self.oracle.now.disks[name]

    def _snapshot(self, number: int) -> tuple[str, str, Snapshot]:
        disk, name = pick(self.oracle.snapshots(), number)
        return disk, name, self.pool.catalog.snapshot(self.pool.catalog.chain(disk), name)

    def _bytes(self, length: int) -> bytes:
        """Bytes that nothing else has."""
        self.count += 1
        return (struct.pack("<Q", self.count) * (length // 8 + 1))[:length]

    # Doing it to both

    def _write(self, disk: Disk, image: Image, offset: int, data: bytes) -> None:
        self.pool.write(disk, offset, data)
        self.oracle.write(image, offset, data)

    def _delete_snapshot(self, number: int) -> None:
        disk, name, snapshot = self._snapshot(number)
        self.pool.delete_snapshot(snapshot)
        self.oracle.delete_snapshot(disk, name)

    def _delete_disk(self, number: int, keep: bool) -> str:
        name, disk, _ = self._disk(number)
        self.pool.delete_disk(disk, keep)
        self.oracle.delete(name, keep)
        return name

    def _copy(self, number: int, new: str) -> None:
        name, source, image = self._disk(number)
        if new not in self.oracle.now.disks:
            self.pool.become(self.pool.create_disk(new, 0), source)
            self.oracle.become(new, bytes(image.data))

    def _share(self, n: int, m: int, at: int, to: int, length: int) -> int | None:
        """Share a range of a disk, or of a snapshot, with a disk: how many bytes; None: it cannot be shared."""
        images = [(self.pool.catalog.disk(name), bytes(image.data)) for name, image in self.oracle.now.disks.items()]
        for disk_name, name in self.oracle.snapshots():
            chain = self.pool.catalog.chain(disk_name)
            images.append((self.pool.catalog.snapshot(chain, name), self.oracle.chain(disk_name)[name]))
        source, data = images[n % len(images)]
        _, disk, image = self._disk(m)
        try:
            done = max(self.pool.share(source, at, disk, to, length), default=0)
        except RowfsError as error:
            overlaps = source is disk and abs(at - to) < min(length, len(data) - at)
            assert error.errno == (EINVAL if overlaps else EOPNOTSUPP)
            return None
        if done:
            self.oracle.write(image, to, data[at : at + done])
        return done

    def _rollback(self, number: int, discard: bool) -> None:
        name, target = pick([item for item in self.oracle.snapshots() if item[0] in self.oracle.now.disks], number)
        disk = self.pool.catalog.disk(name)
        self.pool.rollback(disk, self.pool.catalog.snapshot(disk, target), discard)
        self.oracle.rollback(name, target, discard)

    def _crash(self, cache: int, power: bool) -> None:
        if power:
            self.pool.data.lose_power()
        self.pool.abandon()
        self.oracle.crash()
        self._let_go()
        self._open(cache)
        for name in self.oracle.now.disks:
            disk = self.pool.catalog.disk(name)
            wrong = self.oracle.adopt(name, bytes(self.pool.read(disk, 0, disk.size_bytes)))
            assert not wrong, wrong
        self._compare()
        assert findings(self.pool) == []

    # Comparing

    @invariant()
    def names_are_the_same(self) -> None:
        if not hasattr(self, "pool"):
            return
        disks = {disk.name: disk.size_bytes for disk in self.pool.catalog.live()}
        assert disks == {name: len(image.data) for name, image in self.oracle.now.disks.items()}
        chains = {name: list(disk.chain) for name, disk in self.pool.catalog.disks.items() if disk.chain}
        assert chains == {name: list(chain) for name, chain in self.oracle.now.chains.items()}

    def _compare(self) -> None:
        for name, image in self.oracle.now.disks.items():
            disk = self.pool.catalog.disk(name)
            assert self.pool.read(disk, 0, len(image.data) + 1) == image.data, f"the disk {name} reads wrong"
        for handle in self.handles:
            assert self.pool.read(handle.target, 0, len(handle.data) + 1) == handle.data, "an open file reads wrong"
        for disk_name, chain in self.oracle.now.chains.items():
            for name, data in chain.items():
                snapshot = self.pool.catalog.snapshot(self.pool.catalog.chain(disk_name), name)
                read = self.pool.read(snapshot, 0, len(data) + 1)
                assert read == data, f"the snapshot {name} of {disk_name} reads wrong"

    def _reclaim_to_the_block(self) -> None:
        self.pool.reclaim()
        self.oracle.commit()
        assert not self.pool.reclaimer.pending
        assert findings(self.pool) == []
        assert_exact(self.pool)

    # The end

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None and hasattr(self, "pool"):
                self._finish()
        finally:
            if hasattr(self, "pool"):
                self.pool.abandon()
            shutil.rmtree(self.path)

    def _finish(self) -> None:
        if self.batch is not None:
            if not self.written:
                self.pool.commits.write(self.batch)
            self.pool.commits.finish(self.batch)
        for handle in self.handles:
            handle.target.handles -= 1
        for read in self.reads:
            self._end_read(read)
        if self.piece is not None:
            self.pool.commits.end_read(self.piece[2])
        self._let_go()
        self._reclaim_to_the_block()
        self._compare()
        for disk in list(self.pool.catalog.live()):
            self.pool.delete_disk(disk)
        for snapshot in list(self.pool.catalog.snapshots.values()):
            self.pool.delete_snapshot(snapshot)
        self._reclaim_to_the_block()
        assert self.pool.space.allocated_blocks == 1
        assert not self.pool.catalog.branches
        assert not self.pool.catalog.disks

    def _end_read(self, read: ColdRead) -> None:
        self.pool.commits.end_read(read.ticket)
        read.disk.handles -= 1


def pick(items: Sequence[T], number: int) -> T:
    """One of the items; the same numbers give the same ones."""
    return sorted(items)[number % len(items)]  # type: ignore[type-var]
