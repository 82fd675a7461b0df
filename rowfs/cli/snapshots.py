"""`snapshot`, `rollback`, `clone`."""

from __future__ import annotations

import math
import re
from string import Formatter
from typing import Any

import click

from rowfs.base.errors import UsageError
from rowfs.cli.addresses import Address, need_disk, need_same_mount, need_snapshot
from rowfs.cli.disks import find_target
from rowfs.cli.output import say, say_json
from rowfs.cli.params import ADDRESS, ADDRESS_TEXT, json_option
from rowfs.cli.selecting import chosen_disks, selector_option
from rowfs.cli.session import ask

CLONES_MAX = 10_000
_WIDE = re.compile(r"\d{4}")  # numbers of that width would take memory before they are no names


@click.command()
@click.argument("addresses", type=ADDRESS, metavar="PATH/DISK[@NAME]...", nargs=-1, required=True)
@click.option("--group", metavar="NAME", help="All of one point in time, as the group NAME: all of them or none.")
@click.option("--description", metavar="TEXT", help="What it is for; shown by rowfs info.")
@click.option("--freeze", is_flag=True, help="Freeze the file systems mounted from the disk meanwhile.")
@click.option("--freeze-timeout", type=float, metavar="SECONDS", help="The longest freeze; 10 seconds without it.")
@selector_option
@json_option
def snapshot(
    addresses: tuple[Address, ...],
    group: str | None,
    description: str | None,
    freeze: bool,
    freeze_timeout: float | None,
    selector: str | None,
    as_json: bool,
) -> None:
    """Take a snapshot of each disk and print its address.

    Writers never wait for it, and it holds everything that was written to the disk's file before it was asked for. A
    file system mounted from the disk is caught as by a power cut: its journal repairs it. Without @NAME a snapshot is
    called as the disk, with date and time.

    With --freeze, file systems mounted from loop devices on the disk are frozen while it is taken: it holds them as
    after an unmount, with all that programs had written. They are thawed whatever happens; if they cannot all be frozen
    in time, no snapshot is taken.

    With --group the snapshots are of one point in time, on up to 64 disks: what a program wrote to one of them when a
    sync of another had returned is only there together with what was synced. See rowfs group.

    With -l PATH is a mount, and all of its disks are meant that have such labels.

    \b
    Examples:
      rowfs snapshot /mnt/rowfs/vm1
      rowfs snapshot /mnt/rowfs/vm1@before --description "before the upgrade"
      rowfs snapshot --freeze /mnt/rowfs/vm1@clean
      rowfs snapshot /mnt/rowfs/db /mnt/rowfs/log --group before-upgrade
      rowfs snapshot /mnt/rowfs/vm*
    """
    if freeze_timeout is not None and not freeze:
        raise UsageError("--freeze-timeout goes together with --freeze")
    if freeze_timeout is not None and not math.isfinite(freeze_timeout):
        raise UsageError("a freeze lasts more than 0 and at most 3600 seconds")  # JSON has no word for these
    if selector is not None:
        addresses = tuple(chosen_disks(addresses, selector))
    wanted = [_snapshot_wanted(address) for address in addresses]
    options: dict[str, Any] = {
        "description": description,
        "freeze": freeze or None,
        "freeze_timeout_s": freeze_timeout,
    }
    if group is not None:
        _take_group(group, addresses, wanted, options, as_json)
        return
    taken = []
    for address, (disk, name) in zip(addresses, wanted, strict=True):
        made = ask(address.mount, "snapshot", disk=disk, snapshot=name, **options)
        taken.append(made)
        if not as_json:
            say(Address("", address.mount, disk, made["name"]).shown())
    if as_json:
        say_json(taken)


def _take_group(
    group: str,
    addresses: tuple[Address, ...],
    wanted: list[tuple[str, str | None]],
    options: dict[str, Any],
    as_json: bool,
) -> None:
    for other in addresses:
        need_same_mount(addresses[0], other)
    mount = addresses[0].mount
    names = [name or group for _, name in wanted]
    made = ask(mount, "group_snapshot", group=group, disks=[disk for disk, _ in wanted], snapshots=names, **options)
    if as_json:
        say_json(made)
        return
    say(*(Address("", mount, member["disk"], member["name"]).shown() for member in made["members"]))


