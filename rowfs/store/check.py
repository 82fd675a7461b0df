"""The checker: holds a pool's last commit against the invariants. It shares the format with the engine, and no rule.

    names      records are readable, refer to records that exist, and to points that have been
    versions   every page version is readable, owns only what it holds, and holds what it does not own because the
               version before it holds the same (so that by induction one before owns it)
    owners     each block has one owner, and as many more as its count of shares says
    space      the allocated blocks are those that have an owner, and the label; the data file reaches them
    changes    the change index lists every page version, and no other
    figures    what disks and snapshots say they map and wrote is what their pages say
    pages      LMDB's own pages: persist.mapcheck, and its offline verifier when nobody has the pool open

A mounted pool can be checked too: LMDB gives a consistent view of the last commit. What can be mended without guessing
is collected while checking: bitmaps, shares, the change index and figures follow from the page versions, as long as
every one of those can be read. Nothing that a name refers to is ever removed.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import TypeVar

import numpy as np

from rowfs.base import bitmap, sharecode
from rowfs.base.errors import BusyError, CorruptionError, PoolError
from rowfs.base.format import (
    BRANCHES,
    CHANGE_KEY,
    CHANGES,
    CHUNK_KEY,
    DATA_FILE,
    DISKS,
    GROUP_BYTES,
    GROUP_PAGES,
    ID_KEY,
    JOURNAL_FILE,
    LOCK_FILE,
    MAP_DIR,
    META,
    PAGE_KEY,
    PAGES,
    PENDING,
    PENDING_KEY,
    PENDING_REMOVAL,
    POOL_KEY,
    REGION_KEY,
    SHARES,
    SNAPSHOTS,
    SPACE,
    BranchRecord,
    DiskRecord,
    PoolRecord,
    RemovalRecord,
    SnapshotRecord,
    check_format,
)
from rowfs.base.pagecode import Coded
from rowfs.base.units import BLOCK_BYTES, DISK_BYTES_MAX, HOLE, PAGE_BYTES, BranchId, PageIndex
from rowfs.persist.blockmap import BlockMap, MapDamagedError, MapUpdate, Reader, verify
from rowfs.persist.datafile import DataFile
from rowfs.persist.hostfs import Lock
from rowfs.persist.journal import Journal
from rowfs.store.replay import replay

R = TypeVar("R", BranchRecord, DiskRecord, SnapshotRecord)
Progress = Callable[[int, int], None]
PAGES_MAX = DISK_BYTES_MAX // PAGE_BYTES
FINDINGS_MAX = 1000  # of one kind; a pool in pieces need not fill the terminal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which check found it, and a line for people."""

    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


def check_pool(
    path: str, progress: Progress = lambda done, total: None, repair: bool = False
) -> tuple[list[Finding], bool]:
    """Everything that is wrong with the pool in `path`, and whether all of it was mended (with `repair`, else False).

    `progress` gets versions done and in all. A mounted pool is checked as of its last commit, and cannot be repaired.
    Raises PoolError when it cannot be opened as a pool, BusyError to repair one that is in use.
    """
    with contextlib.ExitStack() as stack:
        mounted = _held(stack, path, repair)
        findings = [] if mounted else [Finding("pages", text) for text in verify(os.path.join(path, MAP_DIR))]
        if findings:  # reading on through LMDB could crash
            return findings, False
        try:
            blockmap = BlockMap(os.path.join(path, MAP_DIR), read_only=not repair, shared=mounted)
        except MapDamagedError as error:
            return [Finding("pages", text) for text in error.findings], False
        stack.callback(blockmap.close)
        size_bytes = _check_label(path, blockmap)
        if repair:  # a commit of ours would void what the journal holds
            journal = Journal(os.path.join(path, JOURNAL_FILE))
            stack.callback(journal.close)
            replay(blockmap, journal)
        check = _Check(blockmap, progress)
        findings = check.run()
        findings += check.past(size_bytes)
        if not repair or not findings:
            return findings, False
        blockmap.apply(check.mended)
        blockmap.refresh()
        check = _Check(blockmap, progress)
        return findings, not (check.run() or check.past(size_bytes))


def _held(stack: contextlib.ExitStack, path: str, repair: bool) -> bool:
    """Hold the pool while it is checked. True: somebody has it mounted, and only looking is possible."""
    if not os.path.isdir(os.path.join(path, MAP_DIR)):
        raise PoolError(f"{path} is not a rowfs pool")
    try:
        stack.callback(Lock(os.path.join(path, LOCK_FILE), f"the pool {path}").close)
    except BusyError:
        if repair:
            raise
        return True
    except OSError as error:
        raise PoolError(f"cannot open {path}: {error.strerror}") from None
    return False


