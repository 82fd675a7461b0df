"""What there is, and what differs."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, flag, selector, wire

INFO = Verb(
    name="info",
    place="info:info",
    about="Show what is known of a mount, a disk or a snapshot.",
    text="""\
PATH is any of them, or the directory of a mounted pool. Without it: the rowfs mount, if there is only one.
""",
    examples=(
        "rowfs info",
        "rowfs info /mnt/rowfs/vm1",
        "rowfs info /mnt/rowfs/vm1@before --json",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH", required=False),
        JSON,
    ),
    method="info",
    errors=(Failure("no such disk or snapshot"),),
    changes=False,
    result="""\
`pid pool mountpoint uuid version format capacity_bytes used_bytes free_bytes sealed_bytes sealing damaged_bytes
read_only read_only_reason disks snapshots reclaiming owed_bytes owed_s hot warnings`; `format` is the pool's;
`sealed_bytes` of `used_bytes` have checksums that each read is held against, and `sealing` is true while there are more
to come; `damaged_bytes` of them are known not to be what was sealed; `disks` and `snapshots` are counts, `reclaiming`
is true while blocks of what was deleted are still being freed, `owed_bytes` of them at most (what a crash cut short
does not count), which takes some `owed_s` seconds (null: not known yet), `read_only_reason` is null or a line,
`warnings` an array of lines; `hot` counts the `reads`, `writes` and `syncs` that the C extension answered without
Python since the mount, and the `records` of the journal that it made for the latter
""",
    manual="""\
What is known of a mount, a disk or a snapshot. Without `PATH`: the rowfs mount, if there is exactly one. JSON: the
answer to `info`, or the disk or snapshot object. A disk's snapshots come without `freed_if_deleted_bytes` (null), a
snapshot itself with it. `trimmed` is what the disk's snapshots hold where the disk itself has nothing any more:
trimmed, zeroed or cut off, and not free before they are deleted. `sealed` is how much of what is used has checksums:
blocks that a snapshot holds get them in idle time, and each read of them is held against them. `damaged` is what was
found not to fit them since the mount, and is EIO when it is read.

    $ rowfs info
    pool        /srv/pool
    mounted on  /mnt/rowfs
    daemon      pid 4711, rowfs 0.1.0, format 1
    capacity    200G, 12G used, 188G free
    sealed      9.1G, 76 %
    holds       2 disks, 3 snapshots
    state       read-write
    $ rowfs info /mnt/rowfs/vm1
    disk          vm1
    size          20G (21474836480 bytes)
    mapped        1.2G
    created       2026-11-20 14:20:11
    modified      2026-11-20 15:10:02
    snapshots     2
    trimmed       300M held by snapshots
    open handles  1
    attached      /dev/loop0 on /mnt/vm1
""",
)

LIST = Verb(
    name="list",
    place="listing:list_",
    about="List disks and their snapshots, oldest first.",
    text="""\
PATH is a mount, a disk or a snapshot. Without it: the rowfs mount, if there is only one.

\b
MAPPED   what a disk has written at all, what a snapshot refers to
WRITTEN  what was written since the snapshot before
FREES    what comes back if only this snapshot is deleted
KIND     crash or frozen: whether the file systems on it were frozen first

With -l, disks that have such labels with all their snapshots, and of others the snapshots that have.

A pool that is nearly full, or read-only, is said on stderr.
""",
    examples=(
        "rowfs list",
        "rowfs list /mnt/rowfs/vm1",
        "rowfs list --json | jq -r '.[].name'",
    ),
    inputs=(
        Input(
            "addresses",
            Kind.ADDRESS,
            metavar="PATH",
            many=True,
            required=False,
            params=(Param("disks", Kind.NAMES, required=False),),
        ),
        flag(
            "--no-figures",
            "Leave out what deleting would free: answers at once.",
            params=(Param("figures", Kind.FLAG, required=False),),
        ),
        selector((Param("selector", Kind.TEXT, required=False),)),
        wire(Param("trimmed", Kind.FLAG, required=False)),
        JSON,
    ),
    method="list",
    errors=(Failure("no such disk", "ENOENT"),),
    progress="snapshots",
    changes=False,
    result="""\
array of disk, sorted by name, `snapshots` oldest first. With `selector`, by labels: disks that it chooses, and others
with those of their snapshots that it chooses. A name that neither a disk nor a deleted disk's chain has is ENOENT.
With `figures: false` the snapshots' `freed_if_deleted_bytes` is null and the answer is immediate; with `trimmed` the
disks' `trimmed_held_bytes` is counted
""",
    manual="""\
