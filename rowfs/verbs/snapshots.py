"""Snapshots: taken, gone back to, made into disks."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, flag, selector, wire

SNAPSHOT = Verb(
    name="snapshot",
    place="snapshots:snapshot",
    about="Take a snapshot of each disk and print its address.",
    text="""\
Writers never wait for it, and it holds everything that was written to the disk's file before it was asked for. A file
system mounted from the disk is caught as by a power cut: its journal repairs it. Without @NAME a snapshot is called
as the disk, with date and time. A name has no comma and no two dots in a row: rowfs delete takes those for several.

With --freeze, file systems mounted from loop devices on the disk are frozen while it is taken: it holds them as after
an unmount, with all that programs had written. They are thawed whatever happens; if they cannot all be frozen in
time, no snapshot is taken.

With --group the snapshots are of one point in time, on up to 64 disks: what a program wrote to one of them when a
sync of another had returned is only there together with what was synced. See rowfs group.

With -l PATH is a mount, and all of its disks are meant that have such labels.
""",
    examples=(
        "rowfs snapshot /mnt/rowfs/vm1",
        'rowfs snapshot /mnt/rowfs/vm1@before --description "before the upgrade"',
        "rowfs snapshot --freeze /mnt/rowfs/vm1@clean",
        "rowfs snapshot /mnt/rowfs/db /mnt/rowfs/log --group before-upgrade",
        "rowfs snapshot /mnt/rowfs/vm*",
    ),
    inputs=(
        Input(
            "addresses",
            Kind.ADDRESS,
            metavar="PATH/DISK[@NAME]",
            many=True,
            params=(
                Param("disk", Kind.NAME),
                Param("snapshot", Kind.NAME, required=False),
            ),
        ),
        Input(
            "group",
            Kind.TEXT,
            flags=("--group",),
            help="All of one point in time, as the group NAME: all of them or none.",
            metavar="NAME",
        ),
        Input(
            "description",
            Kind.TEXT,
            flags=("--description",),
            help="What it is for; shown by rowfs info.",
            metavar="TEXT",
            params=(Param("description", Kind.TEXT, required=False),),
        ),
        flag("--freeze", "Freeze the file systems mounted from the disk meanwhile.", on_socket=True),
        Input(
            "freeze_timeout",
            Kind.SECONDS,
            flags=("--freeze-timeout",),
            help="The longest freeze; 10 seconds without it.",
            metavar="SECONDS",
            params=(Param("freeze_timeout_s", Kind.SECONDS, required=False),),
        ),
        selector(),
        wire(Param("temporary", Kind.FLAG, required=False)),
        JSON,
    ),
    method="snapshot",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("no such disk", "ENOENT"),
        Failure("the name is taken", "EEXIST"),
        Failure(
            "a name that is not allowed, a description of more than 65,536 bytes, `--freeze` where nothing is mounted",
            "EINVAL",
        ),
        Failure("with `--freeze` not everything could be frozen in time: no snapshot is taken", "ETIMEDOUT"),
        Failure("with `--group` whatever keeps one snapshot from being taken: there is none then"),
    ),
    changes=True,
    result="""\
snapshot, with `disk` added. With `temporary` it is deleted when the connection ends, and if the daemon is killed
before, when the pool is mounted again. Without a name: disk name, date and time. With `freeze` the file systems
mounted from loop devices on the disk are frozen meanwhile, for at most `freeze_timeout_s` (10): EINVAL when there are
none, ETIMEDOUT when that was not enough. A `description` has at most 65,536 bytes of text; half of a surrogate pair
is none
""",
    manual="""\
Takes a snapshot of each disk, one after the other, and prints their addresses. Writers never wait for it, and what
the kernel still cached for the disk's file is in it. Without `@name` it is called as the disk, with date and time.
JSON: an array of snapshots, each with its `disk`.

With `--freeze` the file systems mounted from loop devices on the disk are frozen meanwhile, for at most 10 seconds or
`--freeze-timeout`, and thawed whatever happens; the snapshot's `consistency` is `frozen` then.

