"""The checker's rule of page versions, and what all of them come to.

Every page version is readable, owns only what it holds, and holds what it does not own because the version before it
holds the same (so that by induction one before owns it). What store.derivedcheck needs is counted on the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from rowfs.base.errors import CorruptionError
from rowfs.base.format import CHANGE_KEY, GROUP_PAGES, PAGE_KEY, PAGES
from rowfs.base.pagecode import Coded
from rowfs.base.units import DISK_BYTES_MAX, HOLE, PAGE_BYTES, BranchId, PageIndex
from rowfs.persist.blockmap import Reader
from rowfs.store.findings import Findings
from rowfs.store.namecheck import NameCheck
from rowfs.store.owners import Owners

Progress = Callable[[int, int], None]
PAGES_MAX = DISK_BYTES_MAX // PAGE_BYTES


class VersionCheck:
    """What the page versions that can be read come to."""

    def __init__(self, reader: Reader, findings: Findings, names: NameCheck) -> None:
        self._reader = reader
        self._findings = findings
        self._names = names
        self.owners = Owners()
        self.mapped_steps: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))  # by branch and epoch
        self.owned_counts: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self.listed: dict[bytes, int] = defaultdict(int)  # what the change index ought to hold
        self.readable = True  # every version so far: what they own is all that is owned

    def run(self, progress: Progress) -> None:
        """Look at every version. `progress` gets versions done and in all."""
        total = self._reader.entries(PAGES)
        before: tuple[int, int, np.ndarray] | None = None
        for done, (key, value) in enumerate(self._reader.items(PAGES)):
            if not done % 1024:
                progress(done, total)
            if not self._findings.is_key("versions", PAGES, PAGE_KEY, key):
                self.readable = False
                before = None
                continue
            branch, page, epoch = PAGE_KEY.unpack(key)
            if page < PAGES_MAX:
                self.listed[CHANGE_KEY.pack(branch, epoch, page // GROUP_PAGES)] |= 1 << page % GROUP_PAGES
            else:
                self._found(f"{self._names.where(key)} is past the end of the largest disk")
            if branch not in self._names.branches or epoch > self._names.branches[branch].epoch:
                self._found(f"{self._names.where(key)} is of a branch or an epoch that has no record")
            try:
                coded = Coded(key, value)
                addresses, owned = coded.places(), coded.owns()
            except CorruptionError as error:
                self._found(f"{self._names.where(key)}: {error}")
                self.readable = False
                before = None
                continue
            if before is not None and before[:2] == (branch, page):
                inherited = before[2]
            else:
                inherited = self._inherited(branch, page)
            self._check_version(key, addresses, owned, inherited)
            before = (branch, page, addresses)
        progress(total, total)

    def _inherited(self, branch: int, page: int) -> np.ndarray:
        """The addresses that a branch sees of a page before it has a version of its own."""
        record = self._names.branches.get(branch)
        while record is not None and record.parent is not None:
            found = self._reader.version(BranchId(record.parent), PageIndex(page), record.fork)
            if found is not None:
                key = PAGE_KEY.pack(record.parent, page, found[0])
                try:
                    return Coded(key, found[1]).places()
                except CorruptionError:
                    break  # found on its own already
            record = self._names.branches.get(record.parent)
        return np.zeros(GROUP_PAGES, np.int64)

    def _check_version(self, key: bytes, addresses: np.ndarray, owned: np.ndarray, inherited: np.ndarray) -> None:
        branch, _, epoch = PAGE_KEY.unpack(key)
        mapped = addresses != HOLE
        if (owned & ~mapped).any():
            self._found(f"{self._names.where(key)} owns holes")
        strange = mapped & ~owned & (addresses != inherited)
        if strange.any():
            slot = int(np.flatnonzero(strange)[0])
            self._found(
                f"{self._names.where(key)} holds address {addresses[slot]} (slot {slot}) that nothing before it held"
            )
        self.owners.claim(addresses[owned & mapped])
        self.mapped_steps[branch][epoch] += int(mapped.sum()) - int((inherited != HOLE).sum())
        self.owned_counts[branch][epoch] += int(owned.sum())

    def _found(self, text: str) -> None:
        self._findings.add("versions", text)
