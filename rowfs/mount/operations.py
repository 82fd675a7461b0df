"""The requests of the kernel. Each handler finds the nodes, calls the engine, and answers; the rules are below.

Between two awaits nothing else changes the engine's state. Handlers await only in `Service`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from errno import EACCES, EINVAL, EISDIR, ENODATA, ENOENT, ENOSYS, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM, EROFS, ESTALE
from typing import cast

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileInfo, FUSEError, InodeT

from rowfs.base.inodenumbers import ROOT, SNAPSHOTS
from rowfs.base.names import NAME_BYTES_MAX, SNAPSHOTS_DIR
from rowfs.base.times import clamped, stamp_ns
from rowfs.base.units import BLOCK_BYTES
from rowfs.mount import attributes, polling
from rowfs.mount.acting import act
from rowfs.mount.answers import answering, fuse_error
from rowfs.mount.inodes import AS_THEY_ARE, Chain, Directory, Inodes, Node, Shown, inode_of
from rowfs.native import extension
from rowfs.service.service import Service
from rowfs.store.model import Disk, Snapshot

_SYNC = os.O_SYNC | os.O_DSYNC
PERMISSIONS = 0o777  # no set-id bits: we tell the kernel that writes need not clear any (see _native.c)


@dataclass(slots=True)
class Handle:
    """An open file."""

    target: Disk | Snapshot
    writable: bool
    sync: bool = False  # each write is durable before it is answered
    own: bool = False  # opened by a worker of ours, to flush: what it asks for need not be durable yet


class Operations(pyfuse3.Operations):
    """The file system."""

    enable_writeback_cache = True
    supports_dot_lookup = True  # so that a file handle, as NFS keeps them, is found when the kernel has forgotten it

    def __init__(self, service: Service, uid: int, gid: int, born_ns: int, shown: Shown = AS_THEY_ARE) -> None:
        super().__init__()
        self._service = service
        self._pool = service.pool
        self._catalog = service.pool.catalog
        self.inodes = Inodes(self._catalog, uid, gid, born_ns, shown)
        self._handles: dict[int, Handle] = {}
        self._next_handle = 1
        self._nursery: trio.Nursery | None = None

    # Names

    def _child(self, parent: Node, name: bytes) -> Node:
        text = os.fsdecode(name)
        match parent:
            case Directory() if parent.inode == ROOT:
                if text == SNAPSHOTS_DIR:
                    return Directory(SNAPSHOTS)
                return self._existing(self._live(text))
            case Directory():
                disk = self._catalog.disks.get(text)
                return self._existing(None if disk is None else Chain(disk.id))
            case Chain():
                return self._existing(self.inodes.chain(parent).chain.get(text))
        raise FUSEError(ENOTDIR)

    def _live(self, name: str) -> Disk | None:
        disk = self._catalog.disks.get(name)
        return disk if disk is not None and disk.head is not None else None

    @staticmethod
    def _existing(node: Node | None) -> Node:
        if node is None:
            raise FUSEError(ENOENT)
        return node

    def _told(self, node: Node) -> pyfuse3.EntryAttributes:
        self.inodes.remember(node)
        return self.inodes.attributes(node)

    @answering
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Find a name in a directory; `.` and `..` also of what the kernel has only the number of."""
        if name in (b".", b".."):
            node = self.inodes.found(parent_inode)
            return self._told(node if name == b"." else self.inodes.parent(node))
        return self._told(self._child(self.inodes.node(parent_inode), name))

    @answering
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """The kernel drops inodes from its cache."""
        for inode, lookups in inode_list:
            self.inodes.forget(inode, lookups)

    @answering
    async def getattr(self, inode: InodeT, ctx: pyfuse3.RequestContext | None) -> pyfuse3.EntryAttributes:
        """What stat(2) tells."""
        return self.inodes.attributes(self.inodes.node(inode))

    @answering
    @act
    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """truncate, chmod, chown, utimes."""
        node = self.inodes.node(inode)
        if isinstance(node, Snapshot):
            self._check_touched(node, attr, fields)
        elif isinstance(node, Disk):
            await self._set_disk(node, attr, fields)
        else:
            raise FUSEError(EPERM)
        return self.inodes.attributes(node)

    def _check_touched(self, snapshot: Snapshot, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> None:
        # touch(1) sets the times of the file that it made; a snapshot keeps its own, and touch must not fail.
        # The kernel itself sends mtime and ctime, without atime, of a file that was renamed: the mtime that it knows.
        # It would show any other that is not refused, until it forgets the file.
        others = fields.update_size or fields.update_mode or fields.update_uid or fields.update_gid
        made_now = any(handle.target is snapshot and handle.writable for handle in self._handles.values())
        known = (snapshot.created_ns, snapshot.touched_ns)
        own = not fields.update_atime and (not fields.update_mtime or clamped(attr.st_mtime_ns) in known)
        if others or not (own or made_now):
            raise FUSEError(EROFS)
        if made_now and fields.update_mtime:
            snapshot.touched_ns = clamped(attr.st_mtime_ns)
        if own and fields.update_ctime and not snapshot.deleted:
            snapshot.changed_ns = max(snapshot.changed_ns, clamped(attr.st_ctime_ns))
            self._catalog.touch(snapshot)

    async def _set_disk(self, disk: Disk, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> None:
        self._pool.check_writable()
        changed_ns = disk.changed_ns
        if fields.update_size:
            self._check_there(disk)
            await self._service.resize(disk, attr.st_size)
        if fields.update_mode:
            disk.mode = stat.S_IMODE(attr.st_mode) & PERMISSIONS
        if fields.update_uid:
            disk.uid = attr.st_uid
        if fields.update_gid:
            disk.gid = attr.st_gid
        if fields.update_mtime:
            disk.modified_ns = clamped(attr.st_mtime_ns)
        # The kernel has its own idea of when that was, and keeps to it as long as it knows the file.
        disk.changed_ns = max(changed_ns, clamped(attr.st_ctime_ns) if fields.update_ctime else stamp_ns())
        if disk.deleted:
            return
        if fields.update_mode or fields.update_uid or fields.update_gid:  # and so of its snapshots
            await self._service.cache.forget_attributes(self.inodes.known(disk.chain.values()))
        if fields.update_size or fields.update_mode or fields.update_uid or fields.update_gid:
            self._catalog.touch(disk)
        else:
            self._catalog.touch_time(disk)

    @answering
    async def access(self, inode: InodeT, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """The kernel checks permissions itself (default_permissions)."""
        return True

    # Making and removing

    @answering
    @act
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[FileInfo, pyfuse3.EntryAttributes]:
        """A new file in the mountpoint is a disk, one in `.snapshots/DISK` a snapshot."""
        parent = self.inodes.node(parent_inode)
        text = os.fsdecode(name)
        node: Disk | Snapshot
        if isinstance(parent, Chain):
            if flags & os.O_TRUNC:
                raise FUSEError(EROFS)  # else the kernel takes it to be empty
            node = await self._service.snapshot(self._live_chain(parent), text)
        elif isinstance(parent, Directory) and parent.inode == ROOT:
            node = self._pool.create_disk(text, 0, (stat.S_IMODE(mode) & PERMISSIONS, ctx.uid, ctx.gid))
        else:
            raise FUSEError(EPERM)
        entry = self._told(node)
        return self._open(node, flags, ctx), entry

    def _live_chain(self, chain: Chain) -> Disk:
        disk = self.inodes.chain(chain)
        if disk.head is None:
            raise FUSEError(EROFS)  # the disk is deleted: its chain does not grow
        return disk

    @answering
    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """As create, without opening. Nothing but regular files."""
        if not stat.S_ISREG(mode):
            raise FUSEError(EPERM)
        info, entry = await self.create(parent_inode, name, mode, os.O_RDONLY, ctx)
        self._close(info.fh)
        return entry

    @answering
    @act
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Delete a disk (its snapshots stay) or a snapshot."""
        match self._child(self.inodes.node(parent_inode), name):
            case Disk() as disk:
                self._pool.trash.delete_disk(disk)
            case Snapshot() as snapshot:
                self._pool.trash.delete_snapshot(snapshot)
            case _:
                raise FUSEError(EISDIR)

    @answering
    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There are no directories but those of the chains."""
        raise FUSEError(EPERM)

    @answering
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """A chain's directory goes with its disk and its last snapshot."""
        child = self._child(self.inodes.node(parent_inode), name)
        if isinstance(child, Disk | Snapshot):
            raise FUSEError(ENOTDIR)
        raise FUSEError(ENOTEMPTY if isinstance(child, Chain) and self.inodes.chain(child).chain else EPERM)

    @answering
    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There are no symbolic links."""
        raise FUSEError(EPERM)

    @answering
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There are no hard links: a second name for a disk would be a second chain."""
        raise FUSEError(EPERM)

    @answering
    @act
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Rename a disk, over another one too, or a snapshot within its chain."""
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(EINVAL)
        node = self._child(self.inodes.node(parent_inode_old), name_old)
        if parent_inode_new != parent_inode_old or not isinstance(node, Disk | Snapshot):
            raise FUSEError(EPERM)
        text = os.fsdecode(name_new)
        if isinstance(node, Disk):
            self._pool.rename_disk(node, text, replace=not flags & pyfuse3.RENAME_NOREPLACE)
        else:
            self._pool.rename_snapshot(node, text)

    # Files

    @answering
    async def open(self, inode: InodeT, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        """Open a disk, or a snapshot for reading."""
        node = self.inodes.node(inode)
        if isinstance(node, Directory | Chain):
            raise FUSEError(EISDIR)
        if isinstance(node, Snapshot) and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
            raise FUSEError(EROFS)
        self._check_there(node)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._pool.check_writable()
        info = self._open(node, flags, ctx)
        if flags & os.O_TRUNC and isinstance(node, Disk):  # the kernel leaves that to us
            try:
                await self._service.resize(node, 0)
            except BaseException:
                self._close(info.fh)  # the kernel has no handle, and will not
                raise
        return info

    @staticmethod
    def _check_there(node: Disk | Snapshot) -> None:
        # The kernel may ask for what was deleted after it found the name.
        if node.deleted and not node.handles:
            raise FUSEError(ESTALE)

    def _open(self, target: Disk | Snapshot, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        number, self._next_handle = self._next_handle, self._next_handle + 1
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        own = ctx.pid in self._service.cache.own_threads
        self._handles[number] = Handle(target, writable, sync=bool(flags & _SYNC), own=own)
        target.handles += 1
        if writable and isinstance(target, Disk):
            target.writers += 1
        # Whoever makes a file may write to it, whatever its mode: a snapshot's first handle. The kernel must not cache
        # what is written there, nor tell of it only when the file is closed.
        uncached = isinstance(target, Snapshot) and writable
        return FileInfo(fh=FileHandleT(number), keep_cache=not uncached, direct_io=uncached)

    def _close(self, fh: FileHandleT) -> None:
        handle = self._handles.pop(fh)
        if handle.writable and isinstance(handle.target, Disk):
            handle.target.writers -= 1
        self._service.release(handle.target)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Read a range."""
        try:
            # pyfuse3 takes any buffer; its annotation knows bytes alone.
            target = self._handles[fh].target
            data = self._service.read_cached(target, off, size)
            if data is None:
                polling.give_turn()
                data = await self._service.read(target, off, size)
            return cast(bytes, data)
        except Exception as error:
            raise fuse_error(error, "read") from None

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Write a range."""
        try:
            handle = self._handles[fh]
            if isinstance(handle.target, Snapshot):
                raise FUSEError(EROFS)
            if not self._service.write_now(handle.target, off, buf):
                polling.give_turn()
                await self._service.write(handle.target, off, buf)
            if handle.sync:
                polling.give_turn()
                await self._service.committer.commit()
            return len(buf)
        except Exception as error:
            raise fuse_error(error, "write") from None

    @answering
    async def flush(self, fh: FileHandleT) -> None:
        """close(2): what this handle could have written is durable."""
        handle = self._handles[fh]
        if handle.writable:
            await self._service.committer.commit()

    @answering
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Everything written before is durable on return."""
        if not self._handles[fh].own:
            await self._service.committer.commit()

    @answering
    async def release(self, fh: FileHandleT) -> None:
        """The last descriptor of a handle is closed."""
        self._close(fh)

    # Directories

    @answering
    async def opendir(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> FileHandleT:
        """Directories need no state: each entry's inode says where to go on."""
        if isinstance(self.inodes.node(inode), Disk | Snapshot):
            raise FUSEError(ENOTDIR)
        return FileHandleT(inode)

    @answering
    async def releasedir(self, fh: FileHandleT) -> None:
        """Nothing to let go of."""

    @answering
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Names made and removed before are durable on return."""
        await self._service.committer.commit()

    @answering
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory by inode from `start_id` on: no entry comes twice or is missed when others change."""
        entries = sorted(self._entries(self.inodes.node(InodeT(fh))), key=lambda item: inode_of(item[1]))
        for name, node in entries:
            inode = inode_of(node)
            if inode <= start_id:
                continue
            if not pyfuse3.readdir_reply(token, os.fsencode(name), self.inodes.attributes(node), inode):
                break
            self.inodes.remember(node)

    def _entries(self, node: Node) -> list[tuple[str, Node]]:
        match node:
            case Directory() if node.inode == ROOT:
                return [(SNAPSHOTS_DIR, Directory(SNAPSHOTS)), *((disk.name, disk) for disk in self._catalog.live())]
            case Directory():
                return [(disk.name, Chain(disk.id)) for disk in self._catalog.disks.values()]
            case Chain():
                return list(self.inodes.chain(node).chain.items())
        raise FUSEError(ENOTDIR)

    # What the C extension hands on; each starts a task and answers from there

    def serve_natively(self) -> None:
        """Let the extension answer what it can, on the handles that there are and will be."""
        extension.serve(self._handles, self._set_time, self._pool, self._service.committer)

    def _set_time(self, inode: int, modified_ns: int, changed_ns: int) -> pyfuse3.EntryAttributes | None:
        """What `setattr` does when Linux tells the times of a change; None: this is for `setattr`."""
        node = self.inodes.node(InodeT(inode))
        if not isinstance(node, Disk) or node.deleted:
            return None
        self._pool.check_writable()
        node.modified_ns = clamped(modified_ns)
        node.note_change(clamped(changed_ns))
        self._catalog.touch_time(node)
        return self.inodes.attributes(node)

    def start_in(self, nursery: trio.Nursery) -> None:
        """Run the tasks of the requests below in `nursery`."""
        self._nursery = nursery

    def _start(self, answer: Callable[..., Awaitable[None]], request: int, *args: int) -> None:
        if self._nursery is None:
            extension.module.reply_error(request, ENOSYS)
        else:
            self._nursery.start_soon(self._answered, answer, request, *args)

    async def _answered(self, answer: Callable[..., Awaitable[None]], request: int, *args: int) -> None:
        try:
            await answer(request, *args)
        except Exception as error:
            extension.module.reply_error(request, fuse_error(error, answer.__name__.lstrip("_")).errno)

    def fallocate(self, request: int, fh: int, mode: int, offset: int, length: int) -> None:
        """Punch holes, zero ranges, or check that there is space."""
        self._start(self._fallocate, request, fh, mode, offset, length)

    def lseek(self, request: int, fh: int, offset: int, whence: int) -> None:
        """Find the next data or hole."""
        self._start(self._lseek, request, fh, offset, whence)

    def copy_file_range(self, request: int, source: int, at: int, target: int, to: int, length: int) -> None:
        """Copy by sharing, or say that it cannot be shared."""
        self._start(self._copy_file_range, request, source, at, target, to, length)

    def _writable(self, fh: int) -> Disk:
        handle = self._handles[fh]
        if isinstance(handle.target, Snapshot):
            raise FUSEError(EROFS)
        return handle.target

    async def _fallocate(self, request: int, fh: int, mode: int, offset: int, length: int) -> None:
        await self._service.fallocate(self._writable(fh), mode, offset, length)
        if self._handles[fh].sync:
            await self._service.committer.commit()
        extension.module.reply_error(request, 0)

    async def _lseek(self, request: int, fh: int, offset: int, whence: int) -> None:
        found = await self._service.seek(self._handles[fh].target, offset, whence)
        extension.module.reply_offset(request, found)

    async def _copy_file_range(self, request: int, source: int, at: int, target: int, to: int, length: int) -> None:
        copied = await self._service.share(self._handles[source].target, at, self._writable(target), to, length)
        if self._handles[target].sync:
            await self._service.committer.commit()
        extension.module.reply_count(request, copied)

    # The whole

    @answering
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """What df(1) tells: what the pool holds, and what a writer could still get."""
        space = self._pool.space
        free = space.free_blocks()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_BYTES
        data.f_blocks = space.allocated_blocks + free
        data.f_bfree = data.f_bavail = free
        data.f_ffree = data.f_favail = 1 << 32  # as many as anybody wants
        data.f_files = len(self._catalog.disks) + len(self._catalog.snapshots) + data.f_ffree
        data.f_namemax = NAME_BYTES_MAX
        return data

    # Extended attributes

    @answering
    async def getxattr(self, inode: InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """user.rowfs.*: the figures."""
        value = await attributes.value(self._service, self.inodes.node(inode), os.fsdecode(name))
        if value is None:
            raise FUSEError(ENODATA)
        return value.encode(errors="surrogateescape")

    @answering
    async def listxattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Nothing: the figures are read by name. Programs that copy attributes would try to set what is listed."""
        self.inodes.node(inode)
        return []

    @answering
    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Figures cannot be set, and there are no others."""
        raise FUSEError(self._refusal(inode, name))

    @answering
    async def removexattr(self, inode: InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """As setxattr."""
        raise FUSEError(self._refusal(inode, name))

    def _refusal(self, inode: InodeT, name: bytes) -> int:
        if isinstance(self.inodes.node(inode), Snapshot):
            return EROFS
        return EACCES if name.startswith(b"user.rowfs.") else EOPNOTSUPP
