"""`group`: snapshots of several disks that are of one point in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rowfs.base.names import printable
from rowfs.base.units import format_size
from rowfs.cli.addresses import Address
from rowfs.cli.output import count, format_table, local_time, say, say_fields, say_json, size_or_nothing
from rowfs.cli.params import ADDRESS, json_option, only_mount
from rowfs.cli.session import ask

HEADER = ("NAME", "CREATED", "STATE", "DISKS")

Command = Callable[..., Any]


@click.group()
def group() -> None:
    """Consistency groups: snapshots of several disks that are of one point in time.

    rowfs snapshot --group NAME takes one. Its snapshots are in the chains of their disks as any others, and can be
    deleted one by one: the group is degraded then, and goes with the last of them.

    \b
    Examples:
      rowfs snapshot /mnt/rowfs/db /mnt/rowfs/log --group before-upgrade
      rowfs group list
      rowfs group rollback /mnt/rowfs before-upgrade
      rowfs group clone /mnt/rowfs before-upgrade --name '{}-test'
      rowfs group delete /mnt/rowfs before-upgrade
    """


def _of_group(command: Command) -> Command:
    """Gives `command` the arguments that name a group, and --id."""
    for decorate in (
        click.option("--id", "number", type=int, help="Only if the group has this id, and was not made anew since."),
        click.argument("name", metavar="GROUP"),
        click.argument("address", type=ADDRESS, metavar="MNT"),
    ):
        command = decorate(command)
    return command


@group.command("list")
@click.argument("address", type=ADDRESS, metavar="[MNT]", required=False)
@json_option
def list_(address: Address | None, as_json: bool) -> None:
    """List the groups, oldest first."""
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


@group.command()
@_of_group
@json_option
def info(address: Address, name: str, number: int | None, as_json: bool) -> None:
    """Show what is known of a group, and what deleting it would free."""
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


@group.command()
@_of_group
@click.option("--force", is_flag=True, help="Even if disks are open or attached: whoever uses them sees them change.")
@click.option("--discard", is_flag=True, help="Do not keep the state before.")
@json_option
def rollback(address: Address, name: str, number: int | None, force: bool, discard: bool, as_json: bool) -> None:
    """Take all disks of a group back to it, or none.

    What they held until now is kept as the group before-rollback, which the next rollback of a group replaces. When a
    snapshot of the group was deleted since, or a disk, nothing is rolled back, and the message says which.
    """
    answer = ask(address.mount, "group_rollback", group=name, id=number, force=force or None, discard=discard or None)
    if as_json:
        say_json(answer)
        return
    kept = f": the state before is kept as the group {answer['kept']}" if answer["kept"] else ""
    say(f"{', '.join(answer['disks'])}: {'is' if len(answer['disks']) == 1 else 'are'} as at {name}{kept}")


@group.command()
@_of_group
@click.option("--name", "pattern", metavar="PATTERN", required=True, help="{} is the disk's name, as in '{}-test'.")
@json_option
def clone(address: Address, name: str, number: int | None, pattern: str, as_json: bool) -> None:
    """Create a disk from each snapshot of a group, all of them or none, and print their addresses."""
    made = ask(address.mount, "group_clone", group=name, id=number, name=pattern)
    if as_json:
        say_json(made)
        return
    say(*(Address("", address.mount, disk["name"]).shown() for disk in made))


@group.command()
@_of_group
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would go and what would come back.")
@click.option("--wait", is_flag=True, help="Return when what was freed can be used again.")
@json_option
def delete(address: Address, name: str, number: int | None, dry_run: bool, wait: bool, as_json: bool) -> None:
    """Delete a group with all its snapshots."""
    answer = ask(address.mount, "group_delete", group=name, id=number, dry_run=dry_run or None, wait=wait or None)
    if as_json:
        say_json(answer)
        return
    what = f"{name}, {count(len(answer['snapshots']), 'snapshot')}"
    freed = format_size(answer["freed_bytes"])
    if dry_run:
        say(f"{what}: would be deleted, {freed} would come back")
    else:
        say(f"{what}: deleted, {freed} {'came' if wait else 'comes'} back")
