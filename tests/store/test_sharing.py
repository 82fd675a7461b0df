"""Ranges that are shared instead of copied: which bytes they are, who may write where, and what is freed when."""

from __future__ import annotations

import logging
from errno import EFBIG, EINVAL, EOPNOTSUPP
from pathlib import Path

import lmdb
import pytest

from rowfs.base.errors import ReadOnlyError, RowfsError
from rowfs.base.format import ADDED_TABLES, REGION_KEY, SHARES, TABLES
from rowfs.base.units import DISK_BYTES_MAX, PAGE_BYTES
from rowfs.persist import shares as shares_module
from rowfs.persist.shares import Shares
from rowfs.store.check import check_pool
from rowfs.store.figures import finish
from rowfs.store.model import Branch, Disk, Snapshot
from rowfs.store.pool import Pool
from rowfs.store.versions import Versions
from tests.store import damage
from tests.store.helpers import (
    SIZE,
    B,
    Home,
    P,
    address,
    blocks_held,
    disk_of,
    fill,
    fork,
    get,
    journaled,
    put,
    share,
)


def two_disks(pool: Pool) -> tuple[Disk, Disk]:
    """One with a, b, c, and an empty one of the same size."""
    return disk_of(pool, "a", "b", "c", name="one"), pool.create_disk("two", SIZE)


def sharing_disks(pool: Pool, blocks: int) -> tuple[Disk, Disk]:
    """As `two_disks`, and the empty one shares so many blocks of the other."""
    one, two = two_disks(pool)
    share(pool, one, 0, two, 0, blocks)
    return one, two


def both(pool: Pool) -> tuple[Disk, Disk]:
    """These disks, in the pool as it was opened again."""
    return pool.catalog.disk("one"), pool.catalog.disk("two")


def head_of(disk: Disk) -> Branch:
    assert disk.head is not None
    return disk.head


def cache_is_lost(pool: Pool, disk: Disk) -> None:
    """What the cache holds of a disk is read again, as after much else was read."""
    head = head_of(disk)
    pages = {index: page for index, page in head.pages.items() if page.state}
    pool.versions.forget(head)
    head.pages.update(pages)


# What is shared


def test_a_range_becomes_another_without_a_block_more(pool: Pool) -> None:
    one, two = two_disks(pool)
    used = pool.space.allocated_blocks
    assert share(pool, one, 1, two, P - 1, 2) == 2 * B  # over the edge of a page
    assert get(pool, two, P - 1, 2) == ["b", "c"]
    assert [address(pool, two, P - 1 + n) for n in (0, 1)] == [address(pool, one, 1 + n) for n in (0, 1)]
    assert pool.space.allocated_blocks == used
    assert two.mapped_blocks == 2
    assert blocks_held(pool) == 3


def test_writing_on_either_side_is_not_seen_on_the_other(pool: Pool) -> None:
    one, two = sharing_disks(pool, 3)
    put(pool, one, 0, "A")
    put(pool, two, 1, "B")
    assert get(pool, one, 0, 3) == ["A", "b", "c"]
    assert get(pool, two, 0, 3) == ["a", "B", "c"]
    assert blocks_held(pool) == 5


def test_pieces_of_blocks_and_holes_are_not_seen_either(pool: Pool) -> None:
    one, two = sharing_disks(pool, 3)
    pool.write(one, 5, b"12345")
    pool.punch(two, B, B)
    pool.punch(two, 2 * B, B)
    assert get(pool, one, 1, 2) == ["b", "c"]
    assert get(pool, two, 0, 3) == ["a", "", ""]
    assert blocks_held(pool) == 4


def test_a_block_is_free_when_the_last_owner_lets_go_of_it(pool: Pool) -> None:
    one, two = sharing_disks(pool, 3)
    share(pool, two, 0, two, 3, 3)
    pool.delete_disk(one)
    assert blocks_held(pool) == 3
    pool.punch(two, 0, 3 * B)
    assert blocks_held(pool) == 3
    assert get(pool, two, 3, 3) == ["a", "b", "c"]
    pool.delete_disk(two)
    assert blocks_held(pool) == 0
    assert not pool.space.shares


def test_the_last_owner_writes_in_place_again(pool: Pool) -> None:
    one, two = sharing_disks(pool, 3)
    pool.commit()
    pool.punch(one, 0, SIZE)
    pool.commit()
    cache_is_lost(pool, two)
    at = address(pool, two, 0)
    put(pool, two, 0, "new")
    assert address(pool, two, 0) == at


