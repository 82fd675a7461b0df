"""How results are printed: tables, sizes, times, JSON. Names come from users and may hold anything but `/` and `@`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from typing import Any

import click

from rowfs.base.names import printable
from rowfs.base.units import format_size

NOTHING = "-"
GAP = "  "


@contextmanager
def printing() -> Iterator[None]:
    """For what writes to stdout: an error names it. A reader that left (BrokenPipeError) is not one to tell of."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def say(*lines: str) -> None:
    """Prints `lines`. Names keep their bytes, so that a printed path can be used; a terminal gets them `printable`."""
    shown = map(printable, lines) if sys.stdout is not None and sys.stdout.isatty() else lines
    with printing():
        click.echo(os.fsencode("\n".join(shown)))


def say_warning(line: str) -> None:
    """Prints a line on stderr: what is asked for comes, but the user should know."""
    click.echo(f"rowfs: warning: {printable(line)}", err=True)


def say_json(document: Any) -> None:
    """Prints `document` on one line, in ASCII: whatever the locale and the names."""
    with printing():
        click.echo(json.dumps(document, separators=(",", ":")))


def size_or_nothing(size_bytes: int | None) -> str:
    """A size for people; a dash when it was not asked for or is not known."""
    return NOTHING if size_bytes is None else format_size(size_bytes)


def local_time(rfc3339: str, zone: tzinfo | None = None) -> str:
    """A time of the daemon's, to the second in `zone` (the user's own when None)."""
    return datetime.fromisoformat(rfc3339).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def count(number: int, noun: str) -> str:
    """`1 disk`, `3 disks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """`rows` as lines with aligned columns, those numbered in `right` to the right. No line ends in spaces."""
    columns = range(len(rows[0])) if rows else range(0)
    widths = [max(len(row[column]) for row in rows) for column in columns]
    lines = []
    for row in rows:
        cells = [row[i].rjust(widths[i]) if i in right else row[i].ljust(widths[i]) for i in columns]
        lines.append(GAP.join(cells).rstrip())
    return lines


def say_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Prints names and values, one a line."""
    say(*format_table(fields))


def attached_shown(attached: dict[str, Any]) -> str:
    """A device a disk is attached as, and where that is mounted."""
    mounts = [printable(path) for path in attached.get("mounts", [])]
    return f"{attached['device']} on {', '.join(mounts)}" if mounts else str(attached["device"])
