"""A file system without a kernel: the operations, called as pyfuse3 would call them for system calls on paths."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from errno import errorcode
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from rowfs.base.errors import RowfsError, StorageError
from rowfs.base.inodenumbers import ROOT
from rowfs.control.methods import Methods
from rowfs.mount.operations import Operations
from rowfs.persist.datafile import DataFile
from rowfs.persist.journal import Journal
from rowfs.service.service import Service
from rowfs.service.writeback import Question
from rowfs.store.commit import Appended
from rowfs.store.model import Disk
from rowfs.verbs.table import METHODS
from tests.store.helpers import B, Home, fill

DEADLINE_S = 60.0  # of one test, on a machine that has much else to do
SIZE_FIELDS = ("size", "mode", "uid", "gid", "atime", "mtime", "ctime")


@dataclass
class Context:
    """Who makes a request."""

    uid: int = 0
    gid: int = 0
    pid: int = 1
    umask: int = 0o022


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """The request in the block is answered with one of these errnos."""
    with pytest.raises(pyfuse3.FUSEError) as caught:
        yield
    got, wanted = errorcode[caught.value.errno], " or ".join(errorcode[number] for number in numbers)
    assert caught.value.errno in numbers, f"answered with {got}, not {wanted}"


async def until(condition: Callable[[], object], what: str) -> None:
    """Let others work until `condition`."""
    with trio.move_on_after(DEADLINE_S / 2):
        while not condition():
            await trio.sleep(0.001)
        return
    pytest.fail(f"in vain waited for {what}")


class FailingData(DataFile):
    """A data file whose syncs fail while `broken`."""

    broken = False

    def sync(self) -> None:
        """As DataFile.sync."""
        if self.broken:
            raise StorageError("fdatasync of the data file failed: Input/output error")
        super().sync()


class GatedData(DataFile):
    """A data file whose syncs, and reads that had to wait for the disk, take until `gate` is open."""

    def __init__(self, path: str, read_only: bool = False) -> None:
        super().__init__(path, read_only)
        self.gate = threading.Event()
        self.gate.set()
        self.cold = False  # nothing is in the host's page cache
        self.waiting = 0

    def _pass(self) -> None:
        self.waiting += 1
        assert self.gate.wait(DEADLINE_S), "nobody opened the gate"
        self.waiting -= 1

    def sync(self) -> None:
        """As DataFile.sync."""
        self._pass()
        super().sync()

    def read_cached(self, spans: Any, buffer: memoryview) -> bool:
        """As DataFile.read_cached."""
        return not self.cold and super().read_cached(spans, buffer)

    def read(self, spans: Any, buffer: memoryview) -> None:
        """As DataFile.read."""
        if self.cold and threading.current_thread() is not threading.main_thread():
            self._pass()
        super().read(spans, buffer)


class FakeKernel:
    """Takes the place of KernelCache: keeps nothing, and notes what it was asked for."""

    def __init__(self, fs: Fs) -> None:
        self._fs = fs
        self.own_threads: dict[int, Any] = {}
        self.asked: list[tuple[str, str]] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None  # what others do while the kernel flushes

    async def flush(self, disk: Disk) -> None:
        """As KernelCache.flush."""
        self.asked.append(("flush", disk.name))
        await trio.lowlevel.checkpoint()
        if self.meanwhile is not None:
            others, self.meanwhile = self.meanwhile, None
            await others()

    async def drop(self, disk: Disk) -> None:
        """As KernelCache.drop."""
        self.asked.append(("drop", disk.name))
        await trio.lowlevel.checkpoint()

    async def forget_attributes(self, inodes: Sequence[int]) -> None:
        """As KernelCache.forget_attributes."""
        self.asked += [("forget", str(inode)) for inode in inodes]
        await trio.lowlevel.checkpoint()

    async def truncate(self, disk: Disk, size_bytes: int) -> None:
        """As KernelCache.truncate: the request comes back, as one of ours."""
        self.asked.append(("truncate", disk.name))
        await self._fs.truncate(disk.name, size_bytes)


class FakeWriteback:
    """Takes the place of Writeback: the kernel holds what a test says, and hands it over when it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.held: list[Callable[[], Awaitable[object]]] = []  # each writes something that the kernel cached
        self.written = True  # whether it can be waited for
        self.size_bytes: int | None = None

    async def ask(self, disk: Disk, start: int, length: int) -> Question:
        """As Writeback.ask."""
        self.asked.append((disk.name, start, length))
        await trio.lowlevel.checkpoint()
        if self.held:
            await self.held.pop(0)()
        return Question(start, length, size_bytes=self.size_bytes, written=self.written)


