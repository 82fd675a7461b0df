"""Writes through the engine alone, beside the same writes straight to the same host file."""

from __future__ import annotations

import os
import random
from statistics import median

from benchlib.figures import SEED, Bench, say, timed
from rowfs.base.format import DATA_FILE
from rowfs.base.units import BLOCK_BYTES, GIB, MIB, PAGE_BLOCKS, PageIndex
from rowfs.store.model import Disk
from rowfs.store.pool import Pool, init_pool

OWNED_US_MAX, FIRST_US_MAX = 10, 30
SEQUENTIAL_GIBS_MIN = 1
PIECE_BYTES = 256 * MIB  # written in one go, and then synced: far from where the host throttles who writes
WRITES = 20_000


class Contender:
    """A disk of a pool, and a plain file beside it."""

    def __init__(self, bench: Bench) -> None:
        path = bench.directory / "writing"
        init_pool(str(path))
        self.pool = Pool(str(path))
        self.size = bench.some(4, 1) * GIB
        self.disk: Disk = self.pool.create_disk("disk", self.size)
        self.data_fd = os.open(path / DATA_FILE, os.O_RDWR)
        self.raw_path = bench.directory / "plain"
        self.raw_fd = os.open(self.raw_path, os.O_RDWR | os.O_CREAT)
        self.random = random.Random(SEED)

    def warm_up(self) -> None:
        """A virtual machine may get memory from its host only when it first touches it: have that behind us."""
        for offset in range(0, 2 * self.size, PIECE_BYTES):
            os.pwrite(self.raw_fd, bytes(PIECE_BYTES), offset)
            os.fsync(self.raw_fd)
        os.ftruncate(self.raw_fd, 0)

    def sync(self) -> None:
        """Nothing that one of them wrote is left for the host to do while the other is measured."""
        self.pool.commit()
        os.fsync(self.raw_fd)

    def close(self) -> None:
        """Both are gone."""
        self.pool.close()
        os.close(self.data_fd)
        os.close(self.raw_fd)
        os.unlink(self.raw_path)

    def places(self) -> list[int]:
        """Random blocks, as offsets."""
        return [block * BLOCK_BYTES for block in self.random.sample(range(self.size // BLOCK_BYTES), WRITES)]

    def address(self, offset: int) -> int:
        """Where a block lies in the data file, in bytes."""
        index, slot = divmod(offset // BLOCK_BYTES, PAGE_BLOCKS)
        head = self.disk.head
        assert head is not None
        return self.pool.versions.page(head, PageIndex(index)).addresses[slot] * BLOCK_BYTES


def run(bench: Bench) -> None:
    """All figures of this module."""
    contender = Contender(bench)
    contender.warm_up()
    say("1 MiB writes, new and again")
    for name in ("new", "owned"):
        _sequential(bench, contender, name)
    say("4 KiB writes")
    rounds = bench.some(7, 5)
    _owned(bench, contender, rounds)
    _first(bench, contender, rounds)
    contender.close()


def _sequential(bench: Bench, it: Contender, name: str) -> None:
    data = os.urandom(MIB)
    ours, plain = [], []

    def pool_writes(start: int) -> None:
        for offset in range(start, start + PIECE_BYTES, MIB):
            it.pool.write(it.disk, offset, data)

    def plain_writes(start: int) -> None:
        for offset in range(start, start + PIECE_BYTES, MIB):
            os.pwrite(it.raw_fd, data, offset)

    for start in range(0, it.size, PIECE_BYTES):
        ours.append(timed(pool_writes, start))
        it.sync()
        plain.append(timed(plain_writes, start))
        it.sync()
    speed, raw = PIECE_BYTES / GIB / median(ours), PIECE_BYTES / GIB / median(plain)
    bench.above(
        f"1 MiB write, {name} blocks",
        SEQUENTIAL_GIBS_MIN,
        speed,
        "GiB/s",
        plain_gib_s=raw,
        ratio_to_plain=speed / raw,
    )
    bench.note("  to the same pwrites to a plain file", f"{speed / raw:.2f}x ({raw:.2f} GiB/s)")


def _owned(bench: Bench, it: Contender, rounds: int) -> None:
    data = os.urandom(BLOCK_BYTES)
    ours, plain = [], []
    for _ in range(rounds):
        places = it.places()
        addresses = [it.address(offset) for offset in places]
        ours.append(timed(_write_all, it, places, data))
        it.sync()
        plain.append(timed(_pwrite_all, it.data_fd, addresses, data))
        os.fdatasync(it.data_fd)
    _each(bench, "aligned 4 KiB write, owned", OWNED_US_MAX, ours, plain)


def _first(bench: Bench, it: Contender, rounds: int) -> None:
    data = os.urandom(BLOCK_BYTES)
    ours, plain, commits = [], [], []
    end = it.size
    for number in range(rounds):
        it.pool.snapshot(it.disk, f"first-{number}")
        it.sync()
        places = it.places()
        ours.append(timed(_write_all, it, places, data))
        commits.append(timed(it.pool.commit))
        addresses = range(end, end + WRITES * BLOCK_BYTES, BLOCK_BYTES)  # new blocks side by side, as the engine's
        end += WRITES * BLOCK_BYTES
        plain.append(timed(_pwrite_all, it.raw_fd, addresses, data))
        it.sync()
    _each(bench, f"the same, first after a snapshot, over {it.size // GIB} GiB", FIRST_US_MAX, ours, plain)
    bench.note(
        f"  the commit of {WRITES:,} of these (in a worker, when mounted)",
        f"{median(commits) * 1e3:.0f} ms, {median(commits) / WRITES * 1e6:.1f} us a write",
    )


def _write_all(it: Contender, places: list[int], data: bytes) -> None:
    write, disk = it.pool.write, it.disk
    for offset in places:
        write(disk, offset, data)


def _pwrite_all(fd: int, addresses: list[int] | range, data: bytes) -> None:
    for address in addresses:
        os.pwrite(fd, data, address)


def _each(bench: Bench, name: str, limit_us: float, ours: list[float], plain: list[float]) -> None:
    our_us, plain_us = median(ours) / WRITES * 1e6, median(plain) / WRITES * 1e6
    bench.below(name, limit_us, our_us, "us", plain_us=plain_us)
    bench.note("  to the same pwrites straight to the host file", f"{our_us / plain_us:.2f}x ({plain_us:.2f} us)")
