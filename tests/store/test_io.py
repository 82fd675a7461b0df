"""Bytes of a disk: they read and write as those of a disk file do, whatever edges they cross."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from rowfs.base.errors import UsageError
from rowfs.base.units import DISK_BYTES_MAX, MIB
from rowfs.store.pool import Pool
from tests.store.helpers import SIZE, B, Home, P, get, put


def test_a_new_disk_is_zeros_and_costs_nothing(pool: Pool) -> None:
    disk = pool.create_disk("d", DISK_BYTES_MAX)
    assert pool.read(disk, 12345, 3 * MIB) == bytes(3 * MIB)
    assert pool.read(disk, DISK_BYTES_MAX - 5, 100) == bytes(5)
    assert (disk.mapped_blocks, pool.space.allocated_blocks) == (0, 1)


def test_the_very_last_block_can_be_written(home: Home, pool: Pool) -> None:
    put(pool, pool.create_disk("d", DISK_BYTES_MAX), DISK_BYTES_MAX // B - 1, "end")
    pool = home.reopen()
    assert get(pool, pool.catalog.disk("d"), DISK_BYTES_MAX // B - 1) == ["end"]


def test_reading_ends_where_the_disk_does(pool: Pool) -> None:
    disk = pool.create_disk("d", B + 100)
    pool.write(disk, 0, b"x" * (B + 100))
    assert pool.read(disk, B, B) == b"x" * 100
    assert pool.read(disk, B + 100, 1) == b""
    assert pool.read(disk, 1 << 60, 1) == b""
    assert pool.read(disk, 0, 0) == b""


@pytest.mark.parametrize("offset", [0, 1, B - 1, P * B - 1, P * B - B - 7])
@pytest.mark.parametrize("length", [1, B - 1, B, B + 1, 3 * B + 5, P * B + 2])
def test_bytes_come_back_as_they_were_written(pool: Pool, offset: int, length: int) -> None:
    disk = pool.create_disk("d", 3 * P * B)
    data = (bytes(range(1, 252)) * (length // 251 + 1))[:length]
    pool.write(disk, offset, data)
    assert pool.read(disk, 0, 3 * P * B) == bytes(offset) + data + bytes(3 * P * B - offset - length)


def test_views_and_bytearrays_can_be_written(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    pool.write(disk, 0, memoryview(b"x" * B))
    pool.write(disk, B, bytearray(b"y" * B))
    pool.write(disk, 0, memoryview(b"z" * B))
    assert pool.read(disk, 0, 2 * B) == b"z" * B + b"y" * B


def test_writing_past_the_end_makes_the_disk_larger(pool: Pool) -> None:
    disk = pool.create_disk("d", 10)
    pool.write(disk, 5, b"12345678")
    assert disk.size_bytes == 13
    pool.write(disk, 3 * B, bytes(B))
    assert disk.size_bytes == 4 * B
    assert pool.read(disk, 0, SIZE) == bytes(5) + b"12345678" + bytes(4 * B - 13)


def test_a_disk_that_grew_by_a_write_in_place_has_its_size_after_a_crash(home: Home, pool: Pool) -> None:
    disk = pool.create_disk("d", 0)
    pool.write(disk, 0, b"12345")
    pool.commit()
    pool.write(disk, 5, b"678")
    pool.commit()
    pool = home.crash()
    disk = pool.catalog.disk("d")
    assert (disk.size_bytes, pool.read(disk, 0, 100)) == (8, b"12345678")


def test_a_disk_that_grew_by_zeros_has_its_size_after_a_crash(home: Home, pool: Pool) -> None:
    pool.write(pool.create_disk("d", 0), 3 * B, bytes(B))
    pool.commit()
    assert home.crash().catalog.disk("d").size_bytes == 4 * B


def test_writing_nothing_past_the_end_changes_nothing(pool: Pool) -> None:
    disk = pool.create_disk("d", 10)
    pool.write(disk, 5 * B, b"")
    assert disk.size_bytes == 10


def test_no_disk_grows_past_16_tib(pool: Pool) -> None:
    disk = pool.create_disk("d", DISK_BYTES_MAX)
    with pytest.raises(UsageError) as caught:
        pool.write(disk, DISK_BYTES_MAX - 1, b"xx")
    assert caught.value.errno == errno.EFBIG
    assert disk.size_bytes == DISK_BYTES_MAX
    assert disk.mapped_blocks == 0


def test_extents_are_the_data_joined_and_cut_at_the_end(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE - 100)
    put(pool, disk, 1, "a", "b")
    put(pool, disk, 3, "c")
    put(pool, disk, P - 1, "d", "e")
    pool.write(disk, SIZE - B, b"x" * (B - 100))
    assert list(pool.io.extents(disk)) == [(B, 3 * B), ((P - 1) * B, 2 * B), (SIZE - B, B - 100)]
    assert list(pool.io.extents(disk, 2 * B + 7))[0] == (2 * B + 7, 2 * B - 7)
    assert list(pool.io.extents(disk, SIZE)) == []
    assert list(pool.io.extents(pool.create_disk("empty", SIZE))) == []


def test_what_lies_scattered_is_announced_to_the_host_before_any_of_it_is_waited_for(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = pool.create_disk("d", 64 * B)
    for at in range(0, 64, 2):
        put(pool, disk, at, f"even {at}")
    for at in range(1, 64, 2):
        put(pool, disk, at, f"odd {at}")
    said: list[str] = []
    preadv = os.preadv

    def reading(*arguments: Any) -> int:
        said.append("read")
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", reading)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, length, advice: said.append(f"{length // B}"))
    whole = pool.read(disk, 0, 64 * B)
    assert said == ["1"] * 64 + ["read"] * 64
    said.clear()
    assert pool.read(disk, 0, B) == whole[:B]
    assert said == ["read"], "what lies in one piece is read at once"
