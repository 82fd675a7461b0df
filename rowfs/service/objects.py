"""Disks, snapshots and the pool as JSON objects (docs/CONTROL.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rowfs.base.inodenumbers import disk_inode, snapshot_inode
from rowfs.base.times import now_ns, rfc3339
from rowfs.base.units import BLOCK_BYTES
from rowfs.host.holders import Attachment
from rowfs.rules.locks import Lock
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot


def disk_object(
    disk: Disk,
    attached: Sequence[Attachment],
    snapshots: list[dict[str, Any]],
    trimmed: int | None = None,
    damaged_blocks: int = 0,
) -> dict[str, Any]:
    """A disk as docs/CONTROL.md has it; of what it `trimmed`, snapshots hold so many bytes."""
    return {
        "name": disk.name,
        "inode": disk_inode(disk.inode) if disk.head else None,
        "size_bytes": disk.size_bytes if disk.head else 0,
        "mapped_bytes": disk.mapped_bytes if disk.head else 0,
        "trimmed_held_bytes": trimmed,
        "damaged_bytes": damaged_blocks * BLOCK_BYTES,
        "created": rfc3339(disk.created_ns),
        "modified": rfc3339(disk.modified_ns),
        "deleted": disk.head is None,
        "attached": _attached(attached),
        "open": disk.handles,
        "labels": disk.labels,
        "snapshots": snapshots,
    }


def snapshot_object(
    snapshot: Snapshot, freed: int | None, attached: Sequence[Attachment] = (), damaged_blocks: int = 0
) -> dict[str, Any]:
    """A snapshot as docs/CONTROL.md has it; `freed` bytes come back if it alone is deleted."""
    return {
        "name": snapshot.name,
        "inode": snapshot_inode(snapshot.id),
        "created": rfc3339(snapshot.created_ns),
        "size_bytes": snapshot.size_bytes,
        "referenced_bytes": snapshot.referenced_blocks * BLOCK_BYTES,
        "written_bytes": snapshot.written_blocks * BLOCK_BYTES,
        "freed_if_deleted_bytes": freed,
        "damaged_bytes": damaged_blocks * BLOCK_BYTES,
        "consistency": snapshot.consistency,
        "kind": snapshot.kind,
        "failed": snapshot.failed,
        "description": snapshot.description,
        "attached": _attached(attached),
        "labels": snapshot.labels,
        "lock": lock_object(snapshot.lock),
    }


def lock_object(lock: Lock) -> dict[str, Any] | None:
    """What keeps a snapshot as docs/CONTROL.md has it; None: nothing does, or not any more."""
    now = now_ns()
    if not lock.keeps(now):
        return None
    return {
        "hold": lock.hold,
        "until": rfc3339(lock.until_ns) if lock.until_ns is not None and lock.dated(now) else None,
        "compliance": lock.compliance and lock.dated(now),
        "reason": lock.reason,
    }


def _attached(attachments: Sequence[Attachment]) -> list[dict[str, Any]]:
    return [
        {"device": item.device, "mounts": item.mounts} | ({"by_path": True} if item.by_path else {})
        for item in attachments
    ]


def pool_figures(service: Service) -> dict[str, Any]:
    """What the pool as a whole has."""
    pool = service.pool
    used = pool.space.allocated_blocks * BLOCK_BYTES
    free = pool.space.free_blocks() * BLOCK_BYTES
    return {
        "pool": pool.directory.current_path(),
        "uuid": pool.catalog.pool.uuid,
        "capacity_bytes": pool.catalog.pool.capacity_bytes or used + free,
        "used_bytes": used,
        "free_bytes": free,
        "sealed_bytes": pool.io.sums.blocks * BLOCK_BYTES,
        "sealing": service.committer.sealing.active,
        "damaged_bytes": len(pool.damage) * BLOCK_BYTES,
        "read_only": pool.read_only or pool.read_only_reason is not None,
    }
