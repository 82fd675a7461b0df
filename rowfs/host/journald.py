"""systemd's journal: an entry is one datagram of fields, as systemd.io/JOURNAL_NATIVE_PROTOCOL has it.

A field is `NAME=value` and a newline; of a value with newlines, the name, a newline, the value's length in 64 bits,
little-endian, the value and a newline.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS

JOURNAL_SOCKET = "/run/systemd/journal/socket"
LATER = (EAGAIN, ENOBUFS, EMFILE, ENFILE)
_LENGTH = struct.Struct("<Q")


class Priority(IntEnum):
    """As syslog(3) has them."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


def entry(fields: Mapping[str, str | int]) -> bytes:
    """The datagram of an entry; names of fields are A-Z, digits and _, and begin with a letter."""
    parts = []
    for name, value in fields.items():
        text = os.fsencode(str(value))
        if b"\n" in text:
            parts.append(name.encode() + b"\n" + _LENGTH.pack(len(text)) + text + b"\n")
        else:
            parts.append(name.encode() + b"=" + text + b"\n")
    return b"".join(parts)


class Journal:
    """The journal of this machine, if it has one."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path

    @property
    def is_there(self) -> bool:
        """Whether systemd runs here and has one."""
        return os.path.exists(self._path)

    def send(self, fields: Mapping[str, str | int]) -> bool:
        """Hand over an entry; False: not now, it has no room. Where there is no journal, nothing is handed over."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
                out.sendto(entry(fields), self._path)
        except OSError as error:  # else it is not there, or takes none so large
            return error.errno not in LATER
        return True
