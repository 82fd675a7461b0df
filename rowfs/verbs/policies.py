"""Policies: snapshots that are taken by a schedule, and go by rules."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Family, Input, Kind, Param, Verb, flag, selector

MOUNT = Input("address", Kind.ADDRESS, metavar="MNT")
NAMED = Input("name", Kind.TEXT, metavar="POLICY", params=(Param("policy", Kind.NAME),))
NO_POLICY = Failure("no such policy", "ENOENT")
NAME_TAKEN = Failure("there is a policy of that name", "EEXIST")


def _text(name: str, metavar: str, help: str) -> Input:
    kind, param = Kind.TEXT, Param(name, Kind.TEXT, required=False)
    return Input(name, kind, flags=(_option(name),), metavar=metavar, help=help, params=(param,))


def _many(name: str, metavar: str, help: str) -> Input:
    param = Param(name, Kind.NAMES, required=False)
    return Input(name, Kind.TEXT, flags=(_option(name),), metavar=metavar, help=help, many=True, params=(param,))


def _word(name: str, words: tuple[str, ...], help: str) -> Input:
    param = Param(name, Kind.TEXT, required=False)
    return Input(name, Kind.WORD, flags=(_option(name),), words=words, help=help, params=(param,))


def _switch(name: str, help: str) -> tuple[Input, Input]:
    """An option and the one that takes it back."""
    return flag(f"--{name}", help, on_socket=True), flag(f"--no-{name}", f"Take --{name} back.")


def _hook(name: str, help: str) -> Input:
    """A command: on the command line one text, which is split as a shell would; on the socket its words."""
    param = Param(name, Kind.NAMES, required=False)
    return Input(name, Kind.TEXT, flags=(_option(name),), metavar="COMMAND", help=help, params=(param,))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


SCHEDULE = (
    _text("every", "SPAN", "How often: 15m, 4h, 1d, 1w."),
    _many("at", "HH:MM", "At which times of the day, with --every of days or weeks; several times, or with commas."),
    _text("on", "DAYS", "On which days of the week: mon,thu."),
    _text("cron", "LINE", "Instead of --every: five fields as cron(8) has them, or @daily and the like."),
    _text("tz", "ZONE", "Whose clocks are meant, as Europe/Berlin; that of this machine if it is not said."),
)
KEEPS = (
    *(
        Input(
            f"keep_{rule}",
            Kind.NUMBER,
            flags=(f"--keep-{rule}",),
            least=0,
            help=f"Keep {what}.",
            params=(Param(f"keep_{rule}", Kind.NUMBER, required=False),),
        )
        for rule, what in (
            ("last", "the last N"),
            ("hourly", "the newest of each of the last N hours that have one"),
            ("daily", "the same of days"),
            ("weekly", "the same of weeks, from Monday"),
            ("monthly", "the same of months"),
            ("yearly", "the same of years"),
        )
    ),
    _text("keep_for", "SPAN", "Keep all that are younger, as 90d; off: no such rule."),
)
CHOICE = (
    _many("disks", "PATTERN", "Of which disks: a name, or 'vm*'; several times."),
    selector(params=(Param("selector", Kind.TEXT, required=False),)),
)
HOW = (
    _word("when_limited", ("refuse", "expire"), "At a limit: fail, or give up its own oldest first."),
    _hook("pre", "Run COMMAND before each snapshot."),
    _hook("post", "Run COMMAND after each, whatever became of it."),
    _hook("on_failure", "Run COMMAND when a run has failed."),
    _text("hook_limit", "SPAN", "How long a hook may take, 30s if it is not said; then it is killed."),
    _word("after_pre", ("skip", "mark"), "When --pre fails: take no snapshot, or one that counts for no rule."),
)
FREEZE = "Freeze the file systems that are mounted from a disk for the moment of its snapshot."
GROUP = "One point in time over all its disks, as a group."

POLICY_CREATE = Verb(
    name="policy create",
    place="policies:create",
    about="Have snapshots taken by a schedule, and let them go by rules.",
    text="""\
Which disks it is about has to be said. Without any --keep nothing ever goes. With --preview nothing is made: the next
30 runs are shown, and what would be kept then.

