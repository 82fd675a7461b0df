"""Disks as devices and as files elsewhere; the shell."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Verb, flag

EXPORT = Verb(
    name="export",
    place="export:export",
    about="Write a snapshot to FILE as a sparse raw image.",
    text="""\
Holes stay holes. FILE appears when it is complete; a failed export leaves nothing. With - as FILE everything goes to
stdout, holes as zeros. Without @NAME the disk is exported as it is now, through a snapshot that is deleted
afterwards.
""",
    examples=(
        "rowfs export /mnt/rowfs/vm1@before vm1.img",
        "rowfs export /mnt/rowfs/vm1 - | zstd > vm1.img.zst",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK[@NAME]"),
        Input("file", Kind.FILE),
        flag("--force", "Replace FILE if it is there."),
        JSON,
    ),
    errors=(
        Failure("`FILE` is there already, is no regular file, its directory is missing or full"),
        Failure("a block of the disk cannot be read"),
    ),
    changes=False,
    manual="""\
Writes a snapshot to `FILE` as a raw image. Holes stay holes. It is written under another name beside `FILE`
(`FILE.<random>.part`), and gets its own when all of it is on disk: an export that fails or is interrupted leaves
nothing. `--force` replaces a regular file. With `-` as `FILE` everything goes to stdout, holes as zeros.

Without `@name` the disk is exported as it is now, through a snapshot `export-<random>` of the kind `temporary`: it is
deleted afterwards, also when the export fails or is killed, and if the daemon is killed meanwhile, when the pool is
mounted again.

JSON: `file size_bytes mapped_bytes`; not together with `-`.

    $ rowfs export /mnt/rowfs/vm1@before vm1.img
    vm1.img: 20G, of it 1.1G data
    $ rowfs export /mnt/rowfs/vm1 - | zstd > vm1.img.zst
""",
)

ATTACH = Verb(
    name="attach",
    place="attach:attach",
    about="Attach a disk or a snapshot to a loop device, and print the device.",
    text="""\
Partitions are looked for where the kernel can. A disk is attached once, unless --read-only: two file systems on one
disk would destroy it. The device is gone with rowfs detach, or when the machine stops.
""",
    examples=(
        "rowfs attach /mnt/rowfs/vm1",
        'mount "$(rowfs attach /mnt/rowfs/vm1)" /mnt/vm1',
        'mount -o noload "$(rowfs attach /mnt/rowfs/vm1@before)" /mnt/before',
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK[@NAME]"),
        flag("--read-only", "Let nothing be written; snapshots are read-only anyway."),
        Input(
            "direct_io",
            Kind.FLAG,
            flags=("--direct-io",),
            off="--no-direct-io",
            help="Past the page cache of the file (the default), or through it.",
            default=True,
        ),
        JSON,
    ),
    errors=(
        Failure("no such disk or snapshot"),
        Failure("the disk is attached already"),
    ),
    changes=True,
    manual="""\
Attaches a disk or a snapshot to a loop device and prints the device. A snapshot is attached read-only. A disk is
attached once, unless read-only, by whatever path. Needs root.

A loop device has whole sectors of 512 bytes: of another size it leaves out the end, of which a line on stderr warns, as
`create` and `resize` do. JSON: `device disk snapshot read_only direct_io partitions`, and `left_out_bytes` where there
are any.

    $ rowfs attach /mnt/rowfs/vm1
    /dev/loop0
""",
)

DETACH = Verb(
    name="detach",
    place="attach:detach",
    about="Detach a disk or a snapshot from its loop devices, or one loop device.",
    text="""\
What was written to them is durable then. A device that is mounted, or otherwise in use, is not detached, nor is any
other one of the disk.
""",
    examples=(
        "rowfs detach /mnt/rowfs/vm1",
        "rowfs detach /dev/loop0",
    ),
    inputs=(
        Input("what", Kind.ADDRESS_TEXT, metavar="PATH/DISK[@NAME]|DEVICE"),
        JSON,
    ),
    errors=(
        Failure("it is not attached"),
        Failure("a device is mounted (the message says where) or in use"),
    ),
    changes=True,
    manual="""\
Detaches a disk or a snapshot from all its loop devices, or the one device. What was written to them is durable then.
""",
)

COMPLETION = Verb(
    name="completion",
    place="completion:completion",
    about="Print the completion script of a shell.",
    text="Disks are completed, and their snapshots behind an @.",
    examples=(
        'eval "$(rowfs completion bash)"        # in ~/.bashrc',
        'eval "$(rowfs completion zsh)"         # in ~/.zshrc',
        "rowfs completion fish > ~/.config/fish/completions/rowfs.fish",
    ),
    inputs=(
        Input(
            "shell",
            Kind.WORD,
            words=(
                "bash",
                "zsh",
                "fish",
            ),
        ),
    ),
    changes=False,
    manual="""\
Prints the script that makes the shell complete verbs, options, disks, and snapshots behind an `@`. In `~/.bashrc`:
`eval "$(rowfs completion bash)"`. For bash it takes `@` out of `COMP_WORDBREAKS`, for the whole shell.
""",
)
