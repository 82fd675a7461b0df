"""`group`: snapshots of several disks that are of one point in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rowfs.base.names import printable
from rowfs.base.units import format_size
from rowfs.cli.addresses import Address
from rowfs.cli.declared import command
from rowfs.cli.output import count, format_table, local_time, say, say_fields, say_json, size_or_nothing
from rowfs.cli.params import only_mount
from rowfs.cli.session import ask
from rowfs.verbs.groups import GROUP_CLONE, GROUP_DELETE, GROUP_INFO, GROUP_LIST, GROUP_ROLLBACK

HEADER = ("NAME", "CREATED", "STATE", "DISKS")

Command = Callable[..., Any]


@command(GROUP_LIST)
def list_(address: Address | None, as_json: bool) -> None:
    """Carries out `rowfs group list`."""
    found = ask((address or only_mount()).mount, "group_list")
    if as_json:
        say_json(found)
        return
    say(*format_table([HEADER, *map(_row, found)]))


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    disks = ", ".join(printable(member["disk"]) for member in found["members"])
    return (printable(found["name"]), local_time(found["created"]), _state(found), disks)


def _state(found: dict[str, Any]) -> str:
    if not found["degraded"]:
        return "whole"
    return f"degraded: without {', '.join(map(printable, found['lost']))}"


@command(GROUP_INFO)
def info(address: Address, name: str, number: int | None, as_json: bool) -> None:
    """Carries out `rowfs group info`."""
    found = ask(address.mount, "group_info", group=name, id=number)
    if as_json:
        say_json(found)
        return
    fields = [
        ("group", printable(found["name"])),
        ("id", str(found["id"])),
        ("created", local_time(found["created"])),
        ("state", _state(found)),
        ("freed if deleted", size_or_nothing(found["freed_if_deleted_bytes"])),
        *(("member", _member(address, member)) for member in found["members"]),
    ]
    if found["description"]:
        fields.append(("description", printable(found["description"])))
    say_fields(fields)


def _member(address: Address, member: dict[str, Any]) -> str:
    where = Address("", address.mount, member["disk"], member["name"]).shown()
    return f"{printable(where)}, {member['consistency']}"


@command(GROUP_ROLLBACK)
def rollback(address: Address, name: str, number: int | None, force: bool, discard: bool, as_json: bool) -> None:
    """Carries out `rowfs group rollback`."""
    answer = ask(address.mount, "group_rollback", group=name, id=number, force=force or None, discard=discard or None)
    if as_json:
        say_json(answer)
        return
    kept = f": the state before is kept as the group {answer['kept']}" if answer["kept"] else ""
    say(f"{', '.join(answer['disks'])}: {'is' if len(answer['disks']) == 1 else 'are'} as at {name}{kept}")


@command(GROUP_CLONE)
def clone(address: Address, name: str, number: int | None, pattern: str, as_json: bool) -> None:
    """Carries out `rowfs group clone`."""
    made = ask(address.mount, "group_clone", group=name, id=number, name=pattern)
    if as_json:
        say_json(made)
        return
    say(*(Address("", address.mount, disk["name"]).shown() for disk in made))


@command(GROUP_DELETE)
def delete(address: Address, name: str, number: int | None, dry_run: bool, wait: bool, as_json: bool) -> None:
    """Carries out `rowfs group delete`."""
    answer = ask(address.mount, "group_delete", group=name, id=number, dry_run=dry_run or None, wait=wait or None)
    if as_json:
        say_json(answer)
        return
    what = f"{name}, {count(len(answer['snapshots']), 'snapshot')}"
    freed = format_size(answer["freed_bytes"])
    if answer.get("trash"):
        say(f"{what}: {'would go' if dry_run else 'deleted,'} into the trash")
    elif dry_run:
        say(f"{what}: would be deleted, {freed} would come back")
    else:
        say(f"{what}: deleted, {freed} {'came' if wait else 'comes'} back")
