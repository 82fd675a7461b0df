"""The trash."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Family, Input, Kind, Param, Verb

TRASH = Verb(
    name="trash",
    place="trash:trash",
    about="Show whether there is a trash, and for how long it keeps things; or set that.",
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT"),
        Input(
            "keep",
            Kind.TEXT,
            flags=("--keep",),
            metavar="SPAN",
            help="Keep what is deleted for so long, as 7d; off: delete at once.",
            params=(Param("keep", Kind.TEXT, required=False),),
        ),
        JSON,
    ),
    method="trash",
    changes=True,
    result="""\
`{"keep": span or null, "entries": n}`. `keep`: a span of at least an hour, as `7d`, or `off`; null: there is no trash
""",
)

TRASH_LIST = Verb(
    name="trash list",
    place="trash:list_",
    about="List what is in the trash, oldest first, and what comes back when it is emptied.",
    inputs=(Input("address", Kind.ADDRESS, metavar="MNT", required=False), JSON),
    method="trash_list",
    changes=False,
    result="array of trash entry, oldest first",
)

TRASH_EMPTY = Verb(
    name="trash empty",
    place="trash:empty",
    about="Delete for good what is in the trash, or single entries of it.",
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT"),
        Input(
            "numbers",
            Kind.NUMBER,
            metavar="ID",
            many=True,
            required=False,
            params=(Param("id", Kind.NUMBER, required=False),),
        ),
        JSON,
    ),
    method="trash_empty",
    errors=(Failure("there is nothing with that id in the trash", "ENOENT"),),
    changes=True,
    result='`{"entries": n, "freed_bytes": n}`. Without `id`: all of it',
)

TRASH_FAMILY = Family(
    name="trash",
    about="Keep what is deleted for a while: list it, empty it, and get it back with undelete.",
    otherwise="trash",
    verbs=(TRASH, TRASH_LIST, TRASH_EMPTY),
    text="""\
Off until --keep says for how long. Then what a verb, rm or mv deletes goes to the trash: it is gone from the mount, and
comes back with rowfs undelete. It is deleted for good after that time, by hand, and oldest first before a writer would
be told that there is no space.
""",
    examples=(
        "rowfs trash /mnt/rowfs --keep 7d",
        "rowfs trash list",
        "rowfs undelete /mnt/rowfs/vm1@before",
        "rowfs trash empty /mnt/rowfs",
    ),
    manual="""\
Off until `--keep` says for how long (an hour at least), for disks and snapshots alike. Then what the verbs `delete` and
`group delete`, `rm`, and `mv` over a disk take away goes to the trash: it is gone from the mount, nothing lists it, and
`rowfs undelete` brings it back. A disk goes there as it is at that moment; who has it open may go on, but what is
written then is not kept. What a policy expires, what a rollback replaces and what an export leaves is deleted at once.

It is deleted for good when its time is over (looked for every minute while the pool is mounted), with `trash empty`,
and, the oldest that frees something first, when space runs out: before a writer gets ENOSPC. With `--keep off` nothing
more goes there, and what is there stays until one of the latter two. `delete` says that nothing comes back yet;
`trash list` says what would. Of a disk that `rm` deletes while it is attached or open, what only Linux has cached is
not kept. A locked snapshot is not deleted, and so not in the trash.

JSON: `keep entries`; `trash list`: an array; `trash empty`: an array of `entries freed_bytes`.

    $ rowfs trash /mnt/rowfs --keep 7d
    what is deleted stays in the trash for 1w; nothing is in it
    $ rowfs delete /mnt/rowfs/vm1@before
    /mnt/rowfs/vm1@before: deleted, into the trash
    $ rowfs trash list
    ID  NAME         SIZE  FREES  DELETED              UNTIL
     9  vm1@before    20G   5.0M  2026-11-20 14:25:01  2026-11-27 14:25:01
""",
)

UNDELETE = Verb(
    name="undelete",
    place="trash:undelete",
    about="Take a disk or a snapshot out of the trash.",
    text="""\
To its old place, or under another name with --name. A disk comes back with the snapshots that were deleted with it. Of
several that were deleted under one name the last is meant, or that with the --id that rowfs trash list shows.
""",
    examples=(
        "rowfs undelete /mnt/rowfs/vm1@before",
        "rowfs undelete /mnt/rowfs/vm1 --name vm1-old",
    ),
    inputs=(
        Input(
            "address",
            Kind.ADDRESS,
            metavar="PATH/DISK[@NAME]",
            params=(Param("disk", Kind.NAME), Param("snapshot", Kind.NAME, required=False)),
        ),
        Input(
            "number",
            Kind.NUMBER,
            flags=("--id",),
            help="The entry with this id.",
            params=(Param("id", Kind.NUMBER, required=False),),
        ),
        Input(
            "name",
            Kind.NAME,
            flags=("--name",),
            metavar="NAME",
            help="What it shall be called.",
            params=(Param("name", Kind.NAME, required=False),),
        ),
        JSON,
    ),
    method="undelete",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("it is not in the trash", "ENOENT"),
        Failure("the name is taken: the message offers another", "EEXIST"),
    ),
    changes=True,
    result='`{"disk": name, "snapshot": name or null}`, where it is now. EEXIST offers another name',
    manual="""\
To its old place in the chain, or under another name with `--name`. A snapshot whose disk is gone comes back to what is
left of its chain, or begins one. A disk comes back with the snapshots that were deleted together with it, and goes on
with those that stayed. Of several that were deleted under one name the last is meant, or that with the `--id` that
`rowfs trash list` shows. JSON: `disk snapshot`.

    $ rowfs undelete /mnt/rowfs/vm1@before
    /mnt/rowfs/vm1@before: is back
""",
)
