"""A picture of a chain."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, flag

PLOT = Verb(
    name="plot",
    place="plot:plot",
    about="Draw a disk's chain: its snapshots, rollbacks and clones, and what they hold.",
    text="An SVG picture, for browsers and documents. Without -o it goes to stdout.",
    examples=(
        "rowfs plot /mnt/rowfs/vm1 -o chain.svg",
        "rowfs plot /mnt/rowfs/.snapshots/gone > chain.svg",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK", params=(Param("disk", Kind.NAME),)),
        Input(
            "file", Kind.FILE, flags=("-o", "--output"), metavar="FILE", help="Write the picture to FILE.", default="-"
        ),
        flag("--force", "Replace FILE if it is there already."),
        JSON,
    ),
    method="history",
    errors=(
        Failure("no such disk", "ENOENT"),
        Failure("`FILE` is there already, unless `--force`, or cannot be written"),
    ),
    progress="snapshots",
    changes=False,
    result="""\
`{"disk": name, "steps": [step…], "clones": [{"disk", "deleted", "size_bytes", "mapped_bytes", "after"}…]}`. A step is a
snapshot of the disk, oldest first, or (`snapshot` null) the disk itself, the last one if it is not deleted:
`{"snapshot", "kind", "consistency", "created", "size_bytes", "mapped_bytes", "written_bytes", "freed_if_deleted_bytes",
"locked", "after", "rolled_back"}`. `after`: `{"disk", "snapshot"}` of what it goes on from, null: nothing that is still
there; `rolled_back`: because the disk was taken back to that
""",
    manual="""\
Time runs downwards: a circle is a snapshot, a ring the disk as it is now, a square a clone. A line leads from each to
what was written on from it; a dashed one to where a rollback began, into a column of its own. Beside each stand what it
has (MAPPED), what was written since the one before (WRITTEN) and what comes back if it alone is deleted (FREES), as
numbers and as bars. What a chain was cloned from is at its top. Works for the chain of a deleted disk, too:
`MNT/.snapshots/DISK`.

The picture is plain SVG 1.1 without scripts, fonts or links. JSON: what it is drawn from, as on the socket, and nothing
is written.

    $ rowfs plot /mnt/rowfs/vm1 -o chain.svg
    chain.svg: 3 snapshots of /mnt/rowfs/vm1
""",
)
