"""`trim`: holes for what is zeros on a disk."""

from __future__ import annotations

from rowfs.base.units import format_size
from rowfs.cli.addresses import Address, need_disk
from rowfs.cli.declared import command
from rowfs.cli.output import say, say_json
from rowfs.cli.session import ask
from rowfs.verbs.disks import TRIM


@command(TRIM)
def trim(address: Address, dry_run: bool, as_json: bool) -> None:
    """Carries out `rowfs trim`."""
    answer = ask(address.mount, "trim", disk=need_disk(address), dry_run=dry_run or None)
    if as_json:
        say_json(answer)
        return
    zeros, freed = format_size(answer["trimmed_bytes"]), format_size(answer["freed_bytes"])
    if dry_run:
        say(f"{address.shown()}: {zeros} of zeros would become holes")
    else:
        say(f"{address.shown()}: {zeros} of zeros are holes now, {freed} came back")
