"""Consistency groups of a mounted pool: the waits around what store.groups does in one step.

What the kernel caches of the disks is flushed before, of one disk after the other or of several at once: it does not
matter how, since the points are taken in one step of the owner thread, of what has reached the daemon by then. A write
whose sync has returned always has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from errno import EINVAL

import trio

from rowfs.base.errors import RowfsError
from rowfs.base.format import GroupRecord
from rowfs.base.inodenumbers import disk_inode
from rowfs.host.holders import FileSystem, file_systems
from rowfs.rules.runs import Start
from rowfs.service.kernelcache import run_apart
from rowfs.service.service import Service
from rowfs.store.groups import Wanted
from rowfs.store.model import Disk, Snapshot

FLUSHES_MAX = 8  # at the same time, each in a thread of its own


class GroupVerbs:
    """The verbs on groups that take more than one step."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._groups = service.pool.groups

    async def snapshot(
        self,
        wanted: Sequence[Wanted],
        name: str,
        description: str = "",
        freeze_s: float | None = None,
        kind: str = "user",
        start: Start | None = None,
    ) -> GroupRecord:
        """A durable group that holds everything written to its disks before it was asked for.

        With `freeze_s`, the file systems mounted from any of the disks are frozen together meanwhile, for so long at
        most. Raises RowfsError when there are none, or they cannot be frozen, or that took too long: there is no group
        then.
        """
        self._groups.check(wanted, name)
        disks = [disk for disk, _ in wanted]
        if freeze_s is None:
            await self._flush(disks)
            group = self._groups.snapshot(wanted, name, description=description, kind=kind, start=start)
        else:
            group = await self._frozen(wanted, name, description, freeze_s, kind, start)
        await self._service.committer.commit()
        return group

    async def _frozen(
        self,
        wanted: Sequence[Wanted],
        name: str,
        description: str,
        limit_s: float,
        kind: str,
        start: Start | None,
    ) -> GroupRecord:
        disks = [disk for disk, _ in wanted]
        systems = await run_apart(self._file_systems, {disk.name: disk_inode(disk.inode) for disk in disks})
        if not systems:
            raise RowfsError(
                "no file system is mounted from a loop device on any of the disks: there is nothing to freeze", EINVAL
            )
        frozen = [disk for disk in disks if disk.name in systems.values()]
        group = None
        try:
            async with self._service.freezes.frozen(list(systems), limit_s):
                await self._flush(disks)
                group = self._groups.snapshot(
                    wanted, name, description=description, frozen=frozen, kind=kind, start=start
                )
        except RowfsError:
            if group is not None:  # not frozen to the end: it is not what it says
                self._groups.delete(group)
            raise
        return group

    def _file_systems(self, inodes: Mapping[str, int]) -> dict[FileSystem, str]:
        """What is mounted from the disks of these names and inodes, each with the disk's name."""
        return {system: name for name, inode in inodes.items() for system in file_systems(self._service.own, inode)}

    async def _flush(self, disks: Collection[Disk]) -> None:
        """As KernelCache.flush, of all of them."""
        self._service.committer.ahead.expect(*disks)
        turns = trio.CapacityLimiter(FLUSHES_MAX)
        errors: list[RowfsError] = []

        async def flush(disk: Disk) -> None:
            async with turns:
                try:
                    await self._service.cache.flush(disk)
                except RowfsError as error:  # out of the nursery it would come in a group of exceptions
                    errors.append(error)

        async with trio.open_nursery() as nursery:
            for disk in disks:
                nursery.start_soon(flush, disk)
        if errors:
            raise errors[0]

    async def rollback(self, group: GroupRecord, force: bool, discard: bool) -> GroupRecord | None:
        """Make all disks of a group what it holds of them; durable, and nothing stale is left in the kernel's cache.

        Raises BusyError naming who uses a disk, unless `force`; NotFoundError when the group is not whole. Then no
        disk was changed.
        """
        members = self._groups.check_rollback(group, discard)
        if force:
            await self._flush([snapshot.owner for snapshot in members])
        else:
            await self._check_unused(members)
        sizes = {snapshot.owner: snapshot.owner.size_bytes for snapshot in members}
        kept = self._groups.rollback(group, discard)
        for disk, old_size_bytes in sizes.items():
            await self._service.renewed(disk, old_size_bytes)
        await self._service.committer.commit()
        return kept

    async def _check_unused(self, members: Sequence[Snapshot]) -> None:
        while True:
            for snapshot in members:
                await self._service.check_unused(snapshot.owner)
            if not any(snapshot.owner.handles for snapshot in members):  # opened while another was waited for
                return
