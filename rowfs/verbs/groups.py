"""Consistency groups."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Family, Input, Kind, Param, Verb, flag, wire

# What names a group.
OF_GROUP = (
    Input("address", Kind.ADDRESS, metavar="MNT"),
    Input("name", Kind.TEXT, metavar="GROUP", params=(Param("group", Kind.NAME),)),
    Input(
        "number",
        Kind.NUMBER,
        flags=("--id",),
        help="Only if the group has this id, and was not made anew since.",
        params=(Param("id", Kind.NUMBER, required=False),),
    ),
)

GROUP_LIST = Verb(
    name="group list",
    place="groups:list_",
    about="List the groups, oldest first.",
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT", required=False),
        JSON,
    ),
    method="group_list",
    changes=False,
    result="array of group, oldest first, without `freed_if_deleted_bytes` (null)",
)

GROUP_INFO = Verb(
    name="group info",
    place="groups:info",
    about="Show what is known of a group, and what deleting it would free.",
    inputs=(
        *OF_GROUP,
        JSON,
    ),
    method="group_info",
    errors=(Failure("no such group", "ENOENT"),),
    changes=False,
    result="""\
group. Here and below, ENOENT when there is none of that name, or it has another `id`: it was made anew
""",
)

GROUP_ROLLBACK = Verb(
    name="group rollback",
    place="groups:rollback",
    about="Take all disks of a group back to it, or none.",
    text="""\
What they held until now is kept as the group before-rollback, which the next rollback of a group replaces. When a
snapshot of the group was deleted since, or a disk, nothing is rolled back, and the message says which.
""",
    inputs=(
        *OF_GROUP,
        flag("--force", "Even if disks are open or attached: whoever uses them sees them change.", on_socket=True),
        flag("--discard", "Do not keep the state before.", on_socket=True),
        JSON,
    ),
    method="group_rollback",
    errors=(
        Failure("no such group, or it is not whole any more: the message names what was deleted", "ENOENT"),
        Failure("a disk is open or attached, unless `--force`", "EBUSY"),
        Failure("a snapshot of the group `before-rollback`, which would be replaced, is [locked](#lock)", "EPERM"),
    ),
    changes=True,
    result="""\
`{"disks": [name…], "kept": "before-rollback" or null}`; `kept` is a group. ENOENT names what of the group or its
disks was deleted, BUSY who uses a disk; nothing is rolled back then
""",
)

GROUP_CLONE = Verb(
    name="group clone",
    place="groups:clone",
    about="Create a disk from each snapshot of a group, all of them or none, and print their addresses.",
    inputs=(
        *OF_GROUP,
        Input(
            "pattern",
            Kind.TEXT,
            flags=("--name",),
            help="{} is the disk's name, as in '{}-test'.",
            metavar="PATTERN",
            required=True,
            params=(Param("name", Kind.NAME),),
        ),
        JSON,
    ),
    method="group_clone",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("no such group, or it is not whole any more", "ENOENT"),
        Failure("a disk of such a name is there", "EEXIST"),
    ),
    changes=True,
    result="array of disk. All or none; `name` has `{}` where the name of each disk goes",
)

GROUP_DELETE = Verb(
    name="group delete",
    place="groups:delete",
    about="Delete a group with all its snapshots.",
    inputs=(
        *OF_GROUP,
        flag("--dry-run", "Change nothing; say what would go and what would come back.", on_socket=True),
        flag("--wait", "Return when what was freed can be used again.", on_socket=True),
        JSON,
    ),
    method="group_delete",
    errors=(
        Failure("no such group", "ENOENT"),
        Failure("a snapshot of it is [locked](#lock): none goes", "EPERM"),
    ),
    progress="bytes",
    changes=True,
    result='`{"snapshots": [{"disk": name, "snapshot": name}…], "freed_bytes": n, "trash": bool}`',
)

GROUP = Family(
    name="group",
    about="Consistency groups: snapshots of several disks that are of one point in time.",
    text="""\
rowfs snapshot --group NAME takes one. Its snapshots are in the chains of their disks as any others, and can be
deleted one by one: the group is degraded then, and goes with the last of them.
""",
    examples=(
        "rowfs snapshot /mnt/rowfs/db /mnt/rowfs/log --group before-upgrade",
        "rowfs group list",
        "rowfs group rollback /mnt/rowfs before-upgrade",
        "rowfs group clone /mnt/rowfs before-upgrade --name '{}-test'",
        "rowfs group delete /mnt/rowfs before-upgrade",
    ),
    verbs=(
        GROUP_LIST,
        GROUP_INFO,
        GROUP_ROLLBACK,
        GROUP_CLONE,
        GROUP_DELETE,
    ),
    manual="""\
A group has snapshots of several disks that are of one point in time; `rowfs snapshot --group` takes it. A write to
one of the disks that was begun when the sync of a write to another had returned is in the group only together with
that one: a database whose log is on a disk of its own, or a volume over several disks, finds in the clones of a group
what a power cut would have left. Single snapshots, one after the other, do not give that.

- **list**: the groups, oldest first. `whole`, or `degraded`: some of its snapshots were deleted alone, and it says of
  which disks. JSON: an array of groups.
- **info**: one group, its snapshots, and what deleting all of them would free. JSON: the group.
- **rollback**: all disks become what the group holds of them, or none does. What they were is kept as the group
  `before-rollback`, which the next rollback of a group replaces, unless `--discard`. Refused with the difference
  named when the group is degraded or a disk of it was deleted; while a disk is in use, unless `--force`. JSON: `disks
  kept`.
- **clone**: a disk from each snapshot, all of them or none. In `PATTERN`, `{}` is the disk's name as it was then.
  Refused when the group is degraded. JSON: an array of disks.
- **delete**: all its snapshots. JSON: `snapshots freed_bytes`.

The snapshots are in the chains of their disks as any others. Deleted one by one (`rm` too), they leave the group
degraded, and it goes with the last one. A renamed disk or snapshot stays in its group. With `--id`, as `info` shows
it, a group that was made anew under the name meanwhile is not meant.

    $ rowfs snapshot /mnt/rowfs/db /mnt/rowfs/log --group before-upgrade
    /mnt/rowfs/db@before-upgrade
    /mnt/rowfs/log@before-upgrade
    $ rowfs group rollback /mnt/rowfs before-upgrade
    db, log: are as at before-upgrade: the state before is kept as the group before-rollback
""",
)

GROUP_SNAPSHOT = Verb(
    name="group_snapshot",
    about="Take a snapshot of several disks, of one point in time.",
    inputs=(
        wire(
            Param("group", Kind.NAME),
            Param("disks", Kind.NAMES),
            Param("snapshots", Kind.NAMES, required=False),
            Param("description", Kind.TEXT, required=False),
            Param("freeze", Kind.FLAG, required=False),
            Param("freeze_timeout_s", Kind.SECONDS, required=False),
        ),
    ),
    method="group_snapshot",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("no such disk", "ENOENT"),
        Failure("the name of the group, or of a snapshot, is taken", "EEXIST"),
        Failure("not everything could be frozen in time", "ETIMEDOUT"),
    ),
    changes=True,
    result="""\
group. One point in time, one commit, 64 disks at most; whatever keeps one snapshot from being taken keeps all.
`snapshots`: a name for each of `disks`; without it each is called as the group. `freeze` as for `snapshot`, of all
file systems on any of the disks together
""",
)
