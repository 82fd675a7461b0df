"""The checker's rule of page versions, and what all of them come to.

Every page version is readable, owns only what it holds, and holds what it does not own because the version before it
holds the same (so that by induction one before owns it). What store.derivedcheck needs is counted on the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from rowfs.base.errors import CorruptionError
from rowfs.base.format import CHANGE_KEY, GROUP_PAGES, PAGE_KEY, PAGES
from rowfs.base.pagecode import Coded, decode_many
from rowfs.base.units import DISK_BYTES_MAX, HOLE, PAGE_BYTES, BranchId, PageIndex
from rowfs.persist.mapread import Reader, Value
from rowfs.store.findings import Findings
from rowfs.store.namecheck import NameCheck
from rowfs.store.owners import Owners

Progress = Callable[[int, int], None]
PAGES_MAX = DISK_BYTES_MAX // PAGE_BYTES
BATCH_VERSIONS = 256  # decoded and compared at a time: 3 MiB of arrays


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
        self._before: tuple[int, int, np.ndarray] | None = None  # branch, page and addresses of the last one

    def run(self, progress: Progress) -> None:
        """Look at every version. `progress` gets versions done and in all."""
        total = self._reader.entries(PAGES)
        items = self._reader.items(PAGES)
        done = 0
        while batch := list(islice(items, BATCH_VERSIONS)):
            progress(done, total)
            done += len(batch)
            good = [item for item in batch if self._findings.is_key("versions", PAGES, PAGE_KEY, item[0])]
            if len(good) < len(batch):
                self.readable = False
                self._before = None
            if good:
                self._check_batch(*zip(*good, strict=True))
        self.owners.settle()
        progress(total, total)

    def _check_batch(self, keys: tuple[bytes, ...], values: tuple[Value, ...]) -> None:
        addresses, owned, wrong = decode_many(keys, values)
        inherited = np.zeros_like(addresses)
        for row, key in enumerate(keys):
            self._check_key(key)
            if row in wrong:
                self._found(f"{self._names.where(key)}: {wrong[row]}")
                self.readable = False
                self._before = None
                continue
            branch, page, _ = PAGE_KEY.unpack(key)
            if self._before is not None and self._before[:2] == (branch, page):
                inherited[row] = self._before[2]
            else:
                inherited[row] = self._inherited(branch, page)
            self._before = (branch, page, addresses[row])
        self._check_versions(keys, addresses, owned, inherited)

    def _check_key(self, key: bytes) -> None:
        branch, page, epoch = PAGE_KEY.unpack(key)
        if page < PAGES_MAX:
            self.listed[CHANGE_KEY.pack(branch, epoch, page // GROUP_PAGES)] |= 1 << page % GROUP_PAGES
        else:
            self._found(f"{self._names.where(key)} is past the end of the largest disk")
        if branch not in self._names.branches or epoch > self._names.branches[branch].epoch:
            self._found(f"{self._names.where(key)} is of a branch or an epoch that has no record")

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

    def _check_versions(
        self, keys: Sequence[bytes], addresses: np.ndarray, owned: np.ndarray, inherited: np.ndarray
    ) -> None:
        mapped = addresses != HOLE
        for row in np.flatnonzero((owned & ~mapped).any(axis=1)).tolist():
            self._found(f"{self._names.where(keys[row])} owns holes")
        strange = mapped & ~owned & (addresses != inherited)
        for row in np.flatnonzero(strange.any(axis=1)).tolist():
            slot = int(np.flatnonzero(strange[row])[0])
            self._found(
                f"{self._names.where(keys[row])} holds address {addresses[row, slot]} (slot {slot}) that nothing "
                "before it held"
            )
        self.owners.claim(addresses[owned & mapped])
        steps = np.count_nonzero(mapped, axis=1) - np.count_nonzero(inherited, axis=1)
        counts = np.count_nonzero(owned, axis=1)
        for key, step, count in zip(keys, steps.tolist(), counts.tolist(), strict=True):
            branch, _, epoch = PAGE_KEY.unpack(key)
            self.mapped_steps[branch][epoch] += step
            self.owned_counts[branch][epoch] += count

    def _found(self, text: str) -> None:
        self._findings.add("versions", text)