def test_holes_are_shared_too(pool: Pool) -> None:
    one, two = two_disks(pool)
    put(pool, two, 0, *"uvwxyz")
    share(pool, one, 2, two, 1, 3)
    assert get(pool, two, 0, 6) == ["u", "c", "", "", "y", "z"]
    assert two.mapped_blocks == 4
    assert blocks_held(pool) == 3 + 3


def test_what_is_the_same_already_becomes_no_version(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b", "c")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 1, "x")
    pool.commit()
    share(pool, snapshot, P, disk, P, P)
    share(pool, snapshot, 0, disk, 0, 1)
    assert not pool.versions.dirty
    share(pool, snapshot, 0, disk, 0, P)
    assert get(pool, disk, 0, 3) == ["a", "b", "c"]
    assert blocks_held(pool) == 3


def test_a_part_of_a_disk_is_put_back_from_its_own_snapshot(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b", "c")
    snapshot = pool.snapshot(disk, "s1")
    put(pool, disk, 0, "x", "y", "z")
    pool.snapshot(disk, "s2")
    share(pool, snapshot, 0, disk, 0, 2)
    assert get(pool, disk, 0, 3) == ["a", "b", "z"]
    pool.delete_snapshot(snapshot)
    assert blocks_held(pool) == 5
    pool.delete_snapshot(disk.chain["s2"])
    assert blocks_held(pool) == 3
    assert get(pool, disk, 0, 3) == ["a", "b", "z"]


def test_a_block_that_was_put_back_outlives_the_version_before(pool: Pool) -> None:
    """It is owned by a version and by the one right behind it."""
    disk = disk_of(pool, "a")
    pool.snapshot(disk, "s1")
    put(pool, disk, 0, "x")
    pool.snapshot(disk, "s2")
    share(pool, disk.chain["s1"], 0, disk, 0, 1)
    pool.delete_snapshot(disk.chain["s2"])
    assert blocks_held(pool) == 1
    pool.delete_snapshot(disk.chain["s1"])
    assert blocks_held(pool) == 1
    assert get(pool, disk) == ["a"]
    assert not pool.space.shares


def test_a_whole_file_into_an_empty_disk_is_a_clone(pool: Pool) -> None:
    one, _ = two_disks(pool)
    empty = pool.create_disk("empty", 0)
    assert share(pool, one, 0, empty, 0, 2 * P) == SIZE
    assert not pool.space.shares
    assert get(pool, empty, 0, 3) == ["a", "b", "c"]
    assert blocks_held(pool) == 3


def test_a_larger_disk_keeps_its_size(pool: Pool) -> None:
    small = pool.create_disk("small", 2 * B)
    put(pool, small, 0, "a")
    large = pool.create_disk("large", SIZE)
    assert share(pool, small, 0, large, 0, 2) == 2 * B
    assert large.size_bytes == SIZE
    assert get(pool, large) == ["a"]


# Ends and edges


def test_the_range_ends_where_the_source_does(pool: Pool) -> None:
    one, two = two_disks(pool)
    assert share(pool, one, 2 * P - 1, two, 0, 100) == B
    assert share(pool, one, 2 * P, two, 0, 100) == 0


def test_a_disk_grows_and_what_lies_between_is_zeros(pool: Pool) -> None:
    one, _ = two_disks(pool)
    small = pool.create_disk("small", 100)
    pool.write(small, 0, b"x" * 100)
    assert share(pool, one, 0, small, 2, 2) == 2 * B
    assert small.size_bytes == 4 * B
    assert bytes(pool.read(small, 0, 2 * B)) == b"x" * 100 + bytes(2 * B - 100)
    assert get(pool, small, 2, 2) == ["a", "b"]


@pytest.mark.parametrize(("to_size", "shared"), [(0, 2 * B + 100), (2 * B + 100, 2 * B + 100), (3 * B, 2 * B)])
def test_a_part_of_a_block_is_shared_where_both_disks_end(pool: Pool, to_size: int, shared: int) -> None:
    disk = pool.create_disk("d", 3 * B)
    put(pool, disk, 0, "a", "b", "c")
    pool.resize(disk, 2 * B + 100)
    pool.snapshot(disk, "s")
    to = pool.create_disk("to", to_size)
    pool.write(to, 0, b"x" * min(to_size, 10))  # so that it is no clone
    assert max(pool.share(disk.chain["s"], 0, to, 0, 3 * B)) == shared
    assert to.size_bytes == max(shared, to_size)
    pool.resize(to, 4 * B)
    assert bytes(pool.read(to, 0, 4 * B)) == (fill("a") + fill("b") + fill("c")[:100])[:shared].ljust(4 * B, b"\0")


def test_what_lies_past_the_end_of_a_shared_block_never_shows(home: Home) -> None:
    pool = home.open()
    disk = pool.create_disk("d", 100)
    pool.write(disk, 0, b"a" * 100)
    pool.commit()
    pool.write(disk, 0, b"b" * B)  # in place; that the disk grew is never committed
    pool = home.crash()
    disk = pool.catalog.disk("d")
    to = pool.create_disk("to", 10)
    pool.write(to, 0, b"x" * 10)
    assert max(pool.share(disk, 0, to, 0, B)) == 100
    pool.write(to, 200, b"y")
    pool.resize(to, B)
    assert bytes(pool.read(to, 0, B)) == b"b" * 100 + bytes(100) + b"y" + bytes(B - 201)
    pool.resize(disk, B)
    assert bytes(pool.read(disk, 0, B)) == b"b" * 100 + bytes(B - 100)


@pytest.mark.parametrize(
    ("at", "to", "length", "errno"),
    [
        (1, 0, B, EOPNOTSUPP),
        (0, 1, B, EOPNOTSUPP),
        (0, 0, B - 1, EOPNOTSUPP),
        (0, DISK_BYTES_MAX, B, EFBIG),
    ],
)
def test_what_cannot_be_shared_says_so(pool: Pool, at: int, to: int, length: int, errno: int) -> None:
    one, two = two_disks(pool)
    with pytest.raises(RowfsError) as caught:
        list(pool.share(one, at, two, to, length))
    assert caught.value.errno == errno
    assert not two.mapped_blocks


def test_a_range_does_not_overlap_itself(pool: Pool) -> None:
    one, _ = two_disks(pool)
    with pytest.raises(RowfsError) as caught:
        share(pool, one, 0, one, 1, 2)
    assert caught.value.errno == EINVAL
    assert share(pool, one, 0, one, 2, 2) == 2 * B
    assert get(pool, one, 0, 4) == ["a", "b", "a", "b"]


def test_a_block_is_shared_only_so_often(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares_module, "FURTHER_MAX", 2)
    one, two = sharing_disks(pool, 1)
    share(pool, one, 0, two, 1, 1)
    with pytest.raises(RowfsError) as caught:
        share(pool, one, 0, two, 2, 1)
    assert caught.value.errno == EOPNOTSUPP
    assert get(pool, two, 0, 3) == ["a", "a", ""]


def test_a_pool_that_is_read_only_shares_nothing(home: Home) -> None:
    two_disks(home.open())
    pool = home.reopen(read_only=True)
    one, two = both(pool)
    with pytest.raises(ReadOnlyError):
        share(pool, one, 0, two, 0, 1)


# In slices


def test_others_work_between_pages(pool: Pool) -> None:
    one, two = two_disks(pool)
    put(pool, one, P, "p", "q")
    put(pool, two, 9, "r")  # so that it does not become a clone
    slices = pool.share(one, 0, two, 0, SIZE)
    assert next(slices) == PAGE_BYTES
    put(pool, one, 1, "x")
    put(pool, one, P + 1, "y")
    put(pool, two, 2, "z")
    pool.commit()
    assert list(slices) == [SIZE]
    assert get(pool, two, 0, 3) == ["a", "b", "z"]
    assert get(pool, two, P, 2) == ["p", "y"]


@pytest.mark.parametrize("which", ["one", "two"])
def test_a_disk_that_is_rolled_back_in_between_ends_it(pool: Pool, which: str) -> None:
    one, two = two_disks(pool)
    put(pool, two, 9, "r")
    pool.snapshot(one, "s")
    pool.snapshot(two, "s")
    disk = pool.catalog.disk(which)
    slices = pool.share(one, 0, two, 0, SIZE)
    assert next(slices) == PAGE_BYTES
    pool.rollback(disk, disk.chain["s"], discard=True)
    assert list(slices) == []
    assert get(pool, two) == ["a" if which == "one" else ""]


# What a crash leads back to


def lets_go(pool: Pool) -> tuple[Disk, Disk]:
    """`one` and `two` share block 0 durably; then `one` lets go of it, not durably, and the cache is lost."""
    one, two = sharing_disks(pool, 1)
    pool.commit()
    put(pool, one, 0, "later")
    cache_is_lost(pool, two)
    return one, two


def test_a_block_that_another_let_go_of_is_not_written_in_place_before_that_is_durable(home: Home) -> None:
    pool = home.open()
    _, two = lets_go(pool)
    put(pool, two, 0, "mine")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("one")) == ["a"]


def test_nor_while_it_becomes_durable(home: Home) -> None:
    pool = home.open()
    _, two = lets_go(pool)
    pool.commits.freeze()
    cache_is_lost(pool, two)
    put(pool, two, 0, "mine")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("one")) == ["a"]


