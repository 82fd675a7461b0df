"""`info`: what is known of a mount, a disk or a snapshot."""

from __future__ import annotations

from typing import Any

from rowfs.base.names import printable
from rowfs.base.units import format_size, left_out_bytes
from rowfs.cli.addresses import Address, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.marks import lock_shown
from rowfs.cli.output import attached_shown, count, local_time, say_fields, say_json, size_or_nothing
from rowfs.cli.params import only_mount
from rowfs.cli.session import ask, find_snapshot, list_disk
from rowfs.verbs.looking import INFO


@command(INFO)
def info(address: Address | None, as_json: bool) -> None:
    """Carries out `rowfs info`."""
    address = address or only_mount()
    found, fields = _described(address)
    if as_json:
        say_json(found)
    else:
        say_fields(fields)


def _described(address: Address) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The object at `address`, and its fields for people."""
    if address.disk is None:
        found = dict(ask(address.mount, "info"))
        return found, _mount_fields(found)
    named_snapshot = address.snapshot is not None
    disk = list_disk(address.mount, address.disk, figures=named_snapshot, trimmed=not named_snapshot)
    if address.snapshot is None:
        return disk, _disk_fields(disk)
    snapshot = find_snapshot(disk, need_snapshot(address)[1])
    return snapshot, _snapshot_fields(snapshot)


def _mount_fields(info: dict[str, Any]) -> list[tuple[str, str]]:
    used, free = format_size(info["used_bytes"]), size_or_nothing(info.get("free_bytes"))
    return [
        ("pool", printable(info["pool"])),
        ("mounted on", printable(info["mountpoint"])),
        ("daemon", f"pid {info['pid']}, rowfs {info.get('version')}, format {info.get('format')}"),
        ("capacity", f"{size_or_nothing(info['capacity_bytes'])}, {used} used, {free} free"),
        *_sealed(info),
        ("holds", f"{count(info['disks'], 'disk')}, {count(info['snapshots'], 'snapshot')}"),
        ("state", _state(info)),
        *(("warning", printable(line)) for line in info.get("warnings", [])),
    ]


def _sealed(info: dict[str, Any]) -> list[tuple[str, str]]:
    sealed = info.get("sealed_bytes", 0)
    if not sealed and not info.get("sealing"):
        return []
    percent = 100 * sealed // max(1, info["used_bytes"])
    return [("sealed", f"{format_size(sealed)}, {percent} %{' and more to come' if info.get('sealing') else ''}")]


def _damaged(thing: dict[str, Any]) -> list[tuple[str, str]]:
    damaged = thing.get("damaged_bytes")
    return [("damaged", f"{format_size(damaged)} that were sealed are EIO when they are read")] if damaged else []


def _state(info: dict[str, Any]) -> str:
    state = "read-only" if info["read_only"] else "read-write"
    reason = f": {printable(info['read_only_reason'])}" if info.get("read_only_reason") else ""
    return state + reason + (f", {owed_shown(info)}" if info.get("reclaiming") else "")


def owed_shown(info: dict[str, Any]) -> str:
    """What is still to be freed of what was deleted, and how long that takes."""
    if not info.get("owed_bytes"):
        return "freeing what was deleted"
    seconds = info.get("owed_s")
    how_long = "" if seconds is None else f", in {duration_shown(seconds)}"
    return f"freeing what was deleted, up to {format_size(info['owed_bytes'])}{how_long}"


def duration_shown(seconds: float) -> str:
    """For people: `8 s`, `3 min`, `2 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{round(seconds / 3600)} h"


def _size_shown(size_bytes: int) -> str:
    left_out = left_out_bytes(size_bytes)
    odd = f", of which a loop device leaves out the last {left_out}" if left_out else ""
    return f"{format_size(size_bytes)} ({size_bytes} bytes{odd})"


def _disk_fields(disk: dict[str, Any]) -> list[tuple[str, str]]:
    if disk.get("deleted"):
        return [("deleted disk", printable(disk["name"])), ("snapshots", str(len(disk["snapshots"])))]
    return [
        ("disk", printable(disk["name"])),
        ("size", _size_shown(disk["size_bytes"])),
        ("mapped", format_size(disk["mapped_bytes"])),
        ("created", local_time(disk["created"])),
        ("modified", local_time(disk["modified"])),
        ("snapshots", str(len(disk["snapshots"]))),
        ("trimmed", f"{size_or_nothing(disk.get('trimmed_held_bytes'))} held by snapshots"),
        *_damaged(disk),
        ("open handles", str(disk.get("open", 0))),
        *_labels(disk),
        *(("attached", attached_shown(attached)) for attached in disk.get("attached", [])),
    ]


def _snapshot_fields(snapshot: dict[str, Any]) -> list[tuple[str, str]]:
    fields = [
        ("snapshot", printable(snapshot["name"])),
        ("created", local_time(snapshot["created"])),
        ("size", _size_shown(snapshot["size_bytes"])),
        ("refers to", size_or_nothing(snapshot["referenced_bytes"])),
        ("written since the one before", size_or_nothing(snapshot["written_bytes"])),
        ("freed if deleted", size_or_nothing(snapshot["freed_if_deleted_bytes"])),
        *_damaged(snapshot),
        ("consistency", snapshot["consistency"]),
        ("kind", snapshot["kind"]),
        *([("lock", lock_shown(snapshot["lock"]))] if snapshot.get("lock") else []),
        *_labels(snapshot),
        *(("attached", attached_shown(attached)) for attached in snapshot.get("attached", [])),
    ]
    description = snapshot.get("description")
    return [*fields, ("description", printable(description))] if description else fields


def _labels(thing: dict[str, Any]) -> list[tuple[str, str]]:
    return [("label", printable(f"{key}={value}")) for key, value in thing.get("labels", {}).items()]
