"""Threads of the C extension beside the one that receives requests: `make sanitize` has ThreadSanitizer watch them."""

from __future__ import annotations

import contextlib
import os
import random
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.native import _native  # type: ignore[attr-defined]
from tests.operations.helpers import Survivor
from tests.operations.test_hotpath import ANSWER_S, DISK, ELSE, FSYNC, READ, WRITE, Kernel
from tests.store.helpers import B, Home, ready

ROUNDS = 40
BLOCKS = 96
SPAN = BLOCKS * B


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(Home(tmp_path / "pool"))
    yield kernel
    kernel.finish()


def write(fh: int, block: int, data: bytes) -> tuple[int, bytes]:
    """A write of blocks."""
    return WRITE, struct.pack("<QQIIQII", fh, block * B, len(data), 0, 0, 0, 0) + data


def read(block: int, blocks: int) -> tuple[int, bytes]:
    """A read of blocks."""
    return READ, struct.pack("<QQIIQII", DISK, block * B, blocks * B, 0, 0, 0, 0)


def fsync(fh: int) -> tuple[int, bytes]:
    """A sync."""
    return FSYNC, struct.pack("<QII", fh, 1, 0)


def answered(kernel: Kernel, requests: list[tuple[int, bytes]]) -> int:
    """How many of these were answered, each once and without an error, before one was left to Python."""
    first = kernel.unique + 1
    taken = int(_native.try_requests(kernel.fuse.fileno(), [kernel.request(*each) for each in requests]))
    answers = []
    for _ in range(taken):
        _, error, unique = struct.unpack_from("<IiQ", kernel.mine.recv(2 << 20))
        assert error == 0
        answers.append(unique)
    assert sorted(answers) == list(range(first, first + taken))
    return taken


@pytest.mark.parametrize("seed", range(2))
def test_reads_writes_and_syncs_side_by_side(kernel: Kernel, seed: int) -> None:
    rng = random.Random(seed)
    pool = kernel.pool
    oracle = bytearray(rng.randbytes(SPAN))
    pool.write(kernel.disk, 0, bytes(oracle))
    pool.commit()
    ready(pool.commits.journal)
    kernel.snapshot("s")
    pool.commit()
    kernel.mine.send(b"a request that waits")  # so nothing is done by who receives it
    before = _native.served()
    for _ in range(ROUNDS):
        os.posix_fadvise(pool.data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        requests = []
        for _ in range(rng.randrange(1, 12)):
            block, blocks = rng.randrange(BLOCKS - 40), rng.choice((1, 1, 2, 40))
            data = rng.randbytes(blocks * B)
            requests += rng.choice(
                (
                    [write(DISK, block, data)],
                    [read(block, blocks)],
                    [fsync(DISK)],
                    [write(ELSE, 0, data[:B]), fsync(ELSE)],
                )
            )
        while requests:
            taken = answered(kernel, requests)
            for opcode, body in requests[: taken + 1]:
                fh, offset, length = struct.unpack_from("<QQI", body) if opcode == WRITE else (0, 0, 0)
                if fh == DISK:
                    oracle[offset : offset + length] = body[40:]
            for opcode, body in requests[taken : taken + 1]:  # what is left to Python
                if opcode == FSYNC:
                    pool.commit()
                elif opcode == WRITE:
                    fh, offset = struct.unpack_from("<QQ", body)
                    pool.write(kernel.handles[fh].target, offset, body[40:])  # type: ignore[arg-type]
            requests = requests[taken + 1 :]
    kernel.settle()
    assert pool.read(kernel.disk, 0, SPAN) == oracle
    assert all(now > then for now, then in zip(_native.served(), before, strict=True))
    pool.commit()
    survivor = Survivor(kernel.home).open()
    assert survivor.read(survivor.catalog.disk("disk"), 0, SPAN) == oracle
    survivor.close()


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "its record was lost"])
def test_trio_is_woken_for_a_sync_that_python_has_to_hear_of_alone(kernel: Kernel, lost: bool) -> None:
    wake_fd = _native.wake_fd()
    pool = kernel.pool
    pool.write(kernel.disk, 0, bytes(B))
    pool.commit()
    journal = ready(pool.commits.journal)
    pool.write(kernel.disk, B, bytes(B))
    kernel.mine.send(b"a request that waits")
    if lost:
        journal.state.fd = os.open(kernel.home.data_path, os.O_RDONLY)
    with contextlib.suppress(BlockingIOError):
        os.read(wake_fd, 8)
    assert _native.try_requests(kernel.fuse.fileno(), [kernel.request(*fsync(DISK))]) == 1
    if lost:
        assert select.select([wake_fd], [], [], ANSWER_S)[0] == [wake_fd]
    _native.stop()  # returns when the worker is done
    if not lost:
        with pytest.raises(BlockingIOError):
            os.read(wake_fd, 8)
    pool.commit()


def test_a_sync_of_nothing_new_is_not_answered_while_those_before_it_may_fail(kernel: Kernel) -> None:
    pool = kernel.pool
    pool.write(kernel.disk, 0, bytes(B))
    pool.commit()
    journal = ready(pool.commits.journal)
    pool.write(kernel.disk, B, bytes(B))
    kernel.mine.send(b"a request that waits")
    journal.state.fd = os.open(kernel.home.data_path, os.O_RDONLY)
    assert _native.try_requests(kernel.fuse.fileno(), [kernel.request(*fsync(DISK)) for _ in range(3)]) >= 1
    _native.stop()
    kernel.mine.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.mine.recv(1)
    pool.commit()
