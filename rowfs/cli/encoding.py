"""Names are bytes. Here they are text in UTF-8, in which a byte that is none is a surrogate, under whatever locale.

Python decodes arguments, environment and file names as the locale says. Under another one than UTF-8 (Python itself
takes C and POSIX for that) it is started anew: else the same bytes would be another name there.
"""

from __future__ import annotations

import io
import os
import sys

UTF8 = ("-X", "utf8")  # options of Python


def speak_utf8() -> None:
    """Have this process take names for UTF-8, and print them as the bytes that they are; if need be, begin it anew."""
    if sys.getfilesystemencoding() != "utf-8":
        python, *rest = _command_line()
        os.execv(sys.executable, [python, *map(os.fsencode, UTF8), *rest])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")


def _command_line() -> list[bytes]:
    """How this process was started, as bytes: decoded, not every locale gives them back as they were."""
    with open("/proc/self/cmdline", "rb") as file:
        return file.read().removesuffix(b"\0").split(b"\0")
