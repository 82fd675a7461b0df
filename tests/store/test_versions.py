"""Page versions: what changed since the last commit, what a commit is taking and the block map look like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rowfs.base.format import EPOCH_MAX
from rowfs.base.units import Epoch, PageIndex
from rowfs.store.commit import Batch
from rowfs.store.model import Branch
from rowfs.store.pool import Pool
from rowfs.store.versions import Versions
from tests.store.helpers import SIZE, Home, P, findings, get, put

PAGE = PageIndex(0)


@pytest.fixture
def branch(home: Home) -> Branch:
    """A branch whose page 0 has versions of the epochs 1, 2 and 3 in the map."""
    pool = home.open()
    disk = pool.create_disk("d", SIZE)
    for n in range(3):
        put(pool, disk, 0, f"v{n}")
        if n < 2:
            pool.snapshot(disk, f"s{n}")
    pool.commit()
    assert disk.head is not None
    return disk.head


def begun(home: Home, branch: Branch) -> Batch:
    return home.pool.commits.freeze()


def durable(home: Home, branch: Branch) -> Batch:
    batch = begun(home, branch)
    home.pool.commits.write(batch)
    return batch


def finished(home: Home, branch: Branch) -> None:
    home.pool.commits.finish(durable(home, branch))


STAGES: list[Callable[[Home, Branch], object]] = [lambda home, branch: None, begun, durable, finished]


def all_epochs(versions: Versions, branch: Branch) -> list[int]:
    return list(versions.epochs(branch, PAGE, Epoch(0)))


@pytest.mark.parametrize("stage", STAGES)
def test_a_removed_version_is_gone_at_every_stage_of_the_commit(
    home: Home, branch: Branch, stage: Callable[[Home, Branch], object]
) -> None:
    versions = home.pool.versions
    removed = versions.at(branch, PAGE, Epoch(2))
    assert removed is not None
    versions.remove(branch, removed)
    stage(home, branch)
    assert all_epochs(versions, branch) == [1, 3]
    assert versions.at(branch, PAGE, Epoch(2)) is None
    assert versions.epoch_at(branch, PAGE, Epoch(2)) == 1
    assert versions.epoch_at(branch, PAGE, EPOCH_MAX) == 3
    assert versions.next_epoch(branch, PAGE, Epoch(1)) == 3
    home.abandon()  # it was no one's to remove


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_version_is_there_at_every_stage_of_the_commit(
    home: Home, branch: Branch, stage: Callable[[Home, Branch], object]
) -> None:
    pool = home.pool
    disk = pool.catalog.disk("d")
    pool.snapshot(disk, "s2")
    put(pool, disk, 0, "v3")
    put(pool, disk, P, "other page")
    batch = stage(home, branch)
    assert all_epochs(pool.versions, branch) == [1, 2, 3, 4]
    assert pool.versions.epoch_at(branch, PAGE, EPOCH_MAX) == 4
    assert [pool.versions.next_epoch(branch, PAGE, Epoch(n)) for n in range(5)] == [1, 2, 3, 4, EPOCH_MAX]
    for epoch in (1, 2, 3, 4):
        looked, page = pool.versions.look(branch, PAGE, Epoch(epoch)), pool.versions.at(branch, PAGE, Epoch(epoch))
        assert page is not None
        assert (looked.places() == page.places()).all() and (looked.owns() == page.owns()).all()
    assert set(pool.versions.changed(branch, Epoch(3), Epoch(4))) == {0, 1}
    assert set(pool.versions.changed(branch, Epoch(0), Epoch(3))) == {0}
    assert list(pool.versions.mapped_pages(branch, PAGE, PageIndex(9))) == [0, 1]
    assert get(pool, disk, 0) == ["v3"]
    if isinstance(batch, Batch):
        if stage is begun:
            pool.commits.write(batch)
        pool.commits.finish(batch)


def test_a_page_changed_while_it_is_committed_is_changed_in_a_copy(home: Home, branch: Branch) -> None:
    pool = home.pool
    disk = pool.catalog.disk("d")
    put(pool, disk, 1, "in the commit")
    batch = pool.commits.freeze()
    frozen = pool.versions.frozen[branch.id, PAGE][Epoch(3)]
    assert frozen is not None
    before = frozen.addresses[:]
    put(pool, disk, 2, "after it")
    assert frozen.addresses == before
    assert get(pool, disk, 1, 2) == ["in the commit", "after it"]
    pool.commits.write(batch)
    pool.commits.finish(batch)
    assert findings(pool) == []
    assert get(home.crash(), home.pool.catalog.disk("d"), 1, 2) == ["in the commit", ""]


def test_the_first_epochs_are_told_without_looking_at_all(
    home: Home, branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = home.pool
    assert pool is not None
    disk = pool.catalog.disk("d")
    for n in range(50):
        pool.snapshot(disk, f"more{n}")
        put(pool, disk, 0, f"more{n}")
    pool.commit()
    pool.snapshot(disk, "last")
    put(pool, disk, 0, "last")  # one in memory
    seeks: list[None] = []
    next_epoch = pool.versions._map.next_epoch
    monkeypatch.setattr(pool.versions._map, "next_epoch", lambda *key: seeks.append(None) or next_epoch(*key))
    epochs = pool.versions.epochs(branch, PAGE, Epoch(1))
    assert [next(epochs), next(epochs)] == [2, 3] and len(seeks) < 6
    assert list(epochs) == list(range(4, 55))


def test_a_branch_is_empty_when_the_map_has_no_version_and_that_is_not_known_before(home: Home) -> None:
    pool: Pool = home.open()
    disk = pool.create_disk("d", SIZE)
    head = disk.head
    assert head is not None
    assert pool.versions.is_empty(head) is True
    put(pool, disk, 0, "a")
    assert pool.versions.is_empty(head) is None
    batch = pool.commits.freeze()
    assert pool.versions.is_empty(head) is None
    pool.commits.write(batch)
    pool.commits.finish(batch)
    assert pool.versions.is_empty(head) is False
    page = pool.versions.at(head, PAGE, Epoch(1))
    assert page is not None
    pool.versions.remove(head, page)
    assert pool.versions.is_empty(head) is None
    pool.commit()
    assert pool.versions.is_empty(head) is True
    home.abandon()