def _check_label(path: str, blockmap: BlockMap) -> int:
    """The size of the data file. Raises PoolError when the files are not those of one pool of a known format."""
    stored = blockmap.get(META, POOL_KEY)
    if stored is None:
        raise PoolError(f"the block map of {path} has no pool record")
    record = PoolRecord.unpack(stored)
    check_format(record.format)
    data = DataFile(os.path.join(path, DATA_FILE), read_only=True)
    size_bytes = data.size_bytes()
    data.close()
    if data.uuid.hex() != record.uuid:
        raise PoolError("the data file and the block map are of different pools")
    return size_bytes


def check_map(reader: Reader, progress: Progress = lambda done, total: None) -> list[Finding]:
    """Everything that is wrong with the commit that `reader` sees."""
    return _Check(reader, progress).run()


class _Further:
    """The further owners of blocks: those behind the first. As stored, but for the region that is counted in."""

    def __init__(self) -> None:
        self._stored: dict[int, bytes | None] = {}
        self._region = -1
        self._counts = np.zeros(sharecode.REGION_BLOCKS, np.int64)

    def add(self, addresses: np.ndarray, owners: np.ndarray) -> None:
        """Distinct, ascending blocks have so many further owners more."""
        regions = addresses >> sharecode.REGION_BITS
        for region in np.unique(regions).tolist():
            here = regions == region
            self._turn_to(region)
            self._counts[addresses[here] & sharecode.REGION_MASK] += owners[here]

    def _turn_to(self, region: int) -> None:
        if region == self._region:
            return
        if self._region >= 0:
            counts = np.minimum(self._counts, sharecode.FURTHER_MAX).astype(np.uint16)
            self._stored[self._region] = sharecode.encode(REGION_KEY.pack(self._region), counts)
        self._region = region
        self._counts = self.counts(region).astype(np.int64)

    def counts(self, region: int) -> np.ndarray:
        """Of a region that is not counted in."""
        stored = self._stored.get(region)
        return sharecode.decode(REGION_KEY.pack(region), stored) if stored else np.zeros_like(self._counts)

    def records(self) -> dict[int, bytes]:
        """The records that there ought to be, by region."""
        self._turn_to(-1)
        return {region: stored for region, stored in self._stored.items() if stored}


