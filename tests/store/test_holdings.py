"""What disks and policies hold, beside a model that looks at every address."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from rowfs.base.format import PAGES, page_key
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.rules.runs import Start
from rowfs.rules.times import DAY_NS
from rowfs.rules.usage import Kind
from rowfs.store.accounts import Held
from rowfs.store.figures import Figures, finish
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool
from tests.store import damage
from tests.store.helpers import SIZE, B, Home, P, addresses_of, disk_of, put, share

POLICY_IDS = (901, 902)  # that no policy has any more


def has(pool: Pool, things: Iterable[Disk | Snapshot]) -> set[int]:
    return addresses_of(*things, pool=pool)


def expected(pool: Pool) -> dict[int, Held]:
    """The same, from sets of addresses."""
    disks = list(pool.catalog.disks.values())
    heads = {disk: [disk] if disk.head is not None else [] for disk in disks}
    trashed: dict[int, list[Snapshot]] = {}
    for entry in pool.trash:
        trashed.setdefault(entry.disk, []).extend(pool.trash.snapshots(entry))
    everything: list[Disk | Snapshot] = [
        *pool.catalog.live(),
        *pool.catalog.snapshots.values(),
        *(item for items in trashed.values() for item in items),
    ]

    def alone(things: Iterable[Disk | Snapshot]) -> int:
        going = set(things)
        return len(has(pool, going) - has(pool, (item for item in everything if item not in going))) * B

    found = {}
    for disk in disks:
        own = [*heads[disk], *disk.chain.values()]
        shared = has(pool, own) & has(pool, (item for item in everything if item not in own))
        size, mapped = (disk.size_bytes, disk.mapped_bytes) if disk.head is not None else (0, 0)
        trash = alone(trashed.get(disk.id, []))
        found[disk.id] = Held(Kind.DISK, (size, mapped, alone(disk.chain.values()), len(shared) * B, trash))
    for number, items in trashed.items():
        found.setdefault(number, Held(Kind.DISK, (0, 0, 0, 0, alone(items)), there=False))
    for number in POLICY_IDS:
        taken = [item for item in pool.catalog.snapshots.values() if item.policy == number]
        if taken:
            found[number] = Held(Kind.POLICY, (0, 0, alone(taken), 0, 0), there=False)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_holdings_are_those_of_a_model_that_looks_at_each_address(home: Home, seed: int) -> None:
    chance = random.Random(seed)
    pool = home.open()
    if seed % 2:
        pool.trash.set_keep(DAY_NS)
    disks = [pool.create_disk("d", SIZE)]
    for turn in range(50):
        finish(pool.holdings.count())  # what rests on what is the same then is not counted again
        disk = chance.choice(disks)
        snapshots = list(pool.catalog.snapshots.values())
        block, blocks = chance.choice([(0, P), (0, 3), (2, 4), (P - 2, 5)])
        match chance.randrange(14):
            case 0 | 1:
                pool.snapshot(disk, f"s{turn}")
            case 2:
                policy = chance.choice(POLICY_IDS)
                pool.snapshot(disk, f"s{turn}", start=Start(policy=policy, due_ns=turn))
            case 3 if snapshots and seed % 4 > 1:
                disks += pool.clone(chance.choice(snapshots), [f"d{turn}"])
            case 4 if snapshots and seed % 4 > 2:
                share(pool, chance.choice(snapshots), block, disk, block + chance.randrange(2), blocks)
            case 5:
                pool.punch(disk, block * B, min(blocks, 3) * B)
            case 6 if disk.chain:
                pool.rollback(disk, chance.choice(list(disk.chain.values())), discard=turn % 2 == 0)
            case 7 if snapshots:
                pool.trash.delete_snapshot(chance.choice(snapshots))
            case 8 if len(disks) > 1:
                pool.trash.delete_disk(disks.pop(chance.randrange(len(disks))), keep_snapshots=turn % 2 == 0)
            case 9:
                pool.commit() if turn % 2 else pool.reclaim()
            case 10 if turn > 10:
                assert finish(pool.holdings.count()) == expected(pool), f"turn {turn}"
            case _:
                pool.write(disk, block * B, bytes([turn + 1]) * (blocks * B))
    assert finish(pool.holdings.count()) == expected(pool)


def test_what_rests_is_not_counted_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disk_of(pool, "a", "b")
    pool.clone(pool.snapshot(disk, "s"), ["c"])
    other = disk_of(pool, "x", name="other")
    pool.clone(pool.snapshot(other, "s"), ["o"])
    first = finish(pool.holdings.count())
    counted = []
    really = Figures.freed_by

    def counting(self: Figures, snapshots: Any, disks: Any = ()) -> Any:
        counted.append(snapshots)
        return (yield from really(self, snapshots, disks))

    monkeypatch.setattr(Figures, "freed_by", counting)
    assert finish(pool.holdings.count()) == first and counted == []
    put(pool, disk, 0, "new")
    assert finish(pool.holdings.count()) == expected(pool)
    assert counted and all(item.owner.name != "other" for items in counted for item in items)


def test_a_clone_that_is_deleted_holds_nothing_from_then_on(pool: Pool) -> None:
    disk = disk_of(pool, "a", "b")
    (clone,) = pool.clone(pool.snapshot(disk, "s"), ["c"])
    put(pool, disk, 0, "new")
    assert finish(pool.holdings.count())[disk.id].amounts == (SIZE, 2 * B, 0, 2 * B, 0)
    pool.delete_disk(clone)
    assert finish(pool.holdings.count())[disk.id].amounts == (SIZE, 2 * B, B, 0, 0)


def test_of_a_disk_whose_map_is_damaged_nothing_is_told_and_of_others_all(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    pool = home.open()
    disk = disk_of(pool, name="bad")
    for block in range(P - 1, -1, -1):  # no two lie one behind the other
        put(pool, disk, block, "a")
    pool.clone(pool.snapshot(disk, "s"), ["c"])
    other = disk_of(pool, "x", name="other")
    home.close()
    damage.flip(home.path, PAGES, page_key(BranchId(1), PageIndex(0), Epoch(1)), byte=100)
    with caplog.at_level("CRITICAL"):
        pool = home.open()
        found = finish(pool.holdings.count())
    assert found[other.id].amounts == (SIZE, B, 0, 0, 0)
    assert found[disk.id].amounts is None
    home.abandon()
