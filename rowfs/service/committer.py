"""Commits and reclaim beside the requests: what runs in worker threads, and when.

One commit at a time. Who needs durability while one runs shares the next one. The trio thread freezes and finishes, a
worker writes; blocks that were freed are recycled once no cold read may want them, and punched when there is time
(service.punching).
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from rowfs.base.errors import CorruptionError, NoSpaceError, ReadOnlyError, RowfsError, StorageError
from rowfs.persist.blockmap import MapFullError, MapNoSpaceError
from rowfs.persist.journal import JournalError
from rowfs.service import pace
from rowfs.service.ahead import Ahead
from rowfs.service.counting import counted
from rowfs.service.lookover import LookOver
from rowfs.service.punching import Punching
from rowfs.service.scrub import Scrub
from rowfs.service.sealing import Sealing
from rowfs.service.tasks import contained
from rowfs.service.trimming import Trimming
from rowfs.service.worker import Worker
from rowfs.store.commit import Batch
from rowfs.store.pool import Pool

log = logging.getLogger(__name__)

INTERVAL_S = 3.0  # so that a commit that takes up to 2 s still keeps the promise of 5
MAKING_S, MAKING_BLOCKS = 0.03, 16384  # reclaimed before a commit, when somebody waits for space: 64 MiB at most
RETRY_S = 1.0  # a commit for which the host has no space, unless somebody asks for it earlier


@dataclass(slots=True)
class _Outcome:
    """A commit that somebody waits for."""

    done: trio.Event = field(default_factory=trio.Event)
    error: RowfsError | None = None

    def end(self, error: RowfsError | None = None) -> None:
        """Whoever waits goes on."""
        self.error = self.error or error
        self.done.set()


class Committer:
    """Keeps a mounted pool durable and tidy."""

    def __init__(self, pool: Pool, requests: Callable[[], int] = lambda: 0) -> None:
        """`requests` tells how many requests there were, so that background work steps back while there are many."""
        self._pool = pool
        self._requests = requests
        self.trimming = Trimming(pool, self)
        self.asked = 0  # how often somebody wanted a commit
        self._punching = Punching(pool, requests)
        self.ahead = Ahead(pool, requests)
        self.sealing = Sealing(pool, self, requests)
        self.scrub = Scrub(pool, self, requests)
        self.rate = pace.Rate()  # of reclaiming
        self._hurried = 0  # who waits for space, or for the end
        self._commits = pool.commits
        self._next = _Outcome()
        self._current: _Outcome | None = None
        self._kicked = trio.Event()
        self._freed = trio.Event()
        self._finished = trio.Event()
        self._making_space = trio.Lock()
        self._barren: object = None  # what figures rested on when the trash freed nothing
        self._stopping = False
        self._whole = False  # the next commit takes times as well
        self._looked = 0.0  # when a commit began, or nothing was found to begin one for
        self.waiting: str | None = None  # why a commit is tried again and again
        self._writer: Worker | None = None  # while it runs
        pages_max = pool.versions.cached_pages_max
        self.soft_pages, self.hard_pages = max(16, pages_max // 4), max(32, pages_max // 2)

    # For requests

    async def commit(self, whole: bool = False) -> None:
        """Return when everything changed before the call is durable. Raises RowfsError when it is not.

        With `whole` the map holds it then, and not only the journal.
        """
        if self._pool.read_only:
            return
        self.asked += 1
        self._check()
        if self._commits.needed or (whole and self._commits.map_behind):
            outcome = self._next
            self.kick(whole)
        elif self._current is not None:
            outcome = self._current
            if self.waiting:
                self._kicked.set()
        else:
            return
        await outcome.done.wait()
        if outcome.error is not None:
            raise type(outcome.error)(str(outcome.error))

    def _check(self) -> None:
        if self._commits.failed:
            raise ReadOnlyError(f"the pool is read-only since {self._pool.read_only_reason}")

    async def throttle(self) -> None:
        """After a write: see to it that what is not yet durable stays within bounds."""
        pages = self._pool.versions.dirty_pages
        crowded = self._pool.space.shares.crowded or self._pool.io.sums.crowded
        if pages > self.soft_pages or crowded:
            self.kick(whole=True)
            if pages > self.hard_pages or crowded:
                await self.commit(whole=True)

    def kick(self, whole: bool = False) -> None:
        """Have a commit begin, with `whole` of the map; nobody waits for it."""
        self._whole |= whole
        self._kicked.set()

    async def make_space(self, blocks: float) -> None:
        """Reclaim what was deleted until so many blocks are free, or nothing is left to reclaim.

        What is in the trash then goes for good, bit by bit, the oldest that frees something first; where nobody knows
        how many blocks are enough, it stays.
        """
        self._hurried += 1
        try:
            async with self._making_space:
                await self._make_space(blocks)
        finally:
            self._hurried -= 1

    async def _make_space(self, blocks: float) -> None:
        space, reclaimer = self._pool.space, self._pool.reclaimer
        self._pool.io.zeros.hurry()
        while space.free_blocks() < blocks:
            emptied = await self.trimming.some()
            await self.commit(whole=True)  # what was deleted can be reclaimed from then on
            await self._recycled()
            if space.free_blocks() >= blocks:
                return
            worked, end = False, trio.current_time() + MAKING_S
            while space.freed_blocks < MAKING_BLOCKS and trio.current_time() < end and reclaimer.step(pace.SLICE_S):
                worked = True
                await trio.lowlevel.checkpoint()
            more = emptied or self._pool.io.zeros.due or worked or space.freed_blocks
            if not more and (math.isinf(blocks) or not await self.purge_for_space()):
                return

    async def purge_for_space(self) -> bool:
        """Delete for good the oldest of the trash that frees something. False: nothing does, and all of it stays."""
        trash, rests_on = self._pool.trash, self._pool.figures.rest_on
        if not len(trash) or rests_on == self._barren:
            return False
        going = await counted(trash.for_space())
        for entry in filter(trash.has, going):
            trash.purge(entry)
        if not going:
            self._barren = rests_on
        return bool(going)

    async def reclaim(self, enough: Callable[[], bool]) -> None:
        """Reclaim what was deleted until there is enough, or nothing is left that can be."""
        self._hurried += 1
        try:
            while not enough():
                await self.reclaimed()
                worked, end = False, trio.current_time() + MAKING_S
                while not enough() and trio.current_time() < end and self._pool.reclaimer.step(pace.SLICE_S):
                    worked = True
                    await trio.lowlevel.checkpoint()
                if not (worked or self._pool.space.freed_blocks):
                    return
        finally:
            self._hurried -= 1

    async def reclaimed(self) -> None:
        """One step towards everything being reclaimed: a commit, and what it freed is recycled."""
        await self.commit(whole=True)
        await self._recycled()

    async def _recycled(self) -> None:
        while self._commits.freed:
            finished = self._finished
            self._freed.set()
            await finished.wait()
        await self._punching.rest()

    def read_ended(self, ticket: int) -> None:
        """A cold read is done: what was freed meanwhile may be recycled."""
        self._commits.end_read(ticket)
        if self._commits.freed:
            self._freed.set()

    def record_lost(self) -> None:
        """A record is not durable, nor any later one: from now on all commits go to the map."""
        if not self._commits.journal.state.is_lost:
            log.warning("the journal cannot be written to: commits go to the map until it is mounted again")
        self._commits.record_lost()

    def sync_failed(self, code: int) -> None:
        """The C extension could not make durable what was written: from now on nothing is changed any more."""
        if not self._commits.failed:
            why = f"a sync of the data file failed: {os.strerror(code)}"
            log.error("commit failed, the pool is read-only from now on: %s", why)
            self._commits.fail(why)
            self._kicked.set()  # who waits for the next commit has to hear of it

    # Tasks

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit, reclaim and recycle until `stop`."""
        with Worker("commit") as self._writer:
            await self._run(task_status)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            for what, task in (
                ("timer", self._commit_on_time),
                ("reclaimer", self._reclaim),
                ("recycler", self._recycle),
                ("trimmer", self.trimming.run),
                ("puncher", self._punching.run),
                ("watch over the map", LookOver(self._pool).run),
                ("write-back", self.ahead.run),
                ("sealer", self.sealing.run),
                ("scrub", self.scrub.run),
            ):
                nursery.start_soon(self._lasting, what, task)
            task_status.started()
            await self._lasting("committer", self._commit_when_kicked)
            nursery.cancel_scope.cancel()

    async def _lasting(self, what: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task to its end. After a fault the pool is read-only, and it begins anew: somebody may wait for it."""
        while not await contained(f"the {what}", task):
            if not self._commits.failed:
                self._commits.fail(f"unexpectedly: a fault in the {what}, which the log shows")
            self._kicked.set()
            self._freed.set()
            await trio.sleep(RETRY_S)

    async def _commit_when_kicked(self) -> None:
        while not self._stopping:
            await self._kicked.wait()
            self._kicked = trio.Event()
            if self._commits.failed:
                self._next.end(_lost(self._commits.failed))
                self._next = _Outcome()
            whole, self._whole = self._whole, False
            if (self._commits.wanted if whole else self._commits.needed) and not self._commits.failed:
                await self._commit_once(whole)

    def stop(self) -> None:
        """End `run`; the last commit is the pool's `close`."""
        self._stopping = True
        self._hurried += 1
        self._kicked.set()

    async def _commit_once(self, whole: bool) -> None:
        self._current, self._next = self._next, _Outcome()
        try:
            if whole or not await self._sync():
                batch = self._commits.freeze()
                self._looked = trio.current_time()
                await self._write(batch)
                self._commits.finish(batch)
        except RowfsError as error:
            log.error("commit failed, the pool is read-only from now on: %s", error)
            self._fail(str(error))
        except Exception as error:  # a fault of ours: what is on disk is whole, and must stay so
            log.error("commit failed unexpectedly, the pool is read-only from now on", exc_info=error)
            self._fail(f"unexpectedly: {error!r}")
        finally:
            self._current.end()
            self._current = None
        if self._commits.freed:
            self._freed.set()

    async def _sync(self) -> bool:
        """Make what changed durable without a commit of the map; False: there has to be one."""
        commits = self._commits
        if commits.appending:  # by the extension: who waits for us may have to wait for that record as well
            return False
        appended = commits.begin_record() if commits.map_changed else None
        if appended is None and commits.map_changed:
            return False
        commits.begin_sync(recorded=appended is not None)
        try:
            await (self._apart(commits.sync) if appended is None else self._apart(commits.append, appended))
        except JournalError:
            self.record_lost()
            return False
        finally:
            commits.end_sync()
            if appended is not None:
                commits.end_record()
        return True

    def _fail(self, why: str) -> None:
        """Tell those who wait for this commit, and those who came meanwhile: there will be no next one."""
        self._commits.fail(why)
        self._tell(_lost(why))

    def _tell(self, error: RowfsError) -> None:
        assert self._current is not None
        self._current.end(error)
        self._next.end(error)
        self._current, self._next = _Outcome(), _Outcome()

    async def _write(self, batch: Batch) -> None:
        while True:
            try:
                await self._apart(self._commits.write, batch)
            except MapFullError:
                self._commits.grow()
            except MapNoSpaceError as error:
                if self._stopping:
                    raise
                await self._wait_for_space(str(error))
            else:
                if self.waiting:
                    log.info("there is space again, all is durable")
                    self._kicked.set()  # who asked meanwhile had this batch tried again, and may wait for the next
                self.waiting = None
                return

    async def _apart(self, step: Callable[..., None], *args: object) -> None:
        # What was begun is finished, or the map's lock would be left held.
        assert self._writer is not None, "commits are for when it runs"
        await self._writer.run(step, *args)

    async def _wait_for_space(self, why: str) -> None:
        """The host is full to the last block. Whoever waits hears of it; the batch stays, and is tried again."""
        if not self.waiting:
            log.warning("nothing can be made durable now: %s", why)
        self.waiting = why
        self._tell(NoSpaceError(f"not everything could be made durable: {why}"))
        try:
            with trio.move_on_after(RETRY_S):
                await self._kicked.wait()
        except trio.Cancelled:
            self._fail(why)
            raise
        self._kicked = trio.Event()

    async def _commit_on_time(self) -> None:
        self._looked = trio.current_time()
        while True:
            due = self._looked + INTERVAL_S
            await trio.sleep_until(due)
            if self._looked + INTERVAL_S > due:  # a commit has begun meanwhile
                continue
            self._looked = trio.current_time()
            if self._commits.wanted:
                self.kick(whole=True)

    async def _recycle(self) -> None:
        while True:
            await self._freed.wait()
            self._freed = trio.Event()
            while (freed := self._commits.unread()) is not None:
                self._commits.recycle(freed)
                await trio.lowlevel.checkpoint()
            finished, self._finished = self._finished, trio.Event()
            finished.set()

    async def _reclaim(self) -> None:
        reclaimer = self._pool.reclaimer
        seen = 0
        while True:
            if self._pool.read_only or self._pool.read_only_reason:
                await trio.sleep(math.inf)
            pressing = self._pressing()
            if self._awaited and pressing < 1:
                await trio.sleep(pace.BUSY_PAUSE_S)
                continue
            if self._step(pace.slice_s(pressing)):
                self.rate.note(trio.current_time(), reclaimer.freed_blocks)
                quiet, seen = seen == self._requests(), self._requests()
                await trio.sleep(pace.PAUSE_S if quiet or self._hurried else pace.pause_s(pressing, reclaimer.removals))
                continue
            if reclaimer.needs_commit:
                self.kick(whole=True)
            elif not reclaimer.pending:
                self.rate.rest()
            await trio.sleep(0.05 if reclaimer.pending else 0.2)

    @property
    def _awaited(self) -> bool:
        """Whether a commit is running that somebody may wait for: it takes turns with us for Python's lock."""
        return self._current is not None and not self._hurried and not self.waiting

    def _pressing(self) -> float:
        space = self._pool.space
        return 1.0 if space.shortage else pace.pressure(self._pool.reclaimer.owed_blocks, space.allocated_blocks)

    def _step(self, budget_s: float) -> bool:
        try:
            return self._pool.reclaimer.step(budget_s)
        except Exception as error:
            if not (isinstance(error, CorruptionError) and error.logged):
                self._pool.versions.damaged(f"reclaiming failed: {error!r}", error)
            return False


def _lost(why: str) -> StorageError:
    return StorageError(f"not everything could be made durable, the pool is read-only now: {why}")