A hook is a program with its full path and arguments; no shell sees it. It gets names as variables: ROWFS_DISK,
ROWFS_SNAPSHOT, ROWFS_POLICY, ROWFS_MOUNT, ROWFS_REASON.
""",
    examples=(
        "rowfs policy create /mnt/rowfs nightly --every 1d --at 02:00 --keep-daily 14 --disks 'vm*'",
        "rowfs policy create /mnt/rowfs hourly --every 1h --keep-last 24 --label env=prod --preview",
    ),
    inputs=(
        MOUNT,
        NAMED,
        *SCHEDULE,
        *KEEPS,
        *CHOICE,
        flag("--freeze", FREEZE, on_socket=True),
        flag("--group", GROUP, on_socket=True),
        *HOW,
        flag("--preview", "Make nothing; show the next 30 runs.", on_socket=True),
        JSON,
    ),
    method="policy_create",
    errors=(NAME_TAKEN,),
    changes=True,
    result="""\
policy; with `preview` as `policy_preview`, and nothing is made. Parameters are texts as the command line takes them;
`pre`, `post`, `on_failure` arrays of words
""",
)

POLICY_LIST = Verb(
    name="policy list",
    place="policies:list_",
    about="List the policies, how their last runs ended, and the disks that none protects.",
    inputs=(Input("address", Kind.ADDRESS, metavar="MNT", required=False), JSON),
    method="policy_list",
    changes=False,
    result='`{"policies": [policy…], "unreadable": [{"id", "name", "why"}…], "unprotected": [disk name…]}`',
)

POLICY_SHOW = Verb(
    name="policy show",
    place="policies:show",
    about="Show what a policy does, how its last run ended, and what comes next.",
    inputs=(MOUNT, NAMED, JSON),
    method="policy_show",
    errors=(NO_POLICY,),
    changes=False,
    result="policy",
)

POLICY_PAUSE = Verb(
    name="policy pause",
    place="policies:pause",
    about="Let a policy take and delete nothing for now.",
    inputs=(MOUNT, NAMED, JSON),
    method="policy_pause",
    errors=(NO_POLICY,),
    changes=True,
    result="policy",
)

POLICY_RESUME = Verb(
    name="policy resume",
    place="policies:resume",
    about="Let a policy go on with its next start.",
    inputs=(MOUNT, NAMED, JSON),
    method="policy_resume",
    errors=(NO_POLICY,),
    changes=True,
    result="policy",
)

POLICY_RUN = Verb(
    name="policy run",
    place="policies:run",
    about="Run a policy now, whatever its schedule says.",
    inputs=(
        MOUNT,
        NAMED,
        flag("--confirm-clock", "The clock is right, though it leapt ahead: count ages by it.", on_socket=True),
        JSON,
    ),
    method="policy_run",
    errors=(NO_POLICY, Failure("a run of it is going on", "EBUSY"), Failure("the run failed, as `policy show` says")),
    changes=True,
    result="an outcome, as a policy has it: `failures` says what failed",
)

POLICY_DELETE = Verb(
    name="policy delete",
    place="policies:delete",
    about="Delete a policy; its snapshots stay until they are deleted by hand.",
    inputs=(MOUNT, NAMED, JSON),
    method="policy_delete",
    errors=(NO_POLICY,),
    changes=True,
    result='`{"snapshots": n}`: those it leaves',
)

POLICY_EDIT = Verb(
    name="policy edit",
    place="policies:edit",
    about="Change what a policy does; what is not named stays. Its snapshots stay its own.",
    text="""\
Starts count from now on: what was missed before is not made up. A number of 0 and --keep-for off take a rule away, ''
takes a hook, a selector or --on away. --disks and --at replace those it had.
""",
    examples=("rowfs policy edit /mnt/rowfs nightly --at 03:30 --keep-weekly 8",),
    inputs=(
        MOUNT,
        NAMED,
        _text("to", "NAME", "Another name."),
        *SCHEDULE,
        *KEEPS,
        *CHOICE,
        *_switch("freeze", FREEZE),
        *_switch("group", GROUP),
        *HOW,
        JSON,
    ),
    method="policy_edit",
    errors=(NO_POLICY, NAME_TAKEN),
    changes=True,
    result="policy",
)

POLICY_EXPLAIN = Verb(
    name="policy explain",
    place="policies:explain",
    about="Say of each snapshot of a disk which rule keeps it and until when, or why it goes next.",
    examples=("rowfs policy explain /mnt/rowfs/vm1",),
    inputs=(Input("address", Kind.ADDRESS, metavar="MNT/DISK", params=(Param("disk", Kind.NAME),)), JSON),
    method="policy_explain",
    errors=(Failure("no such disk", "ENOENT"),),
    changes=False,
    result='array of `{"snapshot": name, "policy": name or null, "text": line}`, oldest first',
)

POLICY_PREVIEW = Verb(
    name="policy preview",
    place="policies:preview",
    about="Show the next 30 runs of a policy, and what is kept then.",
    text="Of a disk MNT/DISK with what it has now; of none, as of a disk without snapshots. Nothing is changed.",
    inputs=(
        Input("address", Kind.ADDRESS, metavar="MNT[/DISK]", params=(Param("disk", Kind.NAME, required=False),)),
        NAMED,
        JSON,
    ),
    method="policy_preview",
    errors=(NO_POLICY, Failure("no such disk", "ENOENT")),
    changes=False,
    result="""\
