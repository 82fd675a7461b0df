"""One question to the daemon of a mount, with progress shown while it works on it."""

from __future__ import annotations

from typing import Any

from rowfs.base.errors import NotFoundError, no_snapshot
from rowfs.cli.client import PartsCallback
from rowfs.cli.connecting import client_of
from rowfs.cli.mounts import Mount
from rowfs.cli.progress import Progress


def ask(mount: Mount, method: str, /, *, on_parts: PartsCallback | None = None, **params: Any) -> Any:
    """The result of `method`. `params` that are None are left out. Raises RowfsError."""
    with client_of(mount) as client, Progress() as progress:
        return client.call(method, params, progress, on_parts)


def list_disk(mount: Mount, disk: str, figures: bool = False, trimmed: bool = False) -> dict[str, Any]:
    """The disk object of `disk`. Raises RowfsError when there is none."""
    for found in ask(mount, "list", disks=[disk], figures=figures, trimmed=trimmed or None):
        return dict(found)
    raise NotFoundError(f"there is no disk {disk}: rowfs list shows those there are")


def snapshot_names(mount: Mount, disk: str) -> list[str]:
    """The names of the snapshots of `disk`, oldest first. Raises RowfsError when there is no such disk."""
    return [snapshot["name"] for snapshot in list_disk(mount, disk)["snapshots"]]


def find_snapshot(disk: dict[str, Any], name: str) -> dict[str, Any]:
    """The snapshot `name` of the disk object `disk`. Raises NotFoundError when it has none of that name."""
    for snapshot in disk["snapshots"]:
        if snapshot["name"] == name:
            return dict(snapshot)
    raise no_snapshot(disk["name"], name)
