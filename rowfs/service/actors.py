"""Who asks for something, as the events will name them."""

from __future__ import annotations

import contextlib

from rowfs.base.actor import Actor
from rowfs.host.views import process_name


def actor_of(uid: int, pid: int) -> Actor:
    """The process with this id, whose name nobody knows when it has ended, or lives in another namespace."""
    name = ""
    with contextlib.suppress(OSError):
        name = process_name(str(pid))
    return Actor(uid, pid, name)