`{"runs": [{"due": time, "takes": name, "goes": [name…], "kept": n}…], "kept": [{"snapshot": name, "text": line}…],
"tz": zone}`
""",
)

POLICY = Family(
    name="policy",
    about="Snapshots by a schedule, which go by rules: daily, weekly, monthly ones.",
    verbs=(
        POLICY_CREATE,
        POLICY_LIST,
        POLICY_SHOW,
        POLICY_PAUSE,
        POLICY_RESUME,
        POLICY_RUN,
        POLICY_DELETE,
        POLICY_EDIT,
        POLICY_EXPLAIN,
        POLICY_PREVIEW,
    ),
    text="""\
The daemon takes the snapshots while the pool is mounted; what was missed meanwhile is made up once. A policy deletes
its own snapshots alone, and never a locked one or the last good one.
""",
    examples=(
        "rowfs policy create /mnt/rowfs nightly --every 1d --at 02:00 --keep-daily 14 --keep-weekly 8 --disks 'vm*'",
        "rowfs policy list",
        "rowfs policy explain /mnt/rowfs/vm1",
    ),
    manual="""\
A policy has a schedule (`--every` with `--at` and `--on`, or `--cron`, on the clocks of `--tz`), disks (`--disks`,
`--label`, both have to fit), and rules of what it keeps. [POLICIES.md](POLICIES.md) defines what happens when clocks
change, runs are missed, overlap or fail, and which snapshot a rule keeps.

Its snapshots are called by the policy and the time they were due in UTC, have the kind `policy`, and are known to it by
its id: renamed ones too. It deletes these alone, at once and not into the trash, and of them never one that is locked,
open or attached, that it has just taken, or that is its last good one. What was cloned from a snapshot does not need
it. When the policy is deleted they stay, and `policy explain` says so.

A run that fails is tried again after 1, 2, 4 ... 60 minutes; `policy show`, `rowfs info` and `rowfs list` give the
reason, `rowfs events` has it, and the `--on-failure` hook is run. What succeeded of it is not done again.

Hooks are programs by their full path, run by the daemon (as root, mostly) in a process group of their own, in `/`, with
the daemon's environment and `ROWFS_HOOK` (pre, post, on-failure), `ROWFS_POLICY`, `ROWFS_POOL`, `ROWFS_MOUNT`, and of a
snapshot `ROWFS_DISK` (with `--group` only `ROWFS_DISKS`, separated by `/`), `ROWFS_SNAPSHOT`; `post` and `on-failure`
have `ROWFS_REASON`, which is empty where all went well. A command is split into words when it is set, and no shell sees
it. Past `--hook-limit` the whole group is killed. When `--pre` fails, there is no snapshot of that disk (`--after-pre
skip`), or one that counts for no rule (`mark`), and the run has failed; `--post` runs whatever
became of both, but not where the daemon is ended or killed within the run: thaw by hand then what `--pre` froze.

`--when-limited expire` has a policy give up its own oldest, as few as will do, where a [limit](#limit) leaves no place:
for a run, where the chain has too many snapshots; for whoever writes to a disk at its limit of space. Never the last
good one, nor one that is locked, open or attached; and none if that would not be enough.

With `--freeze` a disk of which nothing is mounted on this machine is taken as it is. With `--group` all disks are in
one point in time, 64 at most, and a group stays or goes whole.

`policy create --preview` shows what would happen and makes nothing; `policy preview` the same of one that there is.
A policy that cannot be read (of a newer rowfs, or damaged) takes and deletes nothing, and `policy list` names it.
JSON: as on the socket, see [CONTROL.md](CONTROL.md).

    $ rowfs policy create /mnt/rowfs nightly --every 1d --at 02:00 --tz UTC --keep-daily 14 --disks 'vm*'
    nightly: every 1d at 02:00, UTC; keeps daily 14; next 2026-11-21 02:00 UTC
    $ rowfs policy list
    NAME     SCHEDULE                KEEPS     NEXT                  LAST RUN
    nightly  every 1d at 02:00, UTC  daily 14  2026-11-21 02:00 UTC  -
""",
)
