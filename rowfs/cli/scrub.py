"""`scrub`: what is sealed held against its checksums; putting right what does not fit."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

from rowfs.base.errors import RowfsError, UsageError, system_error_line
from rowfs.base.names import printable
from rowfs.base.units import BLOCK_BYTES, format_size
from rowfs.cli.addresses import Address
from rowfs.cli.client import Client
from rowfs.cli.connecting import client_of
from rowfs.cli.declared import command
from rowfs.cli.output import format_table, say, say_json
from rowfs.cli.params import only_mount
from rowfs.cli.progress import Progress
from rowfs.verbs.scrub import SCRUB

Damage = dict[str, Any]  # as docs/CONTROL.md has it
RANGES_SHOWN = 1000


class Source(Protocol):
    """Where intact copies of blocks may be had. None of them is trusted: the daemon holds each against its checksum."""

    def blocks(self, damage: Damage) -> Iterator[bytes]:
        """What a damaged block may have been, the likeliest first."""

    def close(self) -> None:
        """It is not asked any more."""


class ImageFile:
    """A file that holds what a disk or snapshot does, at the same offsets."""

    def __init__(self, path: str) -> None:
        """Raises UsageError when it cannot be read."""
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"cannot read what is to be repaired from: {system_error_line(error)}") from None
        self._path = path

    def blocks(self, damage: Damage) -> Iterator[bytes]:
        """What the file holds where any disk or snapshot has the block."""
        for offset in dict.fromkeys(seen["offset_bytes"] for seen in damage["seen_by"]):
            try:
                os.lseek(self._fd, offset, os.SEEK_SET)
                block = os.read(self._fd, BLOCK_BYTES)
            except OSError as error:
                raise RowfsError(f"cannot read {printable(self._path)}: {error.strerror}") from None
            if block:
                yield block.ljust(BLOCK_BYTES, b"\0")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


@command(SCRUB)
def scrub(
    address: Address | None,
    rate: int | None,
    pause: bool,
    resume: bool,
    stop: bool,
    status: bool,
    repair: bool,
    source: str | None,
    as_json: bool,
) -> int:
    """Carries out `rowfs scrub`."""
    given = {"pause": pause, "resume": resume, "stop": stop, "status": status, "repair": repair}
    chosen = [word for word, wanted in given.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} cannot be given together")
    if repair != (source is not None):
        raise UsageError("--repair and --from FILE belong together: damage is put right from a copy")
    mount = (address or only_mount()).mount
    with client_of(mount) as client:
        if source is not None:
            with closing(ImageFile(source)) as file:
                answer = _repair(client, file, rate)
        else:
            answer = _ask(client, chosen[0] if chosen else "start", rate)
    if as_json:
        say_json(answer)
    else:
        say(*_ranges_shown(answer["damages"]), f"{printable(mount.mountpoint)}: {_outcome(answer)}")
    return 1 if answer["damaged_bytes"] else 0


def _ask(client: Client, action: str, rate: int | None = None) -> dict[str, Any]:
    """The answer to `scrub`, with `damages`; one that is begun is waited for."""
    damages: list[Damage] = []
    params = {"action": action, "rate": rate, "wait": action in ("start", "resume") or None}
    with Progress() as progress:
        answer = client.call("scrub", params, progress, damages.extend)
    return {**answer, "damages": damages}


def _repair(client: Client, source: Source, rate: int | None) -> dict[str, Any]:
    before = _ask(client, "status")
    if before["state"] in ("never", "stopped"):
        before = _ask(client, "start", rate)
    repaired = 0
    with Progress() as progress:
        for done, damage in enumerate(before["damages"]):
            progress(done, len(before["damages"]), "repairing")
            repaired += any(_restored(client, damage["address"], block) for block in source.blocks(damage))
    return {**_ask(client, "status"), "repaired_bytes": repaired * BLOCK_BYTES}


def _restored(client: Client, address: int, block: bytes) -> bool:
    answer = client.call("repair", {"address": address, "data": base64.b64encode(block).decode()})
    return bool(answer["repaired"])


def ranges(damages: Sequence[Damage]) -> list[tuple[str, int, int]]:
    """Who sees damage, and in which ranges (offset, length) of bytes; those side by side are one."""
    found = sorted(
        (_name(seen), seen["offset_bytes"], damage["length_bytes"]) for damage in damages for seen in damage["seen_by"]
    )
    joined: list[tuple[str, int, int]] = []
    for name, offset, length in found:
        before = joined[-1] if joined else ("", 0, 0)
        if before[0] == name and before[1] + before[2] == offset:
            joined[-1] = (name, before[1], before[2] + length)
        else:
            joined.append((name, offset, length))
    return joined


def _name(seen: dict[str, Any]) -> str:
    name = printable(seen["disk"] if seen["snapshot"] is None else f"{seen['disk']}@{seen['snapshot']}")
    return f"{name} (in the trash)" if seen["in_trash"] else name


def _ranges_shown(damages: Sequence[Damage]) -> list[str]:
    found = ranges(damages)
    lines = format_table([(name, f"byte {offset}, {length} bytes") for name, offset, length in found[:RANGES_SHOWN]])
    return [*lines, f"{len(found) - RANGES_SHOWN} more"] if len(found) > RANGES_SHOWN else lines


def _outcome(answer: dict[str, Any]) -> str:
    damaged, repaired = answer["damaged_bytes"], answer.get("repaired_bytes")
    done = _state(answer) if repaired is None else f"{format_size(repaired)} repaired"
    if not damaged:
        return f"{done}, nothing is damaged"
    if repaired is None:
        return f"{done}, {format_size(damaged)} damaged: rowfs scrub --repair --from FILE puts it right from a copy"
    return f"{done}, {format_size(damaged)} still damaged: it is not in that file"


def _state(answer: dict[str, Any]) -> str:
    done, total = format_size(answer["scrubbed_bytes"]), format_size(answer["total_bytes"])
    match answer["state"]:
        case "never":
            return "not scrubbed since the mount"
        case "done":
            return f"{done} scrubbed"
        case state:
            return f"{state}, {done} of {total} scrubbed"
