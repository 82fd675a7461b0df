"""Pools: made, mounted, unmounted, checked."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Verb, flag

OTHER_OWNER = flag("--other-owner", "Trust another user, whose POOL is, and who can change it at any moment.")

HELLO = Verb(
    name="hello",
    about="Which mount a daemon serves.",
    method="hello",
    result="`pid version pool mountpoint device read_only`: the mount it serves. `device`: its number, major:minor",
    changes=False,
)

INIT = Verb(
    name="init",
    place="pools:init",
    about="Make a pool in the directory POOL.",
    text="The directory is created, or must be empty.",
    examples=(
        "rowfs init /srv/pool",
        "rowfs init /srv/pool --capacity 200G",
    ),
    inputs=(
        Input("pool", Kind.DIRECTORY),
        Input(
            "capacity",
            Kind.SIZE,
            flags=("--capacity",),
            help="The most its data may take; without it, all of the host file system.",
        ),
        OTHER_OWNER,
        JSON,
    ),
    errors=(
        Failure("`POOL` is a pool already, is no directory, is not empty, cannot be written"),
        Failure("it belongs to another user: see [mount](#mount)"),
        Failure("a capacity below 1 MiB"),
    ),
    changes=True,
    manual="""\
Makes a pool in the directory `POOL`, which is created, or must be empty. `--capacity` is the most that its data may
take; without it, all of the host file system. JSON: `pool capacity_bytes`.

    $ rowfs init /srv/pool --capacity 200G
    /srv/pool: a pool now; mount it with rowfs mount /srv/pool DIR
""",
)

MOUNT = Verb(
    name="mount",
    place="mounting:mount",
    about="Mount POOL on the directory MNT.",
    text="""\
Returns when the mount is ready for use; its daemon runs on in the background and writes to POOL/rowfs.log.
""",
    examples=(
        "rowfs mount /srv/pool /mnt/rowfs",
        "rowfs mount /srv/pool /mnt/rowfs --cache 256M --allow-other",
    ),
    inputs=(
        Input("pool", Kind.DIRECTORY),
        Input("mountpoint", Kind.DIRECTORY, metavar="MNT"),
        flag("--foreground", "Stay in the foreground; Ctrl-C unmounts.", short="-f"),
        Input(
            "options",
            Kind.TEXT,
            flags=("-o",),
            help="Mount options: ro, allow_other, cache=SIZE, uid=USER, gid=GROUP, umask=MODE, zeros=SECONDS, "
            "other_owner, norecovery.",
            metavar="OPT[,OPT]...",
            many=True,
        ),
        flag("--read-only", "Let nothing be changed (-o ro)."),
        flag("--allow-other", "Let other users use the mount (-o allow_other)."),
        Input("cache", Kind.SIZE, flags=("--cache",), help="Memory for the block map (-o cache=BYTES)."),
        OTHER_OWNER,
        JSON,
    ),
    errors=(
        Failure(
            "what the daemon says on starting (`POOL` is no pool, of a newer format, mounted; `MNT` is no directory)"
        ),
        Failure("what libfuse and `fusermount3` say (`allow_other` needs `user_allow_other` in `/etc/fuse.conf`)"),
        Failure("`MNT` shows a pool already"),
        Failure("the pool, or a file of it, belongs to another user, or is none of a pool's"),
    ),
    changes=True,
    manual="""\
Starts the pool's daemon and returns when the mount is ready. The daemon runs on in the background and writes to
`POOL/rowfs.log`; with `-f` it stays in the foreground. `--read-only` is `-o ro`, `--allow-other` is `-o allow_other`,
`--cache 64M` is `-o cache=67108864`. JSON: the object of `rowfs info`.

A pool that belongs to another user than root and the one who mounts is refused, and so is a file in it of another
user, with a second name (a hard link), or that is a symbolic link, a pipe or a device: whoever may write to the
directory could have any file of the machine opened by root, and written over. `--other-owner` (`-o other_owner`)
trusts the user whose pool it is. `init` and `check` have the same rule, and the same option.

