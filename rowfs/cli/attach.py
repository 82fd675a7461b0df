"""`attach` and `detach`: disks and snapshots as block devices."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from errno import ENOENT
from typing import Any

from rowfs.base.errors import BusyError, NotFoundError, UsageError
from rowfs.base.names import SNAPSHOTS_DIR
from rowfs.cli.addresses import Address, need_snapshot
from rowfs.cli.client import DaemonGoneError
from rowfs.cli.declared import command
from rowfs.cli.loops import Loop, loops
from rowfs.cli.mounts import current_mounts, mount_at, resolve_path
from rowfs.cli.output import say, say_json
from rowfs.cli.params import find_address
from rowfs.cli.session import find_snapshot, list_disk
from rowfs.verbs.using import ATTACH, DETACH

_DEVICE = re.compile(r"/dev/loop\d+")


@command(ATTACH)
def attach(address: Address, read_only: bool, direct_io: bool, as_json: bool) -> None:
    """Carries out `rowfs attach`."""
    from rowfs.cli.loops import attach as attach_file

    path, there = _file(address)
    read_only = read_only or address.snapshot is not None
    if not read_only:
        _check_unattached(address, there)
    made = attach_file(path, read_only, direct_io)
    if as_json:
        say_json(_object(address, made))
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


def _check_unattached(address: Address, devices: Collection[str]) -> None:
    writable = [loop for loop in loops() if loop.device in devices and not loop.read_only]
    if writable:
        where = ", ".join(loop.shown() for loop in writable)
        raise BusyError(f"{address.shown()} is attached already as {where}: use that, or attach a clone")


def _file(address: Address) -> tuple[str, list[str]]:
    """The path of the file behind `address`, which is there, and the loop devices on it.

    The daemon is asked for it, so that nothing hangs where it has died. Raises UsageError, NotFoundError.
    """
    if address.disk is None or address.chain:
        raise UsageError(f"{address.text!r} names no disk and no snapshot, as {address.mount.mountpoint}/vm1 does")
    disk = list_disk(address.mount, address.disk)
    if address.snapshot is not None:
        snapshot = find_snapshot(disk, need_snapshot(address)[1])
        path = os.path.join(address.mount.mountpoint, SNAPSHOTS_DIR, address.disk, snapshot["name"])
        return path, _attached(snapshot)
    if disk.get("deleted"):
        raise NotFoundError(f"the disk {address.disk!r} is deleted: attach one of its snapshots, or clone it")
    return os.path.join(address.mount.mountpoint, address.disk), _attached(disk)


def _attached(item: dict[str, Any]) -> list[str]:
    """The loop devices on a disk or snapshot, by whatever path they were attached."""
    return [attached["device"] for attached in item["attached"]]


@command(DETACH)
def detach(what: str, as_json: bool) -> None:
    """Carries out `rowfs detach`."""
    from rowfs.cli.loops import detach as detach_device

    found = _devices(what)
    busy = [loop.shown() for loop in found if loop.mounts]
    if busy:
        raise BusyError(f"{what} is in use as {', '.join(busy)}: unmount that first")
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
        file, devices = _attached_file(find_address(what))
        found = [loop for loop in loops() if loop.file == file or loop.device in devices]
        if not found:
            raise NotFoundError(f"{what} is not attached: rowfs list shows what is")
        return found
    found = [loop for loop in loops() if loop.device == path]
    if not found:
        raise NotFoundError(f"{path} is not attached to anything", ENOENT)
    if mount_at(found[0].file, mounts) is None:
        raise UsageError(f"{path} shows {found[0].file}, which is not on a rowfs mount: use losetup -d")
    return found


def _attached_file(address: Address) -> tuple[str, list[str]]:
    """The path of the file behind `address`, and what the daemon knows of loop devices on it.

    The file may be deleted, and the daemon gone: its devices are still there.
    """
    if address.disk is None or address.chain:
        raise UsageError(f"{address.text!r} names no disk and no snapshot, as {address.mount.mountpoint}/vm1 does")
    try:
        return _file(address)
    except (NotFoundError, DaemonGoneError):
        names = [address.disk] if address.snapshot is None else [SNAPSHOTS_DIR, *need_snapshot(address)]
        return os.path.join(address.mount.mountpoint, *names), []
