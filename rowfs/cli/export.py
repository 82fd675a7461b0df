"""`export`: a snapshot as a sparse raw file."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from rowfs.base.errors import ExistsError, NotFoundError, ReadOnlyError, RowfsError, StorageError, UsageError
from rowfs.base.names import SNAPSHOTS_DIR
from rowfs.base.units import format_size
from rowfs.cli.addresses import Address, need_disk, need_snapshot
from rowfs.cli.client import Client
from rowfs.cli.connecting import client_of
from rowfs.cli.declared import command
from rowfs.cli.mounts import Mount, absolute
from rowfs.cli.output import printing, say, say_json, say_warning
from rowfs.cli.progress import Progress
from rowfs.cli.session import ask
from rowfs.cli.signals import ended_in_order
from rowfs.cli.sparse import copy_sparse, stream_out
from rowfs.verbs.using import EXPORT

STDOUT = "-"
TEMPORARY_NAME_CHARS = 60  # of FILE's name, so that with what is added it is never too long, whatever the alphabet


@command(EXPORT)
def export(address: Address, file: str, force: bool, as_json: bool) -> None:
    """Carries out `rowfs export`."""
    _check_target(file, force, as_json)
    with ended_in_order(), _exported_snapshot(address) as (disk, snapshot):
        source = _find_source(address.mount, disk, snapshot)
        if file == STDOUT:
            _write_stdout(source)
        else:
            _write_file(source, os.path.realpath(absolute(file)))
    if as_json:
        say_json({"file": file, "size_bytes": source.size_bytes, "mapped_bytes": source.mapped_bytes})
    elif file != STDOUT:
        say(f"{file}: {format_size(source.size_bytes)}, of it {format_size(source.mapped_bytes)} data")


@dataclass
class Source:
    """What is exported: the snapshot's file, and where in it there is data."""

    path: str
    size_bytes: int
    mapped_bytes: int
    extents: list[list[int]]

    def open(self) -> BinaryIO:
        """The snapshot's file, read without a buffer: the pieces asked for are large. Raises StorageError."""
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}", error.errno) from error


def _check_target(file: str, force: bool, as_json: bool) -> None:
    """Refuses what would be noticed only after a long copy. Raises UsageError, ExistsError."""
    if file == STDOUT:
        if as_json:
            raise UsageError("--json and a FILE of - both want stdout: leave one out")
        if sys.stdout is None:  # as it is when we were started with it closed
            raise UsageError("a FILE of - wants stdout, which is closed: redirect it, or name a FILE")
        if sys.stdout.isatty():
            raise UsageError("a disk image is nothing for a terminal: redirect stdout, or name a FILE")
        return
    directory = os.path.dirname(os.path.realpath(absolute(file)))
    if not os.path.isdir(directory):
        raise NotFoundError(f"{directory} is no directory: make it, or name a FILE elsewhere")
    if os.path.isdir(file):
        raise UsageError(f"{file} is a directory: name a FILE in it")
    if os.path.lexists(file):
        if os.path.exists(file) and not os.path.isfile(file):
            raise UsageError(f"{file} is no regular file: write to it with rowfs export ADDRESS - > {file}")
        if not force:
            raise ExistsError(f"{file} is there already: --force replaces it")


@contextmanager
def _exported_snapshot(address: Address) -> Iterator[tuple[str, str]]:
    """Disk and snapshot to read: the one that `address` names, or one that exists only during the block."""
    if address.snapshot is not None:
        yield need_snapshot(address)
        return
    disk = need_disk(address)
    name = f"export-{secrets.token_hex(4)}"
    with client_of(address.mount) as client:  # when it ends, the daemon deletes the snapshot, whatever became of us
        wanted = {"disk": disk, "snapshot": name, "description": "rowfs export is reading it", "temporary": True}
        _take_temporary(client, wanted)
        try:
            yield disk, name
        finally:
            _delete_temporary(client, Address("", address.mount, disk, name))


def _take_temporary(client: Client, wanted: dict[str, Any]) -> None:
    try:
        client.call("snapshot", wanted)
    except RowfsError as error:
        if error.errno != errno.EROFS:
            raise
        raise ReadOnlyError(f"{error}, and a disk is exported through a new snapshot: export one it has") from None


def _delete_temporary(client: Client, address: Address) -> None:
    """Deletes the export's own snapshot, so that it is gone when we are."""
    try:
        client.call("delete", {"disk": address.disk, "snapshots": [address.snapshot]})
    except RowfsError as error:
        if error.errno != errno.ENOENT:  # somebody was faster
            say_warning(f"{address.shown()} stays until the pool is mounted again: {error}")


def _find_source(mount: Mount, disk: str, snapshot: str) -> Source:
    extents: list[list[int]] = []
    answer: dict[str, Any] = ask(mount, "extents", on_parts=extents.extend, disk=disk, snapshot=snapshot)
    path = os.path.join(mount.mountpoint, SNAPSHOTS_DIR, disk, snapshot)
    return Source(path, answer["size_bytes"], answer["mapped_bytes"], extents)


class CopyProgress:
    """Called with the length of each piece that was copied: adds them up and shows the sum."""

    def __init__(self, source: Source, shown: Progress) -> None:
        self._total_bytes = sum(length for _, length in source.extents)
        self._done_bytes = 0
        self._shown = shown

    def __call__(self, length: int) -> None:
        self._done_bytes += length
        self._shown(self._done_bytes, self._total_bytes, f"exporting {format_size(self._total_bytes)}")


def _write_stdout(source: Source) -> None:
    with source.open() as file, Progress() as shown, printing():
        stream_out(file, source.extents, sys.stdout.buffer, source.size_bytes, CopyProgress(source, shown))


def _write_file(source: Source, path: str) -> None:
    """Fills a file beside `path` and gives it that name when all of it is on disk: no half image is ever seen."""
    directory, name = os.path.split(path)
    # No dot in front: on another rowfs mount, too, this has to be a name that a disk may have.
    temporary = os.path.join(directory, f"{name[:TEMPORARY_NAME_CHARS]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as target, _removed_unless_renamed(temporary):
            _fill(source, target)
            os.rename(temporary, path)
        _sync_directory(directory)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", error.errno) from error


@contextmanager
def _removed_unless_renamed(temporary: str) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # as it should be: it has its own name by now
            os.unlink(temporary)


def _fill(source: Source, target: BinaryIO) -> None:
    """Copies `source` into the empty file `target`, and on to the disk it lies on."""
    with source.open() as file, Progress() as shown:
        copy_sparse(file, source.extents, target, source.size_bytes, CopyProgress(source, shown))
    os.fsync(target.fileno())


def _sync_directory(directory: str) -> None:
    """Makes the new name durable, where the file system can."""
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(directory_fd)
    finally:
        os.close(directory_fd)
