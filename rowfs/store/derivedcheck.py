"""The checker's rules of what follows from the page versions, and what mends it: the same once more, from these.

    owners     each block has one owner, and as many more as its count of shares says
    space      the allocated blocks are those that have an owner, and the label; that the data file reaches them is
               for store.check
    changes    the change index lists every page version, and no other
    figures    what disks and snapshots say they map and wrote is what their pages say

A version that cannot be read may own any block: then shares, bitmaps and figures are left as they are.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from rowfs.base import bitmap, sharecode
from rowfs.base.errors import CorruptionError
from rowfs.base.format import (
    BRANCHES,
    CHANGE_KEY,
    CHANGES,
    CHUNK_KEY,
    DISKS,
    GROUP_BYTES,
    ID_KEY,
    REGION_KEY,
    SHARES,
    SNAPSHOTS,
    SPACE,
    BranchRecord,
    DiskRecord,
    SnapshotRecord,
)
from rowfs.persist.mapread import Reader
from rowfs.store.findings import Findings
from rowfs.store.namecheck import NameCheck
from rowfs.store.versioncheck import VersionCheck


class DerivedCheck:
    """The tables that follow from what names and page versions are."""

    def __init__(self, reader: Reader, findings: Findings, names: NameCheck, versions: VersionCheck) -> None:
        self._reader = reader
        self._findings = findings
        self._names = names
        self._versions = versions
        self._owners = versions.owners

    def run(self) -> None:
        """Hold the tables against what they follow from."""
        self._shares()
        self._space()
        self._changes()
        self._figures()

    # owners

    def _shares(self) -> None:
        right = self._owners.further.records()
        stored = {}
        for key, value in self._reader.items(SHARES):
            if self._findings.is_key("owners", SHARES, REGION_KEY, key):
                stored[REGION_KEY.unpack(key)[0]] = bytes(value)
            else:
                self._findings.mend(SHARES, key, None)
        for region in sorted(right.keys() | stored.keys()):
            if right.get(region) != stored.get(region):
                self._findings.add("owners", self._compare_shares(region, stored.get(region)))
                if self._versions.readable:  # else a version that cannot be read may be the other owner
                    self._findings.mend(SHARES, REGION_KEY.pack(region), right.get(region))

    def _compare_shares(self, region: int, stored: bytes | None) -> str:
        right, says = self._owners.further.counts(region), np.zeros(sharecode.REGION_BLOCKS, np.int64)
        if stored is not None:
            try:
                says = sharecode.decode(REGION_KEY.pack(region), stored)
            except CorruptionError as error:
                return f"region {region}: {error}"
        wrong = np.flatnonzero(right != says)
        if not len(wrong):
            return f"region {region}: a record of shares is not coded as it ought to be"
        block = int(wrong[0])
        return (
            f"{len(wrong)} blocks of region {region} have other owners than counted: "
            f"address {(region << sharecode.REGION_BITS) + block} has {right[block] + 1}, not {says[block] + 1}"
        )

    # space

    def _space(self) -> None:
        seen = set()
        for key, value in self._reader.items(SPACE):
            if not self._findings.is_key("space", SPACE, CHUNK_KEY, key):
                self._findings.mend(SPACE, key, None)
                continue
            (chunk,) = CHUNK_KEY.unpack(key)
            seen.add(chunk)
            try:
                bits = bitmap.decode(key, value)
            except CorruptionError as error:
                self._findings.add("space", f"chunk {chunk}: {error}")
                self._mend_chunk(chunk)
                continue
            self._compare_chunk(chunk, bits)
        for chunk in self._owners.chunks() - seen:
            self._compare_chunk(chunk, bytearray(bitmap.CHUNK_BYTES))

    def _compare_chunk(self, chunk: int, bits: bytearray) -> None:
        allocated, owned = bitmap.unpack(bits), bitmap.unpack(self._owners.bits(chunk))
        for blocks, what in (
            (np.flatnonzero(allocated & ~owned), "allocated and have no owner (leaked)"),
            (np.flatnonzero(owned & ~allocated), "in use and marked as free"),
        ):
            if len(blocks):
                first = chunk * bitmap.CHUNK_BLOCKS + int(blocks[0])
                self._findings.add("space", f"{len(blocks)} blocks of chunk {chunk} from address {first} on are {what}")
                self._mend_chunk(chunk)

    def _mend_chunk(self, chunk: int) -> None:
        if self._versions.readable:  # else a block without an owner may belong to a version that cannot be read
            key = CHUNK_KEY.pack(chunk)
            self._findings.mend(SPACE, key, bitmap.encode(key, self._owners.bits(chunk)))

    # changes

    def _changes(self) -> None:
        for key, value in self._reader.items(CHANGES):
            if not self._findings.is_key("changes", CHANGES, CHANGE_KEY, key):
                self._findings.mend(CHANGES, key, None)
                continue
            bits = int.from_bytes(value, "little")
            right = self._versions.listed.pop(key, 0)
            if bits != right:
                self._findings.add(
                    "changes", "branch {} epoch {} group {} lists other pages".format(*CHANGE_KEY.unpack(key))
                )
                self._findings.mend(CHANGES, key, right.to_bytes(GROUP_BYTES, "little") if right else None)
        for key, right in self._versions.listed.items():
            self._findings.add("changes", "branch {} epoch {} group {} is missing".format(*CHANGE_KEY.unpack(key)))
            self._findings.mend(CHANGES, key, right.to_bytes(GROUP_BYTES, "little"))

    # figures

    def _figures(self) -> None:
        if not self._versions.readable:
            return
        for disk in self._names.disks.values():
            if disk.branch is not None and disk.branch in self._names.branches:
                mapped = self._mapped(disk.branch, self._names.branches[disk.branch].epoch)
                self._compare_figure(DISKS, disk, "mapped_blocks", mapped)
        by_branch: dict[int, list[SnapshotRecord]] = defaultdict(list)
        for snapshot in self._names.snapshots.values():
            if snapshot.branch in self._names.branches:
                by_branch[snapshot.branch].append(snapshot)
                mapped = self._mapped(snapshot.branch, snapshot.epoch)
                self._compare_figure(SNAPSHOTS, snapshot, "referenced_blocks", mapped)
        for branch in self._names.branches.values():
            self._check_written(branch, by_branch[branch.id])

    def _compare_figure(
        self, table: str, record: DiskRecord | SnapshotRecord | BranchRecord, field: str, right: int
    ) -> None:
        says = getattr(record, field)
        if says != right:
            name = f"branch {record.id}" if isinstance(record, BranchRecord) else f"{table.rstrip('s')} {record.name}"
            self._findings.add("figures", f"{name} has {field} {says}, its pages say {right}")
            setattr(record, field, right)
            self._findings.mend(table, ID_KEY.pack(record.id), record.pack())

    def _mapped(self, branch: int, epoch: int) -> int:
        """How many blocks a point maps: what its branch began with, and the steps since."""
        total = 0
        record: BranchRecord | None = self._names.branches[branch]
        while record is not None:
            total += sum(step for at, step in self._versions.mapped_steps[record.id].items() if at <= epoch)
            epoch, parent = record.fork, record.parent
            record = None if parent is None else self._names.branches.get(parent)
        return total

    def _check_written(self, branch: BranchRecord, snapshots: list[SnapshotRecord]) -> None:
        after = 0
        owned = self._versions.owned_counts[branch.id]
        for snapshot in sorted(snapshots, key=lambda item: item.epoch):
            written = sum(count for epoch, count in owned.items() if after < epoch <= snapshot.epoch)
            self._compare_figure(SNAPSHOTS, snapshot, "written_blocks", written)
            after = snapshot.epoch
        written = sum(count for epoch, count in owned.items() if epoch > after)
        self._compare_figure(BRANCHES, branch, "written_blocks", written)
