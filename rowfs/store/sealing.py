"""Sealing: blocks that do not change any more get a sum, and from then on are held against it whenever they are read.

What is up to a branch's floor is read by snapshots or other branches, so nobody writes to it in place:

    1  next     owner   blocks without a sum that a version up to the floor owns are chosen
    2           worker  they are read and summed up (a read ticket keeps them from being used again meanwhile)
    3  record   owner   those that the version still owns get their sums, unless a floor sank meanwhile

The next commit stores the sums; before it does, it has the data file synced, as always. Nothing waits for that: what a
crash takes back is sealed again. `Branch.sealed` says up to which epoch all was looked at. It sinks with the floor, and
where the reclaimer hands blocks that were not looked at yet to a version that was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rowfs.base.units import Epoch, PageIndex
from rowfs.seal.reading import sums_read
from rowfs.store.catalog import Catalog
from rowfs.store.diskio import DiskIO
from rowfs.store.model import Branch
from rowfs.store.versions import Versions

PIECE_BLOCKS_MAX = 256  # 1 MiB


@dataclass(slots=True)
class Piece:
    """Some blocks of one version that have no sums."""

    branch: Branch
    page: PageIndex
    epoch: Epoch
    addresses: np.ndarray  # ascending
    sinks: int  # Versions.sinks when they were chosen


class Sealer:
    """What is to be sealed in one pool."""

    def __init__(self, versions: Versions, catalog: Catalog, io: DiskIO) -> None:
        self._versions = versions
        self._catalog = catalog
        self._io = io
        self._work: Iterator[Piece | None] | None = None
        for branch in versions.branches.values():
            branch.sealed = min(branch.sealed, branch.floor)

    @property
    def pending(self) -> bool:
        """Whether there may be anything to seal."""
        return self._work is not None or any(
            branch.sealed < branch.floor for branch in self._versions.branches.values()
        )

    def next(self) -> Piece | None:
        """What to seal next; None: nothing was found in this step, which `pending` says whether to go on from."""
        if self._work is None:
            self._work = self._pieces()
        piece = next(self._work, self)
        if isinstance(piece, Sealer):
            self._work = None
            return None
        return piece

    def sum_up(self, piece: Piece) -> np.ndarray:
        """The sums of a piece (any thread). Raises StorageError."""
        return sums_read(self._io.data, piece.addresses)

    def record(self, piece: Piece, sums: np.ndarray) -> int:
        """The blocks of a piece sum up to this: how many are sealed with it."""
        if piece.sinks != self._versions.sinks:  # then it may have been written to since
            piece.branch.unseal_from(piece.epoch)
            return 0
        if self._versions.branches.get(piece.branch.id) is not piece.branch:
            return 0
        page = self._versions.at(piece.branch, piece.page, piece.epoch)
        if page is None:
            return 0
        kept = np.isin(piece.addresses, page.places()[page.owns()])
        kept &= (self._io.sums.of(piece.addresses) == 0) & (sums != 0)
        self._io.sums.add(piece.addresses[kept], sums[kept])
        return int(np.count_nonzero(kept))

    def put_back(self, piece: Piece) -> None:
        """A piece was not summed up: it is tried again, after all others."""
        piece.branch.unseal_from(piece.epoch)

    def run(self) -> int:
        """All of it in this thread: how many blocks were sealed."""
        sealed = 0
        while self.pending:
            piece = self.next()
            if piece is not None:
                sealed += self.record(piece, self.sum_up(piece))
        return sealed

    def _pieces(self) -> Iterator[Piece | None]:
        for branch in list(self._versions.branches.values()):
            if branch.sealed < branch.floor:
                yield from self._pieces_of(branch)

    def _pieces_of(self, branch: Branch) -> Iterator[Piece | None]:
        after, branch.sealing = branch.sealed, branch.floor
        for index in self._versions.changed(branch, after, branch.floor):
            for epoch in self._versions.epochs(branch, index, after):
                if epoch > branch.floor or self._versions.branches.get(branch.id) is not branch:
                    break
                yield from self._pieces_in(branch, index, epoch)
            yield None
        if branch.sealing > branch.sealed and self._versions.branches.get(branch.id) is branch:
            branch.sealed = branch.sealing
            self._catalog.touch_later(branch)

    def _pieces_in(self, branch: Branch, index: PageIndex, epoch: Epoch) -> Iterator[Piece]:
        page = self._versions.at(branch, index, epoch)
        if page is None:
            return
        owned = np.unique(page.places()[page.owns()])  # a block may be shared within a page
        owned = owned[self._io.sums.of(owned) == 0]
        for start in range(0, len(owned), PIECE_BLOCKS_MAX):
            if epoch <= branch.floor:
                yield Piece(branch, index, epoch, owned[start : start + PIECE_BLOCKS_MAX], self._versions.sinks)
