"""Pools with a large map and no data: page versions, bitmaps and counts as the engine would have written them.

The data file stays sparse; what is read from it is zeros. `rowfs check` finds nothing wrong with such a pool.
"""

from __future__ import annotations

import os
import shutil
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchlib.figures import SEED, Bench
from rowfs.base import bitmap, pagecode
from rowfs.base.bitmap import CHUNK_BLOCKS
from rowfs.base.format import (
    BRANCHES,
    CHUNK_KEY,
    DATA_FILE,
    DISKS,
    ID_KEY,
    MAP_DIR,
    SPACE,
    BranchRecord,
    DiskRecord,
    page_key,
)
from rowfs.base.units import BLOCK_BYTES, PAGE_BLOCKS, PAGE_BYTES, BranchId, Epoch, PageIndex
from rowfs.persist.blockmap import BlockMap, MapUpdate
from rowfs.store.check import check_map
from rowfs.store.model import Disk
from rowfs.store.pool import Pool, init_pool

COMMIT_PAGES = 8192  # of one transaction
BLOCK = b"\x5a" * BLOCK_BYTES
OWNED = bytearray(b"\1" * PAGE_BLOCKS)


def new_pool(path: Path, disks: dict[str, int], scattered: bool = False) -> Path:
    """A pool of disks (name to size in bytes), all of them mapped throughout: in sequence, or at random addresses."""
    init_pool(str(path))
    pool = Pool(str(path))
    for name, size in disks.items():
        pool.create_disk(name, size)
    pool.close()
    write_all(path, list(disks), scattered)
    return path


def base_pool(bench: Bench, size_bytes: int) -> Path:
    """The pool of one disk `disk`, filled in sequence, that several groups of figures begin with. Copy it."""
    path = bench.directory / f"base-{size_bytes >> 30}"
    return path if path.exists() else new_pool(path, {"disk": size_bytes})


def write_all(path: Path, names: Sequence[str], scattered: bool = False) -> None:
    """As if every block of the disks had been written once more, at the current epoch of their heads."""
    blockmap = BlockMap(str(path / MAP_DIR))
    try:
        disks = {record.name: record for record in (DiskRecord.unpack(value) for _, value in blockmap.items(DISKS))}
        for name in names:
            end = _write_disk(blockmap, disks[name], scattered)
            os.truncate(path / DATA_FILE, end * BLOCK_BYTES)
    finally:
        blockmap.close()


def _write_disk(blockmap: BlockMap, disk: DiskRecord, scattered: bool) -> int:
    """The address behind the last block that it has then."""
    assert disk.branch is not None, "a deleted disk is filled"
    assert disk.size_bytes % PAGE_BYTES == 0, "a disk of whole pages is filled"
    stored = blockmap.get(BRANCHES, ID_KEY.pack(disk.branch))
    assert stored is not None, "a disk has a branch"
    branch = BranchRecord.unpack(stored)
    blocks = disk.size_bytes // BLOCK_BYTES
    chunks = [CHUNK_KEY.unpack(key)[0] for key, _ in blockmap.items(SPACE)]
    first = (max(chunks) + 1) * CHUNK_BLOCKS
    _put_versions(blockmap, branch, first, blocks, scattered)
    update = MapUpdate()
    _allocate(update, first, blocks)
    disk.mapped_blocks = blocks
    branch.written_blocks += blocks
    update.put(DISKS, ID_KEY.pack(disk.id), disk.pack())
    update.put(BRANCHES, ID_KEY.pack(branch.id), branch.pack())
    blockmap.apply(update)
    blockmap.refresh()
    return first + blocks


def _put_versions(blockmap: BlockMap, branch: BranchRecord, first: int, blocks: int, scattered: bool) -> None:
    random = np.random.default_rng(SEED)
    pages = blocks // PAGE_BLOCKS
    addresses = random.permutation(blocks) + first if scattered else None
    order = random.permutation(pages) if scattered else np.arange(pages)
    for start in range(0, pages, COMMIT_PAGES):
        update = MapUpdate()
        for index in order[start : start + COMMIT_PAGES].tolist():
            key = page_key(BranchId(branch.id), PageIndex(index), Epoch(branch.epoch))
            low, high = index * PAGE_BLOCKS, (index + 1) * PAGE_BLOCKS
            places = np.arange(first + low, first + high) if addresses is None else addresses[low:high]
            update.pages[key] = pagecode.encode(key, array("q", places.tobytes()), OWNED)
        blockmap.apply(update)


def _allocate(update: MapUpdate, first: int, blocks: int) -> None:
    for chunk in range(first // CHUNK_BLOCKS, -(-(first + blocks) // CHUNK_BLOCKS)):
        bits = bytearray(bitmap.CHUNK_BYTES)
        bitmap.set_range(bits, 0, min(CHUNK_BLOCKS, first + blocks - chunk * CHUNK_BLOCKS))
        key = CHUNK_KEY.pack(chunk)
        update.put(SPACE, key, bitmap.encode(key, bits))


def copy_pool(source: Path, target: Path) -> Path:
    """A pool that is closed, once more."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock", "lock*", "*.log", DATA_FILE))
    label = (source / DATA_FILE).open("rb").read(BLOCK_BYTES)
    (target / DATA_FILE).write_bytes(label)
    os.truncate(target / DATA_FILE, (source / DATA_FILE).stat().st_size)  # the rest is a hole
    return target


def lengthen_chain(pool: Pool, disk: Disk, snapshots: int) -> None:
    """Take snapshots until the disk has that many, each with one block of its own."""
    random = np.random.default_rng(SEED)
    pages = disk.size_bytes // PAGE_BYTES
    for number in range(len(disk.chain), snapshots):
        pool.write(disk, int(random.integers(pages)) * PAGE_BYTES, BLOCK)
        pool.snapshot(disk, f"chain-{number:05d}")
        if number % 500 == 0:
            pool.commit()
    pool.commit()


def faults(pool: Pool) -> int:
    """How many things `rowfs check` finds wrong with the last commit."""
    reader = pool.reader()
    try:
        found = check_map(reader)
    finally:
        reader.close()
    for finding in found[:5]:
        print(f"  check: {finding}", flush=True)
    return len(found)
