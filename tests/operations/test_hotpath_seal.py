"""The hot path and sealed blocks: what C answers was held against its sum."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rowfs.native import _native  # type: ignore[attr-defined]
from rowfs.seal import crc32c
from rowfs.seal.sums import UNKNOWN
from rowfs.store.model import SEALED
from tests.operations.test_hotpath import DISK, SNAPSHOT, Kernel, blocks
from tests.store.helpers import B, Home, address
from tests.store.test_seal import damage


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(Home(tmp_path / "pool"))
    kernel.pool.write(kernel.disk, 0, blocks(*map(str, range(300))))
    kernel.pool.read(kernel.snapshot("s"), 0, B)  # its page is in memory
    kernel.pool.sealer.run()
    yield kernel
    kernel.finish()


def test_the_two_ways_to_sum_up_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(5 * B) + bytes(B) + b"\xff" * B
    found = crc32c.block_sums(data)
    monkeypatch.setattr(crc32c, "_compute", None)
    assert (crc32c.block_sums(data) == found).all()
    assert found[5] == 0x98F94189  # of 4,096 zeros
    assert len(crc32c.block_sums(b"")) == 0
    with pytest.raises(ValueError, match="a buffer of whole blocks"):
        _native.block_sums(b"x", np.empty(1, np.uint32))


def test_sealed_blocks_are_read_by_c(kernel: Kernel) -> None:
    data = blocks(*map(str, range(300)))
    for handle in (DISK, SNAPSHOT):
        assert kernel.read(handle, 0, 256 * B) == data[: 256 * B]
        assert kernel.read(handle, 299 * B, B) == data[299 * B :]


def test_what_is_not_what_was_sealed_is_left_to_python(kernel: Kernel) -> None:
    data = blocks(*map(str, range(300)))
    for block in (0, 15, 16, 255):
        damage(kernel.home, address(kernel.pool, kernel.disk, block), byte=block * 16)
        for handle in (DISK, SNAPSHOT):
            assert kernel.read(handle, block * B, B) is None
            assert kernel.read(handle, 0, 256 * B) is None
            assert kernel.read(handle, (block + 1) * B, B) == data[(block + 1) * B : (block + 2) * B]
        damage(kernel.home, address(kernel.pool, kernel.disk, block), byte=block * 16)
    assert kernel.read(DISK, 0, 256 * B) == data[: 256 * B]


def test_a_cold_read_of_what_is_not_what_was_sealed_is_refused_by_its_worker(kernel: Kernel) -> None:
    kernel.pool.commit()
    damage(kernel.home, address(kernel.pool, kernel.disk, 7))
    with open(kernel.home.data_path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    kernel.unique += 1
    request = kernel.request(
        15, np.array([DISK, 0], np.uint64).tobytes() + np.array([16 * B, 0, 0, 0, 0, 0], np.uint32).tobytes()
    )
    _native.try_requests(kernel.fuse.fileno(), [request])  # by a worker, or left to Python if the host has it after all
    _native.stop()
    kernel.mine.setblocking(False)
    with pytest.raises(BlockingIOError):  # nobody was given anything
        kernel.mine.recv(1)


def test_sums_that_are_not_in_memory_are_left_to_python(kernel: Kernel) -> None:
    kernel.pool.commit()
    sums = kernel.pool.io.sums
    row = int(sums.table[0])
    sums.table[0] = UNKNOWN
    assert kernel.read(DISK, 0, B) is None
    sums.table[0] = row
    assert kernel.read(DISK, 0, B) == blocks("0")


def test_sums_in_longer_arrays_are_found(kernel: Kernel) -> None:
    sums = kernel.pool.io.sums
    sums.table, sums.rows = sums.table.copy(), sums.rows.copy()
    assert kernel.read(DISK, 0, 2 * B) == blocks("0", "1")
    sums.rows[sums.table[0], address(kernel.pool, kernel.disk, 0)] ^= 1
    assert kernel.read(DISK, 0, 2 * B) is None
    sums.rows[sums.table[0], address(kernel.pool, kernel.disk, 0)] ^= 1


def test_a_sealed_block_is_not_overwritten_in_place(kernel: Kernel) -> None:
    kernel.pool.delete_snapshot(kernel.disk.chain["s"])
    kernel.pool.reclaim()
    was = address(kernel.pool, kernel.disk, 3)
    head = kernel.disk.head
    assert head is not None and head.pages[0].owned[3] == SEALED  # type: ignore[index]
    assert kernel.write(DISK, 3 * B, blocks("new")) == B
    assert address(kernel.pool, kernel.disk, 3) != was
    assert kernel.pool.io.sums.has_any(was, 1) is False
    assert kernel.read(DISK, 2 * B, 2 * B) == blocks("2", "new")
    assert kernel.write(DISK, 3 * B, blocks("newer")) == B
    assert kernel.read(DISK, 3 * B, B) == blocks("newer")
