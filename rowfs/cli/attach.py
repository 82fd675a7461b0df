"""`attach` and `detach`: disks and snapshots as block devices."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from errno import EACCES, ENOENT, EPERM
from typing import Any

from rowfs.base.errors import BusyError, NotFoundError, RowfsError, UsageError
from rowfs.base.names import SNAPSHOTS_DIR
from rowfs.base.units import left_out_bytes
from rowfs.cli.addresses import Address, need_snapshot
from rowfs.cli.client import DaemonGoneError
from rowfs.cli.declared import command
from rowfs.cli.disks import warn_of_odd_size
from rowfs.cli.mounts import Mount, current_mounts, mount_at, resolve_path
from rowfs.cli.output import say, say_json
from rowfs.cli.params import find_address
from rowfs.cli.session import find_snapshot, list_disk
from rowfs.host.loops import FileNumbers, Loop, loops, showing
from rowfs.verbs.using import ATTACH, DETACH

_DEVICE = re.compile(r"/dev/loop\d+")


@command(ATTACH)
def attach(address: Address, read_only: bool, direct_io: bool, as_json: bool) -> None:
    """Carries out `rowfs attach`."""
    from rowfs.cli.loops import attach as attach_file
    from rowfs.cli.loops import check_unattached

    path, numbers, size_bytes = _file(address)
    read_only = read_only or address.snapshot is not None
    if not read_only:
        check_unattached(address.shown(), numbers)
    made = attach_file(path, numbers, read_only, direct_io)
    warn_of_odd_size(address, size_bytes)
    if as_json:
        left_out = left_out_bytes(size_bytes)
        say_json(_object(address, made) | ({"left_out_bytes": left_out} if left_out else {}))
    else:
        say(made.device)


def _object(address: Address, loop: Loop) -> dict[str, Any]:
    return {
        "device": loop.device,
        "disk": address.disk,
        "snapshot": address.snapshot,
        "read_only": loop.read_only,
        "direct_io": loop.direct_io,
        "partitions": loop.partitions,
    }


def _file(address: Address) -> tuple[str, FileNumbers, int]:
    """The path of the file behind `address`, which is there, its numbers, and its size in bytes.

    The daemon is asked for it, so that nothing hangs where it has died. Raises UsageError, NotFoundError.
    """
    if address.disk is None or address.chain:
        raise UsageError(f"{address.text!r} names no disk and no snapshot, as {address.mount.mountpoint}/vm1 does")
    disk = list_disk(address.mount, address.disk)
    if address.snapshot is not None:
        snapshot = find_snapshot(disk, need_snapshot(address)[1])
        path = os.path.join(address.mount.mountpoint, SNAPSHOTS_DIR, address.disk, snapshot["name"])
        return path, FileNumbers(address.mount.device, snapshot["inode"]), snapshot["size_bytes"]
    if disk.get("deleted"):
        raise NotFoundError(f"the disk {address.disk!r} is deleted: attach one of its snapshots, or clone it")
    path = os.path.join(address.mount.mountpoint, address.disk)
    return path, FileNumbers(address.mount.device, disk["inode"]), disk["size_bytes"]


@command(DETACH)
def detach(what: str, as_json: bool) -> None:
    """Carries out `rowfs detach`."""
    from rowfs.cli.loops import detach as detach_device
    from rowfs.cli.loops import device_shown, mounted_on

    found = _devices(what)
    busy = [device_shown(loop) for loop in found if mounted_on(loop)]
    if busy:
        where = ", ".join(busy)
        in_use = f"{where} is in use" if what == found[0].device else f"{what} is in use as {where}"
        raise BusyError(f"{in_use}: unmount that first")
    for loop in found:
        detach_device(loop)
        if not as_json:
            say(f"{loop.device}: detached")
    if as_json:
        say_json({"detached": [loop.device for loop in found]})


def _devices(what: str) -> list[Loop]:
    """The loop devices that `what` means. Raises NotFoundError when there are none."""
    mounts = current_mounts()
    path = resolve_path(what, mounts)
    if not _DEVICE.fullmatch(path):
        return _devices_of(find_address(what))
    found = [loop for loop in loops() if loop.device == path]
    if not found:
        raise NotFoundError(f"{path} is not attached to anything", ENOENT)
    if not _is_ours(found[0], mounts):
        raise UsageError(f"{path} shows {found[0].file}, which is not on a rowfs mount: use losetup -d")
    return found


def _is_ours(loop: Loop, mounts: Collection[Mount]) -> bool:
    if loop.shows is None:  # nobody serves its file any more: all there is is the path
        _check_allowed(loop)
        return mount_at(loop.file, mounts) is not None
    return loop.shows.device in {mount.device for mount in mounts}


def _check_allowed(loop: Loop) -> None:
    if loop.error in (EACCES, EPERM):
        raise RowfsError(f"only root can use loop devices ({loop.device}: {os.strerror(loop.error)})", loop.error)


def _devices_of(address: Address) -> list[Loop]:
    """The loop devices on the file behind `address`. Raises NotFoundError when there are none."""
    if address.disk is None or address.chain:
        raise UsageError(f"{address.text!r} names no disk and no snapshot, as {address.mount.mountpoint}/vm1 does")
    there = loops()
    try:
        found = showing(_file(address)[1], there)
    except DaemonGoneError:
        found = _orphaned(address, there)
    except NotFoundError as error:
        raise NotFoundError(f"{error}{_hint(address.mount, there)}", error.errno) from None
    if found:
        return found
    for loop in there:
        _check_allowed(loop)
    raise NotFoundError(f"{address.text} is not attached: rowfs list shows what is{_hint(address.mount, there)}")


def _orphaned(address: Address, there: Collection[Loop]) -> list[Loop]:
    """The devices on a file of a daemon that is gone. Its numbers are gone, too: so by the path, if none are told."""
    assert address.disk is not None
    names = [address.disk] if address.snapshot is None else [SNAPSHOTS_DIR, *need_snapshot(address)]
    path = os.path.join(address.mount.mountpoint, *names)
    device = address.mount.device
    return [loop for loop in there if loop.file == path and (loop.shows is None or loop.shows.device == device)]


def _hint(mount: Mount, there: Collection[Loop]) -> str:
    """Which devices are on files of the mount that have no name any more."""
    deleted = " (deleted)"  # what the kernel puts behind such a path; good for a hint
    found = [loop.device for loop in there if loop.shows and loop.shows.device == mount.device and deleted in loop.file]
    return f" (deleted, but still attached: {', '.join(found)})" if found else ""