class _Check:
    def __init__(self, reader: Reader, progress: Progress) -> None:
        self.reader = reader
        self.progress = progress
        self.findings: list[Finding] = []
        self.counts: dict[str, int] = defaultdict(int)
        self.disks: dict[int, DiskRecord] = {}
        self.snapshots: dict[int, SnapshotRecord] = {}
        self.branches: dict[int, BranchRecord] = {}
        self.owners: dict[int, np.ndarray] = {}  # by chunk: which blocks have an owner
        self.further = _Further()
        self.mapped_steps: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))  # by branch and epoch
        self.owned_counts: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self.listed: dict[bytes, int] = defaultdict(int)  # what the change index ought to hold
        self.next_id = 1
        self.readable = True  # every version so far: what they own is all that is owned
        self.mended = MapUpdate()

    def run(self) -> list[Finding]:
        self._names()
        self._versions()
        self._shares()
        self._space()
        self._changes()
        self._figures()
        for check, count in self.counts.items():
            if count > FINDINGS_MAX:
                self.findings.append(Finding(check, f"{count - FINDINGS_MAX} more"))
        return self.findings

    def _found(self, check: str, text: str) -> None:
        self.counts[check] += 1
        if self.counts[check] <= FINDINGS_MAX:
            self.findings.append(Finding(check, text))

    # names

    def _names(self) -> None:
        stored = self.reader.get(META, POOL_KEY)
        assert stored is not None, "what has no pool record is no pool"
        self.next_id = PoolRecord.unpack(stored).next_id
        self.branches = {record.id: record for record in self._records(BRANCHES, BranchRecord)}
        self.disks = {record.id: record for record in self._records(DISKS, DiskRecord)}
        self.snapshots = {record.id: record for record in self._records(SNAPSHOTS, SnapshotRecord)}
        self._pending()
        for branch in self.branches.values():
            if branch.parent is None:
                continue
            parent = self.branches.get(branch.parent)
            if parent is None:
                self._found("names", f"branch {branch.id} begins on branch {branch.parent}, which has no record")
            elif parent.id >= branch.id:
                self._found("names", f"branch {branch.id} begins on branch {parent.id}, which is not older")
                branch.parent = None  # or following it could go round in circles
            elif not 0 < branch.fork < parent.epoch:
                self._found("names", f"branch {branch.id} begins at an epoch that branch {parent.id} never had")
        heads = [disk.branch for disk in self.disks.values() if disk.branch is not None]
        for number in heads:
            if number not in self.branches:
                self._found("names", f"a disk writes on branch {number}, which has no record")
        if len(set(heads)) < len(heads):
            self._found("names", "two disks write on one branch")
        if len({disk.name for disk in self.disks.values()}) < len(self.disks):
            self._found("names", "two disks have one name")
        for snapshot in self.snapshots.values():
            self._check_snapshot(snapshot)
        of_disks = {(snapshot.disk, snapshot.name) for snapshot in self.snapshots.values()}
        points = {(snapshot.branch, snapshot.epoch) for snapshot in self.snapshots.values()}
        if min(len(of_disks), len(points)) < len(self.snapshots):
            self._found("names", "two snapshots of a disk have one name, or are of one point")

    def _records(self, table: str, kind: type[R]) -> Iterator[R]:
        for key, value in self.reader.items(table):
            try:
                record = kind.unpack(value)
            except CorruptionError as error:
                self._found("names", f"record {key.hex()} of {table}: {error}")
                continue
            if self._is_numbered(table, key, ID_KEY.pack(record.id), record.id):
                yield record

    def _is_numbered(self, table: str, key: bytes, right: bytes, number: int) -> bool:
        if key == right and number < self.next_id:
            return True
        self._found("names", f"record {key.hex()} of {table} says that its id is {number}")
        return False

    def _pending(self) -> None:
        for key, value in self.reader.items(PENDING):
            if not self._is_key("names", PENDING, PENDING_KEY, key) or key[0] != PENDING_REMOVAL:
                continue
            try:
                removal = RemovalRecord.unpack(value)
            except CorruptionError as error:
                self._found("names", f"record {key.hex()} of {PENDING}: {error}")
                continue
            self._is_numbered(PENDING, key, PENDING_KEY.pack(PENDING_REMOVAL, removal.id, 0, 0), removal.id)

    def _is_key(self, check: str, table: str, kind: Struct, key: bytes) -> bool:
        """Whether a key has the length that all keys of its table have."""
        if len(key) == kind.size:
            return True
        self._found(check, f"there is a record of {table} under {key.hex()}, which is no key")
        return False

    def _check_snapshot(self, snapshot: SnapshotRecord) -> None:
        branch = self.branches.get(snapshot.branch)
        if snapshot.disk not in self.disks:
            self._found("names", f"snapshot {snapshot.name} is of a disk that has no record")
        if branch is None:
            self._found("names", f"snapshot {snapshot.name} is on branch {snapshot.branch}, which has no record")
        elif not 0 < snapshot.epoch < branch.epoch:
            self._found("names", f"snapshot {snapshot.name} is of an epoch that branch {branch.id} never had")

    # versions

    def _versions(self) -> None:
        total = self.reader.entries(PAGES)
        before: tuple[int, int, np.ndarray] | None = None
        for done, (key, value) in enumerate(self.reader.items(PAGES)):
            if not done % 1024:
                self.progress(done, total)
            if not self._is_key("versions", PAGES, PAGE_KEY, key):
                self.readable = False
                before = None
                continue
            branch, page, epoch = PAGE_KEY.unpack(key)
            if page < PAGES_MAX:
                self.listed[CHANGE_KEY.pack(branch, epoch, page // GROUP_PAGES)] |= 1 << page % GROUP_PAGES
            else:
                self._found("versions", f"{self._where(key)} is past the end of the largest disk")
            if branch not in self.branches or epoch > self.branches[branch].epoch:
                self._found("versions", f"{self._where(key)} is of a branch or an epoch that has no record")
            try:
                coded = Coded(key, value)
                addresses, owned = coded.places(), coded.owns()
            except CorruptionError as error:
                self._found("versions", f"{self._where(key)}: {error}")
                self.readable = False
                before = None
                continue
            if before is not None and before[:2] == (branch, page):
                inherited = before[2]
            else:
                inherited = self._inherited(branch, page)
            self._check_version(key, addresses, owned, inherited)
            before = (branch, page, addresses)
        self.progress(total, total)

    def _inherited(self, branch: int, page: int) -> np.ndarray:
        """The addresses that a branch sees of a page before it has a version of its own."""
        record = self.branches.get(branch)
        while record is not None and record.parent is not None:
            found = self.reader.version(BranchId(record.parent), PageIndex(page), record.fork)
            if found is not None:
                key = PAGE_KEY.pack(record.parent, page, found[0])
                try:
                    return Coded(key, found[1]).places()
                except CorruptionError:
                    break  # found on its own already
            record = self.branches.get(record.parent)
        return np.zeros(GROUP_PAGES, np.int64)

    def _check_version(self, key: bytes, addresses: np.ndarray, owned: np.ndarray, inherited: np.ndarray) -> None:
        branch, _, epoch = PAGE_KEY.unpack(key)
        mapped = addresses != HOLE
        if (owned & ~mapped).any():
            self._found("versions", f"{self._where(key)} owns holes")
        strange = mapped & ~owned & (addresses != inherited)
        if strange.any():
            slot = int(np.flatnonzero(strange)[0])
            self._found(
                "versions",
                f"{self._where(key)} holds address {addresses[slot]} (slot {slot}) that nothing before it held",
            )
        self._claim_blocks(addresses[owned & mapped])
        self.mapped_steps[branch][epoch] += int(mapped.sum()) - int((inherited != HOLE).sum())
        self.owned_counts[branch][epoch] += int(owned.sum())

    def _claim_blocks(self, addresses: np.ndarray) -> None:
        for chunk in np.unique(addresses // bitmap.CHUNK_BLOCKS).tolist():
            blocks, owners = np.unique(
                addresses[addresses // bitmap.CHUNK_BLOCKS == chunk] - chunk * bitmap.CHUNK_BLOCKS, return_counts=True
            )
            flags = self._owner_flags(chunk)
            further = owners - 1 + flags[blocks]
            shared = further > 0
            if shared.any():
                self.further.add(blocks[shared] + chunk * bitmap.CHUNK_BLOCKS, further[shared])
            flags[blocks] = True
            self.owners[chunk] = np.packbits(flags)

    def _owner_flags(self, chunk: int) -> np.ndarray:
        packed = self.owners.get(chunk)
        if packed is None:
            return np.zeros(bitmap.CHUNK_BLOCKS, bool)
        return np.unpackbits(packed).astype(bool)

    # owners

    def _shares(self) -> None:
        right = self.further.records()
        stored = {}
        for key, value in self.reader.items(SHARES):
            if self._is_key("owners", SHARES, REGION_KEY, key):
                stored[REGION_KEY.unpack(key)[0]] = bytes(value)
            else:
                self.mended.put(SHARES, key, None)
        for region in sorted(right.keys() | stored.keys()):
            if right.get(region) != stored.get(region):
                self._found("owners", self._compare_shares(region, stored.get(region)))
                if self.readable:  # else a version that cannot be read may be the other owner
                    self.mended.put(SHARES, REGION_KEY.pack(region), right.get(region))

    def _compare_shares(self, region: int, stored: bytes | None) -> str:
        right, says = self.further.counts(region), np.zeros(sharecode.REGION_BLOCKS, np.int64)
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
        label = self._owner_flags(0)
        label[0] = True
        self.owners[0] = np.packbits(label)
        seen = set()
        for key, value in self.reader.items(SPACE):
            if not self._is_key("space", SPACE, CHUNK_KEY, key):
                self.mended.put(SPACE, key, None)
                continue
            (chunk,) = CHUNK_KEY.unpack(key)
            seen.add(chunk)
            try:
                bits = np.frombuffer(bitmap.decode(key, value), np.uint8)
            except CorruptionError as error:
                self._found("space", f"chunk {chunk}: {error}")
                self._mend_chunk(chunk)
                continue
            self._compare_chunk(chunk, np.unpackbits(bits, bitorder="little").astype(bool))
        for chunk in self.owners.keys() - seen:
            self._compare_chunk(chunk, np.zeros(bitmap.CHUNK_BLOCKS, bool))

    def _compare_chunk(self, chunk: int, allocated: np.ndarray) -> None:
        owned = self._owner_flags(chunk)
        for blocks, what in (
            (np.flatnonzero(allocated & ~owned), "allocated and have no owner (leaked)"),
            (np.flatnonzero(owned & ~allocated), "in use and marked as free"),
        ):
            if len(blocks):
                first = chunk * bitmap.CHUNK_BLOCKS + int(blocks[0])
                self._found("space", f"{len(blocks)} blocks of chunk {chunk} from address {first} on are {what}")
                self._mend_chunk(chunk)

    def _mend_chunk(self, chunk: int) -> None:
        if self.readable:  # else a block without an owner may belong to a version that cannot be read
            key = CHUNK_KEY.pack(chunk)
            bits = bytearray(np.packbits(self._owner_flags(chunk), bitorder="little").tobytes())
            self.mended.put(SPACE, key, bitmap.encode(key, bits))

    def past(self, size_bytes: int) -> list[Finding]:
        """Findings for blocks in use past the end of the data file, which has so many bytes."""
        last = max(
            (chunk * bitmap.CHUNK_BLOCKS + int(np.flatnonzero(self._owner_flags(chunk))[-1]) for chunk in self.owners),
            default=0,
        )
        if (last + 1) * BLOCK_BYTES <= size_bytes:
            return []
        return [Finding("space", f"the data file ends at byte {size_bytes}, but address {last} is in use")]

    # changes

    def _changes(self) -> None:
        for key, value in self.reader.items(CHANGES):
            if not self._is_key("changes", CHANGES, CHANGE_KEY, key):
                self.mended.put(CHANGES, key, None)
                continue
            bits = int.from_bytes(value, "little")
            right = self.listed.pop(key, 0)
            if bits != right:
                self._found("changes", "branch {} epoch {} group {} lists other pages".format(*CHANGE_KEY.unpack(key)))
                self.mended.put(CHANGES, key, right.to_bytes(GROUP_BYTES, "little") if right else None)
        for key, right in self.listed.items():
            self._found("changes", "branch {} epoch {} group {} is missing".format(*CHANGE_KEY.unpack(key)))
            self.mended.put(CHANGES, key, right.to_bytes(GROUP_BYTES, "little"))

    # figures

    def _figures(self) -> None:
        if not self.readable:
            return
        for disk in self.disks.values():
            if disk.branch is not None and disk.branch in self.branches:
                mapped = self._mapped(disk.branch, self.branches[disk.branch].epoch)
                self._compare_figure(DISKS, disk, "mapped_blocks", mapped)
        by_branch: dict[int, list[SnapshotRecord]] = defaultdict(list)
        for snapshot in self.snapshots.values():
            if snapshot.branch in self.branches:
                by_branch[snapshot.branch].append(snapshot)
                mapped = self._mapped(snapshot.branch, snapshot.epoch)
                self._compare_figure(SNAPSHOTS, snapshot, "referenced_blocks", mapped)
        for branch in self.branches.values():
            self._check_written(branch, by_branch[branch.id])

    def _compare_figure(
        self, table: str, record: DiskRecord | SnapshotRecord | BranchRecord, field: str, right: int
    ) -> None:
        says = getattr(record, field)
        if says != right:
            name = f"branch {record.id}" if isinstance(record, BranchRecord) else f"{table.rstrip('s')} {record.name}"
            self._found("figures", f"{name} has {field} {says}, its pages say {right}")
            setattr(record, field, right)
            self.mended.put(table, ID_KEY.pack(record.id), record.pack())

    def _mapped(self, branch: int, epoch: int) -> int:
        """How many blocks a point maps: what its branch began with, and the steps since."""
        total = 0
        record: BranchRecord | None = self.branches[branch]
        while record is not None:
            total += sum(step for at, step in self.mapped_steps[record.id].items() if at <= epoch)
            epoch, parent = record.fork, record.parent
            record = None if parent is None else self.branches.get(parent)
        return total

    def _check_written(self, branch: BranchRecord, snapshots: list[SnapshotRecord]) -> None:
        after = 0
        owned = self.owned_counts[branch.id]
        for snapshot in sorted(snapshots, key=lambda item: item.epoch):
            written = sum(count for epoch, count in owned.items() if after < epoch <= snapshot.epoch)
            self._compare_figure(SNAPSHOTS, snapshot, "written_blocks", written)
            after = snapshot.epoch
        written = sum(count for epoch, count in owned.items() if epoch > after)
        self._compare_figure(BRANCHES, branch, "written_blocks", written)

    def _where(self, key: bytes) -> str:
        """A page version in words, with the disk or snapshot that sees it first."""
        branch, page, epoch = PAGE_KEY.unpack(key)
        seen = [item for item in self.snapshots.values() if item.branch == branch and item.epoch >= epoch]
        heads = [disk.name for disk in self.disks.values() if disk.branch == branch]
        if seen:
            first = min(seen, key=lambda item: item.epoch)
            owner = self.disks.get(first.disk)
            heads = [f"{owner.name if owner else '?'}@{first.name}"]
        named = f" ({heads[0]})" if heads else ""
        return f"page {page} of branch {branch} at epoch {epoch}{named}"
