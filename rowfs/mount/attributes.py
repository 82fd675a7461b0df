"""The figures and marks of disks and snapshots as extended attributes user.rowfs.* of the files."""

from __future__ import annotations

from rowfs.base.times import now_ns
from rowfs.mount.inodes import Chain, Directory, Node
from rowfs.service.counting import counted
from rowfs.service.objects import disk_object, pool_figures, snapshot_object
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot

PREFIX = "user.rowfs."

_DISK = ("size_bytes", "mapped_bytes", "created", "modified", "snapshots", "labels")
_SNAPSHOT = (
    "created",
    "size_bytes",
    "referenced_bytes",
    "written_bytes",
    "freed_if_deleted_bytes",
    "consistency",
    "kind",
    "description",
    "labels",
    "lock",
)
_MOUNT = ("pool", "uuid", "capacity_bytes", "used_bytes", "free_bytes", "read_only")


def names(node: Node) -> list[str]:
    """The extended attributes that a node has."""
    fields: tuple[str, ...]
    match node:
        case Disk():
            fields = _DISK
        case Snapshot():
            fields = _SNAPSHOT
        case Directory():
            fields = _MOUNT
        case Chain():
            fields = ()
    return [PREFIX + field for field in fields]


async def value(service: Service, node: Node, name: str) -> str | None:
    """The text of an extended attribute; None: the node has none of that name."""
    if name not in names(node):
        return None
    field = name.removeprefix(PREFIX)
    if field == "labels":
        assert isinstance(node, Disk | Snapshot), "nothing else has labels"
        return ",".join(f"{key}={text}" for key, text in node.labels.items())
    if field == "lock":
        assert isinstance(node, Snapshot), "nothing else is locked"
        return node.lock.described(now) if node.lock.keeps(now := now_ns()) else ""
    match node:
        case Disk():
            found = len(node.chain) if field == "snapshots" else disk_object(node, [], [])[field]
        case Snapshot():
            freed = None
            if field == "freed_if_deleted_bytes" and not node.deleted:
                freed = await counted(service.pool.figures.freed_if_deleted(node))
            found = snapshot_object(node, freed)[field]
        case _:
            found = pool_figures(service)[field]
    return str(found).lower() if isinstance(found, bool) else str(found)
