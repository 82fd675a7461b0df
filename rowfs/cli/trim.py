"""`trim`: holes for what is zeros on a disk."""

from __future__ import annotations

import click

from rowfs.base.units import format_size
from rowfs.cli.addresses import Address, need_disk
from rowfs.cli.output import say, say_json
from rowfs.cli.params import ADDRESS, json_option
from rowfs.cli.session import ask


@click.command()
@click.argument("address", type=ADDRESS, metavar="PATH/DISK")
@click.option("--dry-run", is_flag=True, help="Say how much of the disk is zeros, and change nothing.")
@json_option
def trim(address: Address, dry_run: bool, as_json: bool) -> None:
    """Give back the space of all blocks of a disk that are zeros.

    All of the disk is read for it; it may be in use meanwhile. A guest's own trim (fstrim, discard) gives space back at
    once, and zeros that are written do after five minutes: this is for who will not wait, and for zeros of long ago.

    \b
    Examples:
      rowfs trim /mnt/rowfs/vm1
      rowfs trim --dry-run /mnt/rowfs/vm1
    """
    answer = ask(address.mount, "trim", disk=need_disk(address), dry_run=dry_run or None)
    if as_json:
        say_json(answer)
        return
    zeros, freed = format_size(answer["trimmed_bytes"]), format_size(answer["freed_bytes"])
    if dry_run:
        say(f"{address.shown()}: {zeros} of zeros would become holes")
    else:
        say(f"{address.shown()}: {zeros} of zeros are holes now, {freed} came back")
