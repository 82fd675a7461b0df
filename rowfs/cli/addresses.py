"""What a path names: a mount, a disk, a snapshot, a chain. Pure: the mounts, and what is a pool, come as arguments.

MNT                        the mount             MNT/disk@a..c, MNT/disk@a,b   several snapshots (see ranges.py)
MNT/disk                   a disk                MNT/.snapshots/disk           the chain of a disk
MNT/disk@snap              a snapshot            MNT/.snapshots/disk/snap      a snapshot, exactly this name
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from rowfs.base.errors import NotFoundError, UsageError
from rowfs.base.mountinfo import is_below
from rowfs.base.names import SNAPSHOTS_DIR, check_name
from rowfs.cli.mounts import Mount, mount_at


@dataclass(frozen=True)
class Address:
    """A place on a mount. `text` is how the user wrote it.

    `snapshot` is what stands behind the @, not looked at yet: a name, a range or a list. `exact` says that it is a name
    whatever it contains, because it came as the path of the snapshot's file. `chain`: all snapshots of `disk`.
    """

    text: str
    mount: Mount
    disk: str | None = None
    snapshot: str | None = None
    exact: bool = False
    chain: bool = False

    def sibling(self, disk: str) -> Address:
        """The address of another disk on the same mount."""
        return Address(disk, self.mount, check_name(disk, "disk name"))

    def shown(self) -> str:
        """The address in full, as `rowfs` takes it."""
        where = f"{self.mount.mountpoint.rstrip('/')}/{self.disk}" if self.disk else self.mount.mountpoint
        return where if self.snapshot is None else f"{where}@{self.snapshot}"


def parse_address(
    text: str,
    path: str,
    mounts: Collection[Mount],
    is_pool: Callable[[str], bool] = lambda path: False,
    mount_of: Callable[[str], Mount | None] = lambda path: None,
) -> Address:
    """What `text` names, which leads to the absolute `path`. The directory of a mounted pool names its mount.

    `mount_of` says which mount shows the pool in a directory, if one does; `is_pool` whether a directory is a pool, and
    is asked only of what is not mounted. Raises NotFoundError when that is not on a rowfs mount, and UsageError when
    nothing there can be named so.
    """
    mount = mount_at(path, mounts)
    if mount is not None:
        inside = path[len(mount.mountpoint) :].strip("/")
        return _parse_inside(Address(text, mount), inside.split("/") if inside else [])
    found = mount_of(path)
    if found is None:
        _check_outside(text, path, mounts)
        raise _elsewhere(text, path, mounts, is_pool)
    return Address(text, found)


def _check_outside(text: str, path: str, mounts: Collection[Mount]) -> None:
    for mount in mounts:
        if path != mount.pool and is_below(path, mount.pool):
            hint = f"it is inside a pool that is mounted on {mount.mountpoint}: use the paths there"
            raise NotFoundError(f"{text!r} is not on a rowfs mount: {hint}")


def _elsewhere(text: str, path: str, mounts: Collection[Mount], is_pool: Callable[[str], bool]) -> NotFoundError:
    """What is wrong with a path that has nothing to do with any mount, and what to do."""
    for pool in (path, os.path.dirname(path)):
        if is_pool(pool):
            return NotFoundError(f"the pool {pool} is not mounted: mount it first with rowfs mount {pool} DIR")
    there = ", ".join(sorted(mount.mountpoint for mount in mounts))
    hint = f"name a path on {there}" if there else "nothing is mounted, rowfs mount POOL DIR mounts a pool"
    return NotFoundError(f"{text!r} is not on a rowfs mount: {hint}")


def _parse_inside(address: Address, parts: list[str]) -> Address:
    """`address` with what the path components below its mountpoint say."""
    match parts:
        case [] | [".snapshots"]:
            return address
        case [".snapshots", disk]:
            return replace(address, disk=check_name(disk, "disk name"), chain=True)
        case [".snapshots", disk, snapshot]:
            check_name(snapshot, "snapshot name")
            return replace(address, disk=check_name(disk, "disk name"), snapshot=snapshot, exact=True)
        case [name]:
            disk, at, snapshot = name.partition("@")
            return replace(address, disk=check_name(disk, "disk name"), snapshot=snapshot if at else None)
    mountpoint = address.mount.mountpoint
    raise UsageError(
        f"{address.text!r} names no disk: disks lie directly in {mountpoint}, their snapshots in {SNAPSHOTS_DIR}"
    )


def need_disk(address: Address) -> str:
    """The disk's name, if `address` names a disk and nothing else. Raises UsageError otherwise."""
    if address.disk is None:
        raise UsageError(f"{address.text!r} names no disk: add its name, as in {address.mount.mountpoint}/vm1")
    if address.snapshot is not None or address.chain:
        raise UsageError(
            f"{address.text!r} names a snapshot: this works on a disk, as in {address.mount.mountpoint}/vm1"
        )
    return address.disk


def need_snapshot(address: Address) -> tuple[str, str]:
    """The names of disk and snapshot, if `address` names one snapshot. Raises UsageError otherwise."""
    if address.disk is None or address.snapshot is None:
        example = f"{address.mount.mountpoint}/{address.disk or 'vm1'}@name"
        raise UsageError(f"{address.text!r} names no snapshot: write it as {example}")
    return address.disk, check_name(address.snapshot, "snapshot name")


def need_same_mount(address: Address, other: Address) -> None:
    """Raises UsageError when the two are on different mounts."""
    if (address.mount.pool, address.mount.device) != (other.mount.pool, other.mount.device):
        raise UsageError(f"{other.text!r} is on another mount than {address.text!r}: export it and copy the file over")
