"""A file in the pool's directory that says that the pool became read-only, and why: the map can take it no more.

The next mount that can write puts it among the events and takes the file away. Whatever is in it is only told.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import NamedTuple

from rowfs.base.errors import PoolError
from rowfs.base.fields import RANGES
from rowfs.base.format import READ_ONLY_FILE
from rowfs.persist.hostfs import sync_directory, write_durably
from rowfs.persist.pooldir import PoolDirectory

NOTE_BYTES_MAX = 4096
WHY_CHARACTERS_MAX = 500


class Note(NamedTuple):
    """When the pool became read-only, and why."""

    time_ns: int
    why: str


def leave(directory: PoolDirectory, note: Note) -> None:
    """Leave a note, durably, unless there is an older one. Raises OSError, PoolError."""
    if read(directory) is not None:
        return
    text = json.dumps({"time_ns": note.time_ns, "why": note.why[:WHY_CHARACTERS_MAX]})
    fd = directory.open(READ_ONLY_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_durably(fd, text.encode() + b"\n")
    finally:
        os.close(fd)
    sync_directory(directory.place)


def read(directory: PoolDirectory) -> Note | None:
    """The note that was left; None: none, or nothing that can be read."""
    try:
        fd = directory.open(READ_ONLY_FILE, os.O_RDONLY)
    except (OSError, PoolError):
        return None
    with open(fd, "rb") as file:
        try:
            found = json.loads(file.read(NOTE_BYTES_MAX))
            time_ns, why = found["time_ns"], found["why"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
    least, most = RANGES["time_ns"]
    if type(time_ns) is not int or not least <= time_ns <= most or type(why) is not str:
        return None
    return Note(time_ns, why[:WHY_CHARACTERS_MAX])


def remove(directory: PoolDirectory) -> None:
    """Take the note away. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory.place}/{READ_ONLY_FILE}")
