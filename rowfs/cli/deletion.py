"""`delete`: disks, snapshots, ranges of snapshots, chains."""

from __future__ import annotations

from collections.abc import Sequence
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

    def addresses(self) -> list[str]:
        """What goes, as `delete_several` takes it."""
        if self.params.get("keep_disk"):
            return [f"{self.disk}@"]
        return (
            [f"{self.disk}@{spec}" for spec in self.params["snapshots"]] if "snapshots" in self.params else [self.disk]
        )


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
    options: dict[str, Any] = {"dry_run": dry_run or None, "force": force or None, "wait": wait or None}
    answers = []
    for mount, asked in _by_mount(requests).items():
        if len(asked) == 1:
            answer = ask(mount, "delete", disk=asked[0].disk, **asked[0].params, **options)
            answers.append(answer)
            told = [_deleted(asked[0], answer, dry_run) + _frees(answer, dry_run, wait), *_stays(asked[0], dry_run)]
        else:
            named = [address for request in asked for address in request.addresses()]
            whole = snapshots == "delete" or None
            answer = ask(mount, "delete_several", addresses=named, all_snapshots=whole, **options)
            answers += answer["deleted"]
            told = []
            for each in answer["deleted"]:
                kept = max((request.kept for request in asked if request.disk == each["name"]), default=0)
                request = Request(mount, each["name"], {}, max(0, kept - len(each["snapshots"])))
                told += [_deleted(request, each, dry_run), *_stays(request, dry_run)]
            told += _together(answer, dry_run, wait)
        if not as_json:
            say(*told)
    if as_json:
        say_json(answers)


def _by_mount(requests: Sequence[Request]) -> dict[Mount, list[Request]]:
    found: dict[Mount, list[Request]] = {}
    for request in requests:
        found.setdefault(request.mount, []).append(request)
    return found


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


def _deleted(request: Request, answer: dict[str, Any], dry_run: bool) -> str:
    disk = Address("", request.mount, request.disk)
    what = [disk.shown()] if answer["disk"] else []
    what += _snapshots_shown(disk, answer["snapshots"])
    if answer.get("trash"):
        return f"{', '.join(what)}: {'would go' if dry_run else 'deleted,'} into the trash"
    return f"{', '.join(what)}: {'would be ' if dry_run else ''}deleted"


def _frees(answer: dict[str, Any], dry_run: bool, wait: bool) -> str:
    return "" if answer.get("trash") else f", {format_size(answer['freed_bytes'])} {_comes(dry_run, wait)} back"


def _together(answer: dict[str, Any], dry_run: bool, wait: bool) -> list[str]:
    if any(each.get("trash") for each in answer["deleted"]):
        return []
    return [f"together {format_size(answer['freed_bytes'])} {_comes(dry_run, wait)} back"]


def _comes(dry_run: bool, wait: bool) -> str:
    return "would come" if dry_run else "came" if wait else "comes"


def _stays(request: Request, dry_run: bool) -> list[str]:
    """A line for what stays of a disk that goes, if snapshots do."""
    if not request.kept:
        return []
    where = f"{request.mount.mountpoint.rstrip('/')}/.snapshots/{request.disk}"
    stay = "would stay" if dry_run else "stays" if request.kept == 1 else "stay"
    return [f"{count(request.kept, 'snapshot')} {stay} in {where} (delete that, or use --snapshots delete)"]


def _snapshots_shown(disk: Address, names: list[str]) -> list[str]:
    """The addresses of the deleted snapshots, or how many when that would be a long list."""
    if len(names) > NAMES_SHOWN_MAX:
        return [f"{count(len(names), 'snapshot')} of {disk.shown()} ({names[0]} to {names[-1]})"]
    return [f"{disk.shown()}@{name}" for name in names]
