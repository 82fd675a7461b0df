"""The socket's verb on limits."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.rules.limits import DiskLimits, PoolLimits
from rowfs.service.service import Service
from rowfs.store.model import Disk
from rowfs.verbs.limits import LIMIT

L = TypeVar("L", DiskLimits, PoolLimits)


class LimitMethods:
    """What clients may ask of the limits of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limits = service.pool.limits

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"limit": self.limit}

    async def limit(self, caller: Caller, params: Params) -> dict[str, Any]:
        """What a disk or the pool may hold; or from now on."""
        name, *_, without = parameters(params, LIMIT)
        given = {key: value for key, value in params.items() if key not in ("disk", "without") and value is not None}
        if name is None:
            found = _changed(self._limits.of_pool, given, without or [], "a pool")
            if found != self._limits.of_pool:
                self._limits.set_pool(found)
                await self._service.committer.commit()
            return _object(self._limits.of_pool)
        disk = self._service.pool.catalog.disk(name)
        limits = _changed(disk.limits, given, without or [], "a disk")
        if limits != disk.limits:
            self._limits.set_disk(disk, limits)
            await self._service.committer.commit()
        return self._of_disk(disk)

    def _of_disk(self, disk: Disk) -> dict[str, Any]:
        return _object(disk.limits) | {"held_bytes": self._limits.held_bytes(disk)}


def _object(limits: DiskLimits | PoolLimits) -> dict[str, Any]:
    return {field.name: getattr(limits, field.name) for field in fields(limits)}


def _changed(limits: L, given: dict[str, Any], without: list[str], what: str) -> L:
    """The limits after a change. Raises BadParams for one that this kind of thing has not."""
    defaults = {field.name: field.default for field in fields(limits)}
    for name in [*given, *without]:
        if name not in defaults:
            raise BadParams(f"{what} has no limit {name}: it has {', '.join(defaults)}")
    words = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return replace(limits, **(given | words | {name: defaults[name] for name in without}))
