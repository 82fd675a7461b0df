"""The checker's rule of seals: sums are of blocks in use, the pool counts them, and its format tells of them.

seals    records of sums are readable, and each sum is of a block that is in use
data     every sealed block reads as what was sealed (`check_data`, when it is asked for)
"""

from __future__ import annotations

import numpy as np

from rowfs.base import bitmap, sumcode
from rowfs.base.errors import CorruptionError
from rowfs.base.format import BRANCHES, FORMAT_SEALED, ID_KEY, META, POOL_KEY, STRETCH_KEY, SUMS, PoolRecord
from rowfs.base.sumcode import STRETCH_BLOCKS
from rowfs.base.units import Epoch
from rowfs.persist.datafile import DataFile
from rowfs.persist.mapread import Reader
from rowfs.seal.reading import sums_on_disk
from rowfs.store.findings import Finding, Findings
from rowfs.store.namecheck import NameCheck
from rowfs.store.sightings import described, sightings
from rowfs.store.versioncheck import Progress, VersionCheck

TOLD_MAX = 1000  # damaged blocks of which it is told who has them


class SealCheck:
    """The sums of a pool held against its page versions."""

    def __init__(self, reader: Reader, findings: Findings, names: NameCheck, versions: VersionCheck) -> None:
        self._reader = reader
        self._findings = findings
        self._names = names
        self._owners = versions.owners
        self._readable = versions.readable

    def run(self) -> None:
        """Look at every record."""
        sealed = kept = records = 0
        for key, value in self._reader.items(SUMS):
            if not self._findings.is_key("seals", SUMS, STRETCH_KEY, key):
                self._findings.mend(SUMS, key, None)
                continue
            records += 1
            try:
                sums = sumcode.decode(key, value)
                sealed += int(np.count_nonzero(sums))
                kept += self._check_stretch(key, sums)
            except CorruptionError as error:
                self._findings.add("seals", f"stretch {STRETCH_KEY.unpack(key)[0]}: {error}")
                self._findings.mend(SUMS, key, None)  # its blocks can be read all the same, and are sealed anew
                self._seal_anew()
        self._check_pool(records, sealed, kept)

    def _seal_anew(self) -> None:
        for branch in self._names.branches.values():
            branch.sealed = Epoch(0)
            self._findings.mend(BRANCHES, ID_KEY.pack(branch.id), branch.pack())

    def _check_stretch(self, key: bytes, sums: np.ndarray) -> int:
        """How many of its blocks are sealed and in use."""
        first = STRETCH_KEY.unpack(key)[0] * STRETCH_BLOCKS
        blocks = np.flatnonzero(sums)
        unowned = blocks[~self._owned(first, blocks)]
        if len(unowned):
            self._findings.add(
                "seals", f"{len(unowned)} blocks from address {first + unowned[0]} on are sealed, not in use"
            )
            if self._readable:  # else a version that cannot be read may own them
                sums[unowned] = 0
                self._findings.mend(SUMS, key, sumcode.encode(key, sums))
                return len(blocks) - len(unowned)
        return len(blocks)

    def _owned(self, first: int, blocks: np.ndarray) -> np.ndarray:
        chunks, places = np.divmod(first + blocks, bitmap.CHUNK_BLOCKS)
        owned = np.zeros(len(blocks), bool)
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            owned[here] = bitmap.unpack(self._owners.bits(chunk))[places[here]]
        return owned

    def _check_pool(self, records: int, sealed: int, kept: int) -> None:
        stored = self._reader.get(META, POOL_KEY)
        assert stored is not None, "what has no pool record is no pool"
        pool = PoolRecord.unpack(stored)
        if records and pool.format < FORMAT_SEALED:
            self._findings.add("seals", f"the pool says that it has format {pool.format}, in which there are no sums")
        elif pool.sealed_blocks != sealed:
            self._findings.add(
                "seals", f"the pool says that {pool.sealed_blocks} blocks are sealed, its records {sealed}"
            )
        elif kept == sealed:
            return
        pool.sealed_blocks, pool.format = kept, max(pool.format, FORMAT_SEALED if records else 0)
        self._findings.mend(META, POOL_KEY, pool.pack())


def check_data(reader: Reader, data: DataFile, progress: Progress) -> list[Finding]:
    """Which sealed blocks do not read as what was sealed, and who has them. `progress` gets blocks done and in all."""
    stored = reader.get(META, POOL_KEY)
    assert stored is not None, "what has no pool record is no pool"
    total, done = PoolRecord.unpack(stored).sealed_blocks, 0
    wrong: list[int] = []
    for key, value in reader.items(SUMS):
        progress(min(done, total), total)
        try:
            sums = sumcode.decode(key, value)
        except CorruptionError:  # found on its own already
            continue
        blocks = np.flatnonzero(sums)
        addresses = STRETCH_KEY.unpack(key)[0] * STRETCH_BLOCKS + blocks
        wrong += addresses[sums_on_disk(data, addresses) != sums[blocks]].tolist()
        done += len(blocks)
    seen = sightings(reader, wrong[:TOLD_MAX])
    findings = [
        Finding("data", f"the block at address {number} is not what was sealed: {described(seen.get(number, []))}")
        for number in wrong[:TOLD_MAX]
    ]
    if len(wrong) > TOLD_MAX:
        findings.append(Finding("data", f"{len(wrong) - TOLD_MAX} more"))
    return findings
