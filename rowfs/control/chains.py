"""Naming snapshots of a chain: single ones and ranges."""

from __future__ import annotations

from rowfs.base.errors import NotFoundError, UsageError, no_snapshot
from rowfs.store.model import Disk, Snapshot


def select(disk: Disk, specs: list[str]) -> list[Snapshot]:
    """The snapshots that names and ranges (`a..c`, `..c`, `a..`) mean, oldest first, each once.

    A range is by place in the chain, both ends included. A snapshot whose name looks like a range comes before the
    range. Raises NotFoundError for an unknown name, UsageError for a range whose ends are the wrong way round.
    """
    names = list(disk.chain)
    places: set[int] = set()
    for spec in specs:
        if spec in disk.chain or ".." not in spec:
            places.add(_place(disk, names, spec))
            continue
        first, last = _ends(disk, names, spec)
        if first > last:
            raise UsageError(f"the range {spec} is empty: its first snapshot is newer than its last")
        places.update(range(first, last + 1))
    return [disk.chain[names[place]] for place in sorted(places)]


def _ends(disk: Disk, names: list[str], spec: str) -> tuple[int, int]:
    first, _, last = spec.partition("..")
    if not names:
        raise NotFoundError(f"the disk {disk.name} has no snapshots")
    return (
        _place(disk, names, first) if first else 0,
        _place(disk, names, last) if last else len(names) - 1,
    )


def _place(disk: Disk, names: list[str], name: str) -> int:
    if name not in disk.chain:
        raise no_snapshot(disk.name, name)
    return names.index(name)
