"""Short words for what the tests of the engine do again and again."""

from __future__ import annotations

from pathlib import Path

from rowfs.base.units import BLOCK_BYTES, PAGE_BLOCKS, PAGE_BYTES, PageIndex
from rowfs.persist.journal import Journal
from rowfs.store.check import check_map
from rowfs.store.diskio import point_of
from rowfs.store.findings import Finding
from rowfs.store.model import Disk, Snapshot
from rowfs.store.pool import Pool, init_pool

B = BLOCK_BYTES
P = PAGE_BLOCKS
SIZE = 2 * PAGE_BYTES  # of a test's disk: two pages


class Home:
    """A pool directory and the pool that is open in it."""

    def __init__(self, path: Path, capacity_bytes: int | None = None) -> None:
        self.path = path
        self.pool: Pool | None = None
        init_pool(str(path), capacity_bytes)

    @property
    def data_path(self) -> Path:
        """The data file."""
        return self.path / "data"

    def open(self, **options: object) -> Pool:
        """Open the pool. What is freed in it is used again soon, however short the run."""
        self.pool = Pool(str(self.path), **options)  # type: ignore[arg-type]
        self.pool.space.run_blocks_min = 1
        return self.pool

    def close(self) -> None:
        """Close the pool."""
        assert self.pool is not None
        pool, self.pool = self.pool, None
        pool.close()

    def reopen(self, **options: object) -> Pool:
        """Close the pool and open it again."""
        self.close()
        return self.open(**options)

    def crash(self, **options: object) -> Pool:
        """Leave the pool without a commit and open it again."""
        self.abandon()
        return self.open(**options)

    def abandon(self) -> None:
        """Leave the pool without a commit."""
        if self.pool is not None:
            pool, self.pool = self.pool, None
            pool.abandon()

    def finish(self) -> None:
        """Close the pool, if it is open, after holding it against all invariants."""
        if self.pool is None:
            return
        try:
            if self.pool.commits.failed or self.pool.read_only:
                self.reopen()
            pool = self.pool
            release_all(pool)
            pool.reclaim()
            found = findings(pool)
            assert found == [], found
            assert_exact(pool)
        finally:
            self.close()


def ready(journal: Journal) -> Journal:
    """Have the journal ready, as it is after the first commit that could have been a record instead."""
    journal.state.wanted = True
    journal.prepare()
    journal.open_up()
    return journal


def journaled(pool: Pool) -> bool:
    """Make what changed durable with a record of the journal; False: it has to be a commit."""
    ready(pool.commits.journal)
    appended = pool.commits.begin_record()
    if appended is None:
        return False
    pool.commits.append(appended)
    pool.commits.end_record()
    return True


def release_all(pool: Pool) -> None:
    """Close all handles that a test left open."""
    for removal in pool.catalog.removals.values():
        if removal.reader is not None:
            removal.reader.handles = 0


def findings(pool: Pool) -> list[Finding]:
    """What the checker says of the last commit."""
    reader = pool.reader()
    try:
        return check_map(reader)
    finally:
        reader.close()


def checks(pool: Pool) -> set[str]:
    """Which checks found something in the last commit."""
    return {finding.check for finding in findings(pool)}


def assert_exact(pool: Pool) -> None:
    """Allocated are the blocks that a disk or snapshot reads, once each, and the label. Reclaim first."""
    trashed = [snapshot for entry in pool.trash for snapshot in pool.trash.snapshots(entry)]
    seen = addresses_of(*pool.catalog.live(), *pool.catalog.snapshots.values(), *trashed, pool=pool)
    assert pool.space.allocated_blocks == len(seen) + 1, "a block is leaked or lost"


def addresses_of(*targets: Disk | Snapshot, pool: Pool) -> set[int]:
    """The addresses that the disks and snapshots hold."""
    seen: set[int] = set()
    for target in targets:
        point = point_of(target)
        for index in pool.versions.mapped_pages(point, PageIndex(0), PageIndex(1 << 23)):
            seen.update(pool.versions.page(point, index).addresses)
    return seen - {0}


def address(pool: Pool, target: Disk | Snapshot, block: int) -> int:
    """Where a block lies in the data file; 0: it is a hole."""
    index, slot = divmod(block, P)
    return pool.versions.page(point_of(target), PageIndex(index)).addresses[slot]


def fill(text: str) -> bytes:
    """A block that is recognisable by `text`."""
    return (text.encode() + b".").ljust(16, b"-") * (B // 16)


def put(pool: Pool, disk: Disk, block: int, *texts: str) -> None:
    """Write recognisable blocks one behind the other."""
    pool.write(disk, block * B, b"".join(map(fill, texts)))


def share(pool: Pool, source: Disk | Snapshot, at: int, disk: Disk, to: int, blocks: int) -> int:
    """Share blocks instead of copying them: how many bytes that were."""
    return max(pool.share(source, at * B, disk, to * B, blocks * B), default=0)


def get(pool: Pool, target: Disk | Snapshot, block: int = 0, blocks: int = 1) -> list[str]:
    """The texts of blocks that `put` wrote; a block of zeros is an empty one."""
    data = bytes(pool.read(target, block * B, blocks * B))
    return [_text(data[start : start + B]) for start in range(0, len(data), B)]


def _text(block: bytes) -> str:
    if block == bytes(len(block)):
        return ""
    text = block.partition(b".")[0].decode()
    assert block == fill(text)[: len(block)], "a block is not what anyone wrote"
    return text


def snapshot_of(pool: Pool, disk: str, name: str) -> Snapshot:
    """The snapshot of that name."""
    return pool.catalog.snapshot(pool.catalog.chain(disk), name)


def stored(home: Home, at: int) -> bytes:
    """What the data file itself holds at an address."""
    with open(home.data_path, "rb") as file:
        file.seek(at * B)
        return file.read(B)


def disk_of(pool: Pool, *texts: str, name: str = "d") -> Disk:
    """A disk with these blocks."""
    disk = pool.create_disk(name, SIZE)
    put(pool, disk, 0, *texts)
    return disk


def fork(pool: Pool, disk: Disk, *names: str) -> list[Disk]:
    """Clones of the disk as it is now, of a snapshot that is deleted at once."""
    snapshot = pool.snapshot(disk, "fork")
    clones = pool.clone(snapshot, names)
    pool.delete_snapshot(snapshot)
    return clones


def blocks_held(pool: Pool) -> int:
    """How many blocks disks and snapshots have, after all is reclaimed and checked."""
    pool.reclaim()
    assert findings(pool) == []
    assert_exact(pool)
    return pool.space.allocated_blocks - 1
