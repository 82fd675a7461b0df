"""`trash`, `undelete`: what was deleted, until it is deleted for good."""

from __future__ import annotations

from typing import Any

from rowfs.base.names import printable
from rowfs.base.units import format_size
from rowfs.cli.addresses import Address, need_disk, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.output import NOTHING, count, format_table, local_time, say, say_json, size_or_nothing
from rowfs.cli.params import only_mount
from rowfs.cli.session import ask
from rowfs.verbs.trash import TRASH, TRASH_EMPTY, TRASH_LIST, UNDELETE

HEADER = ("ID", "NAME", "SIZE", "FREES", "DELETED", "UNTIL")
RIGHT_ALIGNED = (0, 2, 3)


@command(TRASH)
def trash(address: Address, keep: str | None, as_json: bool) -> None:
    """Carries out `rowfs trash`."""
    answer = ask(address.mount, "trash", keep=keep)
    if as_json:
        say_json(answer)
        return
    number = answer["entries"]
    inside = {0: "nothing is in it", 1: "1 entry is in it"}.get(number, f"{number} entries are in it")
    if answer["keep"] is None:
        say(f"there is no trash: what is deleted is gone{'; ' + inside if number else ''}")
    else:
        say(f"what is deleted stays in the trash for {answer['keep']}; {inside}")


@command(TRASH_LIST)
def list_(address: Address | None, as_json: bool) -> None:
    """Carries out `rowfs trash list`."""
    found = ask((address or only_mount()).mount, "trash_list")
    if as_json:
        say_json(found)
        return
    say(*format_table([HEADER, *map(_row, found)], RIGHT_ALIGNED))


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    name = entry["disk"] if entry["snapshot"] is None else f"{entry['disk']}@{entry['snapshot']}"
    more = f" and {count(len(entry['snapshots']), 'snapshot')}" if entry["snapshots"] else ""
    sizes = format_size(entry["size_bytes"]), size_or_nothing(entry["freed_if_emptied_bytes"])
    until = NOTHING if entry["until"] is None else local_time(entry["until"])
    return (str(entry["id"]), printable(name) + more, *sizes, local_time(entry["deleted"]), until)


@command(TRASH_EMPTY)
def empty(address: Address, numbers: tuple[int, ...], as_json: bool) -> None:
    """Carries out `rowfs trash empty`."""
    answers = [ask(address.mount, "trash_empty", id=number) for number in numbers or (None,)]
    if as_json:
        say_json(answers)
        return
    gone = sum(answer["entries"] for answer in answers)
    freed = format_size(sum(answer["freed_bytes"] for answer in answers))
    say(f"{gone} deleted for good, {freed} comes back")


@command(UNDELETE)
def undelete(address: Address, number: int | None, name: str | None, as_json: bool) -> None:
    """Carries out `rowfs undelete`."""
    disk, snapshot = need_snapshot(address) if address.snapshot is not None else (need_disk(address), None)
    answer = ask(address.mount, "undelete", disk=disk, snapshot=snapshot, id=number, name=name)
    if as_json:
        say_json(answer)
        return
    say(f"{Address('', address.mount, answer['disk'], answer['snapshot']).shown()}: is back")
