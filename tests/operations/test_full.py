"""Writes that do not fit: ENOSPC after a bounded number of tries, whatever there is left, and nothing half done."""

from __future__ import annotations

import os
from errno import ENOSPC
from typing import Any

import pytest

from rowfs.base.units import MIB, PAGE_BLOCKS
from rowfs.persist.datafile import DataFile
from rowfs.service.service import SPACE_TRIES
from tests.operations.helpers import Fs, refused
from tests.store.helpers import B, fill

PUNCH_HOLE, KEEP_SIZE = 2, 1
PAGE = PAGE_BLOCKS * B
pytestmark = pytest.mark.pool(capacity_bytes=MIB)  # 255 blocks beside the label


async def left_with(fs: Fs, blocks: int) -> None:
    """Have so many blocks free."""
    used = fs.pool.space.free_blocks() - blocks
    await fs.disk("others", used, *(f"{block}" for block in range(used)))


def tries(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets of the writes that the engine is asked for from now on."""
    asked: list[int] = []
    write = fs.pool.write

    def counted(disk: Any, offset: int, data: bytes) -> None:
        asked.append(offset)
        write(disk, offset, data)

    monkeypatch.setattr(fs.pool, "write", counted)
    return asked


@pytest.mark.parametrize("left", [0, 1, 100])
async def test_whatever_is_left_a_growing_write_that_does_not_fit_changes_nothing(
    fs: Fs, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tries(fs, monkeypatch)
    await fs.disk("vm", 1, "old")
    await left_with(fs, left)
    handle = await fs.open("vm")
    for offset in (B, B + 7, PAGE - 3 * B, 10 * PAGE - 1):
        asked.clear()
        with refused(ENOSPC):
            await fs.ops.write(handle, offset, b"x" * 110 * B)
        assert len(asked) <= 1 + SPACE_TRIES
        assert fs.pool.space.free_blocks() == left
        assert await fs.holds("vm", "old")
    await fs.ops.write(handle, 5 * B, b"x" * left * B)
    await fs.close(handle)


@pytest.mark.parametrize(("left", "begin"), [(0, 0), (0, 7), (5, 0), (5, 7)])
async def test_of_a_write_that_does_not_fit_under_a_snapshot_the_beginning_is_there(
    fs: Fs, left: int, begin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 20, *(f"old {block}" for block in range(20)))
    await fs.snapshot("vm", "s")
    await left_with(fs, left)
    old, new = await fs.bytes("vm"), b"x" * 10 * B
    handle, asked = await fs.open("vm"), tries(fs, monkeypatch)
    with refused(ENOSPC):
        await fs.ops.write(handle, 3 * B + begin, new)
    assert len(asked) <= 1 + SPACE_TRIES
    done = left * B - begin if left else 0
    assert await fs.bytes("vm") == old[: 3 * B + begin] + new[:done] + old[3 * B + begin + done :]
    await fs.close(handle)


async def test_a_host_with_less_space_than_it_says_is_asked_a_bounded_number_of_times(
    fs: Fs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 4, "one", "two")
    handle, asked = await fs.open("vm"), tries(fs, monkeypatch)

    def no_space(*_: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", no_space)
        for offset, length in ((2 * B, B), (4 * B, 10 * B), (100 * B + 7, 7)):
            asked.clear()
            with refused(ENOSPC):
                await fs.ops.write(handle, offset, b"x" * length)
            assert len(asked) <= 1 + SPACE_TRIES
    assert await fs.holds("vm", "one", "two", "", "")
    assert isinstance(fs.pool.data, DataFile)


@pytest.mark.parametrize("snapshots", [1, 3])
async def test_a_write_that_fits_into_what_was_deleted_waits_for_it(fs: Fs, snapshots: int) -> None:
    for number in range(snapshots):
        await fs.disk(f"gone {number}", 60, *(f"{number}-{block}" for block in range(60)))
    await left_with(fs, 10)
    for number in range(snapshots):
        await fs.unlink(f"gone {number}")
    handle = await fs.create("vm")
    texts = [f"new {block}" for block in range(10 + 60 * snapshots)]
    await fs.put(handle, 0, *texts)
    await fs.close(handle)
    assert await fs.holds("vm", *texts)


async def test_a_disk_that_cannot_grow_over_a_piece_of_a_block_says_so(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    await fs.truncate("vm", B + 100)
    await fs.snapshot("vm", "s")
    await left_with(fs, 0)
    handle = await fs.open("vm")
    with refused(ENOSPC):  # what is kept of the block needs another place
        await fs.extra("fallocate", handle, PUNCH_HOLE | KEEP_SIZE, 10, 20)
    with refused(ENOSPC):
        await fs.ops.write(handle, B + 50, b"x")
    assert await fs.bytes("vm") == fill("one") + fill("two")[:100]
    await fs.unlink(".snapshots/vm/s")
    await fs.extra("fallocate", handle, PUNCH_HOLE | KEEP_SIZE, 10, 20)
    await fs.ops.write(handle, B + 50, b"x")
    await fs.close(handle)


async def test_fallocate_counts_what_the_disk_has_already(fs: Fs) -> None:
    await fs.disk("vm", 200, *(f"{block}" for block in range(200)))
    handle = await fs.open("vm")
    await fs.extra("fallocate", handle, 0, 0, 255 * B)
    with refused(ENOSPC):
        await fs.extra("fallocate", handle, 0, 0, 256 * B)
    await fs.snapshot("vm", "s")
    with refused(ENOSPC):
        await fs.extra("fallocate", handle, 0, 0, 200 * B)
    await fs.unlink(".snapshots/vm/s")
    await fs.extra("fallocate", handle, 0, 0, 255 * B)
    assert (await fs.stat("vm")).st_size == 255 * B
    await fs.close(handle)


async def test_a_copy_by_sharing_needs_no_space_but_for_what_is_kept_of_a_block(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two", "three", "four")
    await fs.disk("to", 2, "five", "six")
    await fs.truncate("to", B + 100)
    await fs.write("to", 0, "seven")
    await fs.snapshot("to", "s")
    await left_with(fs, 0)
    source, target = await fs.open("vm", os.O_RDONLY), await fs.open("to")
    assert await fs.extra("copy_file_range", source, 0, target, 0, B) == B
    await fs.close(source)
    await fs.close(target)
    assert await fs.bytes("to") == fill("one") + fill("six")[:100]
