"""Disks: made, resized, renamed, deleted, with their snapshots."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, flag, selector, wire

CREATE = Verb(
    name="create",
    place="disks:create",
    about="Create an empty disk of SIZE.",
    text="It takes no space until it is written. The same as truncate -s SIZE PATH/DISK.",
    examples=(
        "rowfs create /mnt/rowfs/vm1 20G",
        "cd /mnt/rowfs && rowfs create vm2 1.5T",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK", params=(Param("disk", Kind.NAME),)),
        Input("size", Kind.SIZE, params=(Param("size_bytes", Kind.SIZE),)),
        wire(Param("mode", Kind.NUMBER, required=False)),
        JSON,
    ),
    method="create",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("the name is taken", "EEXIST"),
        Failure("the name is not allowed; the size is none, or over 16 TiB", "EINVAL"),
    ),
    changes=True,
    result="disk",
    manual="""\
Creates an empty disk. It takes no space until it is written. The same as `truncate -s SIZE MNT/disk`. JSON: the disk.

    $ rowfs create /mnt/rowfs/vm1 20G
    /mnt/rowfs/vm1: created, 20G
""",
)

RESIZE = Verb(
    name="resize",
    place="disks:resize",
    about="Change the size of a disk.",
    text="""\
With + or - in front, SIZE is how much to add or take away. What lies past a smaller size is gone from the disk; its
snapshots keep their own size and what they hold. Loop devices that the disk is attached to follow.
""",
    examples=(
        "rowfs resize /mnt/rowfs/vm1 30G",
        "rowfs resize /mnt/rowfs/vm1 +10G",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK", params=(Param("disk", Kind.NAME),)),
        Input("size", Kind.SIZE_CHANGE, params=(Param("size_bytes", Kind.SIZE),)),
        flag("--force", "Make the disk smaller although it is attached to a loop device.", on_socket=True),
        JSON,
    ),
    method="resize",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("no such disk", "ENOENT"),
        Failure("the new size would be negative or over 16 TiB", "EINVAL"),
        Failure(
            "the disk is attached to a loop device and would become smaller: shrink the file system first, detach it, "
            "or use `--force`",
            "EBUSY",
        ),
    ),
    changes=True,
    result="disk. A disk attached to a loop device is not made smaller without `force`: EBUSY",
    manual="""\
Changes the size, with `+` or `-` relative to what it is. What lies past a smaller size is gone from the disk;
snapshots keep their own size and contents. JSON: the disk.

Loop devices on the disk get the new size, too; what is on them (partitions, a file system) is for its own tools to
grow. Only root may tell a device: without, a line on stderr says how (`losetup -c /dev/loopN`), as it has to be done
after `truncate` as well.

    $ rowfs resize /mnt/rowfs/vm1 +10G
    /mnt/rowfs/vm1: resized to 30G
""",
)

RENAME = Verb(
    name="rename",
    place="disks:rename",
    about="Rename a disk, or a snapshot within its chain.",
    text="NEW is a path on the same mount, or a bare name. Whoever has the disk open keeps it.",
    examples=(
        "rowfs rename /mnt/rowfs/vm1 /mnt/rowfs/web",
        "rowfs rename /mnt/rowfs/vm1@before @before-upgrade",
    ),
    inputs=(
        Input("old", Kind.ADDRESS, params=(Param("disk", Kind.NAME),)),
        Input("new", Kind.ADDRESS_TEXT, params=(Param("to", Kind.NAME),)),
        wire(Param("snapshot", Kind.NAME, required=False)),
        JSON,
    ),
    method="rename",
    errors=(
        Failure("no such disk or snapshot", "ENOENT"),
        Failure("`NEW` is taken", "EEXIST"),
        Failure("`NEW` is on another mount, or would put a snapshot into another disk's chain", "EINVAL"),
    ),
    changes=True,
    result="`{}`. With `snapshot`: that snapshot of `disk` is renamed to `to` within its chain",
    manual="""\
Renames a disk, or a snapshot within its chain. `NEW` is an address on the same mount, or a bare name (for a snapshot:
`b` or `@b`).

    $ rowfs rename /mnt/rowfs/vm1@before @before-upgrade
    /mnt/rowfs/vm1@before: is now /mnt/rowfs/vm1@before-upgrade
