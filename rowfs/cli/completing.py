"""What the shell offers for an address: disks on a mount, snapshots behind an @, the shell's own files elsewhere."""

from __future__ import annotations

import os

from click.shell_completion import CompletionItem

from rowfs.base.names import SNAPSHOTS_DIR
from rowfs.cli.mounts import current_mounts, mount_at, resolve_path


def complete_address(incomplete: str) -> list[CompletionItem]:
    """What the path `incomplete` may become."""
    directory, name = os.path.split(incomplete)
    mounts = current_mounts()
    path = resolve_path(os.path.expanduser(directory), mounts)
    mount = mount_at(path, mounts)
    if mount is None or path != mount.mountpoint or name.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    before = incomplete[: len(incomplete) - len(name)]
    return [CompletionItem(before + found) for found in names_on_mount(path, name)]


def names_on_mount(mountpoint: str, start: str) -> list[str]:
    """The disks that begin with `start`, or the snapshots when it has an @. A single disk brings its snapshots along.

    Without them the shell would add a space behind the disk's name, where the @ should go.
    """
    disk, at, snapshot = start.partition("@")
    if at:
        return [f"{disk}@{name}" for name in _listed(mountpoint, SNAPSHOTS_DIR, disk) if name.startswith(snapshot)]
    disks = [name for name in _listed(mountpoint) if name.startswith(start) and name != SNAPSHOTS_DIR]
    return disks + (names_on_mount(mountpoint, f"{disks[0]}@") if len(disks) == 1 else [])


def _listed(*path: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(*path)))
    except OSError:
        return []