On a host that is read-only, or where the pool's files are, it can be mounted with `-o ro`: nothing is written then, not
even a log. If it was not unmounted in order, what was synced last is in its journal alone, which has to be put into the
map first; `-o ro,norecovery` shows the pool without that, as its last commit left it.

`-o remount,ro` lets nothing be changed on a live mount, by verbs neither, and `-o remount,rw` takes that back, as
root; `mount -o remount,ro MNT` does the same. A pool that was mounted with `ro` is mounted anew for writing.

    $ rowfs mount /srv/pool /mnt/rowfs
    /srv/pool: mounted on /mnt/rowfs
""",
)

UMOUNT = Verb(
    name="umount",
    place="mounting:umount",
    about="Unmount a pool.",
    text="""\
Returns when everything is durable and the daemon is gone. MNT is any path on the mount, or the pool's directory. A
mount whose daemon has died is taken away too.
""",
    examples=("rowfs umount /mnt/rowfs",),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT"),
        flag("--force", "Even if it is in use: who uses it gets errors from then on.", on_socket=True),
        JSON,
    ),
    method="umount",
    errors=(
        Failure(
            "the mount is in use, or mounted a second time (`mount --bind`): the message names by whom, or where",
            "EBUSY",
        ),
        Failure(
            "not everything could be made durable: the host failed or is full; what was acknowledged before is there",
            "EIO",
        ),
    ),
    changes=True,
    result="""\
`{}` once unmounted and durable; then the daemon ends. BUSY names who uses the mount, or where else it is mounted
""",
    manual="""\
Unmounts and returns when everything is durable and the daemon's process is gone. A mount whose daemon has died is
taken away with `fusermount3 -u` (`--force`: also while somebody still has files open there, `-z`).

`--force` unmounts whatever is in the way, other places where it is mounted too. When another mount namespace (a
container) keeps the mount, it is gone here, and the daemon ends with that namespace; the message names a process in
it. It also unmounts when what the kernel has cached cannot be stored any more.

    $ rowfs umount /mnt/rowfs
    /srv/pool: unmounted from /mnt/rowfs
""",
)

CHECK = Verb(
    name="check",
    place="check:check",
    about="Check the block map of POOL. Nothing is changed without --repair.",
    text="""\
A mounted pool can be checked too, but not repaired: what is looked at is its last commit.

Exit codes: 0 clean (or all mended), 1 problems found, 2 not usable as a pool at all.
""",
    examples=(
        "rowfs check /srv/pool",
        "rowfs check /srv/pool --repair",
        "rowfs check /srv/pool --data",
    ),
    inputs=(
        Input("pool", Kind.DIRECTORY),
        flag("--repair", "Mend what follows from the rest: bitmaps, the change index, figures."),
        flag("--data", "Read all blocks that are sealed, too, and hold them against their checksums."),
        OTHER_OWNER,
        JSON,
    ),
    changes=True,
    manual="""\
Holds the block map of `POOL` against its invariants, and the journal against itself, and prints what is wrong, one line
each. Nothing is changed. A mounted pool can be checked too: what is looked at is its last commit, without the journal.
Exit codes: 0 clean, 1 problems found, 2 not usable as a pool at all. JSON: `pool usable findings mended`.

`--repair` mends, in a pool that is not mounted, what follows from the rest: bitmaps of the free space, how many own a
block, counts, lists of what is being freed. It guesses nothing and removes nothing that a disk or snapshot names: if
one finding cannot be mended so, nothing is changed. What only describes a disk or snapshot and cannot be (a time past
2262, a name with a slash) gets what stands for it while the pool is mounted: [FORMAT.md](FORMAT.md#records) has the
list.

`--data` also reads every sealed block (what snapshots hold: see `rowfs info`) of a pool that is not mounted, and names
each that is not what was sealed, with the disks and snapshots that see it and where. `--repair` mends none of that.

    $ rowfs check /srv/pool
    /srv/pool: clean
""",
)