Disks by name, and below each its snapshots, oldest first. `PATH` is a mount, a disk or a snapshot; without it, the
rowfs mount, if there is exactly one. `--no-figures` leaves out what deleting would free, which may take a moment to
find out. JSON: an array of disks.

| column | disk | snapshot |
|---|---|---|
| SIZE | its size | the disk's size at that time |
| MAPPED | what is written at all | what it refers to |
| WRITTEN | | what was written since the snapshot before it |
| FREES | | what comes back if only this one is deleted |
| CREATED | local time | its point in time |
| KIND | `disk`, its devices with their mounts | `crash`, `frozen`; `rollback`, `temporary`; `locked`; its devices |

KIND says `damaged` of what was found to have blocks that are not what was sealed.

A deleted disk that left snapshots behind is shown as `deleted`. Below the table stands how much of what was deleted is
still to be freed, and how long that will take, where it is 64 MiB or more. When the pool is 85 % full or more, or
became read-only, a line on stderr says so (`rowfs: warning: …`), with `--json` too; `info` has the same lines in
`warnings`.

    $ rowfs list
    NAME       SIZE  MAPPED  WRITTEN  FREES  CREATED              KIND
    vm1         20G    1.2G                  2026-11-20 14:20:11  disk, /dev/loop0 on /mnt/vm1
      @before   20G    1.1G     1.1G   5.0M  2026-11-20 14:25:01  crash
      @after    20G    1.2G      80M   2.0M  2026-11-20 15:02:40  crash
""",
)

DIFF = Verb(
    name="diff",
    place="diff:diff",
    about="Show what changed on a disk between two snapshots.",
    text="""\
Without a second address: until now. Of a disk without a snapshot: all of it that is not zero. Ranges are in bytes, in
order, and come from the block map: no data is read.
""",
    examples=(
        "rowfs diff /mnt/rowfs/vm1@monday",
        "rowfs diff /mnt/rowfs/vm1@monday /mnt/rowfs/vm1@tuesday",
        "rowfs diff /mnt/rowfs/vm1@monday..tuesday",
    ),
    inputs=(
        Input(
            "earlier",
            Kind.ADDRESS,
            metavar="PATH/DISK[@A]",
            params=(
                Param("disk", Kind.NAME),
                Param("from_snapshot", Kind.NAME, required=False),
            ),
        ),
        Input(
            "later",
            Kind.ADDRESS,
            metavar="PATH/DISK[@B]",
            required=False,
            params=(Param("to_snapshot", Kind.NAME, required=False),),
        ),
        JSON,
    ),
    method="diff",
    errors=(
        Failure("no such disk or snapshot", "ENOENT"),
        Failure("the two are of different disks", "EINVAL"),
    ),
    changes=False,
    result="""\
`{"changed_bytes": n}` after parts of `[offset_bytes, length_bytes, "data" or "zero"]`, in order, for what differs in
the second against the first, whichever is older. Without `from_snapshot`: all of it that is not zero; without
`to_snapshot`: the disk as it is now
""",
    manual="""\
Prints the ranges of a disk that differ between two snapshots, in bytes and in order, and a total. It reads the block
map, not the data. `data`: written; `zero`: reads as zeros now.

| addresses | from | to |
|---|---|---|
| `vm1@a vm1@b`, `vm1@a..b` | snapshot `a` | snapshot `b` |
| `vm1@a`, `vm1@a vm1`, `vm1@a..` | snapshot `a` | the disk as it is now |
| `vm1@..b` | nothing: all that is not zero | snapshot `b` |
| `vm1` | nothing: all that is not zero | the disk as it is now |

JSON: `ranges`, an array of `[offset_bytes, length_bytes, kind]`, and `changed_bytes`.

    $ rowfs diff /mnt/rowfs/vm1@before
            OFFSET          LENGTH  KIND
           1048576            8192  data
         536870912           65536  zero
    72K changed in 2 ranges
""",
)

EXTENTS = Verb(
    name="extents",
    about="Where a disk or a snapshot holds data.",
    inputs=(wire(Param("disk", Kind.NAME), Param("snapshot", Kind.NAME, required=False)),),
    method="extents",
    errors=(Failure("no such disk or snapshot", "ENOENT"),),
    changes=False,
    result='`{"size_bytes": n, "mapped_bytes": n}` after parts of `[offset_bytes, length_bytes]` that hold data',
)

HOLD = Verb(
    name="hold",
    about="Keep the last commit of the map as it is, for who reads its file.",
    inputs=(),
    method="hold",
    changes=False,
    result="`{}`. Until the connection ends, no page that the map's last commit has, or one after it, is used again: "
    "who reads its file meanwhile, as `rowfs check` does, finds them whole",
)
