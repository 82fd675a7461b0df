"""The map of a pool that is in use gets damaged: a scrub finds it, and LMDB is asked for nothing any more."""

from __future__ import annotations

import os
import random
from errno import EIO, EROFS

import numpy as np
import pytest

from rowfs.base.errors import CorruptionError
from rowfs.base.format import TABLES
from rowfs.persist import mapcheck
from rowfs.persist.blockmap import MapUpdate
from rowfs.persist.mappages import BRANCH, LEAF, MapPages
from rowfs.service.scrubbing import Scrubbing
from tests.operations.conftest import Log
from tests.operations.helpers import Fs, refused
from tests.store.helpers import B, fill

PAGE_BYTES = 512 * B


async def a_map_of_many_pages(fs: Fs) -> None:
    """Three disks, of which each page has a version of its own."""
    for name in ("one", "two", "three"):
        disk = fs.pool.create_disk(name, 300 * PAGE_BYTES)
        for page in range(300):
            fs.pool.write(disk, page * PAGE_BYTES, fill(f"{name} {page}"))
    await fs.service.committer.commit(whole=True)


def tree_pages(fs: Fs) -> list[int]:
    """The branches and leaves that the last commit has: what is in a value's own pages, its checksum tells."""
    path = fs.home.path / "map" / "data.mdb"
    pages, content = MapPages(str(path)), path.read_bytes()
    check = mapcheck._Check(pages, max(pages.metas(), key=lambda meta: meta.commit), TABLES, mapcheck.ALL_PAGES)
    assert check.run() == []
    pages.close()
    used = [int(number) for number in np.flatnonzero(check._used)]
    return [number for number in used if content[number * B + 10] in (BRANCH, LEAF)]


def damage(fs: Fs, number: int) -> None:
    """A page of the map is garbage, in the file and so in LMDB's mapping."""
    fd = os.open(fs.home.path / "map" / "data.mdb", os.O_WRONLY)
    os.pwrite(fd, os.urandom(B - 16), number * B + 16)
    os.close(fd)


async def test_a_map_in_order_is_looked_over_while_it_changes(fs: Fs) -> None:
    await a_map_of_many_pages(fs)
    scrubbing = Scrubbing(fs.pool)
    release = fs.pool.hold()
    for number in range(4):
        await fs.write("one", number, f"{number}")
    release()
    await scrubbing.scrub()
    assert fs.pool.map_looked_over and not fs.pool.versions.damage


async def test_what_is_damaged_while_in_use_becomes_eio_and_read_only(fs: Fs, log: Log) -> None:
    await a_map_of_many_pages(fs)
    handle = await fs.open("one")
    await fs.ops.read(handle, 0, B)
    fs.pool.versions.forget(fs.pool.catalog.disk("two").head)
    whole = (fs.home.path / "map" / "data.mdb").read_bytes()
    damage(fs, random.choice(tree_pages(fs)))
    await Scrubbing(fs.pool).scrub()
    assert "the pool is damaged and read-only from now on: the block map" in log.take()
    assert bytes(await fs.ops.read(handle, 0, B)) == fill("one 0"), "what is in memory is right"
    two = await fs.open("two", os.O_RDONLY)
    with refused(EIO):
        await fs.ops.read(two, 0, B)
    with refused(EROFS):
        await fs.put(handle, 0, "more")
    with pytest.raises(CorruptionError):
        fs.pool._map.apply(MapUpdate())
    assert (await fs.ask("info"))["read_only"] is True
    (fs.home.path / "map" / "data.mdb").write_bytes(whole)  # for the tests' own look at the pool


async def test_a_scrub_that_cannot_be_started_is_told(fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowfs.persist.scrub.sys.executable", "/bin/false")
    await Scrubbing(fs.pool).scrub()
    assert "could not be looked over" in log.take()
    assert not fs.pool.versions.damage