def test_nor_when_a_commit_that_began_before_is_done(home: Home) -> None:
    pool = home.open()
    one, two = sharing_disks(pool, 1)
    batch = pool.commits.freeze()
    put(pool, one, 0, "later")
    pool.commits.write(batch)
    pool.commits.finish(batch)
    cache_is_lost(pool, two)
    put(pool, two, 0, "mine")
    pool = home.crash()
    one, two = both(pool)
    assert get(pool, one) == ["a"]
    assert get(pool, two) == ["a"]


def test_control_with_the_counts_in_memory_alone_the_other_is_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shares, "shared", lambda self, addresses: self.further(addresses) > 0)
    pool = home.open()
    _, two = lets_go(pool)
    put(pool, two, 0, "mine")
    pool = home.crash()
    assert get(pool, pool.catalog.disk("one")) == ["mine"]


def test_what_was_shared_and_not_committed_was_not_shared(home: Home) -> None:
    pool = home.open()
    one, two = two_disks(pool)
    pool.commit()
    share(pool, one, 0, two, 0, 3)
    put(pool, one, 0, "x")
    pool = home.crash()
    one, two = both(pool)
    assert get(pool, one, 0, 3) == ["a", "b", "c"]
    assert get(pool, two, 0, 3) == ["", "", ""]
    assert blocks_held(pool) == 3


