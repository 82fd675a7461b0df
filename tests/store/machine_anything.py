"""Everything that can be done with a pool, in any order, on disks whose blocks meet at page edges and at the end."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from rowfs.base.errors import ExistsError, NotFoundError
from rowfs.store.diskio import point_of
from rowfs.store.figures import finish
from rowfs.store.model import Disk
from tests.store.helpers import findings
from tests.store.machines import (
    B,
    ColdRead,
    Handle,
    Machine,
    caches,
    disk_names,
    numbers,
    pick,
    snapshot_names,
)

# Few blocks, so that they meet: the first of a disk, both sides of the page edges, the last.
blocks = st.sampled_from([0, 1, 2, 3, 511, 512, 513, 1023, 1024, 1025])
sizes = st.sampled_from([0, 1, B - 1, 2 * B, 3 * B + 100, 512 * B, 513 * B + 7, 1026 * B])
lengths = st.sampled_from([1, 511, B, B + 1, 2 * B, 3 * B, 3 * B + 512, 5 * B])
skips = st.sampled_from([0, 0, 0, 1, 512, B - 1])


class Disks(Machine):
    """Disks come, are written, and go."""

    @rule(name=disk_names, size=sizes)
    def create(self, name: str, size: int) -> None:
        if name in self.oracle.now.disks:
            with pytest.raises(ExistsError):
                self.pool.create_disk(name, size)
        else:
            self.pool.create_disk(name, size)
            self.oracle.create(name, size)

    @Machine.has_disk
    @rule(n=numbers, block=blocks, skip=skips, length=lengths)
    def write(self, n: int, block: int, skip: int, length: int) -> None:
        _, disk, image = self._disk(n)
        self._write(disk, image, block * B + skip, self._bytes(length))

    @Machine.has_disk
    @rule(n=numbers, block=blocks, skip=skips, length=lengths)
    def write_zeros(self, n: int, block: int, skip: int, length: int) -> None:
        _, disk, image = self._disk(n)
        self._write(disk, image, block * B + skip, bytes(length))

    @Machine.has_disk
    @rule(n=numbers, block=blocks, zeros=st.lists(st.booleans(), min_size=1, max_size=6))
    def write_blocks(self, n: int, block: int, zeros: list[bool]) -> None:
        _, disk, image = self._disk(n)
        self._write(disk, image, block * B, b"".join(bytes(B) if zero else self._bytes(B) for zero in zeros))

    @rule()
    def make_holes_of_zeros(self) -> None:
        self.pool.io.zeros.hurry()
        while (piece := self.pool.io.zeros.take()) is not None:
            self.pool.trim.empty(piece, wait=True)

    @Machine.has_disk
    @rule(n=numbers, block=blocks, skip=skips, length=lengths | st.just(3 << 20))
    def punch(self, n: int, block: int, skip: int, length: int) -> None:
        _, disk, image = self._disk(n)
        self.pool.punch(disk, block * B + skip, length)
        self.oracle.punch(image, block * B + skip, length)

    @Machine.has_disk
    @rule(n=numbers, m=numbers, at=blocks, to=blocks, skip=skips, length=lengths | st.just(3 << 20))
    def share(self, n: int, m: int, at: int, to: int, skip: int, length: int) -> None:
        self._share(n, m, at * B, to * B + skip, length)

    @Machine.has_disk
    @rule(n=numbers, size=sizes)
    def resize(self, n: int, size: int) -> None:
        _, disk, image = self._disk(n)
        self.pool.resize(disk, size)
        self.oracle.resize(image, size)

    @Machine.has_disk
    @rule(n=numbers, keep=st.booleans())
    def delete_disk(self, n: int, keep: bool) -> None:
        name = self._delete_disk(n, keep)
        with pytest.raises(NotFoundError):
            self.pool.catalog.disk(name)

    @Machine.has_disk
    @rule(n=numbers, new=disk_names, replace=st.booleans())
    def rename_disk(self, n: int, new: str, replace: bool) -> None:
        old, disk, _ = self._disk(n)
        if self.oracle.rename_fails(old, new, replace):
            with pytest.raises(ExistsError):
                self.pool.rename_disk(disk, new, replace)
        else:
            self.pool.rename_disk(disk, new, replace)
            self.oracle.rename(old, new)


class Snapshots(Machine):
    """Snapshots are taken, cloned, rolled back to, and go."""

    @Machine.has_disk
    @rule(n=numbers, name=snapshot_names)
    def snapshot(self, n: int, name: str) -> None:
        disk_name, disk, _ = self._disk(n)
        if name in self.oracle.chain(disk_name):
            with pytest.raises(ExistsError):
                self.pool.snapshot(disk, name)
        else:
            self.pool.snapshot(disk, name)
            self.oracle.snapshot(disk_name, name)

    @Machine.has_snapshot
    @rule(n=numbers)
    def delete_snapshot(self, n: int) -> None:
        self._delete_snapshot(n)

    @Machine.has_snapshot
    @rule(n=numbers, new=snapshot_names)
    def rename_snapshot(self, n: int, new: str) -> None:
        disk, name, snapshot = self._snapshot(n)
        if new != name and new in self.oracle.chain(disk):
            with pytest.raises(ExistsError):
                self.pool.rename_snapshot(snapshot, new)
        else:
            self.pool.rename_snapshot(snapshot, new)
            self.oracle.rename_snapshot(disk, name, new)

    @Machine.has_snapshot
    @rule(n=numbers, new=disk_names)
    def clone(self, n: int, new: str) -> None:
        disk, name, snapshot = self._snapshot(n)
        if new in self.oracle.now.disks:
            with pytest.raises(ExistsError):
                self.pool.clone(snapshot, [new])
        else:
            self.pool.clone(snapshot, [new])
            self.oracle.clone(disk, name, new)

    @Machine.has_disk
    @rule(n=numbers, new=disk_names)
    def copy(self, n: int, new: str) -> None:
        self._copy(n, new)

    @Machine.has_disk
    @rule(n=numbers, new=disk_names, keep=st.booleans())
    def leave_to_a_copy(self, n: int, new: str, keep: bool) -> None:
        """What a disk was is a copy's, and nobody else's where its snapshots go with it."""
        name, *_ = self._disk(n)
        self._copy(n, new)
        if new != name:
            self._delete_disk(sorted(self.oracle.now.disks).index(name), keep)

    @Machine.has_snapshot
    @rule(n=numbers, new=disk_names)
    def become_a_snapshot(self, n: int, new: str) -> None:
        disk, name, snapshot = self._snapshot(n)
        if new not in self.oracle.now.disks:
            self.pool.become(self.pool.create_disk(new, 0), snapshot)
            self.oracle.become(new, self.oracle.chain(disk)[name])

    @precondition(lambda self: any(disk in self.oracle.now.disks for disk in self.oracle.now.chains))
    @rule(n=numbers, discard=st.booleans())
    def rollback(self, n: int, discard: bool) -> None:
        self._rollback(n, discard)

    @precondition(lambda self: self.oracle.now.chains and not self.handles and not self.reads)
    @Machine.idle
    @rule(n=numbers)
    def delete_snapshot_and_measure(self, n: int) -> None:
        self._reclaim_to_the_block()
        _, _, snapshot = self._snapshot(n)
        foretold = finish(self.pool.figures.freed_if_deleted(snapshot))
        before = self.pool.space.allocated_blocks
        self._delete_snapshot(n)
        self._reclaim_to_the_block()
        assert (before - self.pool.space.allocated_blocks) * B == foretold, "deleting frees what was foretold"

    @Machine.has_snapshot
    @rule(n=numbers, m=numbers, onto_disk=st.booleans())
    def changes(self, n: int, m: int, onto_disk: bool) -> None:
        disk_name, name, older = self._snapshot(n)
        chain = self.oracle.chain(disk_name)
        other = pick(list(chain), m)
        before, after, newer = chain[name], chain[other], older.owner.chain[other]
        if onto_disk and disk_name in self.oracle.now.disks:
            newer = self.pool.catalog.disk(disk_name)
            after = bytes(self.oracle.now.disks[disk_name].data)
        patched = bytearray(before[: len(after)].ljust(len(after), b"\0"))
        for offset, length, kind in filter(None, self.pool.figures.changes(older, newer)):
            patched[offset : offset + length] = bytes(length) if kind == "zero" else after[offset : offset + length]
        assert patched == after, "the changed ranges lead from one to the other"


class Handles(Machine):
    """Files are opened, used after their names are gone, and closed; reads wait in workers."""

    @Machine.has_disk
    @rule(n=numbers)
    def open_disk(self, n: int) -> None:
        _, disk, image = self._disk(n)
        disk.handles += 1
        self.handles.append(Handle(disk, image))

    @Machine.has_snapshot
    @rule(n=numbers)
    def open_snapshot(self, n: int) -> None:
        disk, name, snapshot = self._snapshot(n)
        snapshot.handles += 1
        self.handles.append(Handle(snapshot, self.oracle.chain(disk)[name]))

    @precondition(lambda self: self.handles)
    @rule(n=numbers, block=blocks, count=st.integers(1, 2))
    def write_by_handle(self, n: int, block: int, count: int) -> None:
        handle = self.handles[n % len(self.handles)]
        if isinstance(handle.target, Disk):
            self._write(handle.target, handle.image, block * B, self._bytes(count * B))

    @precondition(lambda self: self.handles)
    @rule(n=numbers)
    def release(self, n: int) -> None:
        handle = self.handles.pop(n % len(self.handles))
        assert self.pool.read(handle.target, 0, len(handle.data) + 1) == handle.data
        handle.target.handles -= 1

    @Machine.has_disk
    @rule(n=numbers)
    def begin_cold_read(self, n: int) -> None:
        _, disk, image = self._disk(n)
        spans = self.pool.io.plan(point_of(disk), 0, len(image.data))
        ticket = self.pool.commits.begin_read()
        disk.handles += 1
        writes = self.oracle.writes_so_far()
        self.reads.append(ColdRead(ticket, spans, disk, image, image.life, bytes(image.data), writes))

    @precondition(lambda self: self.reads)
    @rule(n=numbers)
    def end_cold_read(self, n: int) -> None:
        read = self.reads.pop(n % len(self.reads))
        buffer = bytearray(len(read.before))
        self.pool.data.read(read.spans, memoryview(buffer))
        self._end_read(read)
        if read.image.life == read.life:  # else whoever rolls back waits for reads first
            wrong = self.oracle.unlike(bytes(buffer), read.before, read.life, read.writes)
            assert wrong is None, f"a cold read found what the disk never held in block {wrong}"


class Commits(Machine):
    """Commits at once and in steps, reclaim in steps, ends of every kind."""

    @Machine.idle
    @rule()
    def commit(self) -> None:
        self.pool.commit()
        self.oracle.commit()
        assert findings(self.pool) == []

    @Machine.idle
    @rule()
    def begin_commit(self) -> None:
        self.batch, self.written = self.pool.commits.freeze(), False
        self.oracle.freeze()

    @precondition(lambda self: self.batch is not None and not self.written)
    @rule()
    def write_commit(self) -> None:
        self.pool.commits.write(self.batch)
        self.oracle.durable()
        self.written = True

    @precondition(lambda self: self.batch is not None and self.written)
    @rule()
    def finish_commit(self) -> None:
        self.pool.commits.finish(self.batch)
        self.batch = None
        assert findings(self.pool) == []

    @rule()
    def recycle(self) -> None:
        while (freed := self.pool.commits.unread()) is not None:
            self.pool.commits.recycle(freed)

    @rule(steps=st.integers(1, 12))
    def reclaim_steps(self, steps: int) -> None:
        for _ in range(steps):
            self.pool.reclaimer.step(0)

    @Machine.idle
    @rule()
    def reclaim(self) -> None:
        self.pool.reclaim()
        self.oracle.commit()
        assert findings(self.pool) == []

    @Machine.idle
    @rule(cache=caches)
    def reopen(self, cache: int) -> None:
        self.pool.close()
        self.oracle.commit()
        self._let_go()
        self._open(cache)
        assert self.pool.was_clean
        assert findings(self.pool) == []

    @rule(cache=caches, power=st.booleans())
    def crash(self, cache: int, power: bool) -> None:
        self._crash(cache, power)

    @rule()
    def compare(self) -> None:
        self._compare()


class Seals(Machine):
    """What is frozen is sealed, at once and in steps, and verified whenever it is read."""

    @rule(pieces=st.integers(1, 3))
    def seal_some(self, pieces: int) -> None:
        for _ in range(pieces):
            piece = self.pool.sealer.next()
            if piece is not None:
                self.pool.sealer.record(piece, self.pool.sealer.sum_up(piece))

    @rule()
    def seal(self) -> None:
        self.pool.sealer.run()

    @precondition(lambda self: self.piece is None)
    @rule()
    def begin_to_seal(self) -> None:
        piece = self.pool.sealer.next()
        if piece is not None:
            self.piece = piece, self.pool.sealer.sum_up(piece), self.pool.commits.begin_read()

    @precondition(lambda self: self.piece is not None)
    @rule()
    def end_sealing(self) -> None:
        piece, sums, ticket = self.piece
        self.pool.sealer.record(piece, sums)
        self.pool.commits.end_read(ticket)
        self.piece = None

    @Machine.has_disk
    @rule(n=numbers, block=blocks, length=lengths)
    def unseal(self, n: int, block: int, length: int) -> None:
        _, disk, image = self._disk(n)
        self.pool.io.unseal(disk, block * B, max(0, min(length, len(image.data) - block * B)))

    @precondition(lambda self: self.batch is None and self.piece is None and not self.handles and not self.reads)
    @rule()
    def seal_everything(self) -> None:
        """Whatever happened, nothing that is frozen is left out."""
        self._reclaim_to_the_block()
        self.pool.sealer.run()
        for branch in self.pool.versions.branches.values():
            for index in self.pool.versions.changed(branch, 0, branch.floor):
                for epoch in self.pool.versions.epochs(branch, index, 0):
                    if epoch <= branch.floor:
                        page = self.pool.versions.at(branch, index, epoch)
                        sums = self.pool.io.sums.of(page.places()[page.owns()])
                        assert sums.all(), "a frozen block is not sealed"


class AnythingMachine(Disks, Snapshots, Handles, Seals, Commits):
    """All of it."""