def _snapshot_wanted(address: Address) -> tuple[str, str | None]:
    return need_snapshot(address) if address.snapshot is not None else (need_disk(address), None)


@click.command()
@click.argument("address", type=ADDRESS, metavar="PATH/DISK@NAME")
@click.option("--force", is_flag=True, help="Even if the disk is open or attached: whoever uses it sees it change.")
@click.option("--discard", is_flag=True, help="Do not keep the state before as a snapshot.")
@json_option
def rollback(address: Address, force: bool, discard: bool, as_json: bool) -> None:
    """Take a disk back to one of its snapshots.

    All its snapshots stay, newer ones too. What the disk held until now is kept as its snapshot before-rollback, which
    the next rollback replaces. To see an old state elsewhere, clone the snapshot instead.

    \b
    Example:
      rowfs rollback /mnt/rowfs/vm1@before
    """
    disk, name = need_snapshot(address)
    answer = ask(address.mount, "rollback", disk=disk, snapshot=name, force=force or None, discard=discard or None)
    if as_json:
        say_json(answer)
        return
    where = Address("", address.mount, disk)
    kept = f": the state before is kept as {where.shown()}@{answer['kept']}" if answer["kept"] else ""
    say(f"{where.shown()}: is as it was at {name}{kept}")


@click.command()
@click.argument("address", type=ADDRESS, metavar="PATH/DISK@NAME")
@click.argument("targets", type=ADDRESS_TEXT, metavar="TARGET...", nargs=-1)
@click.option("--name", "pattern", metavar="PATTERN", help="Name of further targets, {} being the number: vm-{:02}.")
@click.option("--count", "number", type=click.IntRange(1, CLONES_MAX), help="How many targets --name makes, from 1.")
@json_option
def clone(address: Address, targets: tuple[str, ...], pattern: str | None, number: int | None, as_json: bool) -> None:
    """Create disks from a snapshot.

    Each TARGET is a path on the same mount, or a bare name. A clone shares what it does not write, and lives on when
    the snapshot or its disk is deleted. Either all targets are made, or none.

    \b
    Examples:
      rowfs clone /mnt/rowfs/vm1@before /mnt/rowfs/vm2
      rowfs clone /mnt/rowfs/golden@v3 --count 50 --name 'vm-{:02}'
    """
    disk, name = need_snapshot(address)
    wanted = [*targets, *_numbered(pattern, number)]
    if not wanted:
        raise UsageError("clone to what? Name one disk or more, or give --count and --name")
    names = [need_disk(find_target(address, target)) for target in wanted]
    made = ask(address.mount, "clone", disk=disk, snapshot=name, targets=names)
    _say_clones(address, made, as_json)


def _say_clones(source: Address, made: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        say_json(made)
        return
    for disk in made:
        say(Address("", source.mount, disk["name"]).shown())


def _numbered(pattern: str | None, number: int | None) -> list[str]:
    """The names that `pattern` makes of 1 to `number`. Raises UsageError when it does not make as many."""
    if pattern is None and number is None:
        return []
    if pattern is None or number is None:
        raise UsageError("--count and --name belong together, as in --count 50 --name 'vm-{:02}'")
    try:
        if any(_WIDE.search(spec or "") for _, _, spec, _ in Formatter().parse(pattern)):
            raise ValueError("no name is that long")
        names = [pattern.format(index) for index in range(1, number + 1)]
    except (LookupError, ValueError, AttributeError) as error:
        raise UsageError(f"{pattern!r} is no pattern: {{}} stands for the number, as in 'vm-{{:02}}'") from error
    if len(set(names)) < number:
        raise UsageError(f"{pattern!r} makes the same name again: write {{}} where the number goes, as in 'vm-{{:02}}'")
    return names
