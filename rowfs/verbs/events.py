"""What happened."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Input, Kind, Param, Verb, flag, wire

EVENTS = Verb(
    name="events",
    place="events:events",
    about="Show what happened in a pool, what failed, and who did it.",
    text="""\
The newest 4,096 events are kept, across mounts and crashes. They are numbered without a gap: who goes on with --after
hears how many are missing, if there are. What is shown is durable.

With --json and --follow each event is a document on a line of its own.
""",
    examples=("rowfs events", "rowfs events /mnt/rowfs --since 1h", "rowfs events --follow --json"),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT", required=False),
        Input(
            "since",
            Kind.TEXT,
            flags=("--since",),
            metavar="TIME",
            help="Only what happened since: 2026-11-20, '2026-11-20 14:00', or 1h ago.",
            params=(Param("since", Kind.TEXT, required=False),),
        ),
        Input(
            "after",
            Kind.NUMBER,
            flags=("--after",),
            metavar="NUMBER",
            least=0,
            help="Only what came after the event NUMBER.",
            params=(Param("after", Kind.NUMBER, required=False),),
        ),
        flag("--follow", "Go on with what happens from now on, until interrupted or unmounted."),
        wire(Param("wait_s", Kind.SECONDS, required=False)),
        JSON,
    ),
    method="events",
    changes=False,
    result="""\
`{"last": number, "lost": n, "ending": bool}` after parts of event, oldest first: those after the number `after`, and
since the time `since` (or a span ago, as `1h`), as far as they are durable. `last`: with what to go on as `after`;
`lost`: how many after `after` are no longer kept. With `wait_s`, up to 30, the answer waits for the next one; with
`ending` there will be none, the pool is being unmounted
""",
    manual="""\
What happened in a pool, oldest first: disks and snapshots made, renamed, resized, rolled back, cloned, labelled,
locked and deleted, groups, mounts, what failed and why; each with its time, the user, process and program that asked
for it (plain tools too: `rm`, `touch`, `mv`), and the size of the disk or snapshot. The newest 4,096 are kept, across
mounts and crashes. An event is in the same commit as what it tells of, and is shown when that is durable; one of
something that failed comes with the next commit, 5 seconds later at most. `--since` is a date, a time, or a span ago
as `1h`. A snapshot that an export takes and deletes is not told.

That the pool or its mount became `read-only`, and `writable` again, is an event, too; where a failed commit is why,
nothing more can be stored, so `rowfs info` and the log say it at once, and the events have it from the next mount on.
`check` tells what came of looking at the block map: once a day that it is in order, always what is not. `damage` is a
sealed block that was found not to be what was sealed, once for each (of many at a time the first 20), and `scrub` what
came of a scrub.

Where systemd runs, each event goes to its journal as well, when it is durable: `journalctl -t rowfs`, with the fields
`ROWFS_VERB`, `ROWFS_DISK`, `ROWFS_SNAPSHOT`, `ROWFS_GROUP`, `ROWFS_FAILED`, `ROWFS_POOL`, `ROWFS_MOUNT`, `ROWFS_EVENT`
(the number), `ROWFS_TIME`, `ROWFS_UID`, `ROWFS_PID`, `ROWFS_COMMAND`, `ROWFS_SIZE_BYTES`, `ROWFS_TEXT`. Its priority is
`err` for a pool that became read-only and for damage, `warning` for what failed and for limits that are near, `info`
for all else.

Events are numbered without a gap, and no number ever means two. Who goes on with `--after` misses nothing: when events
after that number are no longer kept, a line on stderr says how many. `--follow` goes on with what happens from now on,
until it is interrupted or the pool unmounted. JSON: an array of events; with `--follow`, an event a line.

    $ rowfs events /mnt/rowfs
        1  2026-11-20 14:20:03  rowfs itself  mount
        2  2026-11-20 14:20:11  root (rowfs 4712)  create vm1 (20G)
        3  2026-11-20 14:25:01  root (touch 4801)  snapshot vm1@before (20G)
        4  2026-11-20 14:26:40  root (rm 4833)  delete vm1@before (20G)
""",
)