""",
)

TRIM = Verb(
    name="trim",
    place="trim:trim",
    about="Give back the space of all blocks of a disk that are zeros.",
    text="""\
All of the disk is read for it; it may be in use meanwhile. A guest's own trim (fstrim, discard) gives space back at
once, and zeros that are written do after five minutes: this is for who will not wait, and for zeros of long ago.
""",
    examples=(
        "rowfs trim /mnt/rowfs/vm1",
        "rowfs trim --dry-run /mnt/rowfs/vm1",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK", params=(Param("disk", Kind.NAME),)),
        flag("--dry-run", "Say how much of the disk is zeros, and change nothing.", on_socket=True),
        JSON,
    ),
    method="trim",
    errors=(
        Failure("no such disk", "ENOENT"),
        Failure("the pool is read-only", "EROFS"),
    ),
    progress="bytes",
    changes=True,
    result="""\
`{"trimmed_bytes": n, "freed_bytes": n}`: so much of the disk was zeros and is holes now, and so much of that nothing
else holds. With `dry_run` nothing is changed, and `freed_bytes` is 0
""",
    manual="""\
Reads a disk and makes holes of all its blocks that are zeros. The disk may be in use. What snapshots or clones hold
comes back when they are deleted. `--dry-run` only says how much is zeros. JSON: `trimmed_bytes`, which are holes now,
or would be; `freed_bytes`, what of it came back.

A guest's discard is faster: it knows what is free, and reads nothing ([LINUX.md](LINUX.md#giving-space-back) has all
ways).

    $ rowfs trim /mnt/rowfs/vm1
    /mnt/rowfs/vm1: 3.0M of zeros are holes now, 1.0M came back
""",
)

DELETE = Verb(
    name="delete",
    place="deletion:delete",
    about="Delete disks and snapshots.",
    text="""\
No other snapshot, clone or disk is changed by it. A name is gone at once, and what only it held is freed in the
background. Behind an @ may stand a range by place in the chain (either end may be left out) or a list.

A deleted disk leaves its snapshots behind, and disks can be cloned from them. The path .snapshots/DISK names them
all. With -l ADDRESS is a mount or a disk, and those of its snapshots go that have such labels; no disk does.

A locked snapshot is not deleted, and neither is what would go together with it (see rowfs lock).
""",
    examples=(
        "rowfs delete /mnt/rowfs/vm1@before",
        "rowfs delete --dry-run /mnt/rowfs/vm1@monday..friday",
        "rowfs delete /mnt/rowfs/vm1@a,b,c",
        "rowfs delete --dry-run /mnt/rowfs/vm1@a /mnt/rowfs/vm2@b..d /mnt/rowfs/clone",
        "rowfs delete /mnt/rowfs/vm1 --snapshots delete",
        "rowfs delete /mnt/rowfs/.snapshots/vm1",
        "rowfs delete -l env=test /mnt/rowfs",
    ),
    inputs=(
        Input(
            "addresses",
            Kind.ADDRESS,
            metavar="ADDRESS",
            many=True,
            params=(
                Param("disk", Kind.NAME),
                Param("snapshots", Kind.NAMES, required=False),
            ),
        ),
        Input(
            "snapshots",
            Kind.WORD,
            flags=("--snapshots",),
            help="What becomes of the snapshots of a deleted disk.",
            words=(
                "keep",
                "delete",
            ),
            default="keep",
            params=(
                Param("all_snapshots", Kind.FLAG, required=False),
                Param("keep_disk", Kind.FLAG, required=False),
            ),
        ),
        flag("--dry-run", "Change nothing; say what would go and what would come back.", on_socket=True),
        flag("--force", "Delete a disk although it is attached to a loop device.", on_socket=True),
        flag("--wait", "Return when what was freed can be used again.", on_socket=True),
        selector(),
        JSON,
    ),
    method="delete",
    errors=(
        Failure("no such disk or snapshot", "ENOENT"),
        Failure("the disk is attached to a loop device, unless `--force`", "EBUSY"),
        Failure("a snapshot is [locked](#lock): it stays, and what would go together with it", "EPERM"),
    ),
    progress="bytes",
    changes=True,
    result="""\
