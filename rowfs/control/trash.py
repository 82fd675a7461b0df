"""The socket's verbs on the trash."""

from __future__ import annotations

from typing import Any

from rowfs.base.errors import CorruptionError
from rowfs.base.format import TrashRecord
from rowfs.base.times import TIME_NS_MAX, rfc3339
from rowfs.control.connection import Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.rules.times import format_span, parse_span
from rowfs.service.counting import counted
from rowfs.service.service import Service
from rowfs.store.model import Disk
from rowfs.verbs.trash import TRASH, TRASH_EMPTY, TRASH_LIST, UNDELETE

OFF = "off"


class TrashMethods:
    """What clients may ask of the trash of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool
        self._trash = service.pool.trash

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "trash": self.trash,
            "trash_list": self.list_entries,
            "trash_empty": self.empty,
            "undelete": self.undelete,
        }

    async def trash(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Whether there is a trash, and for how long; or from now on."""
        (keep,) = parameters(params, TRASH)
        if keep is not None:
            self._trash.set_keep(None if keep == OFF else parse_span(keep))
            await self._service.committer.commit()
        kept_ns = self._trash.keep_ns
        return {"keep": None if kept_ns is None else format_span(kept_ns), "entries": len(self._trash)}

    async def list_entries(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """What is in the trash, oldest first."""
        parameters(params, TRASH_LIST)
        return [await self._object(entry) for entry in list(self._trash) if self._is_there(entry)]

    def _is_there(self, entry: TrashRecord) -> bool:
        """Whether it is, after others were counted."""
        return any(other is entry for other in self._trash)

    async def _object(self, entry: TrashRecord) -> dict[str, Any]:
        """An entry as docs/CONTROL.md has it."""
        snapshots = self._trash.snapshots(entry)
        try:
            freed = await counted(self._pool.figures.freed_by(snapshots))
        except CorruptionError:  # which is logged: that keeps nobody from the rest
            freed = None
        kept_ns = self._trash.keep_ns
        until_ns = None if kept_ns is None else min(entry.deleted_ns + kept_ns, TIME_NS_MAX)
        return {
            "id": entry.id,
            "disk": entry.name,
            "snapshot": entry.snapshot,
            "snapshots": [item.name for item in snapshots if entry.head not in (None, item.id)],
            "size_bytes": max(item.size_bytes for item in snapshots),
            "deleted": rfc3339(entry.deleted_ns),
            "until": None if until_ns is None else rfc3339(until_ns),
            "freed_if_emptied_bytes": freed,
        }

    async def empty(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Delete one entry for good, or all."""
        (number,) = parameters(params, TRASH_EMPTY)
        entries = list(self._trash) if number is None else [self._trash.find(number)]
        freed = await counted(
            self._pool.figures.freed_by([item for entry in entries for item in self._trash.snapshots(entry)])
        )
        self._pool.check_writable()
        gone = [entry for entry in entries if self._is_there(entry)]
        for entry in gone:
            self._trash.purge(entry)
        await self._service.committer.commit()
        return {"entries": len(gone), "freed_bytes": freed}

    async def undelete(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Take something out of the trash."""
        disk, snapshot, number, name = parameters(params, UNDELETE)
        self._pool.check_writable()
        entry = self._trash.newest(disk, snapshot) if number is None else self._trash.find(number)
        back = self._trash.restore(entry, name)
        await self._service.committer.commit()
        if isinstance(back, Disk):
            return {"disk": back.name, "snapshot": None}
        return {"disk": back.owner.name, "snapshot": back.name}
