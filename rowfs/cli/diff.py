"""`diff`: which ranges differ between two points of a disk."""

from __future__ import annotations

from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.units import format_size
from rowfs.cli.addresses import Address, need_disk, need_same_mount, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.output import count, say, say_json
from rowfs.cli.ranges import may_be_several, split_range
from rowfs.cli.session import ask, snapshot_names
from rowfs.verbs.looking import DIFF

OFFSET_WIDTH = 14  # the digits of 16 TiB


@command(DIFF)
def diff(earlier: Address, later: Address | None, as_json: bool) -> None:
    """Carries out `rowfs diff`."""
    disk, first, last = _points(earlier, later)
    ranges = RangePrinter(as_json)
    answer = ask(earlier.mount, "diff", on_parts=ranges.add, disk=disk, from_snapshot=first, to_snapshot=last)
    if as_json:
        say_json({"ranges": ranges.collected, **answer})
    else:
        say(f"{format_size(answer['changed_bytes'])} changed in {count(ranges.number, 'range')}")


class RangePrinter:
    """Prints ranges as they arrive (there may be millions), or collects them for JSON."""

    def __init__(self, collect: bool) -> None:
        self.collected: list[Any] = []
        self.number = 0
        self._collect = collect

    def add(self, ranges: list[Any]) -> None:
        """Takes the next `ranges`: offset, length and kind of each."""
        if self._collect:
            self.collected += ranges
            return
        if not ranges:
            return
        if self.number == 0:
            say(f"{'OFFSET':>{OFFSET_WIDTH}}  {'LENGTH':>{OFFSET_WIDTH}}  KIND")
        self.number += len(ranges)
        say(*(f"{offset:>{OFFSET_WIDTH}}  {length:>{OFFSET_WIDTH}}  {kind}" for offset, length, kind in ranges))


def _points(earlier: Address, later: Address | None) -> tuple[str, str | None, str | None]:
    """The disk, and the snapshots to compare; None for nothing before the first, and for the disk as it is now."""
    if later is None:
        return _one_address(earlier)
    need_same_mount(earlier, later)
    disk, first = need_snapshot(earlier)
    other, last = need_snapshot(later) if later.snapshot is not None else (need_disk(later), None)
    if other != disk:
        raise UsageError(f"both have to be of one disk: {earlier.text!r} is of {disk!r}, {later.text!r} of {other!r}")
    return disk, first, last


def _one_address(address: Address) -> tuple[str, str | None, str | None]:
    if address.snapshot is None:
        return need_disk(address), None, None
    if address.exact or not may_be_several(address.snapshot):
        return *need_snapshot(address), None
    assert address.disk is not None
    return address.disk, *split_range(address.snapshot, snapshot_names(address.mount, address.disk))
