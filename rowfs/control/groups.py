"""The socket's verbs on consistency groups."""

from __future__ import annotations

from typing import Any

from rowfs.base.format import GroupRecord
from rowfs.base.times import rfc3339
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.control.reclaimed import reclaimed
from rowfs.host.freeze import LIMIT_S, check_limit
from rowfs.service.counting import counted
from rowfs.service.groups import GroupVerbs
from rowfs.service.objects import disk_object, snapshot_object
from rowfs.service.service import Service
from rowfs.verbs.groups import GROUP_CLONE, GROUP_DELETE, GROUP_INFO, GROUP_LIST, GROUP_ROLLBACK, GROUP_SNAPSHOT


class GroupMethods:
    """What clients may ask of the groups of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._verbs = GroupVerbs(service)
        self._pool = service.pool
        self._catalog = service.pool.catalog

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "group_snapshot": self.snapshot,
            "group_list": self.list_groups,
            "group_info": self.info,
            "group_rollback": self.rollback,
            "group_clone": self.clone,
            "group_delete": self.delete,
        }

    def _object(self, group: GroupRecord, freed: int | None = None) -> dict[str, Any]:
        """A group as docs/CONTROL.md has it."""
        lost = self._pool.groups.lost(group)
        return {
            "name": group.name,
            "id": group.id,
            "created": rfc3339(group.created_ns),
            "kind": group.kind,
            "description": group.description,
            "degraded": bool(lost),
            "lost": lost,
            "freed_if_deleted_bytes": freed,
            "members": [
                {"disk": item.owner.name, **snapshot_object(item, None)} for item in self._pool.groups.members(group)
            ],
        }

    async def snapshot(self, caller: Caller, params: Params) -> dict[str, Any]:
        """A snapshot of several disks in use."""
        name, disks, own, description, freeze, limit_s = parameters(params, GROUP_SNAPSHOT)
        if own is not None and len(own) != len(disks):
            raise BadParams("the parameter snapshots has to have a name for each of disks")
        freeze_s = check_limit(LIMIT_S if limit_s is None else limit_s) if freeze else None
        wanted = list(zip(map(self._catalog.disk, disks), own or [None] * len(disks), strict=True))
        return self._object(await self._verbs.snapshot(wanted, name, description or "", freeze_s))

    async def list_groups(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """All groups, oldest first."""
        parameters(params, GROUP_LIST)
        return [self._object(group) for group in self._catalog.groups]

    async def info(self, caller: Caller, params: Params) -> dict[str, Any]:
        """One group, with what deleting it would free."""
        name, number = parameters(params, GROUP_INFO)
        group = self._catalog.groups.find(name, number)
        return self._object(group, await counted(self._pool.figures.freed_by(self._pool.groups.members(group))))

    async def rollback(self, caller: Caller, params: Params) -> dict[str, Any]:
        """All disks of a group become what it holds."""
        name, number, force, discard = parameters(params, GROUP_ROLLBACK)
        group = self._catalog.groups.find(name, number)
        disks = [snapshot.owner.name for snapshot in self._pool.groups.members(group)]
        kept = await self._verbs.rollback(group, bool(force), bool(discard))
        return {"disks": disks, "kept": None if kept is None else kept.name}

    async def clone(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """New disks of all snapshots of a group."""
        name, number, pattern = parameters(params, GROUP_CLONE)
        group = self._catalog.groups.find(name, number)
        made = self._pool.groups.clone(group, pattern, (caller.uid, caller.gid))
        await self._service.committer.commit()
        return [disk_object(disk, [], []) for disk in made]

    async def delete(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Delete a group with its snapshots."""
        name, number, dry_run, wait = parameters(params, GROUP_DELETE)
        group = self._catalog.groups.find(name, number)
        members = self._pool.groups.members(group)
        self._pool.check_deletable(*members, what=f"the group {group.name}")
        freed = await counted(self._pool.figures.freed_by(members))
        if not dry_run:
            self._pool.groups.delete(self._catalog.groups.find(name, group.id))  # unless somebody has meanwhile
            await self._service.committer.commit()
            if wait:
                await reclaimed(self._service, caller)
        gone = [{"disk": item.owner.name, "snapshot": item.name} for item in members]
        trashed = self._pool.trash.keep_ns is not None
        return {"snapshots": gone, "freed_bytes": 0 if trashed else freed, "trash": trashed}
