"""Holding what is sealed against its checksums, and putting right what does not fit."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, flag, wire

SCRUB = Verb(
    name="scrub",
    place="scrub:scrub",
    about="Read all that is sealed, and tell what is damaged and who sees it.",
    text="""\
MNT is any path on the mount. Without it: the rowfs mount, if there is only one. The scrub runs in the daemon, beside
whatever else it does: interrupting this command leaves it running, and --status tells how far it is.

Exit codes: 0 nothing is damaged (any more), 1 something is.
""",
    examples=(
        "rowfs scrub",
        "rowfs scrub /mnt/rowfs --rate 100M",
        "rowfs scrub --pause",
        "rowfs scrub --repair --from /backup/vm1.raw",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT", required=False),
        Input(
            "rate",
            Kind.SIZE,
            flags=("--rate",),
            help="Read so many bytes a second at most.",
            params=(Param("rate", Kind.SIZE, required=False),),
        ),
        flag("--pause", "Let the one that is under way wait."),
        flag("--resume", "Let it go on."),
        flag("--stop", "End it where it is."),
        flag("--status", "Tell how far it is, and what is damaged."),
        flag("--repair", "Put right what is damaged, from an intact copy."),
        Input(
            "source",
            Kind.FILE,
            flags=("--from",),
            metavar="FILE",
            help="An image of a disk or snapshot that sees the damage.",
        ),
        wire(Param("action", Kind.TEXT, required=False), Param("wait", Kind.FLAG, required=False)),
        JSON,
    ),
    method="scrub",
    errors=(Failure("there is none to pause, resume or stop", "EBUSY"),),
    progress="bytes",
    changes=False,
    result="""\
`{"state", "scrubbed_bytes", "total_bytes", "rate_bytes_s", "started", "ended", "damaged_bytes"}` after parts of damage,
by address. `action`: `start` (what is left out; one that is under way goes on), `pause`, `resume`, `stop` or `status`;
`rate`: bytes a second at most. With `wait` the answer comes when it has ended, or is paused. `state`: `never`,
`running`, `paused`, `stopped`, `done`
""",
    manual="""\
Reads every block that has a checksum (what snapshots hold: see `sealed` in [`info`](#info)) from the host's disk,
past what the host has in memory, and holds it against that. What does not fit is named: by the disk, the snapshot and
the range of bytes, for every disk, clone and snapshot that sees it, and those in the trash. Reading these is EIO until
they are put right or written anew.

It runs in the daemon, at full speed while nobody asks the pool for anything, else a quarter of the time, and with
`--rate` no faster than that. `--pause`, `--resume`, `--stop` and `--status` are about the one under way; it is not kept
over an unmount. What was damaged before anything was sealed, or what no snapshot holds, nobody can see.

`--repair --from FILE` puts right what is damaged from an image of a disk or snapshot that sees it: of each damaged
block, FILE is read where that disk or snapshot has it, and what is there is only used if it is exactly what was sealed.
So any file will do, as far as it holds the same; what it does not hold stays damaged. Without a scrub since the mount,
there is one first. JSON: the answer to `scrub`, with `damages` and `repaired`.

    $ rowfs scrub /mnt/rowfs
    vm1@before  byte 4096, 8192 bytes
    vm2         byte 4096, 8192 bytes
    /mnt/rowfs: 9.1G scrubbed, 8.0K damaged: rowfs scrub --repair --from FILE puts it right from a copy
    $ rowfs scrub /mnt/rowfs --repair --from /backup/vm1.raw
    /mnt/rowfs: 8.0K repaired, nothing is damaged
""",
)

REPAIR = Verb(
    name="repair",
    about="Write a damaged block anew.",
    inputs=(wire(Param("address", Kind.NUMBER), Param("data", Kind.TEXT)),),
    method="repair",
    changes=True,
    result="""\
`{"repaired": bool}`. `data`: what the block at `address` ought to hold, 4,096 bytes in base64; it is written only if it
is what was sealed, and durable then
""",
)