# Versions that may be written in place again


def shared_from_below(pool: Pool) -> tuple[Disk, Disk]:
    """A disk whose block 0 is shared by the clone that it froze the block for; then the clone goes.

    The page of the disk that owns the block is in memory all the while. It was not written in place when it was shared.
    """
    disk = disk_of(pool, "a", name="one")
    (clone,) = fork(pool, disk, "clone")
    pool.reclaim()
    assert get(pool, disk) == ["a"]
    two = pool.create_disk("two", SIZE)
    share(pool, clone, 0, two, 0, 1)
    pool.delete_disk(clone)
    pool.reclaim()
    assert head_of(disk).floor == 0
    return disk, two


def test_a_version_that_is_written_in_place_again_minds_what_was_shared_meanwhile(pool: Pool) -> None:
    disk, two = shared_from_below(pool)
    put(pool, disk, 0, "x")
    assert get(pool, two) == ["a"]


def test_control_without_looking_again_the_other_is_changed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_sink(_: Versions, branch: Branch) -> None:
        branch.floor = branch.newest_point()

    monkeypatch.setattr(Versions, "sink_floor", only_sink)
    disk, two = shared_from_below(pool)
    put(pool, disk, 0, "x")
    assert get(pool, two) == ["x"]


def test_a_version_that_is_not_committed_minds_it_too(pool: Pool) -> None:
    """The version of the disk inherits a block before it is shared, and another one while a commit is under way.

    So it is in memory, was read before it was shared, and is not in the cache.
    """
    disk = disk_of(pool, "a", "b", name="one")
    pool.snapshot(disk, "s1")
    put(pool, disk, 1, "x")
    pool.snapshot(disk, "s2")
    put(pool, disk, 2, "c")
    snapshot = pool.snapshot(disk, "s3")
    two = pool.create_disk("two", SIZE)
    pool.delete_snapshot(disk.chain["s2"])
    pool.delete_snapshot(disk.chain["s1"])
    pool.commit()
    pool.versions.forget(head_of(disk))
    while len(pool.catalog.removals) > 1:
        pool.reclaimer.step(0)
    share(pool, snapshot, 2, two, 0, 1)
    pool.delete_snapshot(snapshot)
    batch = pool.commits.freeze()
    while len(pool.catalog.removals) > 1:
        pool.reclaimer.step(0)
    pool.commits.write(batch)
    pool.commits.finish(batch)
    assert pool.versions.dirty
    while pool.reclaimer.step(0):
        pass
    assert head_of(disk).floor == 0
    put(pool, disk, 2, "y")
    assert get(pool, two) == ["c"]


# Figures


def freed(pool: Pool, *snapshots: Snapshot, disks: tuple[Disk, ...] = ()) -> int:
    return finish(pool.figures.freed_by(snapshots, disks)) // B


