"""The socket's verbs on labels and locks."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from rowfs.base.times import now_ns
from rowfs.control.chains import select
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.rules.selectors import parse_changes
from rowfs.rules.times import parse_instant
from rowfs.service.objects import lock_object
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot
from rowfs.verbs.marks import DESCRIBE, LABEL, LOCK, RELEASE


class MarkMethods:
    """What clients may say of the disks and snapshots of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._marking = service.pool.marking
        self._catalog = service.pool.catalog

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"label": self.label, "describe": self.describe, "lock": self.lock, "release": self.release}

    async def label(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Set labels of a disk or a snapshot, or take them away."""
        disk, changes, snapshot = parameters(params, LABEL)
        thing: Disk | Snapshot = self._catalog.chain(disk)
        if snapshot is not None:
            thing = self._catalog.snapshot(self._catalog.chain(disk), snapshot)
        self._marking.label(thing, parse_changes(changes))
        await self._service.committer.commit()
        return {"labels": thing.labels}

    async def describe(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Another description for a snapshot, or none."""
        disk, name, description = parameters(params, DESCRIBE)
        snapshot = self._catalog.snapshot(self._catalog.chain(disk), name)
        self._marking.describe(snapshot, description)
        await self._service.committer.commit()
        return {"description": snapshot.description}

    async def lock(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """Keep snapshots from being deleted."""
        disk, specs, until, reason, compliance = parameters(params, LOCK)
        until_ns = None if until is None else parse_instant(until, now_ns(), UTC, ahead=True)
        snapshots = self._selected(disk, specs)
        self._marking.lock(snapshots, until_ns, bool(compliance), reason or "")
        return await self._locks(snapshots)

    async def release(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """No longer keep snapshots from being deleted."""
        disk, specs = parameters(params, RELEASE)
        snapshots = self._selected(disk, specs)
        self._marking.release(snapshots)
        return await self._locks(snapshots)

    def _selected(self, disk: str, specs: list[str]) -> list[Snapshot]:
        if not specs:
            raise BadParams("the parameter snapshots has to name at least one snapshot")
        return select(self._catalog.chain(disk), specs)

    async def _locks(self, snapshots: list[Snapshot]) -> list[dict[str, Any]]:
        await self._service.committer.commit()
        return [{"snapshot": item.name, "lock": lock_object(item.lock)} for item in snapshots]
