"""Tells others what happens: systemd's journal of each event; and all, when the pool becomes read-only.

That cannot be an event at once, for where a commit has failed there will be no other. So a note is left in the pool's
directory (persist.readonlynote), and the next mount that can write tells of it as an event.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from rowfs.base.errors import CorruptionError, PoolError, RowfsError, system_error_line
from rowfs.base.format import EventRecord
from rowfs.base.names import printable
from rowfs.base.times import now_ns, rfc3339
from rowfs.host.journald import Journal, Priority
from rowfs.persist import readonlynote
from rowfs.persist.readonlynote import Note
from rowfs.rules.telling import told
from rowfs.service.service import Service
from rowfs.service.tasks import contained

LOOK_S = 1.0
RETRY_S = 60.0  # after a fault
REMOUNTED_LOOKS = 10  # as often it is looked at what the kernel lets us do
READ_ONLY, WRITABLE = "read-only", "writable"
BAD_VERBS = {READ_ONLY: Priority.ERROR, "damage": Priority.ERROR, "limit": Priority.WARNING}

log = logging.getLogger(__name__)


class Reporter:
    """What is still to be told of one mounted pool."""

    def __init__(self, service: Service, journal: Journal) -> None:
        self._service = service
        self._pool = service.pool
        self._events = service.pool.catalog.events
        self._journal = journal
        self._sent = self._events.last()
        self._why: str | None = None  # the pool is read-only, as was told
        self._remounted = False
        self._unreadable = False  # the events, because the map is damaged

    async def run(self) -> None:
        """Look again and again, also after a fault; never ends."""
        while True:
            await contained("telling what happens", self._run)
            await trio.sleep(RETRY_S)

    async def _run(self) -> None:
        while True:
            await self.look_at_mount()
            for _ in range(REMOUNTED_LOOKS):
                await self.look()
                await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Tell of what is new."""
        try:
            if not self._unreadable:
                self.send_events()
        except CorruptionError as error:  # that the pool is read-only with it is what there is to tell then
            self._unreadable = True
            if not error.logged:
                log.error("the events cannot be told any more: %s", error)
        why = self._pool.read_only_reason
        if why and not self._why:
            self._why = why
            await self._became_read_only(Note(now_ns(), why))

    # Read-only

    async def _became_read_only(self, note: Note) -> None:
        message = f"{self._pool.path} is read-only since {note.why}"
        self._journal.send(self._fields(Priority.ERROR, f"rowfs: {message}", ROWFS_VERB=READ_ONLY, ROWFS_TEXT=note.why))
        try:
            await trio.to_thread.run_sync(readonlynote.leave, self._pool.directory, note)
        except (OSError, PoolError) as error:
            why = system_error_line(error) if isinstance(error, OSError) else str(error)
            log.warning("the events will not have that the pool became read-only: %s", why)

    async def look_back(self) -> None:
        """What an earlier mount could not tell: if this one can write, it was read-only, and is no more."""
        note = readonlynote.read(self._pool.directory)
        if note is None or self._pool.read_only or self._pool.read_only_reason:
            return
        self._events.add(READ_ONLY, failed=True, text=f"the pool, since {note.why}", time_ns=note.time_ns)
        self._events.add(WRITABLE, text=f"the pool, which was read-only since {rfc3339(note.time_ns)}")
        self._pool.catalog.touch_pool()  # events alone wait for a commit
        try:
            await self._service.committer.commit()
            readonlynote.remove(self._pool.directory)
        except (RowfsError, OSError) as error:
            log.warning("that the pool was read-only may be told again: %s", error)

    async def look_at_mount(self) -> None:
        """Whether somebody has remounted it."""
        if self._pool.read_only or self._pool.read_only_reason:
            return
        remounted = await self._service.is_remounted_read_only()
        if remounted != self._remounted:
            self._remounted = remounted
            self._events.add(READ_ONLY if remounted else WRITABLE, text="the mount, which was remounted")

    # The journal

    def send_events(self) -> None:
        """Hand the durable events to systemd's journal, as far as it has room."""
        if self._events.last() == self._sent or not self._journal.is_there:
            return
        for event in self._events.read(self._sent):
            if not self._journal.send(self._of_event(event)):
                return
            self._sent = event.id

    def _of_event(self, event: EventRecord) -> dict[str, Any]:
        what = told(event.verb, event.failed, event.disk, event.snapshot, event.group, event.size_bytes, event.text)
        usual = Priority.WARNING if event.failed else Priority.INFO
        found = {
            "ROWFS_EVENT": event.id,
            "ROWFS_TIME": rfc3339(event.time_ns),
            "ROWFS_VERB": event.verb,
            "ROWFS_FAILED": int(event.failed),
            "ROWFS_DISK": event.disk,
            "ROWFS_SNAPSHOT": event.snapshot,
            "ROWFS_GROUP": event.group,
            "ROWFS_SIZE_BYTES": event.size_bytes,
            "ROWFS_UID": event.uid,
            "ROWFS_PID": event.pid,
            "ROWFS_COMMAND": event.command,
            "ROWFS_TEXT": event.text or None,
        }
        known = {name: value for name, value in found.items() if value is not None}
        return self._fields(BAD_VERBS.get(event.verb, usual), f"rowfs: {what}", **known)

    def _fields(self, priority: Priority, message: str, **others: Any) -> dict[str, Any]:
        return {
            "MESSAGE": printable(message),
            "PRIORITY": int(priority),
            "SYSLOG_IDENTIFIER": "rowfs",
            "ROWFS_POOL": self._pool.path,
            "ROWFS_MOUNT": self._service.own.mountpoint,
            **others,
        }
