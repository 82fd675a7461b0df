"""`plot`: a picture of a chain."""

from __future__ import annotations

import os

from rowfs.base.errors import ExistsError, StorageError
from rowfs.cli.addresses import Address, need_disk
from rowfs.cli.chart import draw
from rowfs.cli.declared import command
from rowfs.cli.output import count, say, say_json
from rowfs.cli.session import ask
from rowfs.verbs.plot import PLOT

STDOUT = "-"


@command(PLOT)
def plot(address: Address, file: str, force: bool, as_json: bool) -> None:
    """Carries out `rowfs plot`."""
    disk = address.disk if address.chain and address.disk is not None else need_disk(address)
    if file != STDOUT and not as_json and not force and os.path.lexists(file):
        raise _exists(file)
    history = ask(address.mount, "history", disk=disk)
    if as_json:
        say_json(history)
    elif file == STDOUT:
        say(draw(history).removesuffix("\n"))
    else:
        _write(file, draw(history).encode(), force)
        snapshots = sum(step["snapshot"] is not None for step in history["steps"])
        say(f"{file}: {count(snapshots, 'snapshot')} of {Address('', address.mount, disk).shown()}")


def _write(file: str, picture: bytes, force: bool) -> None:
    """Writes the picture to a file that is new, unless `force`. Raises ExistsError, StorageError."""
    try:
        with open(file, "wb" if force else "xb") as target:
            target.write(picture)
    except FileExistsError:
        raise _exists(file) from None
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}", error.errno) from error


def _exists(file: str) -> ExistsError:
    return ExistsError(f"{file} is there already: --force replaces it")
