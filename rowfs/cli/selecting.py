"""Choosing disks and snapshots by their labels: the option -l of the verbs that take names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rowfs.base.errors import NotFoundError, UsageError
from rowfs.cli.addresses import Address
from rowfs.cli.mounts import Mount
from rowfs.cli.ranges import may_be_several, split_specs
from rowfs.cli.session import ask, snapshot_names
from rowfs.rules.selectors import parse_selector


def chosen_disks(addresses: Sequence[Address], selector: str) -> list[Address]:
    """The disks on the mounts that `addresses` are, whose labels are such. Raises NotFoundError: there are none."""
    chosen = parse_selector(selector)
    found = []
    for address in addresses:
        if address.disk is not None:
            raise UsageError(f"{address.text!r} is no mount: -l chooses among all disks of one")
        for disk in ask(address.mount, "list", figures=False):
            if chosen.matches(disk["labels"]) and not disk["deleted"]:
                found.append(Address(disk["name"], address.mount, disk["name"]))
    return found or _none(selector, "disk")


def chosen_snapshots(addresses: Sequence[Address], selector: str | None) -> Iterator[tuple[Mount, str, list[str]]]:
    """For each disk the names and ranges of its snapshots that are meant; with a selector, those that it chooses."""
    if selector is None:
        for address in addresses:
            if address.disk is None or (address.snapshot is None and not address.chain):
                raise UsageError(f"{address.text!r} names no snapshot: write it as {address.mount.mountpoint}/vm1@name")
            yield address.mount, address.disk, snapshot_specs(address)
        return
    chosen = parse_selector(selector)
    found = 0
    for address in addresses:
        if address.snapshot is not None:
            raise UsageError(f"{address.text!r} names a snapshot: -l chooses among those of a mount or a disk")
        names = None if address.disk is None else [address.disk]
        for disk in ask(address.mount, "list", disks=names, figures=False):
            meant = [item["name"] for item in disk["snapshots"] if chosen.matches(item["labels"])]
            found += len(meant)
            if meant:
                yield address.mount, disk["name"], meant
    if not found:
        _none(selector, "snapshot")


def _none(selector: str, what: str) -> list[Address]:
    raise NotFoundError(f"no {what} has labels as {selector!r}: rowfs list -l shows what has")


def snapshot_specs(address: Address) -> list[str]:
    """The names and ranges behind the @ of an address, or all of a chain."""
    assert address.disk is not None
    if address.chain:
        return snapshot_names(address.mount, address.disk)
    assert address.snapshot is not None
    if address.exact:
        return [address.snapshot]
    names = snapshot_names(address.mount, address.disk) if may_be_several(address.snapshot) else []
    return split_specs(address.snapshot, names)
