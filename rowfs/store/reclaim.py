"""The reclaimer: frees what only deleted points held, in slices, resumable after a crash.

A point is dropped when its removal is durable and nobody reads it any more. Then the page versions between the snapshot
before it and itself are looked at. A version is dead when no snapshot and no head sees it, be it through child
branches. Each block that a dead version V owns is then held by some of the versions that follow V directly: the next
one in its branch, and the first ones of the child branches that begin in between. Held by none, the block is free. Held
by one, that one owns it from now on. Held by several, V stays as its owner (a keeper, that no point sees) until all but
one let go. So every allocated block has one owner, the oldest version holding it, if it was not shared.

A version that is seen through one child branch alone is handed down to it, and is dead then: nobody else sees what the
child writes, so it need not redirect it (`_join`).

A block that was shared (DiskIO.share) has further owners elsewhere, which may be followers, too: what a follower owns
itself it does not hold from V. An owner that is done with such a block takes itself off the count, and the last one
frees it (persist.shares).

Everything is derived from what is there, so a removal that a crash cut short is simply begun again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from rowfs.base.format import EPOCH_MAX
from rowfs.base.units import HOLE, BranchId, Epoch, PageIndex
from rowfs.persist.space import Space
from rowfs.store.catalog import Catalog
from rowfs.store.diskio import DiskIO
from rowfs.store.lineage import Held, Lineage, path
from rowfs.store.model import EPOCH_NONE, FIRST_EPOCH, INHERITED, Branch, Page, Removal
from rowfs.store.versions import Versions

SLICE_S = 0.001
FREED_BLOCKS_MAX = 1 << 18  # 1 GiB freed and not yet recycled: wait for a commit, so that they can be used again
CHANGED_PAGES_MAX = 1 << 14  # not yet committed: wait likewise, or the changes would fill the memory


class Reclaimer:
    """What is to be freed in one pool."""

    def __init__(self, versions: Versions, space: Space, catalog: Catalog, io: DiskIO) -> None:
        self._versions = versions
        self._space = space
        self._catalog = catalog
        self._io = io
        self._lineage = Lineage(versions)
        self._work: Iterator[None] | None = None
        self._emptied: set[BranchId] = set()  # branches without names that lost a version, and may have no other
        self._emptied_at = 0  # the commit after which that was last looked at
        self._removal: Removal | None = None  # that is being worked on
        self.freed_blocks = 0  # since the pool was opened
        self.joined_pages = 0  # handed down to the only branch that saw them

    @property
    def pending(self) -> bool:
        """Whether there is anything left to free, now or after the next commit."""
        return bool(self._work or self._catalog.removals or self._io.revisits or self._emptied)

    @property
    def removals(self) -> int:
        """How many removals are on their way."""
        return len(self._catalog.removals)

    @property
    def owed_blocks(self) -> int:
        """How many blocks at most will be free once all is done, or are with the next commit."""
        return self._catalog.owed_blocks + self._space.freed_blocks

    @property
    def needs_commit(self) -> bool:
        """Whether so much is changed or freed that it waits for a commit."""
        return self._changed_much or (self._freed_much and self._space.freed_now)

    @property
    def _changed_much(self) -> bool:
        crowded = self._space.shares.crowded or self._io.sums.crowded
        return crowded or len(self._versions.dirty) > CHANGED_PAGES_MAX

    @property
    def _freed_much(self) -> bool:
        """Also while a commit holds it already, and it waits to be recycled alone."""
        return self._space.freed_blocks > FREED_BLOCKS_MAX

    @property
    def ready(self) -> bool:
        """Whether `step` has something to do now."""
        if self._changed_much or self._freed_much:
            return False
        return bool(self._work or self._io.revisits or self._next_removal())

    def step(self, budget_s: float = SLICE_S) -> bool:
        """Work for about `budget_s`; False when there is nothing to do now."""
        end = time.monotonic() + budget_s
        if self._work is None and self._emptied_at != self._versions.commits:
            self._drop_emptied()
        while self.ready:
            if self._work is None:
                self._work = self._next_work()
            if next(self._work, self) is self:
                self._work = None
                self._drop_emptied()
            if time.monotonic() >= end:
                return True
        return False

    def _next_removal(self) -> Removal | None:
        return next((removal for removal in self._catalog.removals.values() if removal.ready), None)

    def _next_work(self) -> Iterator[None]:
        removal = self._next_removal()
        return self._remove(removal) if removal is not None else self._revisit()

    # A removal

    def _remove(self, removal: Removal) -> Iterator[None]:
        branch = self._catalog.branches.get(removal.branch)
        if branch is None:
            self._catalog.drop_removal(removal)
            return
        epoch = removal.epoch
        self._removal = removal
        self._unname(branch, removal)
        after = branch.point_before(epoch)
        for index in self._versions.changed(branch, after, epoch):
            self._examine(branch, index, after, epoch)
            yield
        if branch.watched and after == EPOCH_NONE:  # the point saw through to the branch below, where nothing else may
            for index in self._covered_since(branch, epoch):
                self._look_below(branch, index, FIRST_EPOCH)
                yield
        self._removal = None
        self._catalog.drop_removal(removal)
        self._drop_if_empty(branch)

    def _covered_since(self, branch: Branch, epoch: Epoch) -> Iterator[PageIndex]:
        """The pages that the first point, at `epoch`, may have seen below the branch, and the points left do not."""
        first = branch.points[0] if branch.points else EPOCH_MAX
        yield from self._versions.changed(branch, epoch, first)
        children = [child for _, child in branch.forks_between(EPOCH_NONE, first)]
        while children:
            child = self._catalog.branches.get(children.pop())
            if child is not None:
                yield from self._versions.changed(child, EPOCH_NONE, EPOCH_MAX)
                children += [grandchild for _, grandchild in child.forks]

    def _unname(self, branch: Branch, removal: Removal) -> None:
        if not removal.named:
            return
        removal.named = False
        if removal.epoch == EPOCH_MAX:
            branch.has_head = False
            self._space.drop(branch.claim)
            self._versions.forget(branch)
            return
        branch.remove_point(removal.epoch)
        self._versions.sink_floor(branch)
        self._catalog.rewatch(branch)
        for _, child in branch.forks_between(removal.epoch, Epoch(removal.epoch + 1)):
            self._catalog.rewatch(self._catalog.branches[child])

    def _examine(self, branch: Branch, index: PageIndex, after: Epoch, until: Epoch) -> None:
        """Dispose of the dead versions with epochs in (after, until], and behind them up to one that is seen."""
        let_go = EPOCH_NONE
        for epoch, end in pairwise(_with_end(self._versions.epochs(branch, index, after))):
            followers = self._lineage.followers(branch, index, epoch, end)
            if followers is None:
                followers = self._join(branch, index, epoch, end)
            if followers is not None:
                heirs = [(owner, self._version(owner, index, at)) for owner, at in followers]
                if self._dispose(branch, self._version(branch, index, epoch), heirs):
                    let_go = let_go or epoch
            elif epoch > until:
                break
        if let_go:
            self._look_below(branch, index, let_go)

    def _join(self, branch: Branch, index: PageIndex, epoch: Epoch, end: Epoch) -> list[Held] | None:
        """Let the one branch that sees a version of another one have it; what is behind it then, which is dead.

        So what a rollback or a clone began with is written in place as soon as nobody else has it. None: it stays,
        since others see it, or hold blocks of it: they would go on sharing them, and there were one version more.
        """
        found = self._lineage.only_seer(branch, index, epoch, end)
        if found is None:
            return None
        seer, others = found
        page = self._version(branch, index, epoch)
        owned, addresses = page.owns(), page.places()
        if any((owned & _holds(self._version(owner, index, at), addresses)).any() for owner, at in others):
            return None
        self._versions.hand_down(seer, page)
        self.joined_pages += 1
        return [(seer, FIRST_EPOCH), *others]

    def _look_below(self, branch: Branch, index: PageIndex, epoch: Epoch) -> None:
        """A version of this epoch lets go of blocks that older ones own: if the one before it is dead, it goes."""
        for owner, until in path(branch, Epoch(epoch - 1)):
            before = self._versions.epoch_at(owner, index, until)
            if before:
                self._examine(owner, index, Epoch(before - 1), before)
                return

    def _version(self, branch: Branch, index: PageIndex, epoch: Epoch) -> Page:
        page = self._versions.at(branch, index, epoch)
        assert page is not None, "a version that is listed is there"
        return page

    def _dispose(self, branch: Branch, dead: Page, followers: list[tuple[Branch, Page]]) -> bool:
        """Hand on what a dead version owns. True: it no longer holds blocks that older versions own."""
        addresses, owned = dead.places(), dead.owns()
        holds = [_holds(page, addresses) for _, page in followers]
        holders = np.sum(holds, axis=0) if holds else np.zeros(len(owned), np.int64)
        free, passes = owned & (holders == 0), owned & (holders == 1)
        for (heir_branch, page), held in zip(followers, holds, strict=True):
            if self._inherit(heir_branch, page, passes & held):
                if dead.epoch > branch.sealed and heir_branch.unseal_from(page.epoch):
                    self._catalog.touch_later(heir_branch)
                if heir_branch is not branch:
                    self._look_at_heir(heir_branch, page)
        self.freed_blocks += self._space.free(addresses[free])
        self._catalog.count_written(branch, dead.epoch, -int(np.count_nonzero(free | passes)), carried=True)
        self._count(int(np.count_nonzero(free)))
        borrowed = (addresses != HOLE) & ~owned
        if (owned & ~free & ~passes).any():
            let_go = borrowed & (holders == 0)
            self._shrink(branch, dead, free | passes | let_go)
            return bool(let_go.any())
        self._versions.remove(branch, dead)
        if not (branch.has_head or branch.points):
            self._emptied.add(branch.id)
        return bool(borrowed.any())

    def _count(self, blocks: int) -> None:
        if self._removal is not None:
            self._catalog.paid(self._removal, blocks)

    def _look_at_heir(self, branch: Branch, page: Page) -> None:
        # A keeper that inherits may be the last to hold what it now owns; in the dead version's branch it comes next.
        end = self._versions.next_epoch(branch, page.index, page.epoch)
        if not branch.seen_between(page.epoch, end):
            self._io.revisits.add((branch.id, page.index, Epoch(page.epoch + 1)))

    def _inherit(self, branch: Branch, page: Page, slots: np.ndarray) -> bool:
        count = int(np.count_nonzero(slots))
        if not count:
            return False
        page = self._versions.change(branch, page)
        np.frombuffer(page.owned, np.uint8)[slots] = INHERITED
        self._catalog.count_written(branch, page.epoch, count)
        return True

    def _shrink(self, branch: Branch, keeper: Page, slots: np.ndarray) -> None:
        if not slots.any():
            return
        # A copy of the addresses: pages that child branches inherited may share the array.
        keeper = self._versions.change(branch, keeper)
        keeper.addresses = keeper.addresses[:]
        keeper.places()[slots] = HOLE
        np.frombuffer(keeper.owned, np.uint8)[slots] = 0

    # Branches whose children let go

    def _revisit(self) -> Iterator[None]:
        """Look again at the versions below those that watched branches let go of blocks in."""
        for key in list(self._io.revisits):
            self._io.revisits.discard(key)
            branch = self._catalog.branches.get(key[0])
            if branch is not None:
                self._look_below(branch, key[1], key[2])
            yield

    def _drop_emptied(self) -> None:
        emptied, self._emptied, self._emptied_at = self._emptied, set(), self._versions.commits
        for number in emptied:
            branch = self._catalog.branches.get(number)
            if branch is not None:
                self._drop_if_empty(branch)

    def _drop_if_empty(self, branch: Branch) -> None:
        """Take a branch without head, snapshots and versions out of the tree; its children begin where it began."""
        if branch.has_head or branch.points or branch.id not in self._catalog.branches:
            return
        if any(removal.branch == branch.id for removal in self._catalog.removals.values()):
            return
        is_empty = self._versions.is_empty(branch)
        if is_empty is None:
            self._emptied.add(branch.id)
        if not is_empty:
            return
        for fork, number in list(branch.forks):
            self._adopt(branch, fork, self._catalog.branches[number])
        self._catalog.drop_branch(branch)
        origin = branch.origin
        if origin is None:
            return
        origin.remove_fork(branch.fork, branch.id)
        self._versions.sink_floor(origin)
        if not origin.has_point(branch.fork):  # else the snapshot there sees all that the branch saw
            removal = Removal(id=self._catalog.new_id(), branch=origin.id, epoch=branch.fork, named=False, durable=True)
            self._catalog.add_removal(removal)

    def _adopt(self, branch: Branch, fork: Epoch, child: Branch) -> None:
        branch.remove_fork(fork, child.id)  # the floor may stay: nobody writes on the branch any more
        child.origin, child.parent, child.fork = branch.origin, branch.parent, branch.fork
        if branch.origin is not None:
            branch.origin.add_fork(branch.fork, child.id)
            self._catalog.rewatch(branch.origin)
        self._catalog.rewatch(child)
        self._catalog.touch(child)

    def drop_unnamed(self) -> None:
        """Look at all branches, as after a crash: those that nothing names and that hold nothing go."""
        for branch in list(self._catalog.branches.values()):
            self._drop_if_empty(branch)


def _holds(page: Page, addresses: np.ndarray) -> np.ndarray:
    """Where a follower has these addresses from the version that it follows."""
    held: np.ndarray = (page.places() == addresses) & ~page.owns()
    return held


def _with_end(epochs: Iterator[Epoch]) -> Iterator[Epoch]:
    yield from epochs
    yield EPOCH_MAX
