"""A real load on ext4, on a loop device: SQLite, and a source tree that is unpacked and deleted."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sysconfig
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchlib.figures import say
from benchlib.mounted import rowfs
from benchlib.peers import Peer, Rowfs, mounted_image, run
from benchlib.peerwork import Run
from rowfs.base.units import GIB

MAKE = ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0")  # nothing at work in the background
ROW = "x" * 100
LEFT_OUT = {"__pycache__", "site-packages", "test"}


@dataclass(frozen=True, slots=True)
class Mounted:
    """A system, and where an ext4 on it is mounted."""

    peer: Peer
    where: Path


def run_all(bench: Run, peers: Sequence[Peer], reserve_s: float) -> None:
    """All rows of this module, for systems on which an ext4 may be mounted."""
    archive = bench.directory / "tree.tar"
    files = pack(archive, bench.sizes.tree_files)
    with contextlib.ExitStack() as stack:
        systems = [_mount(peer, bench.directory, stack) for peer in peers]

        def one_round(number: int) -> None:
            order = systems if number % 2 else systems[::-1]
            for system in order:
                bench.add("sqlite", system.peer, _sqlite(system.where, bench.sizes.sqlite_s))
            for system in order:
                bench.add("tree", system.peer, files / _tree(system.where, archive))

        bench.rounds("ext4 on the loop device", reserve_s, one_round)


def pack(archive: Path, files_min: int) -> int:
    """Python's own sources in one archive, as many times as it takes; how many files that is."""
    source = Path(sysconfig.get_paths()["stdlib"])
    members = [path for path in _sources(source) if path.is_file()]
    copies = -(-files_min // len(members))
    with tarfile.open(archive, "w") as made:
        for number in range(copies):
            for path in members:
                made.add(path, f"{number}/{path.relative_to(source)}", recursive=False)
    say(f"the source tree: {copies * len(members):,} files, {archive.stat().st_size >> 20} MiB")
    return copies * len(members)


def _sources(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name not in LEFT_OUT:
                yield from _sources(path)
        else:
            yield path


def _mount(peer: Peer, directory: Path, stack: contextlib.ExitStack) -> Mounted:
    where = directory / f"{peer.key}-ext4"
    if isinstance(peer, Rowfs):
        image = peer.mount.point / "ext4"
        rowfs("create", image, str(2 * GIB))
    else:
        image = directory / f"{peer.key}-image"
        with open(image, "wb") as made:
            made.truncate(2 * GIB)
    mounted_image(stack, image, where, *MAKE)
    return Mounted(peer, where)


def _sqlite(where: Path, seconds: float) -> float:
    """Inserts a second, each a durable transaction of its own."""
    database = where / "database"
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
        began, inserts = time.monotonic(), 0
        while time.monotonic() < began + seconds:
            connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", (inserts, ROW))
            inserts += 1
        return inserts / (time.monotonic() - began)
    finally:
        connection.close()
        database.unlink()


def _tree(where: Path, archive: Path) -> float:
    """Seconds to unpack the tree and delete it again, each until it is durable."""
    target = where / "tree"
    target.mkdir()
    began = time.monotonic()
    run("tar", "-xf", archive, "-C", target)
    run("sync", "-f", where)
    shutil.rmtree(target)
    run("sync", "-f", where)
    return time.monotonic() - began