def test_deleting_frees_nothing_that_somebody_else_owns(pool: Pool) -> None:
    one, two = two_disks(pool)
    one_s = pool.snapshot(one, "s")
    put(pool, one, 0, "x", "y", "z")
    assert finish(pool.figures.freed_if_deleted(one_s)) == 3 * B
    share(pool, one_s, 0, two, 0, 2)
    assert finish(pool.figures.freed_if_deleted(one_s)) == B
    assert freed(pool, disks=(two,)) == 0
    assert freed(pool, one_s, disks=(two,)) == 3
    pool.reclaim()
    used = pool.space.allocated_blocks
    pool.delete_snapshot(one_s)
    pool.reclaim()
    assert pool.space.allocated_blocks == used - 1
    pool.delete_disk(two)
    pool.reclaim()
    assert pool.space.allocated_blocks == used - 3
    assert pool.reclaimer.freed_blocks == 3


def test_what_is_shared_at_the_same_place_did_not_change(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    snapshot = pool.snapshot(disk, "s")
    put(pool, disk, 0, "x", "y")
    share(pool, snapshot, 0, disk, 0, 1)
    assert list(filter(None, pool.figures.changes(snapshot, disk))) == [(B, B, "data")]


# The journal


def test_what_was_shared_or_let_go_of_is_never_in_the_journal(home: Home) -> None:
    pool = home.open()
    one, two = two_disks(pool)
    pool.commit()
    put(pool, two, 5, "x")
    assert journaled(pool)
    share(pool, one, 0, two, 0, 3)
    assert pool.commits.map_changed and not journaled(pool)
    pool.commit()
    put(pool, two, 6, "y")
    assert journaled(pool)
    put(pool, one, 0, "z")
    assert pool.commits.map_changed and not journaled(pool)
    pool.commit()
    put(pool, one, 5, "v")
    assert journaled(pool)
    pool = home.crash()
    one, two = both(pool)
    assert get(pool, one, 0, 6) == ["z", "b", "c", "", "", "v"]
    assert get(pool, two, 0, 7) == ["a", "b", "c", "", "", "x", "y"]
    assert blocks_held(pool) == 7


# Pools in other states


def made_before(home: Home) -> None:
    two_disks(home.open())
    home.close()
    with lmdb.open(str(home.path / "map"), max_dbs=len(TABLES), map_size=1 << 30) as env:
        for name in ADDED_TABLES:
            table = env.open_db(name.encode(), create=False)
            with env.begin(write=True) as txn:
                txn.drop(table)
    assert check_pool(str(home.path)) == ([], False)


def test_a_pool_that_was_made_before_has_no_shares_and_gets_them(home: Home) -> None:
    made_before(home)
    pool = home.open(read_only=True)
    assert get(pool, pool.catalog.disk("one")) == ["a"]
    pool = home.reopen()
    one, two = both(pool)
    share(pool, one, 0, two, 0, 3)
    pool = home.reopen()
    one, two = both(pool)
    put(pool, one, 0, "x")
    assert get(pool, two, 0, 3) == ["a", "b", "c"]


def test_to_open_a_pool_that_was_made_before_does_not_void_its_journal(home: Home) -> None:
    made_before(home)
    pool = home.open()
    pool.commit()
    put(pool, pool.catalog.disk("one"), 5, "x")
    assert journaled(pool)
    pool = home.crash()
    assert get(pool, pool.catalog.disk("one"), 5) == ["x"]


def test_shares_that_cannot_be_read_change_nothing_more(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sharing_disks(home.open(), 3)
    home.close()
    damage.flip(home.path, SHARES, REGION_KEY.pack(0))
    with caplog.at_level(logging.CRITICAL):
        pool = home.open()
        assert get(pool, pool.catalog.disk("one"), 0, 3) == ["a", "b", "c"]
    assert "the shares of region 0" in str(pool.read_only_reason)
    with pytest.raises(ReadOnlyError):
        put(pool, pool.catalog.disk("one"), 0, "x")
    home.abandon()
    assert check_pool(str(home.path), repair=True)[1]
    pool = home.open()
    one, two = both(pool)
    put(pool, one, 0, "x")
    assert get(pool, two, 0, 3) == ["a", "b", "c"]


def test_a_key_that_is_none_keeps_the_pool_from_being_opened(home: Home) -> None:
    damage.put(home.path, SHARES, b"xy", b"")
    with pytest.raises(RowfsError, match="7879"):
        home.open()
