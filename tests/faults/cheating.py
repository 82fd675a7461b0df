"""A daemon that cheats, to see that the tests would notice: python -m tests.faults.cheating HOW POOL MNT …"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable

import lmdb
import trio

from rowfs.base.units import Epoch
from rowfs.persist.datafile import DataFile
from rowfs.process.daemon import main
from rowfs.service.committer import Committer
from rowfs.store.model import Branch

LOST_ONE_IN = 100


def _fsync_answers_at_once() -> None:
    async def commit(self: Committer) -> None:
        await trio.lowlevel.checkpoint()

    Committer.commit = commit  # type: ignore[method-assign]


def _a_write_is_lost() -> None:
    write, count = DataFile.write, itertools.count(1)

    def forgetful(self: DataFile, address: int, data: bytes | memoryview, skip_bytes: int = 0) -> None:
        if next(count) % LOST_ONE_IN:
            write(self, address, data, skip_bytes)  # type: ignore[arg-type]

    DataFile.write = forgetful  # type: ignore[method-assign, assignment]


def _a_snapshot_is_no_obstacle() -> None:
    """What a snapshot holds is written in place, as if it were the disk's alone."""
    add_point = Branch.add_point

    def lax(self: Branch, epoch: Epoch) -> None:
        floor = self.floor
        add_point(self, epoch)
        self.floor = floor

    Branch.add_point = lax  # type: ignore[method-assign]


def _data_is_not_synced() -> None:
    DataFile.sync = lambda self: None  # type: ignore[method-assign]


def _the_map_is_not_synced() -> None:
    lmdb.open = functools.partial(lmdb.open, sync=False)


WAYS: dict[str, Callable[[], None]] = {
    "fsync-answers-at-once": _fsync_answers_at_once,
    "a-write-is-lost": _a_write_is_lost,
    "a-snapshot-is-no-obstacle": _a_snapshot_is_no_obstacle,
    "data-is-not-synced": _data_is_not_synced,
    "the-map-is-not-synced": _the_map_is_not_synced,
}

if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    sys.exit(main())
