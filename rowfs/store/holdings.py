"""What each disk of a pool holds now, and what each policy's snapshots alone do: counted exactly, from page versions.

    provisioned   the size of the disk
    mapped        what it has that is no hole
    snapshots     what comes back if all its snapshots are deleted, and nothing else
    shared        what it or its snapshots have that others have too: other disks, their snapshots, the trash
    trash         what comes back if all that was deleted of it is taken out of the trash for good

Disks whose branches hang together, through clones, rollbacks and common chains, are a family: what one of them holds
alone may change when another is written. Of a family in which nothing changed nothing is counted again. Where a disk is
alone in its family and nothing is being reclaimed there, all that was written and is not mapped is its snapshots'.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rowfs.base.errors import CorruptionError
from rowfs.base.format import EPOCH_MAX, POLICY
from rowfs.base.units import BLOCK_BYTES, BranchId
from rowfs.rules.usage import Kind
from rowfs.store.accounts import Held
from rowfs.store.figures import Pausing
from rowfs.store.model import Branch, Disk, Snapshot

if TYPE_CHECKING:
    from rowfs.store.pool import Pool


PAUSE = 256  # branches or snapshots that are gone through before others may work


@dataclass(eq=False)
class Family:
    """Branches that hang together, the disks on them, and the snapshots on them that are in the trash."""

    branches: list[Branch] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    trashed: list[Snapshot] = field(default_factory=list)
    state: object = None  # what the figures of its disks rest on
    settled: bool = False  # nothing in it is on its way to be free

    @property
    def number(self) -> int:
        """That tells it from others, as long as its branches are there."""
        return self.branches[0].id if self.branches else 0


class _Leaders:
    """Which branches hang together: each has one of them as its leader."""

    def __init__(self, branches: Iterable[BranchId]) -> None:
        self._above = {number: number for number in branches}

    def of(self, number: BranchId) -> BranchId:
        """The leader of a branch."""
        above = self._above
        while above.setdefault(number, number) != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    def join(self, one: BranchId, other: BranchId) -> None:
        """These two hang together."""
        self._above[self.of(other)] = self.of(one)


class Holdings:
    """The figures of one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._catalog = pool.catalog
        self._figures = pool.figures
        self._states: dict[object, object] = {}  # each of those of the last count
        self._known: dict[tuple[str, int, int], tuple[tuple[object, ...], int]] = {}  # by what, whose, and family
        self._told: set[tuple[str, int, int]] = set()  # of these, those of the count that goes on

    def count(self) -> Generator[None, None, dict[int, Held]]:
        """What there is, by the ids of disks and policies. Pauses now and then; what changes meanwhile may be in it."""
        self._told = set()
        families = yield from self._families()
        of_branch = {branch.id: family for family in families for branch in family.branches}
        found: dict[int, Held] = {}
        trashed = yield from self._trashed(of_branch)
        for family in families:
            for disk in family.disks:
                if not disk.deleted:
                    found[disk.id] = yield from self._disk(disk, family, trashed.pop(disk.id, 0))
                yield
        for number, held_bytes in trashed.items():
            amounts = None if held_bytes is None else (0, 0, 0, 0, held_bytes)
            found[number] = Held(Kind.DISK, amounts, there=False)
        found |= yield from self._policies(of_branch)
        self._known = {key: known for key, known in self._known.items() if key in self._told}
        return found

    # Families

    def _families(self) -> Generator[None, None, list[Family]]:
        leaders = _Leaders(self._catalog.branches)
        branches = list(self._catalog.branches.values())
        for step, branch in enumerate(branches):
            if branch.origin is not None:
                leaders.join(branch.id, branch.origin.id)
            if not step % PAUSE:
                yield
        disks: list[tuple[Disk, BranchId]] = []
        for disk in list(self._catalog.disks.values()):
            on = list(_branches_of(disk))
            for number in on:
                leaders.join(on[0], number)
            disks += [(disk, number) for number in on[:1]]
            yield
        found: dict[BranchId, Family] = {}
        for step, branch in enumerate(branches):
            found.setdefault(leaders.of(branch.id), Family()).branches.append(branch)
            if not step % PAUSE:
                yield
        for disk, number in disks:
            found.setdefault(leaders.of(number), Family()).disks.append(disk)
        for entry in self._pool.trash:
            for snapshot in self._pool.trash.snapshots(entry):
                found.setdefault(leaders.of(snapshot.branch), Family()).trashed.append(snapshot)
        states = {}
        unsettled = yield from self._unsettled()
        ending = {removal.branch for removal in self._catalog.removals.values() if removal.epoch == EPOCH_MAX}
        for family in found.values():
            state = self._state(family, ending)
            family.state = self._states.get(state, state)  # the same object, as long as nothing changes
            states[family.state] = family.state
            family.settled = not any(branch.id in unsettled for branch in family.branches)
            yield
        self._states = states
        return list(found.values())

    def _state(self, family: Family, ending: set[BranchId]) -> object:
        shares = self._pool.space.shares
        branches = tuple(
            (each.id, each.changes, each.has_head and each.id not in ending, tuple(each.named))
            for each in family.branches
        )
        return branches, tuple(item.id for item in family.trashed), shares.changes if shares else None

    def _is_alone(self, family: Family) -> bool:
        """Whether there is one disk, and no block of it can be elsewhere."""
        return len(family.disks) == 1 and not family.trashed and not self._pool.space.shares

    def _unsettled(self) -> Generator[None, None, set[BranchId]]:
        """The branches on which something is on its way to be free."""
        found = {removal.branch for removal in self._catalog.removals.values()}
        for step, (branch, _, _) in enumerate(list(self._pool.io.revisits)):
            found.add(branch)
            if not step % PAUSE:
                yield
        return found

    # Figures

    def _disk(self, disk: Disk, family: Family, trash: int | None) -> Generator[None, None, Held]:
        size, mapped = (disk.size_bytes, disk.mapped_bytes) if disk.head is not None else (0, 0)
        chain = tuple(snapshot.id for snapshot in disk.chain.values())
        figure = self._snapshots(disk, family)
        snapshots = yield from self._known_or(("snapshots", disk.id, 0), (family.state, *chain), figure)
        shared: int | None = 0
        if not self._is_alone(family):
            figure = self._shared(disk)
            shared = yield from self._known_or(("shared", disk.id, 0), (family.state, disk.head, *chain), figure)
        if snapshots is None or shared is None or trash is None:
            return Held(Kind.DISK, None)
        return Held(Kind.DISK, (size, mapped, snapshots, shared, trash))

    def _snapshots(self, disk: Disk, family: Family) -> Pausing:
        if not disk.chain:
            return 0
        if self._is_alone(family) and family.settled:
            return max(0, self._written(family) - disk.mapped_bytes * (disk.head is not None))
        return (yield from self._figures.freed_by(list(disk.chain.values())))

    def _written(self, family: Family) -> int:
        at = self._catalog.snapshot_at
        blocks = sum(branch.written_blocks for branch in family.branches)
        blocks += sum(at[branch.id, epoch].written_blocks for branch in family.branches for epoch in branch.named)
        return blocks * BLOCK_BYTES

    def _shared(self, disk: Disk) -> Pausing:
        held = yield from self._figures.held_by(disk)
        alone = yield from self._figures.freed_by(list(disk.chain.values()), [disk])
        return max(0, held - alone)  # counted with pauses between

    def _trashed(self, of_branch: dict[BranchId, Family]) -> Generator[None, None, dict[int, int | None]]:
        """What is in the trash, by the id of the disk that it was, or was of."""
        entries: dict[int, list[Snapshot]] = {}
        for entry in self._pool.trash:
            entries.setdefault(entry.disk, []).extend(self._pool.trash.snapshots(entry))
        found = {}
        for number, snapshots in entries.items():
            found[number] = yield from self._together("trash", number, snapshots, of_branch)
        return found

    def _policies(self, of_branch: dict[BranchId, Family]) -> Generator[None, None, dict[int, Held]]:
        taken: dict[int, list[Snapshot]] = {number: [] for number in self._pool.policies.all.readable}
        for step, snapshot in enumerate(list(self._catalog.snapshots.values())):
            if snapshot.policy is not None and snapshot.kind == POLICY:
                taken.setdefault(snapshot.policy, []).append(snapshot)
            if not step % PAUSE:
                yield
        found = {}
        for number, snapshots in taken.items():
            policy = self._pool.policies.all.readable.get(number)
            held = yield from self._together("policy", number, snapshots, of_branch)
            amounts = None if held is None else (0, 0, held, 0, 0)
            found[number] = Held(Kind.POLICY, amounts, policy is not None, "" if policy is None else policy.name)
        return found

    def _together(
        self, what: str, number: int, snapshots: list[Snapshot], of_branch: dict[BranchId, Family]
    ) -> Generator[None, None, int | None]:
        """What comes back if all of these are deleted together."""
        by_family: dict[Family, list[Snapshot]] = {}
        for item in snapshots:
            if (family := of_branch.get(item.branch)) is not None:
                by_family.setdefault(family, []).append(item)
        if self._pool.space.shares:  # families may have blocks in common
            rests_on = *(family.state for family in by_family), *(item.id for item in snapshots)
            return (yield from self._known_or((what, number, 0), rests_on, self._figures.freed_by(snapshots)))
        total = 0
        for family, items in by_family.items():
            rests_on = family.state, *(item.id for item in items)
            figure = self._figures.freed_by(items)
            part = yield from self._known_or((what, number, family.number), rests_on, figure)
            if part is None:
                return None
            total += part
        return total

    def _known_or(
        self, key: tuple[str, int, int], rests_on: tuple[object, ...], figure: Pausing
    ) -> Generator[None, None, int | None]:
        """A figure, counted if what it rests on changed; None where the map is damaged, which is logged."""
        self._told.add(key)
        yield
        known = self._known.get(key)
        if known is None or not _same(known[0], rests_on):
            try:
                known = rests_on, (yield from figure)
            except CorruptionError:
                return None
            self._known[key] = known
        return known[1]


def _same(rests_on: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """States are the same object where they are equal, so that no long ones are compared."""
    return len(rests_on) == len(other) and all(
        a is b or (isinstance(a, int) and a == b) for a, b in zip(rests_on, other, strict=True)
    )


def _branches_of(disk: Disk) -> Iterator[BranchId]:
    if disk.head is not None:
        yield disk.head.id
    yield from {snapshot.branch: None for snapshot in disk.chain.values()}
