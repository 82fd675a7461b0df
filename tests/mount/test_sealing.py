"""Sealed blocks on a real mount: damage is an error for what lies in it, through every way to read."""

from __future__ import annotations

import mmap
import os
import random
from errno import EIO
from pathlib import Path

import pytest

from tests.mount.helpers import MIB, B, Mounted, until

BLOCKS = 512


def read_direct(path: str, offset: int, length: int) -> bytes:
    """Past the kernel's cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, length) as buffer:
            done = os.preadv(fd, [buffer], offset)
            return buffer[:done]
    finally:
        os.close(fd)


def flip(pool: Path, blocks: dict[bytes, int]) -> None:
    """Flip a bit in each of these blocks, wherever they lie in the data file."""
    with open(pool / "data", "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(0, size, B):
            file.seek(at)
            block = file.read(B)
            if block in blocks:
                file.seek(at + blocks[block])
                file.write(bytes([block[blocks[block]] ^ 4]))


def test_damaged_blocks_are_errors_and_a_copy_puts_them_right(mounted: Mounted, tmp_path: Path) -> None:
    rng = random.Random(5)
    image = tmp_path / "image"
    image.write_bytes(rng.randbytes(BLOCKS * B))
    content = image.read_bytes()
    mounted.cli("create", ":vm", str(BLOCKS * B))
    with open(mounted.path("vm"), "r+b") as disk:
        disk.write(content)
    mounted.cli("snapshot", ":vm@s")
    mounted.cli("clone", ":vm@s", ":twin")
    until(lambda: mounted.info()["sealed_bytes"] == BLOCKS * B, "the sealer")
    damaged = sorted(rng.sample(range(BLOCKS), 20))
    flip(mounted.pool, {content[at * B : (at + 1) * B]: rng.randrange(B) for at in damaged})
    mounted.expected_log.append("is not what was sealed")
    paths = [mounted.path("vm"), mounted.path("twin"), mounted.snapshot_path("vm", "s")]
    Path("/proc/sys/vm/drop_caches").write_text("1")
    for path in paths:
        bad = []
        for at in range(BLOCKS):
            try:
                assert read_direct(path, at * B, B) == content[at * B : (at + 1) * B], "wrong bytes"
            except OSError as error:
                assert error.errno == EIO
                bad.append(at)
        assert bad == damaged
        with pytest.raises(OSError, match="Input/output error"):
            read_direct(path, damaged[0] // 256 * MIB, MIB)
    with open(paths[1], "rb") as file:  # through the cache, neighbours and all
        for at in range(BLOCKS):
            file.seek(at * B)
            if at in damaged:
                with pytest.raises(OSError, match="Input/output error"):
                    os.pread(file.fileno(), B, at * B)
            else:
                assert os.pread(file.fileno(), B, at * B) == content[at * B : (at + 1) * B]
    answer = mounted.json("scrub", ":", "--repair", "--from", str(image))
    assert (answer["repaired_bytes"], answer["damaged_bytes"]) == (20 * B, 0)
    Path("/proc/sys/vm/drop_caches").write_text("1")
    for path in paths:
        assert Path(path).read_bytes() == content
    mounted.umount()
    mounted.cli("check", str(mounted.pool), "--data")
    mounted.mount()