With `--group NAME` the snapshots, of 64 disks at most, are of one point in time and become durable together:
[`group`](#group) tells what that is good for. Without `@name` each is called as the group. `--freeze` freezes what is
mounted from any of the disks, all at once; the snapshots of disks from which nothing is mounted are `crash`. JSON:
the group.

    $ rowfs snapshot /mnt/rowfs/vm1@before /mnt/rowfs/vm2
    /mnt/rowfs/vm1@before
    /mnt/rowfs/vm2@vm2-20261120-142501
""",
)

ROLLBACK = Verb(
    name="rollback",
    place="snapshots:rollback",
    about="Take a disk back to one of its snapshots.",
    text="""\
All its snapshots stay, newer ones too. What the disk held until now is kept as its snapshot before-rollback (with a
number behind it where you have one of that name), which the next rollback replaces. To see an old state elsewhere,
clone the snapshot instead.
""",
    examples=("rowfs rollback /mnt/rowfs/vm1@before",),
    inputs=(
        Input(
            "address",
            Kind.ADDRESS,
            metavar="PATH/DISK@NAME",
            params=(
                Param("disk", Kind.NAME),
                Param("snapshot", Kind.NAME),
            ),
        ),
        flag("--force", "Even if the disk is open or attached: whoever uses it sees it change.", on_socket=True),
        flag("--discard", "Do not keep the state before as a snapshot.", on_socket=True),
        JSON,
    ),
    method="rollback",
    errors=(
        Failure("no such snapshot", "ENOENT"),
        Failure(
            "the disk is open or attached, unless `--force`: whoever uses it then sees it change under its feet",
            "EBUSY",
        ),
        Failure("the snapshot `before-rollback`, which would be replaced, is [locked](#lock)", "EPERM"),
    ),
    changes=True,
    result='`{"kept": name or null}`; with a number behind `before-rollback` where a user\'s own is called so',
    manual="""\
Takes a disk back to one of its snapshots. All snapshots stay, newer ones too. What the disk held until now is kept as
its snapshot `before-rollback`, which the next rollback replaces, unless `--discard`. A snapshot of your own that is
called so stays, and so does one that you renamed: beside it the name is `before-rollback-2`. JSON: `kept`, that name
or null.

    $ rowfs rollback /mnt/rowfs/vm1@before
    /mnt/rowfs/vm1: is as it was at before: the state before is kept as /mnt/rowfs/vm1@before-rollback
""",
)

CLONE = Verb(
    name="clone",
    place="snapshots:clone",
    about="Create disks from a snapshot.",
    text="""\
Each TARGET is a path on the same mount, or a bare name. A clone shares what it does not write, and lives on when the
snapshot or its disk is deleted. Either all targets are made, or none.
""",
    examples=(
        "rowfs clone /mnt/rowfs/vm1@before /mnt/rowfs/vm2",
        "rowfs clone /mnt/rowfs/golden@v3 --count 50 --name 'vm-{:02}'",
    ),
    inputs=(
        Input(
            "address",
            Kind.ADDRESS,
            metavar="PATH/DISK@NAME",
            params=(
                Param("disk", Kind.NAME),
                Param("snapshot", Kind.NAME),
            ),
        ),
        Input(
            "targets",
            Kind.ADDRESS_TEXT,
            metavar="TARGET",
            many=True,
            required=False,
            params=(Param("targets", Kind.NAMES),),
        ),
        Input(
            "pattern",
            Kind.TEXT,
            flags=("--name",),
            help="Name of further targets, {} being the number: vm-{:02}.",
            metavar="PATTERN",
        ),
        Input(
            "number",
            Kind.NUMBER,
            flags=("--count",),
            help="How many targets --name makes, from 1.",
            least=1,
            most=10000,
        ),
        JSON,
    ),
    method="clone",
    errors=(
        Failure("a [limit](#limit) is reached", "EDQUOT"),
        Failure("no such snapshot", "ENOENT"),
        Failure("a target's name is taken", "EEXIST"),
        Failure("a target's name is not allowed", "EINVAL"),
    ),
    changes=True,
    result="array of disk. All or none",
    manual="""\
Creates disks from a snapshot, all of them or none, and prints their addresses. A `TARGET` is a path on the same mount
or a bare name. `--count` and `--name` together make further targets, numbered from 1; in `PATTERN`, `{}` is the
number and `{:02}` the number with two digits. A clone lives on when the snapshot or its disk is deleted. JSON: an
array of disks.

    $ rowfs clone /mnt/rowfs/golden@v3 --count 2 --name 'vm-{:02}'
    /mnt/rowfs/vm-01
    /mnt/rowfs/vm-02
""",
)
