"""`init`: making a pool."""

from __future__ import annotations

import os

import click

from rowfs.cli.mounts import absolute
from rowfs.cli.output import say, say_json
from rowfs.cli.params import DIRECTORY, SIZE, json_option


@click.command()
@click.argument("pool", type=DIRECTORY)
@click.option("--capacity", type=SIZE, help="The most its data may take; without it, all of the host file system.")
@json_option
def init(pool: str, capacity: int | None, as_json: bool) -> None:
    """Make a pool in the directory POOL.

    The directory is created, or must be empty.

    \b
    Examples:
      rowfs init /srv/pool
      rowfs init /srv/pool --capacity 200G
    """
    from rowfs.store.pool import init_pool  # here: it brings lmdb and numpy along, which no other command needs

    path = os.path.normpath(absolute(pool))
    init_pool(path, capacity)
    if as_json:
        say_json({"pool": path, "capacity_bytes": capacity})
    else:
        say(f"{path}: a pool now; mount it with rowfs mount {pool} DIR")
