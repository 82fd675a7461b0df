"""`init`: making a pool."""

from __future__ import annotations

import os

from rowfs.cli.declared import command
from rowfs.cli.mounts import absolute
from rowfs.cli.output import say, say_json
from rowfs.verbs.pools import INIT


@command(INIT)
def init(pool: str, capacity: int | None, other_owner: bool, as_json: bool) -> None:
    """Carries out `rowfs init`."""
    from rowfs.store.pool import init_pool  # here: it brings lmdb and numpy along, which no other command needs

    path = os.path.normpath(absolute(pool))
    init_pool(path, capacity, other_owner)
    if as_json:
        say_json({"pool": path, "capacity_bytes": capacity})
    else:
        say(f"{path}: a pool now; mount it with rowfs mount {pool} DIR")
