"""Limits of a pool and of its disks."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, wire


def _limit(option: str, metavar: str, help: str, param: str) -> Input:
    name = option.removeprefix("--")
    params = (Param(param, Kind.SIZE, required=False),)
    return Input(name, Kind.TEXT, flags=(option,), metavar=metavar, help=help, params=params)


LIMIT = Verb(
    name="limit",
    place="limits:limit",
    about="Show what a pool or a disk may hold, or limit it.",
    text="""\
Of a disk and its chain: --snapshots, --space, and --reserve, which it can count on whatever others write. Of the pool:
--snapshots of each chain that has no limit of its own, --disks, and --provisioned, the sizes of all disks together in
percent of the pool's capacity. `none` takes a limit away.

What is there already stays; what comes next is refused in one line that names the limit.
""",
    examples=(
        "rowfs limit /mnt/rowfs/vm1 --snapshots 64 --space 20G --reserve 5G",
        "rowfs limit /mnt/rowfs --disks 100 --provisioned 300",
        "rowfs limit /mnt/rowfs/vm1 --space none",
        "rowfs limit /mnt/rowfs --on-warning '/usr/local/bin/tell-me --urgent'",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT[/DISK]", params=(Param("disk", Kind.NAME, required=False),)),
        _limit("--snapshots", "N", "Of the disk's chain; of the pool: of each chain without a limit.", "snapshots"),
        _limit("--space", "SIZE", "What the disk and its chain may hold.", "space_bytes"),
        _limit("--reserve", "SIZE", "What the disk and its chain can count on.", "reserve_bytes"),
        _limit("--disks", "N", "How many disks the pool may have.", "disks"),
        _limit("--provisioned", "PERCENT", "All disks' sizes, of the pool's capacity.", "provisioned_percent"),
        Input(
            "on_warning",
            Kind.TEXT,
            flags=("--on-warning",),
            metavar="COMMAND",
            help="Run COMMAND when any limit comes near.",
            params=(Param("on_warning", Kind.NAMES, required=False),),
        ),
        wire(Param("without", Kind.NAMES, required=False)),
        JSON,
    ),
    method="limit",
    errors=(
        Failure("no such disk", "ENOENT"),
        Failure("so much cannot be reserved: it is neither free nor promised to others", "EDQUOT"),
    ),
    changes=True,
    result="""\
of a `disk`: `{"snapshots": n or null, "space_bytes": n or null, "reserve_bytes": n, "held_bytes": n}`, `held_bytes`
being what the disk and its chain hold; of the pool: `{"snapshots": n or null, "disks": n or null,
"provisioned_percent": n or null, "on_warning": [word…]}`. What is given is set; `without` names those of
them that are taken away
""",
    manual="""\
Without options it shows the limits; with some it sets them, durably, and `none` takes one away.

| limit | of | what is refused then |
|---|---|---|
| `--snapshots N` | a disk; the pool: each chain that has none of its own | a snapshot (EDQUOT) |
| `--space SIZE` | a disk | a write that needs a new block: ENOSPC for that disk alone, others go on |
| `--reserve SIZE` | a disk | writes of *other* disks that need what this one can count on: ENOSPC for them |
| `--disks N` | the pool | one more disk, by whatever way (EDQUOT) |
| `--provisioned PERCENT` | the pool | what makes all disks' sizes more than so much of its capacity (EDQUOT) |

What a rollback keeps and an export takes does not count as a snapshot. A disk and its chain hold what was written to
the disk and is not given up, blocks that only its snapshots have included. What a clone shares with its origin counts
there; what it writes itself counts for it. A deleted snapshot counts until it is reclaimed, one in the trash no longer.
A reservation keeps other disks of the pool away, not what else the host's file system holds. Limits go with their disk,
into no clone and not through the trash.

When the pool has come to 75, 85 or 95 % of what it can hold, or anything to so much of its limit (the space or the
snapshots of a disk, the pool's disks, or their sizes together), an [event](#events) says so, once on the way up; from
85 % on `list` and `info` warn. `--on-warning COMMAND` has a program run then: its full path and arguments, which no
shell sees, as for the hooks of [policies](#policy), with `ROWFS_HOOK=on-warning`, `ROWFS_POOL`, `ROWFS_MOUNT`,
`ROWFS_PERCENT` (the highest), `ROWFS_REASON` (a line for each warning), and `ROWFS_DISK` where one disk is meant. It is
killed after 30 seconds. It is looked at every ten seconds.

JSON: as on the socket.

    $ rowfs limit /mnt/rowfs/vm1 --snapshots 64 --space 20G --reserve 5G
    snapshots  64
    space      20G, 1.2G held
    reserve    5.0G
""",
)
