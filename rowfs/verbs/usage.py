"""What is held, and was held for how long."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Input, Kind, Param, Verb, flag, selector

DISK, LABEL, POLICY = "disk", "label", "policy"  # what rows are by

USAGE = Verb(
    name="usage",
    place="usage:usage",
    about="Show what disks and their snapshots hold, and held for how long, as clouds bill it.",
    text="""\
By disk, by label or by policy: what is provisioned, mapped, held by snapshots alone, shared with others, in the trash.
With --since how much of each there was for how long, in GiB x hours; it is sampled while the pool is mounted, and kept
for 400 days. --csv and --json have both.
""",
    examples=(
        "rowfs usage",
        "rowfs usage /mnt/rowfs --since 30d",
        "rowfs usage /mnt/rowfs --by label --key customer --since 2026-11-01 --csv",
        "rowfs usage /mnt/rowfs --by policy",
        "rowfs usage /mnt/rowfs -l env=prod",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT", required=False),
        Input(
            "by",
            Kind.WORD,
            flags=("--by",),
            help="What there is a row for.",
            words=(DISK, LABEL, POLICY),
            default=DISK,
            params=(Param("by", Kind.TEXT, required=False),),
        ),
        Input(
            "key",
            Kind.TEXT,
            flags=("--key",),
            metavar="KEY",
            help="With --by label: rows for the values of this one label.",
            params=(Param("key", Kind.TEXT, required=False),),
        ),
        selector(params=(Param("selector", Kind.TEXT, required=False),)),
        Input(
            "since",
            Kind.TEXT,
            flags=("--since",),
            metavar="TIME",
            help="GiB x hours since: 2026-11-01, '2026-11-01 14:00', or 30d ago.",
            params=(Param("since", Kind.TEXT, required=False),),
        ),
        flag("--csv", "Print comma-separated values instead of text."),
        JSON,
    ),
    method="usage",
    changes=False,
    result="""\
`{"by", "since", "until", "total": row, "used_bytes": n, "uncounted": [name…]}` after parts of usage row, by name. `by`
is `disk` (if left out), `label` or `policy`; `key` chooses one label, `selector` disks. `since`: a time, or a span ago
as `30d`; at most 400 days. `used_bytes`: what the pool holds, of whomever. `uncounted`: disks of which, because the map
is damaged there, only what was held before is told
""",
    manual="""\
| column | what it is, of a disk |
|---|---|
| PROVISIONED | its size, written or not, which is what clouds bill for a volume: to the second |
| MAPPED | what is written at all, as in `list` |
| SNAPSHOTS | what its snapshots alone hold: it comes back if all of them are deleted, and the disk stays |
| SHARED | what it or its snapshots have, and other disks, their snapshots or the trash have too |
| TRASH | what was deleted of it, and comes back when the [trash](#trash) is emptied |

The figures are exact. Rows are sums of those of their disks; what several have is SHARED in each of them. By `label` a
disk is in the row of each of its labels, in `-` if it has none; with `--key` in one row alone, so that rows add up.
By `policy`, SNAPSHOTS is what all snapshots of the policy alone hold together. `-l` chooses disks. Disks that had one
name one after the other are in one row; one that is gone is told as long as it held anything since `--since`.

`--since` gives GiB x hours: each amount times how long there was so much of it, for 400 days back at most. PROVISIONED
is noted with each change, the rest counted every hour, or so rarely that counting takes a fiftieth of the time at most.
What was counted counts until it is counted again: days without a mount too, with what there was before. Changes older
than two days are known to some hours, older than two weeks to a day, and to weeks where there are hundreds of disks:
sums stay exact, but a `--since` in between takes a part of them as if it had been even. All accounts together take at
most 1 MiB: of thousands of disks that are gone, those gone longest are `(others)` together. A clock that is set back
adds nothing until it is where it was; one that leaps ahead by more than a day adds nothing before it has stood by that
for a day, or `policy run --confirm-clock`.

In CSV a name that a spreadsheet would take for a formula has a `'` in front. JSON: `rows` and what the socket answers,
with exact `byte_seconds`.

    $ rowfs usage /mnt/rowfs
    NAME   PROVISIONED  MAPPED  SNAPSHOTS  SHARED  TRASH
    db             20G    4.0G       1.2G      0B     0B
    web            20G    2.1G       300M    2.0G     0B
    total          40G    6.1G       1.5G    2.0G     0B
    $ rowfs usage /mnt/rowfs --by label --key env --since 2026-11-01
    GiB x hours since 2026-11-01 00:00:00
    NAME      PROVISIONED   MAPPED  SNAPSHOTS   SHARED  TRASH
    env=prod      9600.00  1920.00     576.00     0.00   0.00
    env=test      9600.00  1008.00     140.62   960.00   0.00
    total        19200.00  2928.00     716.62   960.00   0.00
""",
)
