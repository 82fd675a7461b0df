"""What mount(8) runs for file systems of type rowfs: with it `mount -t rowfs`, fstab and systemd work.

    mount.rowfs POOL MNT [-sfnv] [-N namespace] [-o options] [-t type]

tools/install puts it into /sbin. umount(8) takes none for FUSE: it returns when the mount is gone, and the daemon makes
the rest durable after that. Whoever mounts again waits for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from rowfs.cli.encoding import speak_utf8
from rowfs.cli.main import WRONG_USAGE, run

MOUNT_USAGE, MOUNT_FAILED = 1, 32  # exit codes of mount(8)


class Parser(argparse.ArgumentParser):
    """A parser that leaves as mount(8) does."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line."""
        self.exit(MOUNT_USAGE, f"{self.prog}: {message}\n")


def mount() -> NoReturn:
    """The program mount.rowfs."""
    speak_utf8()
    parser = Parser(prog="mount.rowfs", description="Run by mount(8).")
    parser.add_argument("pool")
    parser.add_argument("mountpoint")
    for flag in ("-s", "-f", "-n", "-v"):
        parser.add_argument(flag, action="store_true")
    for option in ("-N", "-t"):
        parser.add_argument(option)
    parser.add_argument("-o", dest="options", action="append", default=[])
    given = parser.parse_intermixed_args()
    if given.f:
        sys.exit(0)  # a dry run
    options = ["-o", ",".join(given.options)] if given.options else []
    _leave(["mount", *options, "--", given.pool, given.mountpoint], given.v)


def _leave(arguments: Sequence[str], verbose: bool) -> NoReturn:
    """Run the verb of rowfs, which only speaks when something is wrong, and exit as mount(8) does."""
    with contextlib.ExitStack() as stack:
        if not verbose:
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        code = run(list(arguments))
    sys.exit({0: 0, WRONG_USAGE: MOUNT_USAGE}.get(code, MOUNT_FAILED))


if __name__ == "__main__":
    mount()
