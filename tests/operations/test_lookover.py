"""The map of a pool that is in use gets damaged: looking it over finds it, and LMDB is asked for nothing any more.

Nobody else works on these pools meanwhile: LMDB itself would stumble.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio

from rowfs.base.errors import CorruptionError, ReadOnlyError
from rowfs.base.format import TABLES
from rowfs.base.units import PAGE_BYTES
from rowfs.persist import mapcheck
from rowfs.persist.blockmap import MapUpdate
from rowfs.persist.mappages import BRANCH, LEAF, MapPages
from rowfs.service.lookover import LookOver
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.operations.conftest import Log
from tests.store.helpers import B, Home, fill

PAGES = 300


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A pool that nobody else has."""
    home = Home(tmp_path / "pool")
    yield home
    home.finish()


def many_pages(pool: Pool) -> list[Disk]:
    """Disks of which each page has a version of its own."""
    disks = [pool.create_disk(name, PAGES * PAGE_BYTES) for name in ("one", "two", "three")]
    for disk in disks:
        for page in range(PAGES):
            pool.write(disk, page * PAGE_BYTES, fill(f"{disk.name} {page}"))
    pool.commit()
    return disks


def tree_pages(home: Home) -> list[int]:
    """The branches and leaves that the last commit has: what is in a value's own pages, its checksum tells."""
    path = home.path / "map" / "data.mdb"
    pages, content = MapPages(str(path)), path.read_bytes()
    check = mapcheck._Check(pages, max(pages.metas(), key=lambda meta: meta.commit), TABLES, mapcheck.ALL_PAGES)
    assert check.run() == []
    pages.close()
    used = [int(number) for number in np.flatnonzero(check._used)]
    return [number for number in used if content[number * B + 10] in (BRANCH, LEAF)]


def damage(home: Home, number: int) -> None:
    """A page of the map is garbage, in the file and so in LMDB's mapping."""
    fd = os.open(home.path / "map" / "data.mdb", os.O_WRONLY)
    os.pwrite(fd, os.urandom(B - 16), number * B + 16)
    os.close(fd)


def test_a_map_in_order_is_found_in_order_while_it_changes(home: Home) -> None:
    pool = home.open()
    disks = many_pages(pool)
    release = pool.hold()
    for number in range(4):
        pool.write(disks[0], number * B, fill(f"{number}"))
        pool.commit()
    release()
    look = LookOver(pool)
    for _ in range(2):  # told once a day, not each time
        trio.run(look.look_over)
    assert pool.map_looked_over and not pool.versions.damage
    assert looks(pool) == [(False, "the block map is in order")]


def looks(pool: Pool) -> list[tuple[bool, str]]:
    """What the events say of looks at the map."""
    pool.catalog.touch_pool()
    pool.commit()
    return [(event.failed, event.text) for event in pool.catalog.events.read(0) if event.verb == "check"]


def test_what_is_damaged_while_in_use_cannot_be_read_nor_changed(home: Home, log: Log) -> None:
    pool = home.open()
    one, two, _ = many_pages(pool)
    pool.read(one, 0, B)
    assert two.head is not None
    pool.versions.forget(two.head)
    in_use = tree_pages(home)
    damage(home, random.choice(in_use))
    trio.run(LookOver(pool).look_over)
    assert "the pool is damaged and read-only from now on: the block map" in log.take()
    assert pool.read(one, 0, B) == fill("one 0"), "what is in memory is right"
    for number in in_use:  # else what does not need that page can be read
        damage(home, number)
    with pytest.raises(CorruptionError, match="the block map is damaged"):
        for page in range(PAGES):
            assert pool.read(two, page * PAGE_BYTES, B) == fill(f"two {page}")
    with pytest.raises(ReadOnlyError):
        pool.write(one, 0, fill("more"))
    with pytest.raises(CorruptionError):
        pool._map.apply(MapUpdate())
    home.abandon()


@pytest.mark.parametrize("python", ["/bin/false", "/nowhere/python"])
def test_a_look_that_cannot_be_started_is_told(
    home: Home, log: Log, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    pool = home.open()
    monkeypatch.setattr("rowfs.persist.lookover.sys.executable", python)
    trio.run(LookOver(pool).look_over)
    assert "could not be looked over" in log.take()
    assert not pool.versions.damage
    ((failed, text),) = looks(pool)
    assert failed and text.startswith("the block map could not be looked over")
