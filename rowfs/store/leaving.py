"""What is left when points go: what still names points then, and which of those that go lie side by side."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import NamedTuple

from rowfs.base.format import EPOCH_MAX
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.store.catalog import Catalog
from rowfs.store.model import EPOCH_NONE, Branch

PAUSE_PAGES = 1024  # that are listed before others may work


class Left:
    """What names points when some of them are gone: `gone` has snapshots, and heads as EPOCH_MAX."""

    def __init__(self, catalog: Catalog, gone: set[tuple[BranchId, Epoch]]) -> None:
        self._branches = catalog.branches
        self._gone: dict[BranchId, list[Epoch]] = {}
        for number, epoch in sorted(gone):
            self._gone.setdefault(number, []).append(epoch)
        self._named: dict[BranchId, list[Epoch]] = {}
        self._ending = {removal.branch for removal in catalog.removals.values() if removal.epoch == EPOCH_MAX}

    def named(self, branch: Branch) -> list[Epoch]:
        """The points that snapshots still name, ascending."""
        if branch.id not in self._gone:
            return branch.named
        if branch.id not in self._named:
            self._named[branch.id] = _without(branch.named, self._gone[branch.id])
        return self._named[branch.id]

    def head(self, branch: Branch) -> bool:
        """Whether a disk still writes on the branch."""
        if not branch.has_head or branch.id in self._ending:
            return False
        return EPOCH_MAX not in self._gone.get(branch.id, ())[-1:]

    def seen(self, branch: Branch, first: Epoch, end: Epoch) -> bool:
        """As Branch.seen_between."""
        if end == EPOCH_MAX and self.head(branch):
            return True
        named = self.named(branch)
        at = bisect_left(named, first)
        return at < len(named) and named[at] < end

    def behind(self, branch: Branch) -> list[Branch]:
        """The branches that begin on this one, and on those, and so on."""
        found, waiting = [], [child for _, child in branch.forks]
        while waiting:
            child = self._branches[waiting.pop()]
            found.append(child)
            waiting += [grandchild for _, grandchild in child.forks]
        return found


def _without(epochs: list[Epoch], gone: list[Epoch]) -> list[Epoch]:
    """Sorted `epochs` but for those in `gone`, which are few as a rule."""
    left = epochs[:]
    for epoch in reversed(gone):
        at = bisect_left(left, epoch)
        if at < len(left) and left[at] == epoch:
            del left[at]
    return left


class Run(NamedTuple):
    """Points of a branch that go together: nothing that is left lies between them."""

    branch: Branch
    after: Epoch  # the newest point before them that a snapshot names; EPOCH_NONE: none
    epochs: list[Epoch]  # ascending
    next: Epoch | None  # the oldest point behind them, EPOCH_MAX for the head; None: none

    @property
    def sees_through(self) -> bool:
        """Whether they may be the last to see through to the branch on which theirs begins."""
        return self.after == EPOCH_NONE and self.branch.origin is not None


def run_of(left: Left, branch: Branch, epochs: list[Epoch]) -> Run | None:
    """The run that ascending epochs make; None: a snapshot that is left names the first of them."""
    named = left.named(branch)
    at = bisect_left(named, epochs[0])
    if at < len(named) and named[at] == epochs[0]:
        return None
    behind = named[at] if at < len(named) else EPOCH_MAX if left.head(branch) else None
    return Run(branch, named[at - 1] if at else EPOCH_NONE, epochs, behind)


def runs_of(gone: Iterable[tuple[Branch, Epoch]], left: Left) -> Iterator[Run]:
    """The runs of the points that go."""
    by_place: dict[tuple[BranchId, int], tuple[Branch, list[Epoch]]] = {}
    for branch, epoch in gone:
        place = branch.id, bisect_left(left.named(branch), epoch)
        by_place.setdefault(place, (branch, []))[1].append(epoch)
    for branch, epochs in by_place.values():
        run = run_of(left, branch, sorted(epochs))
        if run is not None:
            yield run


def gathered(
    pages: Iterable[PageIndex], among: Collection[PageIndex] | None = None
) -> Generator[None, None, set[PageIndex]]:
    """The pages, or those `among` others. Pauses now and then."""
    found: set[PageIndex] = set()
    for step, index in enumerate(pages):
        if among is None or index in among:
            found.add(index)
        if not step % PAUSE_PAGES:
            yield
    return found
