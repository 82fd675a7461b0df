"""Page versions: those in the block map and the newer ones in memory as one, and a cache of decoded pages.

A version is looked for in three layers: what was changed since the last commit began (`dirty`), what the commit that is
running takes (`frozen`), and the block map. In the first two None stands for a version that was removed.

Invariants:
- Of one (branch, page, epoch) there is one Page that may be changed. If it is dirty or frozen it is in its layer, and
  `branch.pages` holds no other Page of the same epoch.
- A new version has the branch's current epoch, which is greater than the branch's floor; but for one that is handed
  down, which is the branch's first, and reads as all points of the branch that see it read already.
- A version at or before the floor that any point sees never changes its addresses.
- A Page after the floor has no slot OWNED whose block others own too (persist.shares): such a slot is SHARED. This is
  seen to wherever that could come about: `_decode`, `sink_floor`, `committed`, and `mark_shared` after sharing.
- Nor has it a slot OWNED whose block is sealed (seal.sums): such a slot is SEALED. Blocks are sealed where no Page
  after the floor owns them, so the first three of these places see to that as well.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from rowfs.base import pagecode
from rowfs.base.errors import CorruptionError
from rowfs.base.format import EPOCH_MAX, page_key
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.persist.blockmap import BlockMap
from rowfs.persist.mapread import Value
from rowfs.persist.shares import Shares
from rowfs.seal.sums import Sums
from rowfs.store.model import (
    EPOCH_NONE,
    FIRST_EPOCH,
    INHERITED,
    OWNED,
    PAGE_MEMORY_BYTES,
    SEALED,
    SHARED,
    Branch,
    Page,
    Point,
    State,
)

log = logging.getLogger(__name__)

EVICTION_TURNS = 8

T = TypeVar("T")
Looked = Page | pagecode.Coded  # a version that is only looked at: places() and owns()
Layer = dict[tuple[BranchId, PageIndex], dict[Epoch, Page | None]]


class Versions:
    """The page versions of a pool."""

    def __init__(self, blockmap: BlockMap, shares: Shares, sums: Sums, cache_bytes: int) -> None:
        self._map = blockmap
        self._shares = shares
        self._sums = sums
        self.sinks = 0  # how often a floor sank
        self.branches: dict[BranchId, Branch] = {}
        self.dirty: Layer = {}
        self.frozen: Layer = {}
        self.dirty_pages = 0
        self.commits = 0  # how often `committed` was called
        self.cached_pages_max = max(64, cache_bytes // PAGE_MEMORY_BYTES)
        self.damage: str | None = None  # the first that was found: from then on nothing is changed
        self._clock: deque[tuple[dict[PageIndex, Page], Page]] = deque()

    # Reading

    def page(self, point: Point | Branch, index: PageIndex) -> Page:
        """The page as it reads at a point. Raises CorruptionError when the map holds no readable one."""
        page = point.pages.get(index)
        if page is None:
            page = self._resolve(point, index)
            point.pages[index] = page
            self._clock.append((point.pages, page))
            self._evict()
        page.used = True
        return page

    def _resolve(self, point: Point | Branch, index: PageIndex) -> Page:
        branch: Branch | None = point.branch
        assert branch is not None
        epoch = point.epoch
        while branch is not None:
            found = self.newest(branch, index, epoch)
            if found is not None:
                if branch is point:
                    return found
                # Another branch's version, or one that a snapshot sees: read only here, so nothing owned, no epoch.
                return (
                    found
                    if branch is point.branch
                    else Page(branch.id, index, EPOCH_NONE, found.addresses, found.owned)
                )
            epoch, branch = branch.fork, branch.origin
        return Page.empty(point.branch.id, index)

    def newest(self, branch: Branch, index: PageIndex, epoch: Epoch) -> Page | None:
        """The branch's own newest version of a page that is not after `epoch`."""
        held = self.epoch_at(branch, index, epoch)
        return self.at(branch, index, held) if held else None

    def epoch_at(self, branch: Branch, index: PageIndex, epoch: Epoch) -> Epoch:
        """The epoch of that version; EPOCH_NONE: there is none."""
        number = branch.id
        stored = self._map.version(number, index, epoch)
        memory = self._in_memory(branch, index)
        if not memory:
            return stored[0] if stored is not None else EPOCH_NONE
        while stored is not None and memory.get(stored[0], memory) is None:  # removed since
            stored = self._map.version(number, index, Epoch(stored[0] - 1))
        in_memory = max((e for e, page in memory.items() if e <= epoch and page is not None), default=EPOCH_NONE)
        return in_memory if stored is None else max(in_memory, stored[0])

    def at(self, branch: Branch, index: PageIndex, epoch: Epoch) -> Page | None:
        """The branch's version of a page of exactly this epoch, as the one Page that may be changed."""
        memory = self._in_memory(branch, index)
        if epoch in memory:
            return memory[epoch]
        cached = branch.pages.get(index)
        if cached is not None and cached.epoch == epoch:
            return cached
        stored = self._map.version(branch.id, index, epoch)
        return self._decode(branch, index, *stored) if stored is not None and stored[0] == epoch else None

    def look(self, branch: Branch, index: PageIndex, epoch: Epoch) -> Looked:
        """The version of exactly this epoch, which must be there, to be looked at and at once: it may change later."""
        page = self._in_memory(branch, index).get(epoch) or branch.pages.get(index)
        if page is not None and page.epoch == epoch:
            return page
        stored = self._map.version(branch.id, index, epoch)
        assert stored is not None and stored[0] == epoch, "a version that is listed is there"
        return self._decoded(pagecode.Coded, branch, index, *stored)

    def next_epoch(self, branch: Branch, index: PageIndex, after: Epoch) -> Epoch:
        """The first epoch later than `after` at which the branch has a version of a page; EPOCH_MAX: there is none."""
        if self._in_memory(branch, index):
            return next(self.epochs(branch, index, after), EPOCH_MAX)
        return self._map.next_epoch(branch.id, index, after) or EPOCH_MAX

    def epochs(self, branch: Branch, index: PageIndex, after: Epoch) -> Iterator[Epoch]:
        """The epochs later than `after` at which the branch has versions of a page, ascending."""
        memory = self._in_memory(branch, index)
        stored = self._map.epochs(branch.id, index, after)
        if not memory:
            return stored
        # One by one: there may be a version for each of thousands of snapshots, and mostly the first ones are wanted.
        in_memory = sorted(epoch for epoch, page in memory.items() if epoch > after and page is not None)
        return heapq.merge((epoch for epoch in stored if epoch not in memory), in_memory)

    def _in_memory(self, branch: Branch, index: PageIndex) -> dict[Epoch, Page | None]:
        key = (branch.id, index)
        dirty, frozen = self.dirty.get(key), self.frozen.get(key)
        if dirty and frozen:
            return {**frozen, **dirty}
        return dirty or frozen or {}

    def _decode(self, branch: Branch, index: PageIndex, epoch: Epoch, value: Value) -> Page:
        page = Page(branch.id, index, epoch, *self._decoded(pagecode.decode, branch, index, epoch, value))
        if epoch > branch.floor:
            self._keep_from_writing(page)
        return page

    def _decoded(
        self, decode: Callable[[bytes, Value], T], branch: Branch, index: PageIndex, epoch: Epoch, value: Value
    ) -> T:
        try:
            return decode(page_key(branch.id, index, epoch), value)
        except CorruptionError as error:
            raise self.damaged(f"page {index} of branch {branch.id} at epoch {epoch}: {error}") from None

    def damaged(self, what: str, cause: Exception | None = None) -> CorruptionError:
        """The error to raise for something that cannot be what was written; remembered, and logged once."""
        if self.damage is None:
            self.damage = what
            log.error("the pool is damaged and read-only from now on: %s", what, exc_info=cause)
        error = CorruptionError(what)
        error.logged = True
        return error

    # Changing

    def writable(self, branch: Branch, index: PageIndex) -> Page:
        """The head's page, ready to be changed: its own version after the floor, made where there is none."""
        page = branch.pages.get(index)
        if page is None:
            page = self.page(branch, index)
        if page.epoch > branch.floor:
            return page if page.state is State.DIRTY else self.change(branch, page)
        assert branch.epoch > branch.floor, "a new version would not be after the floor"
        fresh = page.successor(branch.id, branch.epoch)
        branch.pages[index] = fresh
        self._clock.append((branch.pages, fresh))
        self._evict()
        return self._mark(fresh)

    def change(self, branch: Branch, page: Page) -> Page:
        """The Page to change in place of `page`: the same, or a copy when a commit is reading it."""
        if page.state is State.DIRTY:
            return page
        if page.state is State.FROZEN:
            copy = page.copy()
            if branch.pages.get(page.index) is page:
                branch.pages[page.index] = copy
                self._clock.append((branch.pages, copy))
            page = copy
        return self._mark(page)

    def hand_down(self, branch: Branch, page: Page) -> Page:
        """Give a branch a first version of its own: what it has seen of another branch so far. It owns nothing yet."""
        assert self.next_epoch(branch, page.index, EPOCH_NONE) > FIRST_EPOCH, "nothing is seen through a first version"
        first = page.successor(branch.id, FIRST_EPOCH)
        held = branch.pages.get(page.index)
        if held is not None and held.epoch == EPOCH_NONE:  # the head sees it
            branch.pages[page.index] = first
            self._clock.append((branch.pages, first))
        return self._mark(first)

    def _mark(self, page: Page) -> Page:
        page.state = State.DIRTY
        self.dirty.setdefault((page.branch, page.index), {})[page.epoch] = page
        self.dirty_pages += 1
        return page

    def remove(self, branch: Branch, page: Page) -> None:
        """Forget a version that nothing sees."""
        if page.state is State.DIRTY:
            self.dirty_pages -= 1
        if branch.pages.get(page.index) is page:
            del branch.pages[page.index]
        self.dirty.setdefault((page.branch, page.index), {})[page.epoch] = None

    # Shared blocks

    def mark_shared(self, branch: Branch, index: PageIndex) -> None:
        """Blocks that the head's page owns were shared with others: from now on they are not written in place."""
        page = self.page(branch, index)
        if page.epoch > branch.floor:
            self._hold_against_shares(page)

    def sink_floor(self, branch: Branch) -> None:
        """A point or a child branch is gone: what only the head sees now may be written in place."""
        before, branch.floor = branch.floor, branch.newest_point()
        if branch.floor < before:
            self.sinks += 1
            branch.unseal_from(Epoch(branch.floor + 1))  # what is written to them from now on is new
        if not (self._shares or self._sums):
            return

        def is_new(page: Page) -> bool:
            return branch.floor < page.epoch <= before

        # Until now nobody minded what others own of them. Dropped pages are read, and held against it, when wanted.
        for index in [index for index, page in branch.pages.items() if is_new(page)]:
            del branch.pages[index]
        for layer in (self.frozen, self.dirty):
            for (owner, _), held in layer.items():
                if owner == branch.id:
                    for page in filter(None, held.values()):
                        if is_new(page):
                            self._keep_from_writing(page)

    def _keep_from_writing(self, page: Page) -> None:
        """What others own as well, or is sealed, is not written in place."""
        self._hold_against_shares(page)
        if not self._sums:
            return
        owned = np.frombuffer(page.owned, np.uint8)
        mine = np.flatnonzero(owned == OWNED)
        owned[mine[self._sums.of(page.places()[mine]) != 0]] = SEALED

    def _hold_against_shares(self, page: Page) -> None:
        if not self._shares:
            return
        owned = np.frombuffer(page.owned, np.uint8)
        mine = np.flatnonzero(owned == OWNED)
        if len(mine):
            try:
                shared = self._shares.shared(page.places()[mine])
            except CorruptionError:  # the pool is read-only with that, and the page can be read all the same
                return
            owned[mine[shared]] = SHARED

    # Committing

    def freeze(self) -> Layer:
        """Everything changed since the last freeze. It stays in sight as `frozen` until `committed`."""
        assert not self.frozen, "one commit at a time"
        self.frozen, self.dirty = self.dirty, {}
        self.dirty_pages = 0
        for held in self.frozen.values():
            for page in held.values():
                if page is not None:
                    page.state = State.FROZEN
        return self.frozen

    def committed(self) -> None:
        """What `freeze` gave is in the block map now. The shares know it already."""
        self.commits += 1
        for held in self.frozen.values():
            for page in held.values():
                if page is None:
                    continue
                if INHERITED in page.owned:
                    page.owned[:] = page.owned.replace(bytes([INHERITED]), bytes([OWNED]))
                    self._keep_from_writing(page)
                if page.state is State.FROZEN:
                    page.state = State.CLEAN
        self.frozen = {}

    # Walking

    def changed(self, branch: Branch, after: Epoch, until: Epoch) -> Iterator[PageIndex]:
        """The pages of which the branch has versions with epochs in (after, until]; a page may come more than once.

        State may change between two items: versions that were removed or added meanwhile may come or not.
        """
        recent = [
            index
            for layer in (self.frozen, self.dirty)
            for (owner, index), held in layer.items()
            if owner == branch.id and any(after < epoch <= until for epoch in held)
        ]
        yield from recent
        epoch, group = Epoch(after + 1), 0
        while epoch <= until:
            entry = self._map.next_change(branch.id, epoch, group)
            if entry is None or entry[0] > until:
                return
            epoch, group, pages = entry
            yield from pages
            group += 1
            if group > 0xFFFF:
                epoch, group = Epoch(epoch + 1), 0

    def is_empty(self, branch: Branch) -> bool | None:
        """Whether the branch has no versions at all; None: that is known after the next commit.

        Versions that were removed since the last one are in the map still: to look at each of them would take long.
        """
        if any(owner == branch.id for layer in (self.frozen, self.dirty) for owner, _ in layer):
            return None
        return self._map.next_page(branch.id, PageIndex(0)) is None

    def mapped_pages(self, point: Point | Branch, start: PageIndex, end: PageIndex) -> Iterator[PageIndex]:
        """The pages in [start, end) that may read as anything but zeros at a point, ascending."""
        lineage = list(_lineage(point.branch))
        ids = {branch.id for branch in lineage}
        recent = sorted(
            {index for layer in (self.frozen, self.dirty) for owner, index in layer if owner in ids and index >= start}
        )
        recent.reverse()
        index = start
        while True:
            while recent and recent[-1] < index:
                recent.pop()
            found = [self._map.next_page(branch.id, index) for branch in lineage]
            if recent:
                found.append(recent[-1])
            nearest = min((page for page in found if page is not None), default=end)
            if nearest >= end:
                return
            yield nearest
            index = PageIndex(nearest + 1)

    # The cache

    def forget(self, point: Point | Branch) -> None:
        """Drop the cached pages of a point that nobody reads any more."""
        point.pages = {}

    def _evict(self) -> None:
        # CLOCK: a page that was used since its last turn gets another one; dirty and frozen ones cannot go. A few turns
        # for each page that comes bound the work when most are dirty.
        for _ in range(EVICTION_TURNS):
            if len(self._clock) <= self.cached_pages_max:
                return
            home, page = self._clock.popleft()
            if home.get(page.index) is not page:
                continue
            if page.used or page.state is not State.CLEAN:
                page.used = False
                self._clock.append((home, page))
            else:
                del home[page.index]


def _lineage(branch: Branch | None) -> Iterator[Branch]:
    while branch is not None:
        yield branch
        branch = branch.origin
