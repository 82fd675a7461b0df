"""Looks at all of LMDB's pages that a commit has, in a process of its own: python -m rowfs.persist.lookover MAP META.

What is checked at open is bounded (persist.mapcheck), and what the host keeps may change later. The commit has to be
held meanwhile (BlockMap.hold). META is its meta page, in hexadecimal digits: the file's is written over soon. Prints
what is wrong, a line each.
"""

from __future__ import annotations

import os
import sys

from rowfs.base.format import TABLES
from rowfs.persist.mapcheck import ALL_PAGES, find_damage_of
from rowfs.persist.mappages import META, Meta

NICE = 19  # nobody waits for it


def command(path: str, meta: Meta) -> list[str]:
    """What to start, for the map's file at `path`."""
    return [sys.executable, "-X", "utf8", "-m", __name__, path, META.pack(*meta).hex()]


def main() -> int:
    """The process."""
    os.nice(NICE)
    path, meta = sys.argv[1:]
    findings = find_damage_of(path, TABLES, Meta._make(META.unpack(bytes.fromhex(meta))), ALL_PAGES)
    print("\n".join(findings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
