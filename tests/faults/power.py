"""A seeded driver that does everything with a pool, cuts its power anywhere, and holds what is left to the promises.

    python -m tests.faults.power [--seed N] [--cuts N] [--minutes M]     any number by hand; ends at the first failure

The data file is a `Device`: what it had not synced survives block by block, as chance will have it. The block map is
LMDB's own file. What LMDB promises is assumed, not tested: a transaction is durable when `commit` returns, and the file
is as before or as after it whenever the power goes; LMDB writes its pages elsewhere, syncs them, and then one meta page
that fits a sector. So a cut inside `apply` leaves the map as before it (the hook before the call) or as after it (the
hook behind the call, before anybody in memory hears of it), and no copy of the file is needed for either. A record of
the journal is written by the driver: not at all, in part, or whole.

A commit is done in its six steps, as the mount does it, with other operations between any two; or it is a record of the
journal, where one will do.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from errno import EINVAL, EOPNOTSUPP

import numpy as np

from rowfs.base.errors import BlockDamagedError, NoSpaceError, RowfsError
from rowfs.base.format import JOURNAL_FILE
from rowfs.persist import space
from rowfs.persist.blockmap import MapUpdate
from rowfs.store import diskio
from rowfs.store.diskio import RECENT_BLOCKS_MAX, point_of
from rowfs.store.model import Disk, Snapshot, State
from rowfs.store.pool import Pool, init_pool
from rowfs.store.sealing import Piece
from tests.faults.device import BLOCK, Device
from tests.faults.expected import ZERO, Expected, Image
from tests.store.helpers import assert_exact, findings, ready

SECTOR = 512
SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where LMDB's own syncs cost nothing
CUTS_PER_POOL = 40
ROUND_OPERATIONS = 60  # a round whose cut never comes is cut after so many
NAMES, SNAPSHOTS = "abcd", "stuvw"
CHAIN_MAX = 4
# Where blocks meet: the beginning of a disk, and both sides of its first page's edge. Nothing else is ever written.
WINDOWS = (range(0, 5), range(510, 515))
SIZES = (0, 100, BLOCK, 2 * BLOCK, 3 * BLOCK + 7, 4 * BLOCK, 5 * BLOCK, 512 * BLOCK, 513 * BLOCK + 1000, 515 * BLOCK)
CAPACITIES = (None, 40, 60, 80, 120)  # blocks; where there are few, freed ones are used again at once
CLAIMS = (4, 16, space.CLAIM_BLOCKS)
RUNS = (1, 1, space.RUN_BLOCKS_MIN)  # the shortest that are used while the data file may grow
STEPS = (
    "operation",  # between two
    "write",  # amid one, before a block is written
    "freeze",  # the names of the steps are those of what comes next
    "sync",
    "synced",
    "apply",
    "applied",
    "finish",
    "finished",
    "unread",
    "recycle",
    "recycled",
    "punch",  # before each block
    "punched",
    "append",
    "torn",  # amid a record of the journal
    "appended",
)


class PowerCut(BaseException):
    """Raised where the power goes, through everything."""


class Driver:
    """One pool and what it ought to be."""

    def __init__(self, seed: int, device: Device | None = None, sealing: bool = True) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.device = device or Device()
        self.expected = Expected()
        self.cuts: Counter[str] = Counter()
        self.count = 0
        self.no_space = self.records = self.data_records = self.punched = 0
        self.trace: list[str] = []
        self.depth = 0  # of operations within a commit
        self.armed = False
        self.cut_at, self.cut_in = "", 0
        self.directory = tempfile.mkdtemp(prefix="rowfs-power-", dir=SHM)
        self.path = os.path.join(self.directory, "pool")
        self.seals = random.Random(seed)  # apart: what else happens is the same whether blocks are sealed or not
        self.sealing = sealing and self.seals.random() < 0.6
        self.sealed = 0
        self.sharing, self.writing = self.rng.choice(((True, False), (False, False), (False, True)))
        self.capacity_blocks = self.rng.choice(CAPACITIES)
        init_pool(self.path)
        self.open()

    def close(self) -> None:
        """Remove everything."""
        space.CLAIM_BLOCKS, diskio.RECENT_BLOCKS_MAX = CLAIMS[-1], RECENT_BLOCKS_MAX
        self.pool.abandon()
        shutil.rmtree(self.directory)

    def open(self) -> None:
        """Open the pool."""
        self.piece: tuple[Piece, np.ndarray, int] | None = None  # that is being sealed, its sums, a read ticket
        cache_bytes = self.rng.choice((0, 1 << 20))
        diskio.RECENT_BLOCKS_MAX = self.rng.choice((1, 4, RECENT_BLOCKS_MAX))
        self.pool = Pool(self.path, cache_bytes=cache_bytes, open_data=self.device.open)  # type: ignore[arg-type]
        if self.rng.random() < 0.8:
            ready(self.pool.commits.journal)  # not only after the first commit that could have been a record
        self.pool.space.capacity_blocks = self.capacity_blocks
        self.pool.space.run_blocks_min = self.rng.choice(RUNS)
        space.CLAIM_BLOCKS = self.rng.choice(CLAIMS)
        self.device.on_call = self._before_call
        self.device.after_call = self._after_call
        self._apply = self.pool._map.apply
        self.pool._map.apply = self._apply_in_steps  # type: ignore[method-assign]

    # Steps

    def step(self, name: str) -> None:
        """The power may go here."""
        if not self.armed or name != self.cut_at:
            return
        self.cut_in -= 1
        if self.cut_in <= 0:
            self.armed = False
            raise PowerCut

    def _before_call(self, call: str) -> None:
        if call in STEPS:
            self.step(call)

    def _after_call(self, call: str) -> None:
        self.meanwhile()
        self.step("synced")

    def _apply_in_steps(self, update: MapUpdate) -> None:
        self.step("apply")
        self._apply(update)
        if self.depth:
            self.expected.durable()
        self.step("applied")
        self.meanwhile()

    def meanwhile(self) -> None:
        """What happens beside a commit."""
        if self.depth != 1:
            return
        self.depth += 1
        for _ in range(self.rng.choice((0, 0, 1, 2, 4))):
            self.operate()
        self.depth -= 1

    def sync(self) -> None:
        """An fsync: a record of the journal where one will do, else a commit."""
        commits = self.pool.commits
        if self.depth == 0 and not commits.map_changed:
            return self._sync_data()
        appended = commits.begin_record() if self.depth == 0 else None
        if appended is None:
            return self.commit()
        self.depth = 1
        self.expected.freeze()
        self.meanwhile()
        if appended.data_first:
            commits.sync()
        else:
            self.data_records += 1
        self.step("append")
        if self.armed and self.cut_at == "torn":
            self._tear(appended.position, appended.record)
        commits.journal.write(appended.position, appended.record)
        self.expected.durable()
        self.records += 1
        self.step("appended")
        self.meanwhile()
        commits.end_record()
        self.depth = 0
        return None

    def _sync_data(self) -> None:
        """An fsync where nothing changed but data in its place."""
        commits = self.pool.commits
        self.depth = 1
        commits.begin_sync()
        self.expected.freeze()
        self.meanwhile()
        commits.sync()
        self.expected.durable()
        self.step("synced")
        commits.end_sync()
        self.depth = 0

    def _tear(self, position: int, record: bytes) -> None:
        # Any of the sectors are on the disk. If all that say something are, it counts, although nobody was told.
        with open(os.path.join(self.path, JOURNAL_FILE), "r+b") as file:
            for start in range(0, len(record), SECTOR):
                if self.rng.random() < 0.8:
                    file.seek(position + start)
                    file.write(record[start : start + SECTOR])
        commits = self.pool.commits
        if len(commits.journal.records(self.pool._map.commit).records) == commits.journal.state.records:
            self.expected.durable()
        self.cut_in = 1
        self.step("torn")

    def commit(self) -> None:
        """A whole commit, step by step."""
        if self.depth:
            return
        self.depth = 1
        commits = self.pool.commits
        if commits.needed or commits.map_behind:
            self.step("freeze")
            batch = commits.freeze()
            self.expected.freeze()
            self.meanwhile()
            commits.write(batch)
            self.meanwhile()
            self.step("finish")
            commits.finish(batch)
            self.meanwhile()
            self.step("finished")
        while self.rng.random() < 0.8 and (freed := commits.unread()) is not None:
            self.step("unread")
            self.meanwhile()
            self.step("recycle")
            commits.recycle(freed)
            self.step("recycled")
        if self.rng.random() < 0.5:
            self.punch_free()
        self.depth = 0

    def punch_free(self) -> None:
        """Give free blocks back to the host, step by step."""
        puncher = self.pool.puncher
        chunk = puncher.unknown()
        if chunk is not None:
            held = puncher.look(chunk)
            self.meanwhile()
            puncher.found(chunk, held)
        punching = puncher.begin(self.rng.choice((1, 1, 4)))
        if punching is None:
            return
        try:
            self.meanwhile()
            patience = iter(range(self.rng.choice((1, 3, 1000))))
            done = puncher.carry_out(punching, lambda: next(patience, None) is not None)
            self.meanwhile()
            self.step("punched")
        finally:
            self.punched += sum(count for _, count in punching.runs)
        puncher.end(punching, done)

    # Operations

    def operate(self) -> None:
        """One operation by chance."""
        weights = [weight for weight, _ in self.operations()]
        actions = [action for _, action in self.operations()]
        action = self.rng.choices(actions, weights)[0]
        self.trace.append(f"{'  ' * self.depth}{action.__name__}")
        if self.rng.random() < 0.3:  # as when the pool is full: what was freed is found at once, not after a long way
            self.pool.space._scanned = -1
            self.pool.space._free_runs.clear()
        action()
        if self.sealing and self.seals.random() < 0.5:
            self.seal()
        self.step("operation")

    def operations(self) -> list[tuple[int, Callable[[], None]]]:
        """What can be done, and how often it is: anything, writes above all, or what has disks share and let go."""
        if self.writing and self.expected.now.disks:
            return [
                (40, self.write),
                (6, self.write_zeros),
                (6, self.trim),
                (3, self.empty),
                (2, self.create),
                (2, self.snapshot),
                (1, self.delete_snapshot),
                (4, self.reclaim_steps),
                (4, self.commit),
                (30, self.sync),
            ]
        return [
            (30, self.write),
            (2 if self.sharing else 6, self.write_zeros),
            (2 if self.sharing else 6, self.trim),
            (6, self.empty),
            (1 if self.sharing else 5, self.resize),
            (3 if self.sharing else 5, self.create),
            (10, self.snapshot),
            (12 if self.sharing else 8, self.clone),
            (8 if self.sharing else 4, self.become),
            (25 if self.sharing else 8, self.share),
            (10 if self.sharing else 3, self.lose_cache),
            (5, self.rollback),
            (20 if self.sharing else 11, self.delete_snapshot),
            (2 if self.sharing else 4, self.delete_disk),
            (40 if self.sharing else 24, self.reclaim_steps),
            (10, self.commit),
            (14, self.sync),
        ]

    def _disk(self) -> tuple[str, Disk] | None:
        names = list(self.expected.now.disks)
        if not names:
            return None
        name = self.rng.choice(names)
        return name, self.pool.catalog.disk(name)

    def _snapshot(self, of_live: bool = False) -> tuple[str, str, Snapshot] | None:
        held = [item for item in self.expected.snapshots() if not of_live or item[0] in self.expected.now.disks]
        if not held:
            return None
        disk, name = self.rng.choice(held)
        return disk, name, self.pool.catalog.snapshot(self.pool.catalog.chain(disk), name)

    def _free_name(self) -> str | None:
        return next((name for name in self.rng.sample(NAMES, len(NAMES)) if name not in self.expected.now.disks), None)

    def _range(self, whole: bool) -> tuple[int, int]:
        window = range(3) if self.sharing else self.rng.choice(WINDOWS)
        first = self.rng.choice(window)
        blocks = self.rng.randint(1, min(4, window.stop - first))
        offset, length = first * BLOCK, blocks * BLOCK
        if whole:
            return offset, length
        skip = self.rng.randrange(BLOCK)
        return offset + skip, self.rng.randint(1, max(1, length - skip))

    def write(self) -> None:
        """Bytes that nobody wrote before, of whole blocks or not."""
        found = self._disk()
        if found is None:
            return self.create()
        offset, length = self._range(whole=self.rng.random() < 0.6)
        if self.writing and self.rng.random() < 0.5:  # as a log is: the same blocks again and again
            offset, length = 0, BLOCK
        self.count += 1
        self._write(*found, offset, (struct.pack("<Q", self.count) * (length // 8 + 1))[:length])
        return None

    def write_zeros(self) -> None:
        """Whole blocks of zeros, which become holes in time."""
        found = self._disk()
        if found is not None:
            offset, length = self._range(whole=self.rng.random() < 0.8)
            self._write(*found, offset, bytes(length))

    def _write(self, name: str, disk: Disk, offset: int, data: bytes) -> None:
        before = self.expected.now.disks[name].copy()
        self.expected.write(name, offset, data)  # first: a write that is cut off may have been done in part
        try:
            self.pool.write(disk, offset, data)
        except NoSpaceError:
            self._full(name, disk, before)

    def trim(self) -> None:
        """A hole."""
        found = self._disk()
        if found is not None:
            name, disk = found
            offset, length = self._range(whole=self.rng.random() < 0.7)
            before = self.expected.now.disks[name].copy()
            self.expected.punch(name, offset, length)
            try:
                self.pool.punch(disk, offset, length)
            except NoSpaceError:
                self._full(name, disk, before)

    def empty(self) -> None:
        """What came as zeros and still is becomes holes, or whatever is zeros on a disk: it reads the same."""
        found = self._disk()
        if self.rng.random() < 0.5 or found is None:
            self.pool.io.zeros.hurry()
            while (piece := self.pool.io.zeros.take()) is not None:
                self.pool.trim.empty(piece, wait=True)
        else:
            for piece in self.pool.trim.pieces(found[1]):
                self.pool.trim.empty(piece, wait=True)

    # A pool that is full

    def _full(self, name: str, disk: Disk, before: Image) -> None:
        """An operation ran out of space: each block is as before it or as after it. Then space is made."""
        self.no_space += 1
        image = self.expected.now.disks[name]
        image.size = disk.size_bytes
        for number, value in self._read(disk, image):
            if value != image.block(number):
                old = before.block(number).ljust(len(value), b"\0")[: len(value)]
                assert value == old, f"block {number} of {name} is half-written"
                self.expected.put_back(name, number, before.blocks.get(number, ZERO))
        self.expected.cut_off(name)
        if not self.depth:
            self.reclaim_steps()
            self.commit()

    def resize(self) -> None:
        """Another size."""
        found = self._disk()
        if found is not None:
            name, disk = found
            size = self.rng.choice(SIZES)
            before = self.expected.now.disks[name].copy()
            self.expected.resize(name, size)
            try:
                self.pool.resize(disk, size)
            except NoSpaceError:  # the rest of the last block has to be zeros, in a place of its own
                self._full(name, disk, before)

    def create(self) -> None:
        """A new disk."""
        name = self._free_name()
        if name is not None:
            size = self.rng.choice(SIZES)
            self.pool.create_disk(name, size)
            self.expected.create(name, size)

    def snapshot(self) -> None:
        """A new snapshot."""
        found = self._disk()
        if found is None:
            return
        name, disk = found
        free = [other for other in SNAPSHOTS if other not in disk.chain]
        if free and len(disk.chain) < CHAIN_MAX:
            self.pool.snapshot(disk, free[0])
            self.expected.snapshot(name, free[0])

    def clone(self) -> None:
        """A new disk that begins as a snapshot."""
        found, name = self._snapshot(), self._free_name()
        if found is not None and name is not None:
            source = self.expected.now.chains[found[0]][found[1]]
            self.pool.clone(found[2], [name])
            self.expected.copy_of(source, name)

    def become(self) -> None:
        """A new disk that is made what another disk, or a snapshot, is."""
        name = self._free_name()
        if name is None:
            return
        source = self._disk() if self.rng.random() < 0.5 else None
        if source is not None:
            image, target = self.expected.now.disks[source[0]], source[1]
        elif (found := self._snapshot()) is not None:
            image, target = self.expected.now.chains[found[0]][found[1]], found[2]
        else:
            return
        self.pool.become(self.pool.create_disk(name, 0), target)
        self.expected.copy_of(image, name)

    def share(self) -> None:
        """Blocks of a disk or a snapshot become those of a disk, be it the same one."""
        found, source = self._disk(), self._disk() if self.rng.random() < 0.5 else None
        if found is None:
            return
        name, disk = found
        image: Image
        target: Disk | Snapshot
        if source is not None:
            image, target = self.expected.now.disks[source[0]], source[1]
        elif (snapshot := self._snapshot()) is not None:
            image, target = self.expected.now.chains[snapshot[0]][snapshot[1]], snapshot[2]
        else:
            return
        (at, length), (to, _) = self._range(whole=True), self._range(whole=True)
        window = next(window for window in WINDOWS if to // BLOCK in window)
        length = min(length, window.stop * BLOCK - to)
        before = self.expected.now.disks[name].copy()
        try:
            for done in self.pool.share(target, at, disk, to, length):
                self.expected.share(image, at, name, to, done)
        except NoSpaceError:
            self._full(name, disk, before)
        except RowfsError as error:
            overlaps = disk is target and abs(at - to) < min(length, disk.size_bytes - at)
            assert error.errno == (EINVAL if overlaps else EOPNOTSUPP)

    def lose_cache(self) -> None:
        """Pages are read again, as after much else was read."""
        for disk in self.pool.catalog.live():
            pages = point_of(disk).pages
            for index in [index for index, page in pages.items() if page.state is State.CLEAN]:
                del pages[index]

    def rollback(self) -> None:
        """A disk becomes what a snapshot of it is."""
        found = self._snapshot(of_live=True)
        if found is not None:
            disk, name, snapshot = found
            discard = self.rng.random() < 0.5
            self.pool.rollback(self.pool.catalog.disk(disk), snapshot, discard)
            self.expected.rollback(disk, name, discard)

    def delete_snapshot(self) -> None:
        """A snapshot goes."""
        found = self._snapshot()
        if found is not None:
            self.pool.delete_snapshot(found[2])
            self.expected.delete_snapshot(*found[:2])

    def delete_disk(self) -> None:
        """A disk goes, with its snapshots or without."""
        found = self._disk()
        if found is not None:
            keep = self.rng.random() < 0.6
            self.pool.delete_disk(found[1], keep)
            self.expected.delete(found[0], keep)

    def reclaim_steps(self) -> None:
        """The reclaimer goes on, a page at a time."""
        for _ in range(self.rng.choice((1, 2, 5, 20))):
            self.pool.reclaimer.step(0)

    def seal(self) -> None:
        """What does not change any more is sealed, in two steps between which anything may happen."""
        sealer = self.pool.sealer
        if self.seals.random() < 0.05 and (found := self._disk_to_unseal()) is not None:
            self.pool.io.unseal(found, 0, min(found.size_bytes, 4 * BLOCK))
        if self.piece is not None:
            piece, sums, ticket = self.piece
            self.sealed += sealer.record(piece, sums)
            self.pool.commits.end_read(ticket)
            self.piece = None
        for _ in range(self.seals.choice((1, 4))):
            if (next_piece := sealer.next()) is not None:
                self.piece = next_piece, sealer.sum_up(next_piece), self.pool.commits.begin_read()
                return

    def _disk_to_unseal(self) -> Disk | None:
        disks = sorted(self.pool.catalog.live(), key=lambda disk: disk.name)
        return self.seals.choice(disks) if disks else None

    # Cuts

    def round(self) -> None:
        """Operations until the power goes; then everything that is promised."""
        self.cut_at = self.rng.choice(STEPS)
        self.cut_in = self.rng.choice((1, 1, 2, 3, 5, 8)) * (3 if self.cut_at in ("operation", "write") else 1)
        self.trace = [f"the cut comes at {self.cut_at}, the {self.cut_in}. time"]
        self.armed = True
        try:
            for _ in range(ROUND_OPERATIONS):
                self.operate()
            self.cut_at = "operation"
        except PowerCut:
            pass
        self.cut()

    def cut(self) -> None:
        """The power goes now."""
        self.armed, self.depth = False, 0
        self.cuts[self.cut_at] += 1
        self.pool.abandon()
        self.device.cut_power(self.rng)
        self.expected.crash()
        try:
            self.open()
        except RowfsError as error:
            raise AssertionError(f"the pool cannot be opened: {error}") from error
        assert self.pool.read_only_reason is None
        self._adopt()
        self.compare()
        assert findings(self.pool) == []
        if self.rng.random() < 0.4:
            self.reclaim()

    def reclaim(self) -> None:
        """Free all that can be freed: nothing named has changed, and nothing else is left."""
        if self.piece is not None:  # its ticket keeps what was freed from being used again
            self.pool.commits.end_read(self.piece[2])
            self.piece = None
        self.pool.reclaim()
        self.expected.commit()
        assert not self.pool.reclaimer.pending
        assert findings(self.pool) == []
        assert_exact(self.pool)
        self.compare()

    def _adopt(self) -> None:
        self._compare_names()
        for name, image in self.expected.now.disks.items():
            self.expected.adopt(name, self._read(self.pool.catalog.disk(name), image))
        self.expected.adopted()

    def _compare_names(self) -> None:
        disks = {disk.name: disk.size_bytes for disk in self.pool.catalog.live()}
        assert disks == {name: image.size for name, image in self.expected.now.disks.items()}
        chains = {name: list(disk.chain) for name, disk in self.pool.catalog.disks.items() if disk.chain}
        assert chains == {name: list(chain) for name, chain in self.expected.now.chains.items()}

    def compare(self) -> None:
        """Everything reads as it ought to, to the byte."""
        self._compare_names()
        for name, image in self.expected.now.disks.items():
            self._compare(self.pool.catalog.disk(name), image, f"the disk {name}")
        for disk, chain in self.expected.now.chains.items():
            for name, image in chain.items():
                snapshot = self.pool.catalog.snapshot(self.pool.catalog.chain(disk), name)
                assert snapshot.size_bytes == image.size
                self._compare(snapshot, image, f"the snapshot {name} of {disk}")

    def _compare(self, target: Disk | Snapshot, image: Image, what: str) -> None:
        for number, value in self._read(target, image):
            right = image.block(number)
            assert value == right, f"block {number} of {what} is {value[:8].hex()}, not {right[:8].hex()}"

    def _read(self, target: Disk | Snapshot, image: Image) -> Iterator[tuple[int, bytes]]:
        """The blocks that may hold something; the rest has to be one hole."""
        for window in WINDOWS:
            data = bytes(self.pool.read(target, window.start * BLOCK, len(window) * BLOCK))
            yield from ((n, data[(n - window.start) * BLOCK :][:BLOCK]) for n in window)
        for offset, length in self.pool.io.extents(target):
            first, last = offset // BLOCK, (offset + length - 1) // BLOCK
            assert any(first in window and last in window for window in WINDOWS), f"data at {offset} is nobody's"
        assert all(any(number in window for window in WINDOWS) for number in image.blocks)


def run(
    seed: int, cuts: int, minutes: float = 0.0, make_device: Callable[[], Device] = Device, sealing: bool = True
) -> Counter[str]:
    """Do so many cuts (or go on for so long), on a new pool every few. An AssertionError says seed and trace."""
    total: Counter[str] = Counter()
    full = records = with_data = 0
    begun = time.monotonic()
    while total.total() < cuts or time.monotonic() - begun < minutes * 60:
        driver = Driver(seed, make_device(), sealing)
        try:
            for _ in range(CUTS_PER_POOL):
                try:
                    driver.round()
                except BlockDamagedError as error:  # nothing here damages what was synced
                    raise AssertionError(f"a false alarm, or a sealed block was written: {error}") from error
        except Exception as error:
            done = total.total() + driver.cuts.total()
            trace = "\n".join(driver.trace)
            what = f"seed {seed}, cut {done}: {error!r}"
            raise AssertionError(f"{what}\n{trace}\n{what}") from error
        finally:
            driver.close()
        total += driver.cuts
        full += driver.no_space
        records += driver.records
        with_data += driver.data_records
        seed += 1
    rate = total.total() / (time.monotonic() - begun) * 60
    places = dict(sorted(total.items()))
    done = f"{total.total()} cuts, {rate:.0f} a minute, full {full} times"
    done += f", {records} records of the journal, {with_data} of them with data"
    print(f"{done}, next seed {seed}: {places}")
    return total


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=0.0)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    run(options.seed, options.cuts, options.minutes)


if __name__ == "__main__":
    main()
