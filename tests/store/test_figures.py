"""What is told beforehand: what deleting frees, and what changed between two points. Found without reading data."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from rowfs.base.errors import CorruptionError
from rowfs.base.format import PAGES, page_key
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.store.figures import Figures, finish
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool
from tests.store import damage
from tests.store.helpers import SIZE, B, Home, P, address, addresses_of, put, share, snapshot_of


@pytest.fixture
def disk(pool: Pool) -> Disk:
    """s1: a0 b0. s2: a0 b1 c. Now: a0 b2."""
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a0", "b0")
    pool.snapshot(disk, "s1")
    put(pool, disk, 1, "b1", "c")
    pool.snapshot(disk, "s2")
    put(pool, disk, 1, "b2")
    pool.punch(disk, 2 * B, B)
    return disk


def freed(pool: Pool, *snapshots: Snapshot, disks: tuple[Disk, ...] = ()) -> int:
    """How many blocks deleting these would free, as foretold."""
    return finish(pool.figures.freed_by(snapshots, disks)) // B


def really_freed(pool: Pool, *snapshots: Snapshot, disks: tuple[Disk, ...] = ()) -> int:
    pool.reclaim()
    before = pool.space.allocated_blocks
    for snapshot in snapshots:
        pool.delete_snapshot(snapshot)
    for disk in disks:
        pool.delete_disk(disk)
    pool.reclaim()
    return before - pool.space.allocated_blocks


def changes(pool: Pool, older: Disk | Snapshot, newer: Disk | Snapshot) -> list[tuple[int, int, str]]:
    """The changed ranges, in blocks."""
    found = [change for change in pool.figures.changes(older, newer) if change is not None]
    return [(offset // B, length // B, kind) for offset, length, kind in found]


@pytest.mark.parametrize(
    ("names", "with_disk", "blocks"),
    [
        (("s1",), False, 1),
        (("s2",), False, 2),
        (("s1", "s2"), False, 3),
        ((), True, 1),
        (("s2",), True, 3),
        (("s1", "s2"), True, 5),
    ],
)
def test_deleting_frees_what_was_foretold(
    pool: Pool, disk: Disk, names: tuple[str, ...], with_disk: bool, blocks: int
) -> None:
    snapshots = [disk.chain[name] for name in names]
    disks = (disk,) if with_disk else ()
    assert freed(pool, *snapshots, disks=disks) == blocks
    assert really_freed(pool, *snapshots, disks=disks) == blocks


def test_a_snapshot_frees_nothing_while_a_clone_holds_it(pool: Pool, disk: Disk) -> None:
    (clone,) = pool.clone(disk.chain["s2"], ["c"])
    assert finish(pool.figures.freed_if_deleted(disk.chain["s2"])) == 0
    put(pool, clone, 1, "x", "y")
    assert finish(pool.figures.freed_if_deleted(disk.chain["s2"])) == 2 * B
    assert really_freed(pool, disk.chain["s2"]) == 2


def test_the_figure_follows_what_is_written_later(pool: Pool, disk: Disk) -> None:
    snapshot = disk.chain["s2"]
    assert finish(pool.figures.freed_if_deleted(snapshot)) == 2 * B
    pool.delete_snapshot(disk.chain["s1"])
    assert finish(pool.figures.freed_if_deleted(snapshot)) == 2 * B
    put(pool, disk, 0, "a1")
    assert finish(pool.figures.freed_if_deleted(snapshot)) == 3 * B
    assert really_freed(pool, snapshot) == 3


def test_what_a_deletion_still_under_way_will_free_is_not_counted_twice(pool: Pool, disk: Disk) -> None:
    pool.delete_snapshot(disk.chain["s1"])
    assert finish(pool.figures.freed_if_deleted(disk.chain["s2"])) == 2 * B


@pytest.mark.parametrize("cache_bytes", [0, 1 << 26])
@pytest.mark.parametrize("seed", range(25))
def test_deleting_any_of_them_frees_what_was_foretold(home: Home, seed: int, cache_bytes: int) -> None:
    chance = random.Random(seed)
    pool = home.open(cache_bytes=cache_bytes)
    disks = [pool.create_disk("d", SIZE)]
    for turn in range(60):
        disk = chance.choice(disks)
        snapshots = [snapshot for each in pool.catalog.disks.values() for snapshot in each.chain.values()]
        block, blocks = chance.choice([(0, P), (P, P), (0, 3), (2, 4), (P - 2, 5)])
        match chance.randrange(12):
            case 0 | 1 | 2:
                pool.snapshot(disk, f"s{turn}")
            case 3 if snapshots:
                disks += pool.clone(chance.choice(snapshots), [f"d{turn}"])
            case 4 if snapshots:
                share(pool, chance.choice(snapshots), block, disk, block, blocks)
            case 5:
                pool.punch(disk, block * B, min(blocks, 3) * B)
            case 6:
                pool.commit()
            case 7 if turn > 20:
                going = chance.sample(snapshots, min(len(snapshots), chance.randrange(4)))
                gone = disks.pop(chance.randrange(len(disks))) if len(disks) > 1 and chance.randrange(2) else None
                chosen = (gone,) if gone else ()
                pool.reclaim()
                assert freed(pool, *going, disks=chosen) == really_freed(pool, *going, disks=chosen), f"turn {turn}"
            case _:
                pool.write(disk, block * B, bytes([turn + 1]) * (blocks * B))


def test_several_parts_add_up_to_what_all_of_them_free(pool: Pool, disk: Disk) -> None:
    (clone,) = pool.clone(disk.chain["s1"], ["c"])
    put(pool, clone, 1, "x")
    share(pool, disk.chain["s2"], 1, clone, 2, 2)
    parts: list[list[Disk | Snapshot]] = [[clone], [disk.chain["s1"], disk.chain["s2"]], [], [disk]]
    told = finish(pool.figures.freed_in_parts(parts))
    assert [blocks // B for blocks in told] == [3, 2, 0, 1], "what the clone was made of counts there"
    assert really_freed(pool, *disk.chain.values(), disks=(clone, disk)) == sum(told) // B


def test_what_was_shared_with_something_that_is_being_reclaimed_comes_back_with_its_last_owner(pool: Pool) -> None:
    disk = pool.create_disk("d", SIZE)
    put(pool, disk, 0, "a", "b")
    first = pool.snapshot(disk, "s")
    other = pool.create_disk("other", SIZE)
    share(pool, first, 0, other, 1, 2)
    put(pool, disk, 0, "new", "new")
    assert freed(pool, first) == 0
    pool.delete_disk(other)
    assert freed(pool, first) == 2, "before the reclaimer has come to it"
    assert really_freed(pool, first) == 2


def test_figures_are_exact_while_what_was_deleted_is_being_reclaimed(home: Home) -> None:
    chance = random.Random(7)
    pool = home.open(cache_bytes=0)
    disks = [pool.create_disk("d", SIZE)]
    for turn in range(120):
        disk = chance.choice(disks)
        snapshots = list(pool.catalog.snapshots.values())
        match chance.randrange(9):
            case 0 | 1:
                pool.snapshot(disk, f"s{turn}")
            case 2 if snapshots:
                disks += pool.clone(chance.choice(snapshots), [f"d{turn}"])
            case 3 | 4 if snapshots:
                share(pool, chance.choice(snapshots), chance.randrange(3), disk, chance.randrange(3), 4)
            case 5 if snapshots:
                pool.delete_snapshot(chance.choice(snapshots))
            case 6 if len(disks) > 1:
                pool.delete_disk(disks.pop(chance.randrange(len(disks))), keep_snapshots=turn % 2 == 0)
            case 7:
                pool.commit()
                for _ in range(turn % 4):
                    pool.reclaimer.step(0)
            case _:
                put(pool, disk, chance.randrange(5), f"t{turn}", f"u{turn}")
        snapshots = list(pool.catalog.snapshots.values())
        going: list[Disk | Snapshot] = [item for item in [*disks, *snapshots] if chance.randrange(3) == 0]
        rest = [item for item in [*disks, *snapshots] if item not in going]
        alone = addresses_of(*going, pool=pool) - addresses_of(*rest, pool=pool)
        assert sum(finish(pool.figures.freed_in_parts([[item] for item in going]))) == len(alone) * B, f"turn {turn}"


def test_a_long_chain_is_looked_at_once_however_many_go(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = pool.create_disk("d", SIZE * 20)
    for page in range(40):
        put(pool, disk, page * P, "first")
    for turn in range(50):
        pool.snapshot(disk, f"s{turn}")
        put(pool, disk, turn % 4 * P, f"t{turn}")
    looked = 0
    walk = Figures._let_go_in_page

    def counting(self: Figures, *args: Any) -> Any:
        nonlocal looked
        looked += 1
        return walk(self, *args)

    monkeypatch.setattr(Figures, "_let_go_in_page", counting)
    assert freed(pool, *disk.chain.values()) == 50
    assert looked == 4 + 49, "once for each version that a snapshot sees, not for each snapshot and page"


def test_a_figure_that_rests_on_a_damaged_version_is_not_told(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    for block in range(0, P, 2):  # no two lie one behind the other
        put(pool, disk, block, "a")
    for block in range(1, P, 2):
        put(pool, disk, block, "a")
    snapshot = pool.snapshot(disk, "s")
    pool.write(disk, 0, b"b" * (P * B))
    assert freed(pool, snapshot) == P
    home.close()
    key = page_key(BranchId(1), PageIndex(0), Epoch(1))
    assert len(dict(damage.tables(home.path)[PAGES])[key]) > 3000, "a plain one"
    damage.flip(home.path, PAGES, key, byte=100)  # of an address, which the figure has no need of
    with caplog.at_level(logging.CRITICAL), pytest.raises(CorruptionError):
        pool = home.open()
        freed(pool, snapshot_of(pool, "d", "s"))
    home.abandon()


def test_telling_changes_nothing(pool: Pool, disk: Disk) -> None:
    pool.commit()
    freed(pool, *disk.chain.values(), disks=(disk,))
    changes(pool, disk.chain["s1"], disk)
    assert not pool.commits.needed


def test_changes_between_snapshots_and_the_disk(pool: Pool, disk: Disk) -> None:
    s1, s2 = disk.chain["s1"], disk.chain["s2"]
    assert changes(pool, s1, s2) == [(1, 2, "data")]
    assert changes(pool, s2, disk) == [(1, 1, "data"), (2, 1, "zero")]
    assert changes(pool, s1, disk) == [(1, 1, "data")]
    assert changes(pool, s2, s1) == [(1, 1, "data"), (2, 1, "zero")]


def test_nothing_changed_between_a_point_and_itself(pool: Pool, disk: Disk) -> None:
    pool.snapshot(disk, "s3")
    assert changes(pool, disk.chain["s3"], disk) == []
    assert changes(pool, disk, disk) == []


def test_changes_are_found_across_a_rollback_and_page_edges(pool: Pool, disk: Disk) -> None:
    pool.rollback(disk, disk.chain["s1"])
    put(pool, disk, P - 1, "x", "y")
    assert changes(pool, disk.chain["s1"], disk) == [(P - 1, 2, "data")]
    assert changes(pool, disk.chain["before-rollback"], disk) == [(1, 1, "data"), (P - 1, 2, "data")]


def test_changes_end_where_the_newer_one_does(pool: Pool, disk: Disk) -> None:
    pool.resize(disk, B + 100)
    found = [change for change in pool.figures.changes(disk.chain["s1"], disk) if change]
    assert found == [(B, 100, "data")]


def test_changes_are_the_same_after_a_reopen(home: Home, pool: Pool, disk: Disk) -> None:
    s1, s2 = disk.chain["s1"], disk.chain["s2"]
    before = [changes(pool, s1, s2), changes(pool, s2, disk)]
    pool = home.reopen(cache_bytes=0)
    disk = pool.catalog.disk("d")
    assert [changes(pool, disk.chain["s1"], disk.chain["s2"]), changes(pool, disk.chain["s2"], disk)] == before


def trimmed(pool: Pool, disk: Disk) -> int:
    """How many blocks the figure says."""
    return finish(pool.figures.trimmed(disk)) // B


def test_what_was_trimmed_counts_as_long_as_a_snapshot_holds_it(pool: Pool, disk: Disk) -> None:
    assert trimmed(pool, disk) == 1  # c
    pool.punch(disk, 0, 2 * B)
    assert trimmed(pool, disk) == 4  # a0, b0, b1 too; b2 was in no snapshot
    put(pool, disk, 1, "b3")
    assert trimmed(pool, disk) == 2
    pool.delete_snapshot(disk.chain["s1"])
    assert trimmed(pool, disk) == 2
    pool.delete_snapshot(disk.chain["s2"])
    assert trimmed(pool, disk) == 0


def test_what_was_cut_off_counts_as_trimmed_and_a_deleted_disk_has_trimmed_nothing(pool: Pool, disk: Disk) -> None:
    pool.resize(disk, B)
    assert trimmed(pool, disk) == 3
    pool.delete_disk(disk)
    assert trimmed(pool, disk) == 0


@pytest.mark.parametrize("seed", range(20))
def test_what_was_trimmed_is_counted_right_whatever_happens(pool: Pool, seed: int) -> None:
    chance = random.Random(seed)
    disk = pool.create_disk("d", SIZE)
    for turn in range(40):
        block, blocks = chance.choice((0, 3, P - 2, P + 5)), chance.randrange(1, 6)
        match chance.randrange(8):
            case 0 | 1:
                pool.snapshot(disk, f"s{turn}")
            case 2 if disk.chain:
                pool.delete_snapshot(chance.choice(list(disk.chain.values())))
            case 3 if disk.chain:
                pool.rollback(disk, chance.choice(list(disk.chain.values())))
            case 4 | 5:
                pool.punch(disk, block * B, blocks * B)
            case _:
                put(pool, disk, block, *(f"{turn}-{number}" for number in range(blocks)))
        if chance.randrange(4) == 0:
            pool.reclaim()
        assert trimmed(pool, disk) == len(_held_where_the_disk_has_none(pool, disk)), f"turn {turn}"


def _held_where_the_disk_has_none(pool: Pool, disk: Disk) -> set[int]:
    holes = [block for block in range(2 * P) if not address(pool, disk, block)]
    return {address(pool, snapshot, block) for snapshot in disk.chain.values() for block in holes} - {0}
