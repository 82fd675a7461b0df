"""`usage`: what disks, labels and policies hold, and held for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.names import printable
from rowfs.base.units import GIB, format_size
from rowfs.cli.addresses import Address
from rowfs.cli.csvtext import csv_text
from rowfs.cli.declared import command
from rowfs.cli.moments import instant
from rowfs.cli.output import NOTHING, format_table, local_time, say, say_json, say_warning
from rowfs.cli.params import only_mount
from rowfs.cli.session import ask
from rowfs.rules.usage import KINDS
from rowfs.verbs.usage import POLICY, USAGE

HEADER = ("NAME", *(kind.upper() for kind in KINDS))
BYTES = [f"{kind}_bytes" for kind in KINDS]
HOUR_S = 3600
OF_POLICIES = (KINDS.index("snapshots"),)  # the only kind there is


@command(USAGE)
def usage(
    address: Address | None,
    by: str,
    key: str | None,
    selector: str | None,
    since: str | None,
    csv: bool,
    as_json: bool,
) -> None:
    """Carries out `rowfs usage`."""
    if csv and as_json:
        raise UsageError("--csv and --json do not go together: choose one")
    if address is not None and address.disk is not None:
        raise UsageError(f"{address.text!r} names a disk: this tells of all of a mount, -l chooses among them")
    mount = (address or only_mount()).mount
    params = {"by": by, "key": key, "selector": selector, "since": None if since is None else instant(since)}
    rows: list[dict[str, Any]] = []
    answer = ask(mount, "usage", on_parts=rows.extend, **params)
    for name in answer["uncounted"]:
        say_warning(f"what {name} holds cannot be counted, because the map is damaged there: rowfs check tells more")
    if as_json:
        say_json({"rows": rows, **answer})
    elif csv:
        say(_csv(rows))
    else:
        say(*_text(rows, answer, by, since is not None))


def _text(rows: list[dict[str, Any]], answer: dict[str, Any], by: str, hours: bool) -> list[str]:
    shown = OF_POLICIES if by == POLICY else range(len(KINDS))
    header = [HEADER[0], *(["COUNT"] if by == POLICY else []), *(HEADER[1 + kind] for kind in shown)]
    table = [header]
    named = [(printable(row["name"]) or NOTHING, row) for row in rows]
    if len(rows) > 1 and by != POLICY:  # what two policies hold together is neither's
        named.append(("total", answer["total"]))
    for name, row in named:
        cells = _gib_hours(row) if hours else [format_size(row[key]) for key in BYTES]
        table.append([name, *([str(row["snapshots"])] if by == POLICY else []), *(cells[kind] for kind in shown)])
    lines = format_table(table, range(1, len(header)))
    return [f"GiB x hours since {local_time(answer['since'])}", *lines] if hours else lines


def _gib_hours(row: dict[str, Any]) -> list[str]:
    return [f"{row['byte_seconds'][kind] / HOUR_S / GIB:.2f}" for kind in KINDS]


def _csv(rows: list[dict[str, Any]]) -> str:
    header = ["name", "count", "snapshots", *BYTES, *(f"{kind}_byte_hours" for kind in KINDS)]
    return csv_text(header, map(_csv_row, rows))


def _csv_row(row: dict[str, Any]) -> Sequence[str | int]:
    hours = [row["byte_seconds"][kind] // HOUR_S for kind in KINDS]
    return [row["name"], row["count"], row["snapshots"], *(row[key] for key in BYTES), *hours]
