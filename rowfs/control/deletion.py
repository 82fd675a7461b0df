"""The socket's verbs that delete: snapshots and disks of one name, or of several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rowfs.base.errors import NotFoundError
from rowfs.control.chains import select
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.control.reclaimed import reclaimed
from rowfs.service.counting import counted
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot
from rowfs.verbs.disks import DELETE, DELETE_SEVERAL


@dataclass
class Going:
    """What of one name shall go."""

    owner: Disk
    snapshots: list[Snapshot]
    whole_chain: bool  # they are all it has
    with_disk: bool

    @property
    def what(self) -> str:
        """What would go together with a snapshot that has to stay."""
        return f"the disk {self.owner.name}" if self.with_disk else ""

    @property
    def things(self) -> list[Disk | Snapshot]:
        """All of it."""
        return [*self.snapshots, *([self.owner] if self.with_disk else [])]


class DeletionMethods:
    """What clients may ask to be deleted in one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"delete": self.delete, "delete_several": self.delete_several}

    async def delete(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Delete snapshots, or a disk with or without its snapshots."""
        name, specs, whole_chain, keep_disk, dry_run, force, wait = parameters(params, DELETE)
        going = self._going(name, specs, bool(whole_chain), specs is None and not keep_disk)
        (freed,) = await self._delete(caller, [going], bool(dry_run), bool(force), bool(wait))
        return self._answer(going, freed)

    async def delete_several(self, caller: Caller, params: Params) -> dict[str, Any]:
        """The same of several disks and chains: all of it or nothing, and what comes back of all together."""
        addresses, whole_chain, dry_run, force, wait = parameters(params, DELETE_SEVERAL)
        if not addresses:
            raise BadParams("the parameter addresses has to name at least one disk or snapshot")
        going = self._parsed(addresses, bool(whole_chain))
        freed = await self._delete(caller, going, bool(dry_run), bool(force), bool(wait))
        deleted = [
            {"name": item.owner.name, **self._answer(item, part)} for item, part in zip(going, freed, strict=True)
        ]
        return {"deleted": deleted, "freed_bytes": sum(item["freed_bytes"] for item in deleted)}

    def _parsed(self, addresses: list[str], whole_chain: bool) -> list[Going]:
        """What `disk`, `disk@snapshot`, `disk@a..c` and `disk@` mean, by disk. Raises NotFoundError, UsageError."""
        named: dict[str, list[str | None]] = {}  # what stands behind the @; None: the disk itself
        for address in addresses:
            name, at, spec = address.partition("@")
            named.setdefault(name, []).append(spec if at else None)
        found = []
        for name, specs in named.items():
            whole = "" in specs or (whole_chain and None in specs)
            found.append(self._going(name, [spec for spec in specs if spec] or None, whole, None in specs))
        return found

    def _going(self, name: str, specs: list[str] | None, whole_chain: bool, with_disk: bool) -> Going:
        owner = self._pool.catalog.chain(name)
        with_disk = with_disk and owner.head is not None
        if specs is None and not (whole_chain or with_disk):
            raise NotFoundError(f"the disk {name} is deleted already, only its snapshots are left")
        snapshots = list(owner.chain.values()) if whole_chain else select(owner, specs or [])
        return Going(owner, snapshots, whole_chain, with_disk)

    def _answer(self, going: Going, freed: int) -> dict[str, Any]:
        trashed = self._pool.trash.keep_ns is not None
        names = [item.name for item in going.snapshots]
        return {"disk": going.with_disk, "snapshots": names, "freed_bytes": 0 if trashed else freed, "trash": trashed}

    async def _delete(
        self, caller: Caller, going: Sequence[Going], dry_run: bool, force: bool, wait: bool
    ) -> list[int]:
        """Delete all of it, durably, or only look; how much of what comes back is each one's."""
        self._check(going)
        if not dry_run and not force:
            for item in going:
                if item.with_disk:
                    await self._service.check_detached(item.owner, "delete")
        freed = await counted(self._pool.figures.freed_in_parts([item.things for item in going]))
        if dry_run:
            return freed
        for item in going:
            if item.with_disk and self._pool.trash.keep_ns is not None:
                await self._service.cache.flush(item.owner)
        self._delete_now(going)
        await self._service.committer.commit()
        if wait:
            await reclaimed(self._service, caller)
        return freed

    def _check(self, going: Sequence[Going]) -> None:
        for item in going:
            self._pool.check_deletable(*item.snapshots, what=item.what)

    def _delete_now(self, going: Sequence[Going]) -> None:
        self._check(going)
        for item in going:
            if item.with_disk and item.whole_chain and not item.owner.deleted:
                self._pool.trash.delete_disk(item.owner, keep_snapshots=False)
            for snapshot in item.snapshots:
                if not snapshot.deleted:  # with the disk, or by someone else while the figures were counted
                    self._pool.trash.delete_snapshot(snapshot)
            if item.with_disk and not item.owner.deleted:
                self._pool.trash.delete_disk(item.owner)