@dataclass
class Listing:
    """The buffer that readdir fills: as many entries as there is room for."""

    room: int
    entries: list[tuple[str, int, int]] = field(default_factory=list)  # name, inode, where to go on

    def reply(self, name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
        """As pyfuse3.readdir_reply."""
        if len(self.entries) == self.room:
            return False
        self.entries.append((os.fsdecode(name), attributes.st_ino, next_id))
        return True


class FakeCaller:
    """Who asks over the socket."""

    def __init__(self) -> None:
        self.uid, self.gid, self.pid = 0, 0, 4711
        self.items: list[Any] = []
        self.afterwards = AsyncExitStack()
        self.told: list[tuple[int, int | None, str, str]] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None  # what others do at the first part

    async def progress(self, done: int, total: int | None, unit: str, what: str) -> None:
        """As Caller.progress."""
        self.told.append((done, total, unit, what))

    async def part(self, items: list[Any]) -> None:
        """As Caller.part."""
        self.items += items
        if self.meanwhile is not None:
            others, self.meanwhile = self.meanwhile, None
            await others()


class FakeNative:
    """Takes the place of the C extension: what it was told to answer."""

    def __init__(self) -> None:
        self.answers: dict[int, tuple[str, int]] = {}

    def reply_error(self, request: int, code: int) -> None:
        """The request failed, or (0) is done."""
        self._answer(request, "error", code)

    def reply_offset(self, request: int, offset: int) -> None:
        """As lseek answers."""
        self._answer(request, "offset", offset)

    def reply_count(self, request: int, count: int) -> None:
        """As copy_file_range answers."""
        self._answer(request, "count", count)

    def served(self) -> tuple[int, int, int, int]:
        """It answers nothing by itself."""
        return 0, 0, 0, 0

    def _answer(self, request: int, kind: str, value: int) -> None:
        assert request not in self.answers, "a request is answered twice"
        self.answers[request] = (kind, value)


class Survivor(Home):
    """What a crash now would leave of a pool: a copy of what is durable."""

    def __init__(self, home: Home) -> None:
        self.path = home.path.with_name(f"survivor-{len(list(home.path.parent.iterdir()))}")
        self.pool = None
        shutil.copytree(home.path, self.path)


class Fs:
    """A pool, its operations, and system calls on paths of a mount that is not there."""

    def __init__(self, home: Home, **options: Any) -> None:
        self.home = home
        self.ctx: Any = Context()
        self.native = FakeNative()
        self.survivors: list[Fs] = []
        self.pool = home.open(**options)
        self.service = Service(self.pool, str(home.path.with_name("mnt")), lambda inode, attributes_only: None)
        self.kernel = FakeKernel(self)
        self.service.cache = self.kernel  # type: ignore[assignment]
        self.writeback = FakeWriteback()
        self.service.writeback = self.writeback  # type: ignore[assignment]
        self.ops = Operations(self.service, 0, 0, self.pool.catalog.pool.created_ns)
        self.methods = Methods(self.service, self.unmount)
        self.caller: Any = FakeCaller()
        self.unmounted: list[bool] = []

    def finish(self) -> None:
        """Hold the pool, and what crashes left of it, against all invariants."""
        for fs in [*self.survivors, self]:
            if fs.pool.versions.damage:  # a test has pretended so: what is stored is in order
                fs.home.reopen()
            fs.home.finish()

    def after_a_crash(self, **options: Any) -> Fs:
        """What would be found if the machine stopped now."""
        self.survivors.append(Fs(Survivor(self.home), **options))
        return self.survivors[-1]

    async def drive(self, test: Callable[[], Awaitable[None]]) -> None:
        """Run `test` beside the tasks that commit and reclaim."""
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self.ops.start_in(nursery)
            await nursery.start(self.service.committer.run)
            try:
                with trio.fail_after(DEADLINE_S):
                    await test()
            except (Exception, pytest.fail.Exception) as error:
                failure = error
            self.service.committer.stop()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # Paths: "vm", ".snapshots/vm/s"; "" is the mountpoint

    async def walk(self, path: str) -> int:
        """The inode at a path; each step counts as one lookup, as in the kernel."""
        inode = ROOT
        for name in filter(None, path.split("/")):
            entry = await self.ops.lookup(pyfuse3.InodeT(inode), os.fsencode(name), self.ctx)
            inode = entry.st_ino
        return inode

    async def parent(self, path: str) -> tuple[Any, bytes]:
        """The inode of the directory, and the last name."""
        directory, _, name = path.rpartition("/")
        return await self.walk(directory), os.fsencode(name)

    async def stat(self, path: str) -> pyfuse3.EntryAttributes:
        """stat(2)."""
        return await self.ops.getattr(await self.inode(path), self.ctx)

    async def inode(self, path: str) -> Any:
        """As walk, typed as pyfuse3 wants it."""
        return pyfuse3.InodeT(await self.walk(path))

    async def create(self, path: str, flags: int = os.O_RDWR, mode: int = 0o644) -> Any:
        """open(2) with O_CREAT of what is not there: the handle."""
        inode, name = await self.parent(path)
        info, _ = await self.ops.create(inode, name, mode, flags | os.O_CREAT, self.ctx)
        return info.fh

    async def open(self, path: str, flags: int = os.O_RDWR) -> Any:
        """open(2): the handle."""
        return (await self.ops.open(await self.inode(path), flags, self.ctx)).fh

    async def close(self, handle: Any) -> None:
        """close(2)."""
        await self.ops.flush(handle)
        await self.ops.release(handle)

    async def unlink(self, path: str) -> None:
        """unlink(2)."""
        inode, name = await self.parent(path)
        await self.ops.unlink(inode, name, self.ctx)

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        """renameat2(2)."""
        from_inode, from_name = await self.parent(old)
        to_inode, to_name = await self.parent(new)
        await self.ops.rename(from_inode, from_name, to_inode, to_name, flags, self.ctx)

    async def setattr(self, path: str, **values: int) -> pyfuse3.EntryAttributes:
        """chmod(2) and the like: size, mode, uid, gid, mtime_ns."""
        return await self.setattr_of(await self.inode(path), **values)

    async def setattr_of(self, inode: Any, **values: int) -> pyfuse3.EntryAttributes:
        """As setattr, of an inode."""
        names = {name.removesuffix("_ns") for name in values}
        fields: Any = SimpleNamespace(**{f"update_{name}": name in names for name in SIZE_FIELDS})
        entry = pyfuse3.EntryAttributes()
        for name, value in values.items():
            setattr(entry, f"st_{name}", value)
        return await self.ops.setattr(inode, entry, fields, None, self.ctx)

    async def truncate(self, path: str, size_bytes: int) -> None:
        """truncate(2)."""
        await self.setattr(path, size=size_bytes)

    async def extra(self, name: str, *args: int) -> int:
        """fallocate, lseek or copy_file_range: what is answered. Raises FUSEError."""
        request = len(self.native.answers) + 1000
        getattr(self.ops, name)(request, *args)
        await until(lambda: request in self.native.answers, f"an answer to {name}")
        kind, value = self.native.answers[request]
        if kind == "error" and value:
            raise pyfuse3.FUSEError(value)
        return value

    async def getxattr(self, path: str, name: str) -> str:
        """getxattr(2)."""
        return os.fsdecode(await self.ops.getxattr(await self.inode(path), os.fsencode(name), self.ctx))

    async def snapshot(self, disk: str, name: str) -> None:
        """touch .snapshots/DISK/NAME."""
        await self.close(await self.create(f".snapshots/{disk}/{name}", os.O_WRONLY))

    async def list(self, path: str = "", room: int = 100) -> dict[str, int]:
        """readdir(3), `room` entries at a time: names and inodes."""
        handle = await self.ops.opendir(await self.inode(path), self.ctx)
        found: list[tuple[str, int, int]] = []
        while entries := await self.list_some(handle, found[-1][2] if found else 0, room):
            found += entries
        names = [name for name, _, _ in found]
        assert len(set(names)) == len(names), "an entry comes twice"
        return {name: inode for name, inode, _ in found}

    async def list_some(self, handle: Any, start: int, room: int) -> list[tuple[str, int, int]]:
        """One readdir request."""
        listing: Any = Listing(room)
        await self.ops.readdir(handle, start, listing)
        entries: list[tuple[str, int, int]] = listing.entries
        return entries

    # What tests do all the time

    async def disk(self, name: str, blocks: int = 4, *texts: str) -> None:
        """A disk of some blocks that begins with recognisable ones."""
        handle = await self.create(name)
        await self.truncate(name, blocks * B)
        await self.put(handle, 0, *texts)
        await self.close(handle)

    async def put(self, handle: Any, block: int, *texts: str) -> None:
        """Write recognisable blocks through a handle."""
        if texts:
            data = b"".join(map(fill, texts))
            assert await self.ops.write(handle, block * B, data) == len(data)

    async def write(self, name: str, block: int, *texts: str) -> None:
        """Write recognisable blocks to a disk."""
        handle = await self.open(name)
        await self.put(handle, block, *texts)
        await self.close(handle)

    async def bytes(self, path: str) -> bytes:
        """All that a file holds."""
        handle = await self.open(path, os.O_RDONLY)
        size = (await self.stat(path)).st_size
        data = await self.ops.read(handle, 0, size)
        await self.close(handle)
        return bytes(data)

    async def holds(self, path: str, *texts: str) -> bool:
        """Whether a file is made of just these blocks; an empty one stands for zeros."""
        return await self.bytes(path) == b"".join(fill(text) if text else bytes(B) for text in texts)

    async def reclaimed(self) -> None:
        """All that can be freed now is."""
        await self.service.committer.commit()
        while self.pool.reclaimer.ready or self.pool.space.freed_blocks:
            await until(lambda: not self.pool.reclaimer.ready, "the reclaimer")
            await self.service.committer.reclaimed()

    async def ask(self, method: str, **params: Any) -> Any:
        """Ask as over the socket. What is refused, and how far the work is, comes as it is declared."""
        verb, told = METHODS[method], len(self.caller.told)
        try:
            return await self.methods.table()[method](self.caller, params)
        except RowfsError as error:
            assert errorcode[error.errno] in verb.errnos, f"{method} does not declare this: {error}"
            raise
        finally:
            assert {unit for _, _, unit, _ in self.caller.told[told:]} <= {verb.progress}, method

    async def unmount(self, force: bool) -> None:
        """What `umount` over the socket does to a mount that is not there."""
        self.unmounted.append(force)


def without_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every commit go to the map."""
    monkeypatch.setattr(Journal, "place", lambda journal, length: None)


class Writes:
    """Counts the commits that a pool writes, records of its journal, and syncs of the data file alone (`syncs`)."""

    def __init__(self, fs: Fs) -> None:
        self.count = self.records = self.syncs = 0
        commits = fs.pool.commits
        self._write, self._append, self._sync = commits.write, commits.append, commits.sync
        commits.write = self  # type: ignore[method-assign,assignment]
        commits.append = self.append  # type: ignore[method-assign]
        commits.sync = self.sync  # type: ignore[method-assign]

    def __call__(self, batch: Any) -> None:
        self.count += 1
        self._write(batch)

    def append(self, appended: Appended) -> None:
        """As Commits.append."""
        self.records += 1
        self._append(appended)

    def sync(self) -> None:
        """As Commits.sync."""
        self.syncs += 1
        self._sync()
