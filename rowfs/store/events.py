"""What happened in a pool: a ring of the newest events, numbered without a gap, each in the commit of what it tells of.

An event can be read when it is durable, so a number never stands for two, whatever a crash takes back. The engine adds
them where it changes something; who asked for it is what base.actor says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rowfs.base.actor import actor
from rowfs.base.errors import CorruptionError
from rowfs.base.format import EVENTS, ID_KEY, TEMPORARY, TRASHED, EventRecord
from rowfs.base.times import now_ns
from rowfs.store.records import told

if TYPE_CHECKING:
    from rowfs.persist.blockmap import BlockMap, MapUpdate
    from rowfs.store.model import Disk, Snapshot

EVENTS_KEPT = 4096  # about 1 MiB
NUMBER_MAX = (1 << 32) - 1
TEXT_CHARACTERS_MAX = 1000

log = logging.getLogger(__name__)


class Events:
    """The events of one pool."""

    def __init__(self, blockmap: BlockMap) -> None:
        """Looks for the last number only."""
        self._map = blockmap
        self._added: list[EventRecord] = []
        self._number = self.last()

    # Telling

    def add(
        self,
        verb: str,
        *,
        disk: str | None = None,
        snapshot: str | None = None,
        group: str | None = None,
        size_bytes: int | None = None,
        failed: bool = False,
        text: str = "",
        time_ns: int | None = None,
    ) -> None:
        """Something happened, now if not before, or `failed`; `text` is a line for people."""
        who = actor()
        self._number += 1
        assert self._number <= NUMBER_MAX, "numbers of events are 32 bits in records"
        event = EventRecord(
            id=self._number,
            time_ns=now_ns() if time_ns is None else time_ns,
            verb=verb,
            disk=disk,
            snapshot=snapshot,
            group=group,
            size_bytes=size_bytes,
            uid=None if who is None else who.uid,
            pid=None if who is None else who.pid,
            command=None if who is None else who.command,
            failed=failed,
            text=text[:TEXT_CHARACTERS_MAX],
        )
        self._added.append(event)

    def of_disk(self, verb: str, disk: Disk, text: str = "") -> None:
        """Something happened to a disk."""
        self.add(verb, disk=disk.name, size_bytes=disk.size_bytes, text=text)

    def of_snapshot(self, verb: str, snapshot: Snapshot, text: str = "") -> None:
        """Something happened to a snapshot; what comes and goes with an export is nobody's business."""
        if snapshot.kind not in (TEMPORARY, TRASHED):
            self.add(verb, disk=snapshot.owner.name, snapshot=snapshot.name, size_bytes=snapshot.size_bytes, text=text)

    # Keeping

    @property
    def unsaved(self) -> bool:
        """Whether a commit would store any."""
        return bool(self._added)

    def freeze(self, update: MapUpdate) -> None:
        """Put what was added since the last freeze into `update`; the oldest go."""
        if not self._added:
            return
        first = ID_KEY.pack(max(self._number - EVENTS_KEPT + 1, 1))
        for key, _ in self._map.items(EVENTS):
            if key >= first:
                break
            update.put(EVENTS, key, None)
        for event in self._added[-EVENTS_KEPT:]:
            update.put(EVENTS, ID_KEY.pack(event.id), event.pack())
        self._added = []

    # Reading

    def last(self) -> int:
        """The number of the last durable event; 0: there was none."""
        key = self._map.last_key(EVENTS)
        if key is None or is_number(key):
            return 0 if key is None else int(ID_KEY.unpack(key)[0])
        return max((int(ID_KEY.unpack(key)[0]) for key, _ in self._map.items(EVENTS) if is_number(key)), default=0)

    def _first(self) -> int:
        key = next((key for key, _ in self._map.items(EVENTS) if is_number(key)), None)
        return 1 if key is None else int(ID_KEY.unpack(key)[0])

    def lost(self, after: int) -> int:
        """How many events after number `after` were there and are no more."""
        return max(self._first() - 1 - after, 0)

    def read(self, after: int) -> Iterator[EventRecord]:
        """The durable events after number `after`; one that cannot be read is left out, and logged."""
        for key, value in self._map.items(EVENTS, ID_KEY.pack(after + 1)):
            try:
                yield told(EventRecord, value)
            except CorruptionError as error:
                log.error("the event %s: %s", key.hex(), error)


def is_number(key: bytes) -> bool:
    """Whether an event can have this key."""
    return len(key) == ID_KEY.size and 0 < ID_KEY.unpack(key)[0] <= NUMBER_MAX
