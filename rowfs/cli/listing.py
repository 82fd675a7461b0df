"""`list`: disks and the chains of their snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.names import printable
from rowfs.cli.addresses import Address, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.info import owed_shown
from rowfs.cli.mounts import Mount
from rowfs.cli.output import (
    NOTHING,
    attached_shown,
    format_table,
    local_time,
    say,
    say_json,
    say_warning,
    size_or_nothing,
)
from rowfs.cli.params import only_mount
from rowfs.cli.session import ask, find_snapshot
from rowfs.verbs.looking import LIST

HEADER = ("NAME", "SIZE", "MAPPED", "WRITTEN", "FREES", "CREATED", "KIND")
RIGHT_ALIGNED = (1, 2, 3, 4)
SNAPSHOT_INDENT = "  @"
OWED_TOLD_BYTES = 64 << 20  # less is gone before it is read


@command(LIST)
def list_(addresses: tuple[Address, ...], no_figures: bool, selector: str | None, as_json: bool) -> None:
    """Carries out `rowfs list`."""
    if selector is not None and any(address.snapshot is not None for address in addresses):
        raise UsageError("-l chooses among the snapshots of mounts and disks: name no snapshot with it")
    by_mount = _by_mount(addresses or (only_mount(),))
    found = {mount: _disks(mount, chosen, not no_figures, selector) for mount, chosen in by_mount.items()}
    told = {mount: ask(mount, "info") for mount in found}
    for info in told.values():
        for line in info.get("warnings", []):
            say_warning(line)
    if as_json:
        say_json([disk for disks in found.values() for disk in disks])
        return
    for mount, disks in found.items():
        if len(found) > 1:
            say(f"{printable(mount.mountpoint)}:")
        say(*format_list(disks))
        if told[mount].get("owed_bytes", 0) >= OWED_TOLD_BYTES:
            say(owed_shown(told[mount]))


def _by_mount(addresses: Sequence[Address]) -> dict[Mount, list[Address]]:
    """The addresses on each mount, in the order in which the mounts come up."""
    found: dict[Mount, list[Address]] = {}
    for address in addresses:
        found.setdefault(address.mount, []).append(address)
    return found


def _disks(mount: Mount, chosen: list[Address], figures: bool, selector: str | None) -> list[dict[str, Any]]:
    """The disk objects of what was `chosen` on `mount`. Of a disk named with snapshots, those alone are kept."""
    names = sorted({address.disk for address in chosen if address.disk is not None})
    everything = any(address.disk is None for address in chosen)
    asked = None if everything else names
    disks: list[dict[str, Any]] = ask(mount, "list", disks=asked, figures=figures, selector=selector)
    if everything:
        return disks
    return [_narrowed(disk, [address for address in chosen if address.disk == disk["name"]]) for disk in disks]


def _narrowed(disk: dict[str, Any], chosen: list[Address]) -> dict[str, Any]:
    if any(address.snapshot is None for address in chosen):
        return disk
    return disk | {"snapshots": [find_snapshot(disk, need_snapshot(address)[1]) for address in chosen]}


def format_list(disks: Sequence[dict[str, Any]]) -> list[str]:
    """The table of `disks`, a row for each and below it one for each of its snapshots."""
    rows: list[Sequence[str]] = [HEADER]
    for disk in disks:
        rows.append(_disk_row(disk))
        rows += [_snapshot_row(snapshot) for snapshot in disk["snapshots"]]
    return format_table(rows, RIGHT_ALIGNED)


def _disk_row(disk: dict[str, Any]) -> Sequence[str]:
    name = printable(disk["name"])
    if disk.get("deleted"):
        return (name, NOTHING, NOTHING, "", "", "", "deleted, its snapshots stay")
    sizes = size_or_nothing(disk["size_bytes"]), size_or_nothing(disk["mapped_bytes"])
    kind = ", ".join(["disk", *_damaged(disk), *map(attached_shown, disk.get("attached", []))])
    return (name, *sizes, "", "", local_time(disk["created"]), kind)


def _damaged(thing: dict[str, Any]) -> list[str]:
    return ["damaged"] if thing.get("damaged_bytes") else []


def _snapshot_row(snapshot: dict[str, Any]) -> Sequence[str]:
    keys = ("size_bytes", "referenced_bytes", "written_bytes", "freed_if_deleted_bytes")
    sizes = [size_or_nothing(snapshot.get(key)) for key in keys]
    kinds = [snapshot["consistency"], *([] if snapshot["kind"] == "user" else [snapshot["kind"]])]
    if snapshot.get("failed"):
        kinds.append("failed")
    if snapshot.get("lock"):
        kinds.append("locked")
    kind = ", ".join([*kinds, *_damaged(snapshot), *map(attached_shown, snapshot.get("attached", []))])
    return (SNAPSHOT_INDENT + printable(snapshot["name"]), *sizes, local_time(snapshot["created"]), kind)
