"""The socket's verb on the history of a chain."""

from __future__ import annotations

from typing import Any

import trio

from rowfs.base.errors import CorruptionError
from rowfs.base.times import now_ns, rfc3339
from rowfs.base.units import BLOCK_BYTES
from rowfs.control.connection import Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.service.counting import counted
from rowfs.service.service import Service
from rowfs.store.history import Step, clones, history
from rowfs.store.model import Disk, Snapshot
from rowfs.verbs.plot import PLOT

PROGRESS_STEPS = 256


class PlotMethods:
    """What clients may ask of how snapshots follow each other."""

    def __init__(self, service: Service) -> None:
        self._pool = service.pool

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"history": self.history}

    async def history(self, caller: Caller, params: Params) -> dict[str, Any]:
        """The chain of a disk, what each of it goes on from, and what was cloned from it."""
        (name,) = parameters(params, PLOT)
        disk = self._pool.catalog.chain(name)
        steps = []
        found = history(self._pool.catalog, disk)
        for number, step in enumerate(found):
            steps.append(await self._step(step))
            if number % PROGRESS_STEPS == PROGRESS_STEPS - 1:
                await caller.progress(number + 1, len(found), "snapshots", "counting")
        cloned = []
        for clone in clones(self._pool.catalog, disk):
            if clone is None:
                await trio.lowlevel.checkpoint()
            else:
                cloned.append(_clone(*clone))
        return {"disk": disk.name, "steps": steps, "clones": cloned}

    async def _step(self, step: Step) -> dict[str, Any]:
        common = {"after": _named(step.after), "rolled_back": step.rolled_back}
        if isinstance(step.thing, Disk):
            return _disk(step.thing) | common
        freed = None
        if not step.thing.deleted:
            try:
                freed = await counted(self._pool.figures.freed_if_deleted(step.thing))
            except CorruptionError:  # which is logged: that keeps nobody from the rest
                freed = None
        return _snapshot(step.thing, freed) | common


def _snapshot(snapshot: Snapshot, freed: int | None) -> dict[str, Any]:
    return {
        "snapshot": snapshot.name,
        "kind": snapshot.kind,
        "consistency": snapshot.consistency,
        "created": rfc3339(snapshot.created_ns),
        "size_bytes": snapshot.size_bytes,
        "mapped_bytes": snapshot.referenced_blocks * BLOCK_BYTES,
        "written_bytes": snapshot.written_blocks * BLOCK_BYTES,
        "freed_if_deleted_bytes": freed,
        "locked": snapshot.lock.keeps(now_ns()),
    }


def _disk(disk: Disk) -> dict[str, Any]:
    assert disk.head is not None, "a chain without a disk ends with its last snapshot"
    return {
        "snapshot": None,
        "kind": "disk",
        "consistency": None,
        "created": rfc3339(disk.created_ns),
        "size_bytes": disk.size_bytes,
        "mapped_bytes": disk.mapped_bytes,
        "written_bytes": disk.head.written_blocks * BLOCK_BYTES,
        "freed_if_deleted_bytes": None,
        "locked": False,
    }


def _clone(disk: Disk, after: Snapshot) -> dict[str, Any]:
    return {
        "disk": disk.name,
        "deleted": disk.head is None,
        "size_bytes": disk.size_bytes if disk.head is not None else 0,
        "mapped_bytes": disk.mapped_bytes if disk.head is not None else 0,
        "after": _named(after),
    }


def _named(snapshot: Snapshot | None) -> dict[str, str] | None:
    return None if snapshot is None else {"disk": snapshot.owner.name, "snapshot": snapshot.name}
