"""Inodes: what their numbers (`base/inodenumbers.py`) stand for, and their attributes."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from errno import ENOENT, ESTALE
from typing import NamedTuple

import pyfuse3

from rowfs.base.inodenumbers import ROOT, SNAPSHOTS, chain_inode, disk_inode, snapshot_inode
from rowfs.base.units import BLOCK_BYTES
from rowfs.store.catalog import Catalog
from rowfs.store.model import Disk, Snapshot

READABLE = 0o444  # of a mode
ATTRIBUTES_VALID_S = 1.0
NAMES_VALID_S = 0.0  # names change through the socket as well, so the kernel asks each time it walks a path

assert int(pyfuse3.ROOT_INODE) == ROOT


class Chain(NamedTuple):
    """The directory of a disk's snapshots."""

    disk: int  # the disk's id


class Directory(NamedTuple):
    """The mountpoint or .snapshots."""

    inode: int


Node = Directory | Chain | Disk | Snapshot


def inode_of(node: Node) -> int:
    """The number of a file or directory."""
    match node:
        case Directory():
            return node.inode
        case Chain():
            return chain_inode(node.disk)
        case Disk():
            return disk_inode(node.inode)
        case Snapshot():
            return snapshot_inode(node.id)


@dataclass(slots=True)
class _Known:
    node: Node
    lookups: int  # how often the kernel was told; at zero it has forgotten


@dataclass(frozen=True, slots=True)
class Shown:
    """What the mount shows instead of each file's own owner and mode; None: its own."""

    uid: int | None = None
    gid: int | None = None
    umask: int = 0  # permissions that nobody has


AS_THEY_ARE = Shown()


class Inodes:
    """The inodes that the kernel knows."""

    def __init__(self, catalog: Catalog, uid: int, gid: int, born_ns: int, shown: Shown = AS_THEY_ARE) -> None:
        self._catalog = catalog
        self._owner = uid, gid
        self._born_ns = born_ns
        self._shown = shown
        self._known: dict[int, _Known] = {inode: _Known(Directory(inode), 1) for inode in (ROOT, SNAPSHOTS)}

    def node(self, inode: int) -> Node:
        """What an inode that the kernel names stands for."""
        known = self._known.get(inode)
        if known is None:
            raise pyfuse3.FUSEError(ENOENT)
        return known.node

    def found(self, inode: int) -> Node:
        """What an inode stands for, whether the kernel knows it or not; ESTALE when there is none any more."""
        if inode in self._known:
            return self._known[inode].node
        for disk in self._catalog.disks.values():
            if inode == chain_inode(disk.id):
                return Chain(disk.id)
            if disk.head is not None and inode == disk_inode(disk.inode):
                return disk
        for snapshot in self._catalog.snapshots.values():
            if inode == snapshot_inode(snapshot.id):
                return snapshot
        raise pyfuse3.FUSEError(ESTALE)

    def parent(self, node: Node) -> Node:
        """The directory that a node is in; ESTALE when it was removed."""
        match node:
            case Snapshot() if not node.deleted:
                return Chain(node.owner.id)
            case Chain():
                return Directory(SNAPSHOTS)
            case Snapshot():
                raise pyfuse3.FUSEError(ESTALE)
        return Directory(ROOT)

    def remember(self, node: Node) -> None:
        """The kernel is told of a node."""
        inode = inode_of(node)
        known = self._known.get(inode)
        if known is None:
            self._known[inode] = _Known(node, 1)
        else:
            known.lookups += 1
            known.node = node

    def forget(self, inode: int, lookups: int) -> None:
        """The kernel forgets what it was told so many times."""
        known = self._known.get(inode)
        if known is not None and inode not in (ROOT, SNAPSHOTS):
            known.lookups -= lookups
            if known.lookups <= 0:
                del self._known[inode]

    def known(self, nodes: Iterable[Disk | Snapshot]) -> list[int]:
        """The inodes of those that the kernel knows."""
        return [inode for node in nodes if (inode := inode_of(node)) in self._known]

    def chain(self, chain: Chain) -> Disk:
        """The disk whose snapshots a directory shows."""
        for disk in self._catalog.disks.values():
            if disk.id == chain.disk:
                return disk
        raise pyfuse3.FUSEError(ENOENT)

    def attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        """What stat(2) tells of a node."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode_of(node))
        entry.attr_timeout = ATTRIBUTES_VALID_S
        entry.entry_timeout = NAMES_VALID_S
        entry.st_blksize = BLOCK_BYTES
        if isinstance(node, Disk | Snapshot):
            _describe_file(entry, node)
        else:
            self._describe_directory(entry, node)
            entry.st_ctime_ns = entry.st_mtime_ns
        self._override(entry)
        entry.st_atime_ns = entry.st_mtime_ns
        return entry

    def _override(self, entry: pyfuse3.EntryAttributes) -> None:
        shown = self._shown
        entry.st_mode = pyfuse3.ModeT(entry.st_mode & ~shown.umask)
        if shown.uid is not None:
            entry.st_uid = shown.uid
        if shown.gid is not None:
            entry.st_gid = shown.gid

    def _describe_directory(self, entry: pyfuse3.EntryAttributes, node: Directory | Chain) -> None:
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755)
        entry.st_nlink = 2
        entry.st_uid, entry.st_gid = self._owner
        entry.st_mtime_ns = self._born_ns
        if isinstance(node, Chain):
            disk = self.chain(node)
            entry.st_mtime_ns = max((s.created_ns for s in disk.chain.values()), default=disk.created_ns)
        elif node.inode == ROOT:
            entry.st_nlink = 3
        else:
            entry.st_nlink = 2 + len(self._catalog.disks)


def _describe_file(entry: pyfuse3.EntryAttributes, node: Disk | Snapshot) -> None:
    owner = node if isinstance(node, Disk) else node.owner  # whose owner and mode govern its snapshots too
    entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | (owner.mode if owner is node else owner.mode & READABLE))
    entry.st_nlink = 0 if node.deleted else 1
    entry.st_uid, entry.st_gid = owner.uid, owner.gid
    entry.st_size = node.size_bytes
    if isinstance(node, Disk):
        entry.st_blocks = _told_blocks(entry, node) * (BLOCK_BYTES // 512)
        entry.st_mtime_ns, entry.st_ctime_ns = node.modified_ns, node.changed_ns
    else:
        entry.st_blocks = node.referenced_blocks * (BLOCK_BYTES // 512)
        entry.st_mtime_ns, entry.st_ctime_ns = node.created_ns, node.changed_ns or node.created_ns


def _told_blocks(entry: pyfuse3.EntryAttributes, disk: Disk) -> int:
    """How many blocks a disk is told to take. Programs (tar -S) read nothing of a file that takes none.

    So none is told only of a disk that nobody can have written to, and the kernel asks again each time.
    """
    if not disk.mapped_blocks and not disk.writers:
        entry.attr_timeout = 0.0
    return disk.mapped_blocks or min(disk.writers, 1)
