"""A damaged pool that is mounted: EIO for what is damaged, the rest is readable, the daemon stays and says why."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from errno import EIO, EROFS
from pathlib import Path

import pytest

from rowfs.store.pool import Pool
from tests.faults.damage import DAMAGE, change_map
from tests.mount.helpers import COMMAND, Mounted, read_direct, run, write_direct
from tests.store.helpers import B, fill, put

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="nothing can be mounted here"
)


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Mounted]:
    mounted = Mounted(tmp_path / "pool", tmp_path / "mnt", expected_log=["damaged", "blocks were not sealed"])
    mounted.mnt.mkdir()
    mounted.init()
    pool = Pool(str(mounted.pool))
    disk = pool.create_disk("disk", 4 * B)
    put(pool, disk, 0, "a", "b")
    pool.snapshot(disk, "s")
    put(pool, disk, 1, "c")
    put(pool, pool.create_disk("other", 4 * B), 0, "e")
    pool.close()
    DAMAGE["a bit flips in a page version"][0](mounted.pool)
    mounted.mount()
    yield mounted
    mounted.umount()
    mounted.check_log()


def test_damage_under_a_mount(damaged: Mounted) -> None:
    with pytest.raises(OSError) as caught:
        read_direct(damaged.snapshot_path("disk", "s"))
    assert caught.value.errno == EIO
    assert read_direct(damaged.path("other"))[:B] == fill("e")
    assert read_direct(damaged.path("disk"))[: 2 * B] == fill("a") + fill("c")
    info = damaged.info()
    assert info["read_only"] and "damaged" in info["read_only_reason"]
    with pytest.raises(OSError) as caught:
        write_direct(damaged.path("other"), 0, fill("no"))
    assert caught.value.errno == EROFS
    assert "damaged" in damaged.refuses("snapshot", ":other@no")
    assert [disk["name"] for disk in damaged.call("list", figures=False)] == ["disk", "other"]
    assert read_direct(damaged.path("other"))[:B] == fill("e")


def test_a_damaged_record_is_told_in_one_line_of_plain_words(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "pool", tmp_path / "mnt")
    mounted.mnt.mkdir()
    mounted.init()
    pool = Pool(str(mounted.pool))
    pool.create_disk("disk", B)
    pool.close()
    change_map(mounted.pool, "disks", lambda key, value: value[:-1])
    said = mounted.refuses("mount", str(mounted.pool), str(mounted.mnt))
    why = "the record of a disk is damaged: its bytes are not a JSON object"
    assert said == f"the pool is damaged ({why}): rowfs check {mounted.pool} tells more"
    assert why in run(*COMMAND, "check", mounted.pool, codes=(1,)).stdout


def test_a_map_that_lmdb_would_stumble_over_is_refused_in_one_line(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "pool", tmp_path / "mnt")
    mounted.mnt.mkdir()
    mounted.init()
    with open(mounted.pool / "map/data.mdb", "r+b") as file:
        file.seek(2 * 4096)  # behind the meta pages: trees
        file.write(b"\xff" * 4096 * 30)
    said = mounted.refuses("mount", str(mounted.pool), str(mounted.mnt))
    assert "the block map" in said and said.endswith(f"rowfs check {mounted.pool} tells more")
    assert not os.path.ismount(mounted.mnt)
    found = run(*COMMAND, "check", mounted.pool, codes=(1,)).stdout
    assert found.startswith("pages: ") and found.endswith("found\n")


def test_a_data_file_that_is_cut_off_under_a_mount_never_reads_as_zeros(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "pool", tmp_path / "mnt", expected_log=["cut off", "commit failed"])
    mounted.mnt.mkdir()
    mounted.cli("init", str(mounted.pool))
    mounted.mount()
    mounted.cli("create", ":disk", "1M")
    texts = [f"block {number}" for number in range(16)]
    write_direct(mounted.path("disk"), 0, b"".join(fill(text) for text in texts))
    mounted.cli("snapshot", ":disk@s")
    os.truncate(mounted.pool / "data", 8 * B)
    for offset in (0, 15 * B, 64 * B):
        with pytest.raises(OSError) as caught:
            write_direct(mounted.path("disk"), offset, fill("new"))
        assert caught.value.errno in (EIO, EROFS)
    for path in (mounted.path("disk"), mounted.snapshot_path("disk", "s")):
        failed = 0
        for block, text in enumerate(texts):
            try:
                found = read_direct_at(path, block * B)
            except OSError as error:
                assert error.errno == EIO
                failed += 1
            else:
                assert found == fill(text)
        assert 8 < failed < 16
    assert "the data file was cut off" in mounted.info()["read_only_reason"]
    run(*COMMAND, "umount", mounted.mnt, codes=(0, 1))  # 1: something was not durable yet
    mounted.check_log()
    assert os.stat(mounted.pool / "data").st_size == 8 * B
    assert "space: " in run(*COMMAND, "check", mounted.pool, codes=(1,)).stdout


def read_direct_at(path: str, offset: int) -> bytes:
    """A block as the daemon has it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, B) as buffer:
            assert os.preadv(fd, [buffer], offset) == B
            return bytes(buffer)
    finally:
        os.close(fd)
