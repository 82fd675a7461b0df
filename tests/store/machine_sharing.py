"""Who owns a block that many share: three blocks of one page, many clones of clones, and a crash now and then.

Narrower than AnythingMachine and so deeper: most of what it does makes blocks shared or lets go of them.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.store.machines import B, Machine, caches, numbers

BLOCKS = 3
blocks = st.integers(0, BLOCKS - 1)
names = st.sampled_from("abcdef")


class SharingMachine(Machine):
    """Few blocks, many disks."""

    @precondition(lambda self: len(self.oracle.now.disks) < 2)
    @rule(name=names)
    def create(self, name: str) -> None:
        if name not in self.oracle.now.disks:
            disk = self.pool.create_disk(name, BLOCKS * B)
            self.oracle.create(name, BLOCKS * B)
            self._write(disk, self.oracle.now.disks[name], 0, b"".join(self._bytes(B) for _ in range(BLOCKS)))

    @Machine.has_disk
    @rule(n=numbers, block=blocks)
    def write(self, n: int, block: int) -> None:
        _, disk, image = self._disk(n)
        self._write(disk, image, block * B, self._bytes(B))

    @Machine.has_disk
    @rule(n=numbers, blocks=st.sets(blocks, min_size=1))
    def write_several(self, n: int, blocks: set[int]) -> None:
        for block in sorted(blocks):
            self.write(n, block)

    @Machine.has_disk
    @rule(n=numbers, block=blocks)
    def punch(self, n: int, block: int) -> None:
        _, disk, image = self._disk(n)
        self.pool.punch(disk, block * B, B)
        self.oracle.punch(image, block * B, B)

    @Machine.has_disk
    @rule(n=numbers)
    def snapshot(self, n: int) -> None:
        name, disk, _ = self._disk(n)
        self.count += 1
        self.pool.snapshot(disk, f"s{self.count}")
        self.oracle.snapshot(name, f"s{self.count}")

    @Machine.has_snapshot
    @rule(n=numbers)
    def delete_snapshot(self, n: int) -> None:
        self._delete_snapshot(n)

    @Machine.has_snapshot
    @rule(n=numbers, names=st.lists(names, min_size=1, max_size=3, unique=True))
    def clone(self, n: int, names: list[str]) -> None:
        disk, name, snapshot = self._snapshot(n)
        free = [new for new in names if new not in self.oracle.now.disks]
        self.pool.clone(snapshot, free)
        for new in free:
            self.oracle.clone(disk, name, new)

    @Machine.has_disk
    @rule(n=numbers, names=st.lists(names, min_size=1, max_size=3, unique=True))
    def fork(self, n: int, names: list[str]) -> None:
        """Clones of a disk as it is now, which no snapshot names afterwards."""
        source, disk, _ = self._disk(n)
        self.pool.snapshot(disk, "x")
        self.oracle.snapshot(source, "x")
        snapshot = disk.chain["x"]
        for new in names:
            if new not in self.oracle.now.disks:
                self.pool.clone(snapshot, [new])
                self.oracle.clone(source, "x", new)
        self.pool.delete_snapshot(snapshot)
        self.oracle.delete_snapshot(source, "x")

    @Machine.has_disk
    @rule(n=numbers, new=names)
    def copy(self, n: int, new: str) -> None:
        """A disk that begins as another is now, without any snapshot."""
        self._copy(n, new)

    @Machine.has_disk
    @rule(n=numbers, m=numbers, at=blocks, to=blocks, count=st.integers(1, BLOCKS))
    def share(self, n: int, m: int, at: int, to: int, count: int) -> None:
        """Some blocks of a disk or a snapshot become those of another, or of the same, without being copied."""
        count = min(count, BLOCKS - max(at, to))
        done = self._share(n, m, at * B, to * B, count * B)
        assert done in (None, count * B)

    @Machine.has_disk
    @rule(n=numbers, keep=st.booleans())
    def delete_disk(self, n: int, keep: bool) -> None:
        self._delete_disk(n, keep)

    @precondition(lambda self: any(disk in self.oracle.now.disks for disk in self.oracle.now.chains))
    @rule(n=numbers)
    def rollback(self, n: int) -> None:
        self._rollback(n, discard=True)

    @rule()
    def commit(self) -> None:
        self.pool.commit()
        self.oracle.commit()

    @rule(steps=st.integers(1, 3))
    def reclaim_steps(self, steps: int) -> None:
        for _ in range(steps):
            self.pool.reclaimer.step(0)

    @rule()
    def reclaim_to_the_block(self) -> None:
        self._reclaim_to_the_block()

    @rule(cache=caches, power=st.booleans())
    def crash(self, cache: int, power: bool) -> None:
        self._crash(cache, power)
