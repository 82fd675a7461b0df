"""The hot path: what C answers is what Python would have answered, and the rest is left to Python untouched."""

from __future__ import annotations

import ctypes
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from errno import EIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from rowfs.mount.operations import Handle
from rowfs.native import _native  # type: ignore[attr-defined]
from rowfs.store.commit import Commits
from rowfs.store.diskio import DiskIO, point_of
from rowfs.store.model import Disk, Snapshot, State
from rowfs.store.pool import Pool
from tests.operations.conftest import Log
from tests.operations.helpers import Survivor
from tests.store.helpers import B, Home, address, fill, findings, ready

SETATTR, READ, WRITE, FSYNC = 4, 15, 16, 20  # linux/fuse.h
WRITE_CACHE = 1  # a write's flag
FATTR_MODE, FATTR_MTIME, FATTR_FH, FATTR_CTIME = 1, 1 << 5, 1 << 6, 1 << 10
ANSWER_S = 60.0
CACHESTAT = 451  # the system call, on every machine
DISK, ELSE, SNAPSHOT, SYNC, OWN = range(1, 6)  # handles
PAGE = 512 * B


class Committer:
    """Takes the place of mount.committer.Committer."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.reads_ended = 0
        self.soft_pages = 100
        self.failures: list[int] = []
        self.records_lost = 0

    def read_ended(self, ticket: int) -> None:
        """As Committer.read_ended."""
        self.reads_ended += 1
        self.pool.commits.end_read(ticket)

    def record_lost(self) -> None:
        """As Committer.record_lost."""
        self.records_lost += 1
        self.pool.commits.record_lost()

    def sync_failed(self, code: int) -> None:
        """As Committer.sync_failed."""
        self.failures.append(code)


class Kernel:
    """Asks as Linux does, and gets the answers."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.pool = pool = home.open()
        self.committer = Committer(pool)
        self.disk = pool.create_disk("disk", 3 * PAGE)
        other = pool.create_disk("else", 8 * B)
        self.fuse, self.mine = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fuse.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.mine.settimeout(ANSWER_S)
        self.handles = {
            DISK: Handle(self.disk, writable=True),
            ELSE: Handle(other, writable=True),
            SYNC: Handle(self.disk, writable=True, sync=True),
            OWN: Handle(self.disk, writable=True, own=True),
        }
        self.unique = 0
        self.times: list[tuple[int, int, int]] = []
        _native.serve(
            self.handles, pool, self.committer, self._set_time, pool.data.fileno(), Disk, Snapshot, State.DIRTY
        )

    def finish(self) -> None:
        """Hold the pool against all invariants."""
        _native.stop()
        self.fuse.close()
        self.mine.close()
        self.home.finish()

    def request(self, opcode: int, body: bytes, inode: int = 1) -> bytes:
        """A request as Linux sends it."""
        self.unique += 1
        return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, self.unique, inode, 0, 0, 0, 0, 0) + body

    def _ask(self, opcode: int, body: bytes, inode: int = 1) -> bytes | None:
        request = self.request(opcode, body, inode)
        if not _native.try_requests(self.fuse.fileno(), [request]):
            return None
        return self._answer()

    def _answer(self) -> bytes:
        answer = self.mine.recv(2 << 20)
        length, error, unique = struct.unpack_from("<IiQ", answer)
        assert length == len(answer) and unique <= self.unique
        return answer[16:] if error == 0 else os.strerror(-error).encode()

    def _set_time(self, inode: int, modified_ns: int, changed_ns: int) -> bytes | None:
        self.times.append((inode, modified_ns, changed_ns))
        return b"attributes" if inode == 1 else None

    def setattr(self, inode: int, valid: int) -> bytes | None:
        """SETATTR of a time: the attributes; None: it is left to Python."""
        times = struct.pack("<QQQIII", 8, 5, 7, 9, 6, 10)
        return self._ask(SETATTR, struct.pack("<IIQQQ", valid, 0, DISK, 0, 0) + times + bytes(20), inode)

    def read(self, fh: int, offset: int, size: int) -> bytes | None:
        """READ: the bytes; None: it is left to Python."""
        return self._ask(READ, struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0))

    def write(self, fh: int, offset: int, data: bytes, flags: int = 0) -> int | None:
        """WRITE: how many bytes were written; None: it is left to Python."""
        answer = self._ask(WRITE, _write(fh, offset, data, flags))
        return None if answer is None else struct.unpack("<II", answer)[0]

    def write_many(self, *writes: tuple[int, int, bytes]) -> int:
        """WRITEs (handle, offset, data) that are queued: how many were answered before one was left to Python."""
        return self.ask_all([self.request(WRITE, _write(*write)) for write in writes])

    def write_and_sync(self, *write: tuple[int, int, bytes], answers: int | None = None) -> int:
        """WRITEs, and an FSYNC of the last one's handle, that are queued: how many of all these were taken.

        All of these are answered, or so many.
        """
        requests = [self.request(WRITE, _write(*each)) for each in write]
        return self.ask_all([*requests, self.request(FSYNC, _fsync(write[-1][0]))], answers)

    def ask_all(self, requests: list[bytes], answers: int | None = None) -> int:
        """Requests that are queued: how many of them were taken, before one was left to Python."""
        done = int(_native.try_requests(self.fuse.fileno(), requests))
        for _ in range(done if answers is None else answers):
            self._answer()
        return done

    def fsync(self, fh: int) -> bytes | None:
        """FSYNC: b"" or what went wrong; None: it is left to Python."""
        return self._ask(FSYNC, _fsync(fh))

    def settle(self) -> None:
        """Have note taken of all syncs that were answered."""
        with select.epoll() as nothing:
            while self.pool.commits.appending:
                _native.linger(self.fuse.fileno(), nothing.fileno(), 100)

    def snapshot(self, name: str) -> Snapshot:
        """A snapshot, open as SNAPSHOT."""
        snapshot = self.pool.snapshot(self.disk, name)
        self.handles[SNAPSHOT] = Handle(snapshot, writable=False)
        return snapshot


