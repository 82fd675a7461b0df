"""The trash: what leaves it for good and when, and under which name something comes back.

Off by default. Points in time are compared as such; an entry that is dated ahead, by a clock that was wrong, counts as
deleted when the next one was, or now.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from rowfs.base.errors import ExistsError, UsageError
from rowfs.base.names import NAME_BYTES_MAX, check_name, for_snapshots, printable
from rowfs.rules.times import HOUR_NS, SPAN_MAX_NS, format_span

KEEP_MIN_NS = HOUR_NS


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something deleted. Ids count up in the order in which things went to the trash."""

    id: int
    name: str
    deleted_ns: int
    frees_bytes: int = 0  # what comes back when it goes for good, as far as is known
    kept_by: str = ""  # what keeps it, in words: a lock goes to the trash with its snapshot


def check_keep(keep_ns: int) -> int:
    """`keep_ns`, if the trash may keep things so long. Raises UsageError otherwise."""
    if not KEEP_MIN_NS <= keep_ns <= SPAN_MAX_NS:
        raise UsageError(f"--keep {format_span(keep_ns)} is out of reach: from 1h on, or off to delete at once")
    return keep_ns


def overdue(entries: Iterable[Entry], keep_ns: int, now_ns: int) -> list[Entry]:
    """Those that were in the trash for `keep_ns` at `now_ns`, oldest first. Each goes by itself: one may fail to.

    `now_ns` is what rules.clock trusts, so that a clock that leaps ahead does not empty the trash.
    """
    found, next_ns = [], now_ns
    for entry in sorted(entries, key=lambda entry: entry.id, reverse=True):
        next_ns = entry.deleted_ns if entry.deleted_ns <= now_ns else next_ns
        if now_ns - next_ns >= keep_ns and not entry.kept_by:
            found.append(entry)
    return found[::-1]


def for_space(
    entries: Iterable[Entry], needed_bytes: int, frees: Callable[[Sequence[Entry]], int] | None = None
) -> list[Entry]:
    """The oldest that have to go for `needed_bytes`: all that can, if even that is too little.

    `frees` gives what comes back if a set goes at once, which is more than the sum where they share blocks; without it
    the entries' own figures are added.
    """
    gone: list[Entry] = []
    measure = frees or (lambda chosen: sum(entry.frees_bytes for entry in chosen))
    for entry in sorted(entries, key=lambda entry: entry.id):
        if measure(gone) >= needed_bytes:
            break
        if not entry.kept_by:
            gone.append(entry)
    return gone


def undelete_name(entry: Entry, asked: str | None, taken: Container[str]) -> str:
    """The name under which `entry` comes back: the one asked for, or its own.

    Raises ExistsError, which offers another, when somebody has that name now.
    """
    name = check_name(asked or entry.name)
    if name in taken:
        offered = free_name(for_snapshots(entry.name), taken)  # which a disk may be called, too
        raise ExistsError(
            f"{printable(name)} is the name of another now: rowfs undelete can call it {printable(offered)}"
        )
    return name


def free_name(name: str, taken: Container[str]) -> str:
    """A name like `name` that nobody has: name-restored, name-restored-2 and so on, cut where it would be too long."""
    number = 1
    while True:
        tail = "-restored" if number == 1 else f"-restored-{number}"
        stem = name.encode(errors="surrogateescape")[: NAME_BYTES_MAX - len(tail)].decode(errors="ignore")
        if stem + tail not in taken:
            return stem + tail
        number += 1
