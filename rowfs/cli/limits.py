"""`limit`: what a pool or a disk may hold."""

from __future__ import annotations

import shlex
from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.names import printable
from rowfs.base.units import format_size, parse_size
from rowfs.cli.addresses import Address, need_disk
from rowfs.cli.declared import command
from rowfs.cli.output import say_fields, say_json
from rowfs.cli.params import hook_words
from rowfs.cli.session import ask
from rowfs.verbs.limits import LIMIT

NONE = "none"


@command(LIMIT)
def limit(
    address: Address,
    snapshots: str | None,
    space: str | None,
    reserve: str | None,
    disks: str | None,
    provisioned: str | None,
    on_warning: str | None,
    as_json: bool,
) -> None:
    """Carries out `rowfs limit`."""
    numbers = {"snapshots": snapshots, "disks": disks, "provisioned_percent": provisioned}
    sizes = {"space_bytes": space, "reserve_bytes": reserve}
    without = [name for name, text in (numbers | sizes).items() if text == NONE]
    params: dict[str, Any] = {name: _number(text) for name, text in numbers.items() if text not in (None, NONE)}
    if on_warning == NONE:
        without.append("on_warning")
    elif on_warning is not None:
        params["on_warning"] = hook_words(on_warning)
    params |= {name: parse_size(text) for name, text in sizes.items() if text is not None and text != NONE}
    disk = need_disk(address) if address.disk is not None else None
    if disk is None and (space is not None or reserve is not None):
        raise UsageError(f"--space and --reserve are of a disk: name it, as in {address.mount.mountpoint}/vm1")
    if disk is not None and not (disks is provisioned is on_warning is None):
        raise UsageError(
            f"--disks, --provisioned and --on-warning are of the pool: name {address.mount.mountpoint} alone"
        )
    answer = ask(address.mount, "limit", disk=disk, without=without or None, **params)
    if as_json:
        say_json(answer)
    else:
        say_fields(_fields(answer))


def _number(text: str | None) -> int:
    """The number that `text` is; a percentage may end in %. Raises UsageError."""
    digits = (text or "").removesuffix("%")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 12:
        raise UsageError(f"{text!r:.40} is no limit: write a number, or none")
    return int(digits)


def _fields(answer: dict[str, Any]) -> list[tuple[str, str]]:
    found = [("snapshots", _shown(answer["snapshots"]))]
    if "disks" in answer:
        percent = answer["provisioned_percent"]
        return [
            *found,
            ("disks", _shown(answer["disks"])),
            ("provisioned", NONE if percent is None else f"{percent} %"),
            ("on warning", printable(shlex.join(answer["on_warning"])) or NONE),
        ]
    space = answer["space_bytes"]
    held = format_size(answer["held_bytes"])
    return [
        *found,
        ("space", f"{NONE if space is None else format_size(space)}, {held} held"),
        ("reserve", format_size(answer["reserve_bytes"]) if answer["reserve_bytes"] else NONE),
    ]


def _shown(number: int | None) -> str:
    return NONE if number is None else str(number)