`{"disk": bool, "snapshots": [name…], "freed_bytes": n, "trash": bool}`. With `trash` it went there, and nothing comes
back yet. With `snapshots`: those are deleted and the disk is not touched; a range is by place in the chain, both ends
included, and either may be left out (`..c`, `a..`); a snapshot whose name looks like a range is meant before the
range is. Without: the disk is deleted and its snapshots stay, unless `all_snapshots`. `all_snapshots` with
`keep_disk`: the whole chain. `freed_bytes`: what comes back, together, once reclaimed. `dry_run` changes nothing. A
disk attached to a loop device is EBUSY without `force`. A locked snapshot is EPERM, and nothing is deleted, with
`dry_run` too. `wait` answers when everything is reclaimed
""",
    manual="""\
Deletes disks and snapshots. No other snapshot, clone or disk is changed by it. Names are gone at once; what only they
held is freed in the background, or before the command returns with `--wait`. `--dry-run` changes nothing and tells
what would come back.

| address | deletes |
|---|---|
| `MNT/vm1` | the disk. Its snapshots stay in `MNT/.snapshots/vm1`, unless `--snapshots delete` |
| `MNT/vm1@a` | that snapshot |
| `MNT/vm1@a..c` | from `a` to `c`, by place in the chain. `@..c`: from the oldest on; `@a..`: up to the newest |
| `MNT/vm1@a,b,d..f` | all of these |
| `MNT/.snapshots/vm1` | all snapshots of the disk, which stays |

A snapshot of an older rowfs whose name looks like a range or a list is meant before a range or list is; its path
`MNT/.snapshots/vm1/name` always means it. Of several addresses on a mount all go, in one commit, or none; what comes
back is that of all together, which is more than the sum of what each alone would free where they share blocks. JSON: an
array with the answer for each disk; of several, each has its `name`, and their `freed_bytes` add up to what comes back.

A disk that is attached to a loop device is not deleted unless `--force`: who works on it would go on with what nobody
sees any more, and its blocks come back only when it is detached. A disk that is open otherwise lives on, as a file
does, until it is closed; what it held comes back then. `rm`, and `mv` of another disk over it, ask nobody, as with
any file: an attached disk, too, is gone from the mount then, and lives on in its loop device until that is detached.

    $ rowfs delete --dry-run /mnt/rowfs/vm1@a..c
    /mnt/rowfs/vm1@a, /mnt/rowfs/vm1@b, /mnt/rowfs/vm1@c: would be deleted, 1.2G would come back
    $ rowfs delete /mnt/rowfs/vm1
    /mnt/rowfs/vm1: deleted, 300M comes back
    3 snapshots stay in /mnt/rowfs/.snapshots/vm1 (delete that, or use --snapshots delete)
    $ rowfs delete --dry-run /mnt/rowfs/golden@v1 /mnt/rowfs/ci-01
    /mnt/rowfs/golden@v1: would be deleted
    /mnt/rowfs/ci-01: would be deleted
    together 2.1G would come back
""",
)

DELETE_SEVERAL = Verb(
    name="delete_several",
    about="Delete disks and snapshots of several disks together.",
    inputs=(
        wire(
            Param("addresses", Kind.NAMES),
            Param("all_snapshots", Kind.FLAG, required=False),
            Param("dry_run", Kind.FLAG, required=False),
            Param("force", Kind.FLAG, required=False),
            Param("wait", Kind.FLAG, required=False),
        ),
    ),
    method="delete_several",
    errors=DELETE.errors,
    progress="bytes",
    changes=True,
    result="""\
`{"deleted": [{"name": disk, …}…], "freed_bytes": n}`, with one object for each disk, as `delete` answers. An address is
`disk`, `disk@snapshot`, `disk@a..c` or `disk@`, which means all its snapshots, as `all_snapshots` does of the disks
that go. All or none, in one commit. `freed_bytes`: what comes back, together; those of the disks add up to it, and what
several hold together counts in one of them
""",
)
