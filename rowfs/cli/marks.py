"""`label`, `describe`, `lock`: what people say of disks and snapshots."""

from __future__ import annotations

from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.names import printable
from rowfs.cli.addresses import Address, need_disk, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.moments import instant
from rowfs.cli.output import local_time, say, say_json
from rowfs.cli.selecting import chosen_snapshots
from rowfs.cli.session import ask, find_snapshot, list_disk
from rowfs.rules.selectors import parse_changes
from rowfs.verbs.marks import DESCRIBE, LABEL, LOCK


@command(LABEL)
def label(address: Address, changes: tuple[str, ...], as_json: bool) -> None:
    """Carries out `rowfs label`."""
    disk, name = need_snapshot(address) if address.snapshot is not None else (need_disk(address), None)
    if changes:
        parse_changes(changes)  # what is wrong with them is told without asking anybody
        found = ask(address.mount, "label", disk=disk, snapshot=name, changes=list(changes))["labels"]
    else:
        listed = list_disk(address.mount, disk)
        found = (listed if name is None else find_snapshot(listed, name)).get("labels", {})
    if as_json:
        say_json({"labels": found})
    elif not changes:
        say(*(f"{key}={value}" for key, value in found.items()))


@command(DESCRIBE)
def describe(address: Address, text: str | None, as_json: bool) -> None:
    """Carries out `rowfs describe`."""
    disk, name = need_snapshot(address)
    if text is None:
        found = find_snapshot(list_disk(address.mount, disk), name)["description"]
    else:
        found = ask(address.mount, "describe", disk=disk, snapshot=name, description=text)["description"]
    if as_json:
        say_json({"description": found})
    elif text is None and found:
        say(found)


@command(LOCK)
def lock(
    addresses: tuple[Address, ...],
    until: str | None,
    reason: str | None,
    compliance: bool,
    release: bool,
    selector: str | None,
    as_json: bool,
) -> None:
    """Carries out `rowfs lock`."""
    if release and (until or reason or compliance):
        raise UsageError("--release goes without --until, --reason and --compliance")
    if compliance and until is None:
        raise UsageError("--compliance needs --until, as in --until 2027-03-01")
    params: dict[str, Any] = {} if release else {"reason": reason, "compliance": compliance or None}
    if until is not None:
        params["until"] = instant(until, ahead=True)
    answers = []
    for mount, disk, names in chosen_snapshots(addresses, selector):
        found = ask(mount, "release" if release else "lock", disk=disk, snapshots=names, **params)
        answers += [{"disk": disk, **item} for item in found]
        if not as_json:
            say(
                *(f"{Address('', mount, disk, item['snapshot']).shown()}: {lock_shown(item['lock'])}" for item in found)
            )
    if as_json:
        say_json(answers)


def lock_shown(lock: dict[str, Any] | None) -> str:
    """A lock for people."""
    if lock is None:
        return "not locked"
    kept = ["held until it is released"] * lock["hold"]
    if lock["until"]:
        kind = "locked for compliance" if lock["compliance"] else "locked"
        kept.append(f"{kind} until {local_time(lock['until'])}")
    reason = f" ({printable(lock['reason'])})" if lock["reason"] else ""
    return ", ".join(kept) + reason
