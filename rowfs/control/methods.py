"""The verbs of the socket, as docs/CONTROL.md has them: parameters in, engine called, objects out."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import trio

import rowfs
from rowfs.base.errors import CorruptionError, RowfsError
from rowfs.base.format import TEMPORARY
from rowfs.base.inodenumbers import disk_inode, snapshot_inode
from rowfs.base.names import SNAPSHOTS_DIR
from rowfs.base.units import BLOCK_BYTES, check_disk_size, format_size
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.deletion import DeletionMethods
from rowfs.control.events import EventMethods
from rowfs.control.groups import GroupMethods
from rowfs.control.limits import LimitMethods
from rowfs.control.marks import MarkMethods
from rowfs.control.params import Params, parameters
from rowfs.control.plot import PlotMethods
from rowfs.control.policies import PolicyMethods
from rowfs.control.scrub import ScrubMethods
from rowfs.control.trash import TrashMethods
from rowfs.control.usage import UsageMethods
from rowfs.host.freeze import LIMIT_S, check_limit
from rowfs.host.holders import Attachment, attachments
from rowfs.native import extension
from rowfs.rules.selectors import Selector, parse_selector
from rowfs.service import watching
from rowfs.service.counting import counted
from rowfs.service.kernelcache import run_apart
from rowfs.service.objects import disk_object, pool_figures, snapshot_object
from rowfs.service.policies import PolicyRunner
from rowfs.service.service import SLICE_PAGES, Service
from rowfs.store.figures import Change, Pausing, written
from rowfs.store.model import Disk, Snapshot
from rowfs.verbs.disks import CREATE, RENAME, RESIZE, TRIM
from rowfs.verbs.looking import DIFF, EXTENTS, HOLD, INFO, LIST
from rowfs.verbs.pools import HELLO, UMOUNT
from rowfs.verbs.snapshots import CLONE, ROLLBACK, SNAPSHOT
from rowfs.verbs.table import METHODS

log = logging.getLogger(__name__)

Attached = dict[int | str, list[Attachment]]  # as host.holders.attachments gives them

PART_ITEMS = 1000  # of a long result, in one notification
WARN_USED = 0.85
T = TypeVar("T")


async def _counted(figure: Pausing) -> int | None:
    """A figure; None where the map is damaged, which is logged: that keeps nobody from the rest."""
    try:
        return await counted(figure)
    except CorruptionError:
        return None


def _chosen(disk: Disk, selector: Selector | None) -> list[Snapshot] | None:
    """The snapshots of a disk to list: all if the disk is chosen, or else those that are; None: nothing of it is."""
    chain = list(disk.chain.values())
    if selector is None or selector.matches(disk.labels):
        return chain
    return [snapshot for snapshot in chain if selector.matches(snapshot.labels)] or None


def _attached(found: Attached, target: Disk | Snapshot) -> list[Attachment]:
    """The loop devices on its file: by the inode, and those that are told by its path in the mount alone."""
    if isinstance(target, Disk):
        inode, path = disk_inode(target.inode), target.name
    else:
        inode, path = snapshot_inode(target.id), f"{SNAPSHOTS_DIR}/{target.owner.name}/{target.name}"
    return found.get(inode, []) + found.get(path, [])


class Methods:
    """What clients may ask of one mounted pool."""

    def __init__(self, service: Service, unmount: Callable[[bool], Awaitable[None]]) -> None:
        """`unmount` takes the mount down (with force: even when in use) and returns when everything is durable."""
        self._service = service
        self._pool = service.pool
        self._catalog = service.pool.catalog
        self._unmount = unmount
        self.policies = PolicyRunner(service)

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        events = EventMethods(self._service)
        methods: dict[str, Method] = {
            "hello": self.hello,
            "info": self.info,
            "list": self.list_disks,
            "create": self.create,
            "resize": self.resize,
            "rename": self.rename,
            "trim": self.trim,
            "snapshot": self.snapshot,
            "rollback": self.rollback,
            "clone": self.clone,
            "diff": self.diff,
            "extents": self.extents,
            "hold": self.hold,
            "umount": self.umount,
            **DeletionMethods(self._service).table(),
            **GroupMethods(self._service).table(),
            **MarkMethods(self._service).table(),
            **PolicyMethods(self._service, self.policies).table(),
            **events.table(),
            **LimitMethods(self._service).table(),
            **TrashMethods(self._service).table(),
            **ScrubMethods(self._service).table(),
            **UsageMethods(self._service).table(),
            **PlotMethods(self._service).table(),
        }
        return {name: events.recorded(name, self._guarded(name, method)) for name, method in methods.items()}

    def _guarded(self, name: str, method: Method) -> Method:
        """What changes something is refused on a mount that was remounted read-only."""
        if not METHODS[name].changes or name == UMOUNT.method:
            return method

        async def guarded(caller: Caller, params: Params) -> Any:
            if await self._service.is_remounted_read_only():
                await self._service.check_writable()
            return await method(caller, params)

        return guarded

    def _target(self, disk: str, snapshot: str | None) -> Disk | Snapshot:
        if snapshot is None:
            return self._catalog.disk(disk)
        return self._catalog.snapshot(self._catalog.chain(disk), snapshot)

    # Looking

    async def hello(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Which mount this daemon serves."""
        parameters(params, HELLO)
        own = self._service.own
        return {
            "pid": os.getpid(),
            "version": rowfs.__version__,
            "pool": self._pool.directory.current_path(),
            "mountpoint": own.mountpoint,
            "device": own.device,
            "read_only": self._pool.read_only or self._pool.read_only_reason is not None,
        }

    async def info(self, caller: Caller, params: Params) -> dict[str, Any]:
        """The pool and its mount."""
        parameters(params, INFO)
        figures = pool_figures(self._service)
        return {
            "pid": os.getpid(),
            "mountpoint": self._service.own.mountpoint,
            "version": rowfs.__version__,
            "format": self._catalog.pool.format,
            **figures,
            "read_only": figures["read_only"] or await self._service.is_remounted_read_only(),
            "read_only_reason": self._pool.read_only_reason,
            "disks": sum(1 for _ in self._catalog.live()),
            "snapshots": len(self._catalog.snapshots),
            "reclaiming": self._pool.reclaimer.pending or self._pool.space.freed_blocks > 0,
            **self._owed(),
            "hot": extension.served()._asdict(),
            "warnings": await self._warnings(figures),
        }

    def _owed(self) -> dict[str, Any]:
        owed = self._pool.reclaimer.owed_blocks
        seconds = self._service.committer.rate.seconds(owed)
        return {"owed_bytes": owed * BLOCK_BYTES, "owed_s": None if seconds is None else round(seconds, 1)}

    async def _warnings(self, figures: dict[str, Any]) -> list[str]:
        lines = []
        used, free = figures["used_bytes"], figures["free_bytes"]
        if used >= WARN_USED * (used + free):
            lines.append(f"the pool is {100 * used // (used + free)} % full: delete snapshots or disks")
        lines += await watching.warnings(self._service)
        if figures["damaged_bytes"]:
            lines.append(
                f"{format_size(figures['damaged_bytes'])} of sealed data are damaged: rowfs scrub --status tells where"
            )
        if self._service.committer.waiting:
            lines.append(f"nothing can be made durable now: {self._service.committer.waiting}")
        if self._pool.read_only_reason:
            lines.append(f"the pool is read-only since {self._pool.read_only_reason}")
        return lines + self.policies.warnings()

    async def list_disks(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """Disks and their chains."""
        names, figures, selector, trimmed = parameters(params, LIST)
        wanted = None if selector is None else parse_selector(selector)
        attached = await self._attachments()
        damaged = self._pool.damage.counts()
        disks = (
            [self._catalog.chain(name) for name in names] if names is not None else list(self._catalog.disks.values())
        )
        chains = {disk: _chosen(disk, wanted) for disk in sorted(disks, key=lambda disk: disk.name)}
        total = sum(len(chain) for chain in chains.values() if chain is not None)
        done = 0
        found = []
        for disk, chain in chains.items():
            if chain is None:
                continue
            snapshots = []
            for snapshot in chain:
                freed = None
                if figures is not False and not snapshot.deleted:
                    freed = await _counted(self._pool.figures.freed_if_deleted(snapshot))
                snapshots.append(
                    snapshot_object(snapshot, freed, _attached(attached, snapshot), damaged.get(snapshot, 0))
                )
                done += 1
                if not done % 256:
                    await caller.progress(done, total, "snapshots", "counting")
            held = await _counted(self._pool.figures.trimmed(disk)) if trimmed else None
            found.append(disk_object(disk, _attached(attached, disk), snapshots, held, damaged.get(disk, 0)))
        return found

    async def _shown(self, *disks: Disk) -> list[dict[str, Any]]:
        looked_for = any(disk.handles or disk.chain for disk in disks)  # nothing is attached of what is new
        attached = await self._attachments() if looked_for else {}
        found = []
        for disk in disks:
            chain = [snapshot_object(item, None, _attached(attached, item)) for item in disk.chain.values()]
            found.append(disk_object(disk, _attached(attached, disk), chain))
        return found

    async def _attachments(self) -> Attached:
        return await run_apart(attachments, self._service.own)

    # Disks

    async def create(self, caller: Caller, params: Params) -> dict[str, Any]:
        """A new disk."""
        name, size, mode = parameters(params, CREATE)
        owner = (0o644 if mode is None else mode & 0o777, caller.uid, caller.gid)
        disk = self._pool.create_disk(name, size, owner)
        await self._service.committer.commit()
        return (await self._shown(disk))[0]

    async def resize(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Another size for a disk, through the kernel, which caches the old one."""
        name, size, force = parameters(params, RESIZE)
        disk = self._catalog.disk(name)
        if check_disk_size(size) < disk.size_bytes and not force:
            await self._service.check_detached(disk, "shrink")
        await self._service.truncate(disk, size)
        await self._service.committer.commit()
        return (await self._shown(disk))[0]

    async def trim(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Holes for all blocks of a disk that are zeros."""
        name, dry_run = parameters(params, TRIM)

        async def progress(done: int, total: int) -> None:
            await caller.progress(done, total, "bytes", "looking for zeros")

        trimmed, freed = await self._service.trim(self._catalog.disk(name), progress, bool(dry_run))
        return {"trimmed_bytes": trimmed, "freed_bytes": freed}

    async def rename(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Another name for a disk or a snapshot."""
        disk, to, snapshot = parameters(params, RENAME)
        target = self._target(disk, snapshot)
        if isinstance(target, Disk):
            await self._service.rename(target, to)
        else:
            self._pool.rename_snapshot(target, to)
        await self._service.committer.commit()
        return {}

    # Snapshots

    async def snapshot(self, caller: Caller, params: Params) -> dict[str, Any]:
        """A snapshot of a disk in use."""
        disk, name, description, freeze, limit_s, temporary = parameters(params, SNAPSHOT)
        freeze_s = check_limit(LIMIT_S if limit_s is None else limit_s) if freeze else None
        kind = TEMPORARY if temporary else "user"
        taken = await self._service.snapshot(self._catalog.disk(disk), name, description or "", freeze_s, kind)
        if temporary:
            caller.afterwards.push_async_callback(self._drop, taken)
        return {"disk": taken.owner.name, **snapshot_object(taken, 0)}

    async def _drop(self, snapshot: Snapshot) -> None:
        """Delete a temporary snapshot, unless somebody has. If that cannot be, the next opening of the pool does."""
        if snapshot.deleted:
            return
        try:
            self._pool.delete_snapshot(snapshot)
            await self._service.committer.commit()
        except RowfsError as error:
            log.warning("the temporary snapshot %s of %s stays for now: %s", snapshot.name, snapshot.owner.name, error)

    async def rollback(self, caller: Caller, params: Params) -> dict[str, Any]:
        """A disk becomes what its snapshot holds."""
        disk, name, force, discard = parameters(params, ROLLBACK)
        target = self._catalog.disk(disk)
        kept = await self._service.rollback(target, self._catalog.snapshot(target, name), bool(force), bool(discard))
        return {"kept": None if kept is None else kept.name}

    async def clone(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """New disks of a snapshot."""
        disk, name, targets = parameters(params, CLONE)
        snapshot = self._catalog.snapshot(self._catalog.chain(disk), name)
        if not targets:
            raise BadParams("the parameter targets has to name at least one disk")
        made = self._pool.clone(snapshot, targets, (snapshot.owner.mode, caller.uid, caller.gid))
        await self._service.committer.commit()
        return await self._shown(*made)

    # Long results

    async def diff(self, caller: Caller, params: Params) -> dict[str, Any]:
        """What differs between two points of a disk."""
        disk, older, newer = parameters(params, DIFF)
        new = self._target(disk, newer)
        if isinstance(new, Disk):
            await self._service.cache.flush(new)
        changed = 0

        old = None if older is None else self._target(disk, older)

        def measured() -> Iterator[Change | None]:
            nonlocal changed
            extents = self._pool.io.extents_in_slices(new)
            changes = written(extents) if old is None else self._pool.figures.changes(old, new)
            for change in changes:
                changed += change[1] if change is not None else 0
                yield change

        await self._send_parts(caller, measured(), new, old or new)
        return {"changed_bytes": changed}

    async def extents(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Where a disk or snapshot holds data."""
        disk, snapshot = parameters(params, EXTENTS)
        target = self._target(disk, snapshot)
        if isinstance(target, Disk):
            await self._service.cache.flush(target)
        await self._send_parts(caller, self._pool.io.extents_in_slices(target), target)
        blocks = target.mapped_blocks if isinstance(target, Disk) else target.referenced_blocks
        return {"size_bytes": target.size_bytes, "mapped_bytes": blocks * BLOCK_BYTES}

    async def _send_parts(self, caller: Caller, items: Iterator[T | None], *read: Disk | Snapshot) -> None:
        part: list[T] = []
        with contextlib.ExitStack() as held:
            for target in read:
                held.enter_context(self._service.held(target))
            for step, item in enumerate(items):
                if item is not None:
                    part.append(item)
                if len(part) == PART_ITEMS:
                    await caller.part(part)
                    part = []
                elif item is None or not step % SLICE_PAGES:
                    await trio.lowlevel.checkpoint()
            if part:
                await caller.part(part)

    # The end

    async def hold(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Keep the last commit of the map as it is for who reads its file, until the connection ends."""
        parameters(params, HOLD)
        caller.afterwards.callback(self._pool.hold())
        return {}

    async def umount(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Unmount; the answer comes when everything is durable."""
        (force,) = parameters(params, UMOUNT)
        await self._unmount(bool(force))
        return {}
