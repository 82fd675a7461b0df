"""`snapshot`, `rollback`, `clone`."""

from __future__ import annotations

import math
import re
from string import Formatter
from typing import Any

from rowfs.base.errors import UsageError
from rowfs.cli.addresses import Address, need_disk, need_same_mount, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.disks import find_target
from rowfs.cli.output import say, say_json
from rowfs.cli.selecting import chosen_disks
from rowfs.cli.session import ask
from rowfs.verbs.snapshots import CLONE, ROLLBACK, SNAPSHOT

CLONES_MAX = 10_000
_WIDE = re.compile(r"\d{4}")  # numbers of that width would take memory before they are no names


@command(SNAPSHOT)
def snapshot(
    addresses: tuple[Address, ...],
    group: str | None,
    description: str | None,
    freeze: bool,
    freeze_timeout: float | None,
    selector: str | None,
    as_json: bool,
) -> None:
    """Carries out `rowfs snapshot`."""
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


@command(ROLLBACK)
def rollback(address: Address, force: bool, discard: bool, as_json: bool) -> None:
    """Carries out `rowfs rollback`."""
    disk, name = need_snapshot(address)
    answer = ask(address.mount, "rollback", disk=disk, snapshot=name, force=force or None, discard=discard or None)
    if as_json:
        say_json(answer)
        return
    where = Address("", address.mount, disk)
    kept = f": the state before is kept as {where.shown()}@{answer['kept']}" if answer["kept"] else ""
    say(f"{where.shown()}: is as it was at {name}{kept}")


@command(CLONE)
def clone(address: Address, targets: tuple[str, ...], pattern: str | None, number: int | None, as_json: bool) -> None:
    """Carries out `rowfs clone`."""
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
