"""Who sees a page version, and which versions follow it, through branches and the branches that fork from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rowfs.base.format import EPOCH_MAX
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.store.model import EPOCH_NONE, Branch
from rowfs.store.versions import Versions

Held = tuple[Branch, Epoch]  # names a version of a page that is at hand
Seen = Callable[[Branch, Epoch, Epoch], bool]  # whether a snapshot or head of a branch is in [first, end)


@dataclass(frozen=True, slots=True)
class Lineage:
    """The tree of versions, as `seen` says which of its points count."""

    versions: Versions
    seen: Seen = Branch.seen_between

    def followers(self, branch: Branch, index: PageIndex, epoch: Epoch, end: Epoch) -> list[Held] | None:
        """The versions directly behind the one at `epoch`, which the branch's next one at `end` ends; None: it is seen.

        These are the next one of the branch, and the first ones of the branches that begin in between.
        """
        if self.seen(branch, epoch, end):
            return None
        found: list[Held] = []
        children = [child for _, child in branch.forks_between(epoch, end)]
        while children:
            child = self.versions.branches[children.pop()]
            first = self.versions.next_epoch(child, index, EPOCH_NONE)
            if self.seen(child, EPOCH_NONE, first):
                return None
            if first != EPOCH_MAX:
                found.append((child, first))
            children += [grandchild for _, grandchild in child.forks_between(EPOCH_NONE, first)]
        if end != EPOCH_MAX:
            found.append((branch, end))
        return found

    def only_seer(self, branch: Branch, index: PageIndex, epoch: Epoch, end: Epoch) -> tuple[Branch, list[Held]] | None:
        """The one other branch that sees the version at `epoch`, and what else is directly behind it.

        None: its own branch sees it, or several others do, or nothing.
        """
        if self.seen(branch, epoch, end):
            return None
        seer: Branch | None = None
        found: list[Held] = []
        children = [child for _, child in branch.forks_between(epoch, end)]
        while children:
            child = self.versions.branches[children.pop()]
            first = self.versions.next_epoch(child, index, EPOCH_NONE)
            if self.seen(child, EPOCH_NONE, first):
                if seer is not None:
                    return None
                seer = child  # what begins on it sees through it
                continue
            if first != EPOCH_MAX:
                found.append((child, first))
            children += [grandchild for _, grandchild in child.forks_between(EPOCH_NONE, first)]
        if seer is None:
            return None
        if end != EPOCH_MAX:
            found.append((branch, end))
        return seer, found

    def seen_behind(self, index: PageIndex, followers: list[Held]) -> list[Held]:
        """Of the followers of a dead version those that are seen, and of the others their nearest ones that are."""
        found = []
        behind = followers[:]
        while behind:
            owner, epoch = behind.pop()
            further = self.followers(owner, index, epoch, self.versions.next_epoch(owner, index, epoch))
            if further is None:
                found.append((owner, epoch))
            else:
                behind += further
        return found


def path(branch: Branch, epoch: Epoch) -> list[tuple[Branch, Epoch]]:
    """The branches a point's history lies on, youngest first, each with the last epoch that belongs to it."""
    steps = []
    at: Branch | None = branch
    while at is not None:
        steps.append((at, epoch))
        epoch, at = at.fork, at.origin
    return steps


def branch_ids(steps: list[tuple[Branch, Epoch]]) -> dict[BranchId, Epoch]:
    """The epochs of a path by branch."""
    return {branch.id: epoch for branch, epoch in steps}
