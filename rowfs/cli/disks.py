"""`create`, `resize`, `rename`."""

from __future__ import annotations

from rowfs.base.errors import RowfsError, UsageError
from rowfs.base.names import check_name
from rowfs.base.units import SECTOR_BYTES, check_disk_size, format_size, left_out_bytes, parse_size
from rowfs.cli.addresses import Address, need_disk, need_same_mount, need_snapshot
from rowfs.cli.declared import command
from rowfs.cli.output import say, say_json, say_warning
from rowfs.cli.params import find_address
from rowfs.cli.session import ask, list_disk
from rowfs.host.loops import FileNumbers
from rowfs.verbs.disks import CREATE, RENAME, RESIZE


@command(CREATE)
def create(address: Address, size: int, as_json: bool) -> None:
    """Carries out `rowfs create`."""
    made = ask(address.mount, "create", disk=need_disk(address), size_bytes=check_disk_size(size))
    if as_json:
        say_json(made)
    else:
        say(f"{address.shown()}: created, {format_size(made['size_bytes'])}")
    warn_of_odd_size(address, made["size_bytes"])


@command(RESIZE)
def resize(address: Address, size: str, force: bool, as_json: bool) -> None:
    """Carries out `rowfs resize`."""
    disk = need_disk(address)
    size_bytes = check_disk_size(_new_size(address, disk, size))
    resized = ask(address.mount, "resize", disk=disk, size_bytes=size_bytes, force=force or None)
    for attached in resized["attached"]:
        _update_device(attached["device"], FileNumbers(address.mount.device, resized["inode"]))
    if as_json:
        say_json(resized)
    else:
        say(f"{address.shown()}: resized to {format_size(resized['size_bytes'])}")
    warn_of_odd_size(address, resized["size_bytes"])


def warn_of_odd_size(address: Address, size_bytes: int) -> None:
    """Says what a loop device does not show of a disk or snapshot of this size, and what to do."""
    left_out = left_out_bytes(size_bytes)
    if not left_out:
        return
    what_to_do = f"rowfs resize {address.shown()} +{SECTOR_BYTES - left_out} rounds the size up"
    if address.snapshot is not None:
        what_to_do = "clone the snapshot and round up the size of the clone with rowfs resize"
    say_warning(
        f"{address.shown()}: a loop device has whole sectors of {SECTOR_BYTES} bytes, "
        f"and leaves out the last {left_out} of {size_bytes}: {what_to_do}"
    )


def _update_device(device: str, numbers: FileNumbers) -> None:
    """Has a loop device take the new size of its file; where that is not allowed, says who can."""
    from rowfs.cli.loops import update_size

    try:
        update_size(device, numbers)
    except RowfsError as error:
        say_warning(f"{device} keeps its old size until root runs losetup -c {device}: {error}")


def _new_size(address: Address, disk: str, size: str) -> int:
    if not size.startswith(("+", "-")):
        return parse_size(size)
    change = parse_size(size[1:])
    before: int = list_disk(address.mount, disk)["size_bytes"]
    after = before - change if size.startswith("-") else before + change
    if after < 0:
        raise UsageError(f"{disk!r} has only {format_size(before)}: it cannot lose {format_size(change)}")
    return after


@command(RENAME)
def rename(old: Address, new: str, as_json: bool) -> None:
    """Carries out `rowfs rename`."""
    target = _renamed_snapshot(old, new) if old.snapshot is not None else _renamed_disk(old, new)
    answer = ask(old.mount, "rename", disk=old.disk, snapshot=old.snapshot, to=target.snapshot or target.disk)
    if as_json:
        say_json(answer)
    else:
        say(f"{old.shown()}: is now {target.shown()}")


def _renamed_disk(old: Address, new: str) -> Address:
    need_disk(old)
    target = find_target(old, new)
    need_disk(target)
    return target


def _renamed_snapshot(old: Address, new: str) -> Address:
    """Where `new` is only a name, it is one in the chain of `old`."""
    disk, _ = need_snapshot(old)
    if "/" not in new and (new.startswith("@") or "@" not in new):
        return Address(new, old.mount, disk, check_name(new.removeprefix("@"), "snapshot name"))
    target = find_address(new)
    need_same_mount(old, target)
    if need_snapshot(target)[0] != disk:
        raise UsageError(f"a snapshot stays with its disk {disk!r}: {new!r} would be one of another")
    return target


def find_target(source: Address, text: str) -> Address:
    """The address of a new disk on the mount of `source`: `text` is a path, or just the disk's name."""
    if "/" not in text:
        return source.sibling(text)
    target = find_address(text)
    need_same_mount(source, target)
    return target