def _write(fh: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack("<QQIIQII", fh, offset, len(data), flags, 0, 0, 0) + data


def _fsync(fh: int = DISK) -> bytes:
    return struct.pack("<QII", fh, 1, 0)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(Home(tmp_path / "pool"))
    yield kernel
    kernel.finish()


def blocks(*texts: str) -> bytes:
    """A block for each text."""
    return b"".join(fill(text) for text in texts)


def test_what_was_written_is_read_and_overwritten_in_place(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 2 * B, blocks("a", "b"))
    kernel.pool.commit()
    assert kernel.read(DISK, 0, 8 * B) == bytes(2 * B) + blocks("a", "b") + bytes(4 * B)
    mapped = kernel.disk.mapped_blocks, kernel.pool.space.allocated_blocks
    assert kernel.write(DISK, 3 * B, blocks("B")) == B
    assert kernel.pool.io.unsynced and not kernel.pool.commits.map_changed
    assert kernel.pool.read(kernel.disk, 2 * B, 2 * B) == blocks("a", "B") == kernel.read(DISK, 2 * B, 2 * B)
    assert (kernel.disk.mapped_blocks, kernel.pool.space.allocated_blocks) == mapped


def test_what_a_snapshot_holds_is_redirected(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b", "c"))
    assert kernel.write(DISK, 0, blocks("A")) == B
    used = kernel.pool.space.allocated_blocks
    kernel.snapshot("s")
    assert kernel.write(DISK, B, blocks("y")) == B
    assert kernel.write(DISK, B, blocks("Y")) == B
    assert kernel.pool.space.allocated_blocks == used + 1
    assert kernel.write(DISK, 0, blocks("x", "y")) is None, "a range that is owned in part"
    assert kernel.read(DISK, 0, 3 * B) == blocks("A", "Y", "c")
    assert kernel.read(SNAPSHOT, 0, 3 * B) is None
    kernel.pool.read(kernel.handles[SNAPSHOT].target, 0, 3 * B)  # Python brings the page into memory
    assert kernel.read(SNAPSHOT, 0, 3 * B) == blocks("A", "b", "c")
    assert kernel.write(SNAPSHOT, 0, blocks("x")) is None
    assert kernel.write(DISK, 3 * B, blocks("d", "e")) == 2 * B, "holes"
    assert (kernel.disk.mapped_blocks, kernel.pool.space.allocated_blocks) == (5, used + 3)


def test_what_others_own_too_is_redirected(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b", "c"))
    assert max(kernel.pool.share(kernel.disk, 0, kernel.disk, 8 * B, 2 * B)) == 2 * B
    used = kernel.pool.space.allocated_blocks
    assert kernel.write(DISK, 0, blocks("A")) == B
    assert kernel.write(DISK, 9 * B, blocks("B")) == B
    assert kernel.pool.space.allocated_blocks == used + 2
    assert kernel.write(DISK, B, blocks("y", "z")) is None, "a range that is owned in part"
    assert kernel.write(DISK, 2 * B, blocks("C")) == B
    assert kernel.pool.space.allocated_blocks == used + 2
    assert kernel.read(DISK, 0, 10 * B) == blocks("A", "b", "C") + bytes(5 * B) + blocks("a", "B")


def test_a_writer_that_has_to_wait_for_a_commit_is_left_to_python(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.read(kernel.disk, PAGE, B)  # Python brings the page into memory
    kernel.committer.soft_pages = 0
    assert kernel.write(DISK, PAGE, blocks("b")) is None
    assert kernel.write(DISK, 0, blocks("A", "B")) is None, "a range that is owned in part"
    assert kernel.write(DISK, 0, blocks("A")) == B
    assert kernel.write(DISK, B, blocks("B")) == B, "there are no more changed pages than before"


def test_many_writes_in_a_row_take_as_many_blocks(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.snapshot("s")
    used = kernel.pool.space.allocated_blocks
    kernel.pool.write(kernel.disk, 0, blocks("b"))  # makes the version that the others go to
    changes = kernel.disk.head.changes if kernel.disk.head else 0
    order = random.Random(3).sample(range(1, 512), 400)
    assert kernel.write_many(*((DISK, at * B, blocks(str(at))) for at in order)) == 400
    assert kernel.write_many(*((DISK, at * B, blocks(str(-at))) for at in order)) == 400, "in place"
    assert kernel.pool.space.allocated_blocks == used + 401
    assert (kernel.disk.mapped_blocks, kernel.disk.head and kernel.disk.head.changes != changes) == (401, True)
    assert all(kernel.pool.read(kernel.disk, at * B, B) == blocks(str(-at)) for at in order)
    assert kernel.pool.read(kernel.disk.chain["s"], 0, 512 * B) == blocks("a") + bytes(511 * B)


def test_writes_to_several_disks_in_turn_do_not_mix(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.write(kernel.pool.catalog.disk("else"), 0, blocks("b"))
    writes = [(handle, at * B, blocks(f"{handle} {at}")) for at in range(1, 8) for handle in (DISK, ELSE)]
    assert kernel.write_many(*writes) == 14
    for handle, at, data in writes:
        assert kernel.pool.read(kernel.handles[handle].target, at, B) == data
    assert [disk.mapped_blocks for disk in kernel.pool.catalog.live()] == [8, 8]


def test_a_sync_behind_writes_to_new_places_waits_for_them(kernel: Kernel) -> None:
    ready(kernel.pool.commits.journal)
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.write(kernel.disk, B, blocks("b"))
    kernel.pool.commit()
    kernel.pool.write(kernel.disk, 0, bytes(B))  # makes the page one that C may change, and needs no sync of data
    assert kernel.fsync(DISK) == b""
    assert kernel.write_and_sync((DISK, 2 * B, blocks("c")), (DISK, 3 * B, blocks("d"))) == 3
    _native.stop()
    kernel.pool = kernel.home.crash()
    assert kernel.pool.read(kernel.pool.catalog.disk("disk"), 0, 4 * B) == bytes(B) + blocks("b", "c", "d")


def test_the_first_write_to_a_page_has_python_make_a_version_of_it_and_no_more(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page in range(3):
        kernel.pool.write(kernel.disk, page * PAGE, blocks("a", "b", "c"))
    kernel.snapshot("s")
    kernel.pool.commit()
    kernel.pool.write(kernel.disk, 0, blocks("A"))  # claims blocks
    used = kernel.pool.space.allocated_blocks
    calls: list[int] = []
    placed = DiskIO.placed
    with monkeypatch.context() as patch:
        patch.setattr(DiskIO, "redirect", None)
        patch.setattr(DiskIO, "placed", lambda self, *told: (calls.append(told[4]), placed(self, *told))[1])
        assert kernel.write_many(*((DISK, page * PAGE + B, blocks(f"new {page}")) for page in range(3))) == 3
        assert kernel.write_many((DISK, B, blocks("newer 0")), (DISK, PAGE + 2 * B, blocks("new"))) == 2
        assert calls == [3, 1] and kernel.pool.space.allocated_blocks == used + 4
        batch = kernel.pool.commits.freeze()
        assert kernel.write(DISK, 2 * B, blocks("beside a commit")) == B
    kernel.pool.commits.write(batch)
    kernel.pool.commits.finish(batch)
    assert kernel.read(DISK, 0, 3 * B) == blocks("A", "newer 0", "beside a commit")
    assert kernel.read(DISK, PAGE, 3 * B) == blocks("a", "new 1", "new")
    assert kernel.pool.read(kernel.disk.chain["s"], 2 * PAGE, 3 * B) == blocks("a", "b", "c")


def test_a_claim_that_is_used_up_is_renewed_by_python(kernel: Kernel) -> None:
    for page in range(3):
        kernel.pool.write(kernel.disk, page * PAGE, blocks("a"))
    data = {page * 512 + at: blocks(f"{page} {at}") for at in range(1, 512) for page in range(3)}
    assert kernel.write_many(*((DISK, at * B, block) for at, block in data.items())) == len(data)
    assert kernel.pool.space.allocated_blocks == 3 * 512 + 1
    assert kernel.pool.read(kernel.disk, B, 511 * B) == b"".join(data[at] for at in range(1, 512))


def test_a_head_that_somebody_watches_tells_what_it_let_go_of(kernel: Kernel) -> None:
    pool = kernel.pool
    pool.write(kernel.disk, 0, blocks("a", "b"))
    snapshot = kernel.snapshot("s")
    (clone,) = pool.clone(snapshot, ["clone"])
    pool.delete_snapshot(snapshot)
    pool.delete_disk(kernel.disk)
    pool.reclaim()
    used = pool.space.allocated_blocks
    kernel.handles[DISK] = Handle(clone, writable=True)
    pool.write(clone, 0, blocks("A"))
    assert kernel.write_many((DISK, B, blocks("B"))) == 1
    pool.reclaim()
    assert pool.space.allocated_blocks == used, "what the clone saw last is free"


def test_what_cannot_be_accounted_for_is_never_durable(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.write(kernel.disk, B, blocks("b"))

    def fails(*_: object) -> None:
        raise MemoryError

    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    monkeypatch.setattr(type(kernel.pool.io), "placed", fails)
    assert kernel.write_many((DISK, 2 * B, blocks("c"))) == 1
    assert len(raised) == 1 and kernel.pool.commits.failed
    assert kernel.write(DISK, 0, blocks("x")) is None
    monkeypatch.undo()
    kernel.pool = kernel.home.crash()
    assert kernel.pool.read(kernel.pool.catalog.disk("disk"), 0, 3 * B) == blocks("a") + bytes(2 * B)


def test_a_full_pool_is_left_to_python(tmp_path: Path) -> None:
    kernel = Kernel(Home(tmp_path / "pool", capacity_bytes=256 * B))
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    assert kernel.write(DISK, B, blocks(*map(str, range(1, 256)))) is None
    assert kernel.pool.read(kernel.disk, 0, B) == blocks("a")
    assert kernel.write(DISK, 0, blocks("A")) == B
    kernel.finish()


def test_a_page_that_a_commit_is_taking_is_written_in_place_all_the_same(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    batch = kernel.pool.commits.freeze()
    assert kernel.write(DISK, 0, blocks("b")) == B
    kernel.pool.commits.write(batch)
    kernel.pool.commits.finish(batch)
    assert kernel.pool.commits.needed and kernel.read(DISK, 0, B) == blocks("b")


@pytest.mark.parametrize(
    ("offset", "size"),
    [(1, B), (0, B - 1), (0, B + 1), (3 * PAGE, B), (3 * PAGE - B, 2 * B), (0, 0), (1 << 63, B), ((1 << 64) - B, B)],
)
def test_other_ranges_are_left_to_python(kernel: Kernel, offset: int, size: int) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b"))
    kernel.pool.write(kernel.disk, 3 * PAGE - B, blocks("z"))
    assert kernel.read(DISK, offset, size) is None
    assert kernel.write(DISK, offset, b"x" * size) is None
    assert kernel.pool.read(kernel.disk, 0, 2 * B) == blocks("a", "b")


def test_requests_that_make_no_sense_are_left_to_python(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    assert kernel.read(77, 0, B) is None
    assert kernel.write(77, 0, blocks("x")) is None
    assert kernel.fsync(77) is None
    whole = struct.pack("<IIQQIIIHH", 40 + 40 + B, WRITE, 1, 1, 0, 0, 0, 0, 0)
    whole += struct.pack("<QQIIQII", DISK, 0, B, 0, 0, 0, 0) + blocks("x")
    for cut in (0, 1, 39, 40, 60, 79, 80, 81, len(whole) - 1):
        assert not _native.try_requests(kernel.fuse.fileno(), [whole[:cut]])
        told = struct.pack("<I", cut) + whole[4:cut]
        assert not _native.try_requests(kernel.fuse.fileno(), [told[:cut]])
    assert kernel.read(DISK, 0, B) == blocks("a")


def test_zeros_are_data_of_which_python_is_told(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b", "c"))
    kernel.pool.commit()
    held = [address(kernel.pool, kernel.disk, block) for block in range(3)]
    assert kernel.write(DISK, 0, blocks("x") + bytes(B) + blocks("z")) == 3 * B
    kernel.pool.write(kernel.disk, PAGE + 100 * B, blocks("d"))
    assert kernel.write(DISK, PAGE - 3 * B, bytes(6 * B)) == 6 * B
    assert kernel.write(DISK, 2 * B, bytes(B - 1) + b"1") == B
    assert [address(kernel.pool, kernel.disk, block) for block in range(3)] == held
    assert (kernel.disk.mapped_blocks, kernel.read(DISK, B, B)) == (10, bytes(B))
    zeros = kernel.pool.io.zeros
    zeros.hurry()
    pieces = {}
    while (piece := zeros.take()) is not None:
        pieces[piece.page] = np.flatnonzero(piece.slots).tolist()
    assert pieces == {0: [1, 509, 510, 511], 1: [0, 1, 2]}


def test_more_zeros_than_c_keeps_in_mind_are_all_told(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, b"x" * PAGE)
    assert kernel.write_many(*((DISK, block * B, bytes(B)) for block in range(0, 400, 2))) == 200
    kernel.pool.io.zeros.hurry()
    piece = kernel.pool.io.zeros.take()
    assert piece is not None and np.flatnonzero(piece.slots).tolist() == list(range(0, 400, 2))


def test_zeros_are_left_to_python_where_space_is_short(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b"))
    kernel.pool.space.shortage = True
    assert kernel.write(DISK, 0, bytes(B)) is None
    assert kernel.write(DISK, 0, blocks("x")) == B


def test_a_handle_with_o_sync_is_left_to_python(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    assert kernel.write(SYNC, 0, blocks("b")) is None
    assert kernel.read(SYNC, 0, B) == blocks("a")


@pytest.mark.parametrize("reason", ["a commit failed", "damage", "read_only"])
def test_a_pool_that_is_read_only_is_not_written(kernel: Kernel, reason: str) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    if reason == "damage":
        kernel.pool.versions.damage = reason
    elif reason == "read_only":
        kernel.pool.read_only = True
    else:
        kernel.pool.commits.failed = reason
    assert kernel.write(DISK, 0, blocks("b")) is None
    assert kernel.read(DISK, 0, B) == blocks("a")
    kernel.pool.versions.damage = kernel.pool.commits.failed = None
    kernel.pool.read_only = False


def test_a_page_that_is_not_in_memory_is_left_to_python(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    kernel.pool.versions.forget(point_of(kernel.disk))
    assert kernel.read(DISK, 0, B) is None
    assert kernel.write(DISK, 0, blocks("b")) is None
    kernel.pool.read(kernel.disk, 0, B)
    assert kernel.read(DISK, 0, B) == blocks("a")


def test_a_rolled_back_disk_is_what_its_snapshot_holds(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b"))
    snapshot = kernel.snapshot("s")
    kernel.pool.write(kernel.disk, 0, blocks("A"))
    kernel.pool.rollback(kernel.disk, snapshot, discard=True)
    kernel.pool.read(kernel.disk, 0, B)
    assert kernel.read(DISK, 0, 2 * B) == blocks("a", "b")
    assert kernel.write(DISK, 0, blocks("x")) == B
    assert kernel.pool.read(snapshot, 0, 2 * B) == blocks("a", "b")


def until_reads_were_cold(kernel: Kernel) -> Iterator[None]:
    """Turns, before each of which the host forgets the data file, until a worker has answered a read.

    A read that may not wait has the host read ahead: a disk that is quicker than the next step of this process makes a
    warm read of it.
    """
    end = time.monotonic() + ANSWER_S
    while not kernel.committer.reads_ended:
        assert time.monotonic() < end, "no read was answered by a worker"
        os.posix_fadvise(kernel.pool.data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield
        _native.linger(kernel.fuse.fileno(), -1, 0)  # Python hears of what workers have answered


def test_cold_reads_are_answered_by_workers(kernel: Kernel) -> None:
    data = blocks(*map(str, range(1, 65)))
    kernel.pool.write(kernel.disk, 0, data)
    kernel.pool.commit()
    for _ in until_reads_were_cold(kernel):
        for at in range(0, 64, 8):
            assert kernel.read(DISK, at * B, 8 * B) == data[at * B : (at + 8) * B]
    _native.stop()
    assert kernel.pool.commits.unread() is None and not kernel.pool.commits._reading


def test_large_cold_reads_of_fragments_and_holes_are_right(kernel: Kernel) -> None:
    rng = random.Random(7)
    data = bytearray(2 * PAGE)
    for at in rng.sample(range(1024), 700):
        data[at * B : (at + 1) * B] = rng.randbytes(B)
        kernel.pool.write(kernel.disk, at * B, bytes(data[at * B : (at + 1) * B]))
    kernel.pool.commit()
    for _ in until_reads_were_cold(kernel):
        for at in (0, 1, 300, 400, 768):  # the second and third lie in two pages
            os.posix_fadvise(kernel.pool.data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            cold, warm = (kernel.read(DISK, at * B, 256 * B) for _ in range(2))
            assert cold == warm == data[at * B : (at + 256) * B]


# Writeback


class CacheStat(ctypes.Structure):
    """struct cachestat of linux/mman.h."""

    _fields_: ClassVar = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recent")]


def dirty_blocks(fd: int) -> int:
    """How many pages of a file the host has not begun to write to its disk."""
    found, whole = CacheStat(), (ctypes.c_uint64 * 2)(0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(CACHESTAT, fd, whole, ctypes.byref(found), 0) != 0:
        pytest.skip(f"cachestat: {os.strerror(ctypes.get_errno())}")
    return int(found.dirty)


@pytest.fixture
def written(kernel: Kernel) -> bytes:
    """Two MiB from block 1 on, on the host's disk, where the host keeps count of what is not."""
    data = random.Random(1).randbytes(PAGE)
    kernel.pool.write(kernel.disk, B, data)
    if dirty_blocks(kernel.pool.data.fileno()) == 0:
        pytest.skip("the host keeps no dirty pages here")
    kernel.pool.commit()
    return data


@pytest.mark.parametrize("snapshot", [False, True])
def test_the_host_begins_to_write_what_linux_writes_back(kernel: Kernel, written: bytes, snapshot: bool) -> None:
    fd = kernel.pool.data.fileno()
    if snapshot:
        kernel.snapshot("s")
        kernel.pool.commit()
    half = PAGE // 2
    assert kernel.write(DISK, B, written[:half][::-1]) == half
    assert dirty_blocks(fd) == 256, "nobody waits for these"
    assert kernel.write(DISK, B + half, written[half:][::-1], WRITE_CACHE) == half, "in two pages"
    assert kernel.write(DISK, B, written[:B], WRITE_CACHE) == B
    _native.stop()
    assert dirty_blocks(fd) == 256, "a small write is left to the next sync"
    assert kernel.pool.io.unsynced
    assert kernel.pool.read(kernel.disk, B, PAGE) == written[:B] + written[:half][::-1][B:] + written[half:][::-1]


def test_scattered_blocks_are_left_to_the_next_sync(kernel: Kernel, written: bytes) -> None:
    for block in random.Random(2).sample(range(600, 856), 256):
        kernel.pool.write(kernel.disk, block * B, written[block : block + B])
    kernel.pool.commit()
    assert kernel.write(DISK, 600 * B, written[: 256 * B], WRITE_CACHE) == 256 * B
    _native.stop()
    assert dirty_blocks(kernel.pool.data.fileno()) == 256


# Syncs


def test_data_alone_is_synced_without_python(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    assert kernel.fsync(DISK) is None, "the map has to be committed"
    kernel.pool.commit()
    before = _native.served()[2]
    assert kernel.fsync(DISK) == b""
    assert kernel.write(DISK, 0, blocks("b")) == B
    assert kernel.fsync(DISK) == b""
    assert _native.served()[2] == before + 2
    assert kernel.pool.io.unsynced, "Python's own account of it stays"
    assert kernel.fsync(OWN) is None


def test_a_data_file_that_was_cut_off_is_not_written_to(kernel: Kernel, log: Log) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a", "b", "c"))
    kernel.pool.commit()
    assert kernel.write(DISK, B, blocks("B")) == B == kernel.write(DISK, 8 * B, blocks("new"))
    whole = kernel.pool.data.size_bytes()
    assert kernel.pool.data.reach[0] == whole
    path = kernel.home.data_path
    content = path.read_bytes()
    os.truncate(path, whole - B)
    assert kernel.write(DISK, 0, blocks("A")) is None and kernel.write(DISK, 9 * B, blocks("more")) is None
    assert kernel.fsync(DISK) is None
    assert path.read_bytes() == content[:-B]
    assert "the data file was cut off" in log.take()
    path.write_bytes(content)
    kernel.pool.versions.damage = None


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_new_blocks_are_synced_with_a_record_of_the_journal(kernel: Kernel, others: bool) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    ready(kernel.pool.commits.journal)
    kernel.snapshot("s")
    assert kernel.fsync(DISK) is None, "the map has to be committed: there is a new snapshot"
    kernel.pool.commit()
    if others:
        kernel.mine.send(b"a request that waits")
    before = _native.served()[3]
    for number in range(3):
        assert kernel.write(DISK, number * B, blocks(f"new {number}")) == B
        assert kernel.fsync(DISK) == b""
    assert kernel.write(DISK, B, blocks("again")) == B
    assert kernel.fsync(DISK) == b"", "in its place, but the journal has older data for it"
    assert kernel.write(DISK, B, blocks("new 1")) == B
    assert kernel.fsync(DISK) == b""
    assert kernel.write(DISK, 4 * B, blocks("lost")) == B
    assert _native.served()[3] == before + 5
    home = Survivor(kernel.home)
    with open(home.data_path, "r+b") as file:  # nothing but the journal was synced
        for block in range(5):
            file.seek(address(kernel.pool, kernel.disk, block) * B)
            file.write(bytes(B) if address(kernel.pool, kernel.disk, block) else b"")
    survivor = home.open()
    disk, snapshot = survivor.catalog.disk("disk"), survivor.catalog.snapshots[kernel.handles[SNAPSHOT].target.id]
    assert survivor.read(disk, 0, 5 * B) == blocks("new 0", "new 1", "new 2") + bytes(2 * B)
    assert survivor.read(snapshot, 0, 2 * B) == blocks("a") + bytes(B)
    survivor.close()


def changed(kernel: Kernel) -> None:
    """A page that C may write to new places of, all else durable, and a journal that is ready."""
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    ready(kernel.pool.commits.journal)
    kernel.pool.write(kernel.disk, 0, blocks("b"))
    kernel.pool.write(kernel.disk, B, blocks("c"))
    assert kernel.fsync(DISK) == b""


def test_new_blocks_are_synced_many_times_before_python_hears_of_any(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(kernel)
    calls: list[int] = []
    placed = DiskIO.placed
    monkeypatch.setattr(DiskIO, "placed", lambda self, *told: (calls.append(len(told[2])), placed(self, *told))[1])
    monkeypatch.setattr(Commits, "begin_record", None)
    before, used = _native.served()[2:], kernel.pool.space.allocated_blocks
    requests = [
        request
        for at in range(2, 22)
        for request in (kernel.request(WRITE, _write(DISK, at * B, blocks(f"{at}"))), kernel.request(FSYNC, _fsync()))
    ]
    assert kernel.ask_all(requests) == 40
    assert calls == [20] and kernel.pool.space.allocated_blocks == used + 20
    assert _native.served()[2:] == (before[0] + 20, before[1] + 20)
    survivor = Survivor(kernel.home).open()
    assert survivor.read(survivor.catalog.disk("disk"), 21 * B, B) == blocks("21")
    assert survivor.catalog.disk("disk").mapped_blocks == kernel.disk.mapped_blocks == 22
    assert findings(survivor) == []
    survivor.close()


def test_what_python_was_never_told_of_is_durable_in_the_journal(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(kernel)
    monkeypatch.setattr(DiskIO, "placed", None)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert kernel.write_and_sync((DISK, 2 * B, blocks("d"))) == 2
    assert kernel.pool.commits.failed
    monkeypatch.undo()
    kernel.pool = kernel.home.crash()
    assert kernel.pool.read(kernel.pool.catalog.disk("disk"), 0, 3 * B) == blocks("b", "c", "d")
    assert findings(kernel.pool) == []


@pytest.mark.parametrize("seed", range(8))
def test_c_makes_the_record_that_python_would(kernel: Kernel, seed: int) -> None:
    rng = random.Random(seed)
    pool = kernel.pool
    other = pool.catalog.disk("else")
    pool.write(kernel.disk, 0, b"x" * (2 * PAGE))
    pool.commit()
    journal = ready(pool.commits.journal)
    if seed % 2:
        pool.punch(kernel.disk, 0, PAGE)
    kernel.snapshot("s")
    pool.commit()
    for _ in range(3):
        for slot in rng.sample(range(512), rng.choice((1, 3, 400))):  # some pages have too many runs for their codec
            pool.write(kernel.disk, rng.randrange(3) * PAGE + slot * B, blocks("y"))
        pool.punch(kernel.disk, rng.randrange(512) * B, 5 * B)
        pool.write(other, rng.randrange(20) * B, blocks("grows, perhaps"))
        kernel.disk.modified_ns = rng.randrange(-(1 << 40), 1 << 40)
        if rng.random() < 0.7:
            pool.io.forget_recent()
            for slot in rng.sample(range(40), rng.randrange(15)):
                pool.write(kernel.disk, slot * B, rng.randbytes(B))
        state, unjournaled, recent = bytes(journal.state), set(pool.io.unjournaled), pool.io.recent[:]
        appended = pool.commits.begin_record()
        assert appended is not None
        wanted = bytes(journal.state)
        ctypes.memmove(ctypes.addressof(journal.state), state, len(state))
        pool.io.unjournaled |= unjournaled
        pool.io.recent[:] = recent
        assert kernel.fsync(DISK) == b""
        kernel.settle()
        made = os.pread(journal.state.fd, len(appended.record), appended.position)
        assert made == appended.record
        journal.state.under_way += 1
        journal.state.durable -= 1
        assert bytes(journal.state) == wanted, "and takes note of as much"
        pool.commits.end_record()


def test_a_sync_of_nothing_new_writes_nothing_and_waits_for_those_on_their_way(kernel: Kernel) -> None:
    changed(kernel)
    state = kernel.pool.commits.journal.state
    records = state.records
    assert kernel.fsync(DISK) == b"" == kernel.fsync(DISK)
    assert state.records == records
    kernel.mine.send(b"a request that waits")
    requests = [kernel.request(WRITE, _write(DISK, 5 * B, blocks("x"))), *(kernel.request(FSYNC, _fsync()),) * 3]
    assert kernel.ask_all(requests) == 4
    assert state.records == records + 1


def test_a_sync_of_what_no_record_of_the_journal_may_hold_is_left_to_python(kernel: Kernel) -> None:
    changed(kernel)
    assert kernel.write(DISK, 5 * B, blocks("x")) == B
    kernel.pool.commits.journal.state.next = kernel.pool.commits.journal.state.ready_bytes
    assert kernel.fsync(DISK) is None, "the journal is full"
    assert kernel.pool.commits.journal.state.crowded and kernel.pool.io.unjournaled
    kernel.pool.commit()
    for page in range(3):
        kernel.pool.write(kernel.disk, page * PAGE, blocks("x"))
    kernel.committer.soft_pages = 1
    assert kernel.fsync(DISK) is None, "there is too much to commit"
    kernel.committer.soft_pages = 100
    kernel.pool.rename_disk(kernel.disk, "renamed")
    assert kernel.fsync(DISK) is None, "a name is the map's"
    kernel.pool.commit()
    kernel.pool.delete_disk(kernel.disk)
    kernel.pool.commit()
    kernel.disk.handles = 1
    kernel.pool.write(kernel.disk, 9 * B, blocks("y"))
    assert kernel.fsync(DISK) is None, "a disk that is deleted has no record"
    kernel.disk.handles = 0


def test_a_sync_of_a_head_that_somebody_watches_tells_what_it_let_go_of(kernel: Kernel) -> None:
    pool = kernel.pool
    pool.write(kernel.disk, 0, blocks("a", "b"))
    snapshot = kernel.snapshot("s")
    clone, _ = pool.clone(snapshot, ["clone", "other"])  # one alone would take over what it sees
    pool.delete_snapshot(snapshot)
    pool.delete_disk(kernel.disk)
    pool.reclaim()
    assert clone.head is not None and clone.head.watched
    ready(pool.commits.journal)
    kernel.handles[DISK] = Handle(clone, writable=True)
    pool.write(clone, 2 * B, blocks("C"))
    pool.commit()
    pool.write(clone, 3 * B, blocks("D"))
    assert kernel.fsync(DISK) == b""
    assert kernel.write_and_sync((DISK, B, blocks("B"))) == 1, "that it let go of has to be durable as well"


def test_much_that_was_written_is_synced_in_its_place(kernel: Kernel) -> None:
    ready(kernel.pool.commits.journal)
    kernel.pool.write(kernel.disk, 0, b"x" * (40 * B))
    kernel.pool.commit()
    kernel.snapshot("s")
    kernel.pool.commit()
    assert kernel.write(DISK, 0, blocks("little")) == B
    assert kernel.fsync(DISK) == b""
    assert kernel.write(DISK, 0, blocks("much")) == B
    assert kernel.write(DISK, 20 * B, b"y" * (17 * B)) == 17 * B
    assert kernel.fsync(DISK) == b""
    assert kernel.write(DISK, 2 * B, blocks("little")) == B
    assert kernel.fsync(DISK) == b""
    one, two, three = kernel.pool.commits.journal.records(kernel.pool._map.commit).records
    assert [(len(record.data), record.home) for record in (one, two, three)] == [(1, 0), (0, 1), (1, 1)]
    survivor = Survivor(kernel.home).open()
    assert survivor.read(survivor.catalog.disk("disk"), 0, B) == blocks("much")
    survivor.close()


def test_syncs_whose_record_cannot_be_written_are_left_to_python(kernel: Kernel, tmp_path: Path) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    ready(kernel.pool.commits.journal)
    kernel.snapshot("s")
    kernel.pool.commit()
    kernel.pool.commits.journal.state.fd = os.open(kernel.home.data_path, os.O_RDONLY)
    kernel.write_and_sync((DISK, 0, blocks("lost")), answers=1)
    kernel.write_and_sync((DISK, 0, blocks("trusts in it")), answers=1)  # this one's data alone would be enough
    _native.stop()
    assert kernel.committer.records_lost >= 1 and not kernel.committer.failures
    assert not kernel.pool.commits.appending
    assert kernel.pool.commits.map_changed, "or Python would not commit"
    kernel.mine.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.mine.recv(1)
    kernel.pool.commit()
    assert kernel.pool.commits.begin_record() is None
    survivor = Survivor(kernel.home).open()
    assert survivor.read(survivor.catalog.disk("disk"), 0, B) == blocks("trusts in it")
    survivor.close()


def test_a_sync_that_no_record_can_hold_is_answered_by_python_alone(kernel: Kernel) -> None:
    ready(kernel.pool.commits.journal)
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    kernel.pool.commit()
    kernel.snapshot("s")
    assert kernel.write(DISK, 0, blocks("b")) is not None
    assert kernel.fsync(DISK) is None
    _native.stop()
    kernel.mine.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.mine.recv(1)


def test_a_sync_beside_a_commit_is_left_to_python(kernel: Kernel) -> None:
    kernel.pool.write(kernel.disk, 0, blocks("a"))
    batch = kernel.pool.commits.freeze()
    assert kernel.write(DISK, 0, blocks("b")) == B
    assert kernel.fsync(DISK) is None
    kernel.pool.commits.write(batch)
    kernel.pool.commits.finish(batch)
    kernel.pool.commits.begin_sync()
    assert kernel.fsync(DISK) is None, "that sync is not done"
    kernel.pool.commits.sync()
    kernel.pool.commits.end_sync()
    assert kernel.fsync(DISK) == b""


@pytest.mark.parametrize("more", [0, FATTR_FH])
def test_the_time_that_linux_tells_before_a_sync_is_taken(kernel: Kernel, more: int) -> None:
    assert kernel.setattr(1, FATTR_MTIME | FATTR_CTIME | more) == b"attributes"
    assert kernel.times == [(1, 5 * 10**9 + 6, 7 * 10**9 + 10)]


@pytest.mark.parametrize("valid", [FATTR_MODE, FATTR_MTIME, FATTR_MTIME | FATTR_CTIME | FATTR_MODE])
def test_other_attributes_are_left_to_python(kernel: Kernel, valid: int) -> None:
    assert kernel.setattr(1, valid) is None
    assert kernel.times == []
    assert kernel.setattr(2, FATTR_MTIME | FATTR_CTIME) is None, "what is no disk"


FAILING = """
import os, socket, sys
from pathlib import Path
from rowfs.native import _native
from tests.operations.test_hotpath import DISK, Kernel, blocks
from rowfs.store.model import Disk, Snapshot, State
from tests.store.helpers import Home

kernel = Kernel(Home(Path(sys.argv[1])))
kernel.pool.write(kernel.disk, 0, blocks("a"))
kernel.pool.commit()
kernel.pool.data.sync_with(_native.sync_data)
kernel.pool.data.sync()
bad, _ = os.pipe()  # cannot be synced
_native.serve(kernel.handles, kernel.pool, kernel.committer, None, bad, Disk, Snapshot, State.DIRTY)
assert kernel.write(DISK, 0, blocks("b")) is None
kernel.pool.write(kernel.disk, 0, blocks("b"))
kernel.mine.settimeout(0.5)
if sys.argv[2] == "beside others":
    kernel.mine.send(b"a request that waits")
try:
    answer = kernel.fsync(DISK)
    print(answer.decode() if kernel.committer.failures else "answered before Python knows", kernel.committer.failures)
except TimeoutError:
    _native.stop()
    print(kernel.mine.recv(100)[4:8].hex(), kernel.committer.failures)
try:
    kernel.pool.data.sync()
    print("a sync after one that failed says that it is done")
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("how", ["alone", "beside others"])
def test_a_sync_that_failed_is_told_and_never_tried_into_a_success(tmp_path: Path, how: str) -> None:
    done = subprocess.run(  # what has failed stays so for the life of a process
        [sys.executable, "-c", FAILING, str(tmp_path / "pool"), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    error = struct.pack("<i", -EIO).hex() if how == "beside others" else os.strerror(EIO)
    assert (done.stdout.splitlines(), done.stderr) == ([f"{error} [22]", "StorageError"], "")


# Everything at once


@pytest.mark.parametrize("seed", range(6))
def test_random_requests_do_what_python_alone_would(kernel: Kernel, seed: int) -> None:
    rng = random.Random(seed)
    pool, disk = kernel.pool, kernel.disk
    oracle = bytearray(disk.size_bytes)
    held: dict[str, bytes] = {}
    in_c = 0
    for step in range(400):
        block = rng.choice((rng.randrange(40), 500 + rng.randrange(40), rng.randrange(3 * 512)))
        count = min(rng.choice((1, 1, 1, 2, 5, 30, 256)), 3 * 512 - block)
        at, size = block * B, count * B
        match rng.choice(
            (*["write", "read", "share"] * 2, "write", "queue", "snapshot", "seal", "old", "punch", "commit", "delete")
        ):
            case "write":
                data = rng.randbytes(size) if rng.random() < 0.9 else bytes(size)
                if kernel.write(DISK, at, data, rng.choice((0, WRITE_CACHE))) is None:
                    pool.write(disk, at, data)
                else:
                    in_c += 1
                oracle[at : at + size] = data
            case "queue":
                queue = [(DISK, rng.randrange(60) * B, rng.randbytes(B)) for _ in range(rng.randrange(40))]
                while queue:
                    done = kernel.write_many(*queue)
                    in_c += done
                    for _, offset, data in queue[: done + 1]:
                        oracle[offset : offset + B] = data
                    if done < len(queue):
                        pool.write(disk, *queue[done][1:])
                    queue = queue[done + 1 :]
            case "read":
                answer = kernel.read(DISK, at, size)
                in_c += answer is not None
                assert (pool.read(disk, at, size) if answer is None else answer) == oracle[at : at + size], (seed, step)
            case "snapshot" if len(held) < 5:
                held[kernel.snapshot(f"s{step}").name] = bytes(oracle)
            case "seal":
                pool.sealer.run()
            case "old" if held:
                name = rng.choice(list(held))
                kernel.handles[SNAPSHOT] = Handle(disk.chain[name], writable=False)
                answer = kernel.read(SNAPSHOT, at, size) or pool.read(disk.chain[name], at, size)
                assert answer == held[name][at : at + size], (seed, step)
            case "share":
                source, content = rng.choice(
                    [(disk, bytes(oracle)), *((disk.chain[name], held[name]) for name in held)]
                )
                to = rng.randrange(3 * 512 - count) * B
                if source is not disk or abs(at - to) >= size:
                    assert max(pool.share(source, at, disk, to, size)) == size
                    oracle[to : to + size] = content[at : at + size]
            case "punch":
                pool.punch(disk, at, size)
                oracle[at : at + size] = bytes(size)
            case "commit":
                pool.commit()
                if rng.random() < 0.3:  # the next reads are cold
                    os.posix_fadvise(pool.data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            case "delete" if held:
                name = rng.choice(list(held))
                pool.delete_snapshot(disk.chain[name])
                del held[name]
                pool.reclaim()
    assert pool.read(disk, 0, disk.size_bytes) == oracle
    for name, content in held.items():
        assert pool.read(disk.chain[name], 0, disk.size_bytes) == content
    assert in_c > 20
