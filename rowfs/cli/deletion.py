"""`delete`: disks, snapshots, ranges of snapshots, chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rowfs.base.units import format_size
from rowfs.cli.addresses import Address, need_disk
from rowfs.cli.declared import command
from rowfs.cli.mounts import Mount
from rowfs.cli.output import count, say, say_json
from rowfs.cli.selecting import chosen_snapshots, snapshot_specs
from rowfs.cli.session import ask, snapshot_names
from rowfs.verbs.disks import DELETE

NAMES_SHOWN_MAX = 5


@dataclass(frozen=True)
class Request:
    """One deletion to ask the daemon for. `kept`: how many snapshots the disk leaves behind."""

    mount: Mount
    disk: str
    params: dict[str, Any]
    kept: int = 0


@command(DELETE)
def delete(
    addresses: tuple[Address, ...],
    snapshots: str,
    dry_run: bool,
    force: bool,
    wait: bool,
    selector: str | None,
    as_json: bool,
) -> None:
    """Carries out `rowfs delete`."""
    if selector is None:
        requests = [_request(address, snapshots == "delete") for address in addresses]
    else:
        chosen = chosen_snapshots(addresses, selector)
        requests = [Request(mount, disk, {"snapshots": names}) for mount, disk, names in chosen]
    answers = []
    for request in requests:
        params = request.params | {"dry_run": dry_run or None, "force": force or None, "wait": wait or None}
        answers.append(ask(request.mount, "delete", disk=request.disk, **params))
        if not as_json:
            _say_deleted(request, answers[-1], dry_run, wait)
    if as_json:
        say_json(answers)


def _request(address: Address, with_snapshots: bool) -> Request:
    """What to ask for when `address` shall go."""
    mount, disk = address.mount, address.disk
    if disk is not None and address.chain:
        return Request(mount, disk, {"all_snapshots": True, "keep_disk": True})
    if disk is not None and address.snapshot is not None:
        return Request(mount, disk, {"snapshots": snapshot_specs(address)})
    disk = need_disk(address)
    if with_snapshots:
        return Request(mount, disk, {"all_snapshots": True})
    return Request(mount, disk, {}, kept=len(snapshot_names(mount, disk)))


def _say_deleted(request: Request, answer: dict[str, Any], dry_run: bool, wait: bool) -> None:
    disk = Address("", request.mount, request.disk)
    what = [disk.shown()] if answer["disk"] else []
    what += _snapshots_shown(disk, answer["snapshots"])
    freed = format_size(answer["freed_bytes"])
    if answer.get("trash"):
        say(f"{', '.join(what)}: {'would go' if dry_run else 'deleted,'} into the trash")
    elif dry_run:
        say(f"{', '.join(what)}: would be deleted, {freed} would come back")
    else:
        say(f"{', '.join(what)}: deleted, {freed} {'came' if wait else 'comes'} back")
    if request.kept:
        where = f"{request.mount.mountpoint.rstrip('/')}/.snapshots/{request.disk}"
        stay = "would stay" if dry_run else "stays" if request.kept == 1 else "stay"
        say(f"{count(request.kept, 'snapshot')} {stay} in {where} (delete that, or use --snapshots delete)")


def _snapshots_shown(disk: Address, names: list[str]) -> list[str]:
    """The addresses of the deleted snapshots, or how many when that would be a long list."""
    if len(names) > NAMES_SHOWN_MAX:
        return [f"{count(len(names), 'snapshot')} of {disk.shown()} ({names[0]} to {names[-1]})"]
    return [f"{disk.shown()}@{name}" for name in names]
