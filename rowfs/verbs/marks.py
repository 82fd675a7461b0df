"""Marks of disks and snapshots: labels and locks."""

from __future__ import annotations

from rowfs.verbs.declare import JSON, Failure, Input, Kind, Param, Verb, flag, selector, wire

LABEL = Verb(
    name="label",
    place="marks:label",
    about="Set labels of a disk or a snapshot, take them away, or show them.",
    text="""\
rowfs list -l, snapshot -l, delete -l and lock -l choose by labels: -l env=prod, -l 'env in (prod, test),!old'.
""",
    examples=(
        "rowfs label /mnt/rowfs/vm1 env=prod owner=db",
        "rowfs label /mnt/rowfs/vm1@before owner-",
        "rowfs label /mnt/rowfs/vm1",
    ),
    inputs=(
        Input("address", Kind.ADDRESS, metavar="PATH/DISK[@NAME]", params=(Param("disk", Kind.NAME),)),
        Input(
            "changes",
            Kind.TEXT,
            metavar="KEY=VALUE|KEY-",
            many=True,
            required=False,
            params=(Param("changes", Kind.NAMES),),
        ),
        wire(Param("snapshot", Kind.NAME, required=False)),
        JSON,
    ),
    method="label",
    errors=(Failure("no such disk or snapshot", "ENOENT"),),
    changes=True,
    result='`{"labels": {…}}`, those it has then',
    manual="""\
Sets labels of a disk or a snapshot, or with `KEY-` takes them away; without changes it prints those there are. A key
has letters, digits and `- _ . /` between them, 63 characters at most; a value up to 255, no commas or brackets; 64
labels at most. They go with what they are of: a clone has none, and a disk that is made anew under its name neither.
`-l` of other verbs chooses by them. JSON: `labels`, an object.

    $ rowfs label /mnt/rowfs/vm1 env=prod owner=db
    $ rowfs label /mnt/rowfs/vm1 owner-
    $ rowfs label /mnt/rowfs/vm1
    env=prod
""",
)

DESCRIBE = Verb(
    name="describe",
    place="marks:describe",
    about="Say what a snapshot is, or show what was said.",
    text="TEXT takes the place of the description that it was taken with; an empty one takes it away.",
    examples=(
        "rowfs describe /mnt/rowfs/vm1@before 'before the upgrade to 13'",
        "rowfs describe /mnt/rowfs/vm1@before",
    ),
    inputs=(
        Input(
            "address",
            Kind.ADDRESS,
            metavar="PATH/DISK@NAME",
            params=(Param("disk", Kind.NAME), Param("snapshot", Kind.NAME)),
        ),
        Input("text", Kind.TEXT, metavar="TEXT", required=False, params=(Param("description", Kind.TEXT),)),
        JSON,
    ),
    method="describe",
    errors=(Failure("no such snapshot", "ENOENT"),),
    changes=True,
    result='`{"description": text}`. At most 65,536 bytes of text; empty: none',
    manual="""\
Sets the description of a snapshot, also of a locked one or of a deleted disk's; without `TEXT` it prints what there is.
`rowfs info` shows it, and plain tools read it as the extended attribute `user.rowfs.description`. JSON: `description`.

    $ rowfs describe /mnt/rowfs/vm1@before 'before the upgrade to 13'
    $ rowfs describe /mnt/rowfs/vm1@before
    before the upgrade to 13
""",
)

LOCK = Verb(
    name="lock",
    place="marks:lock",
    about="Keep snapshots from being deleted, by whatever way, until they are released.",
    text="""\
Without --until that is a hold, until somebody releases it; with it a date. A snapshot may have both, and both have to
be over. Neither a policy, nor rm, nor the deletion of the disk with its snapshots takes a locked one along: they are
refused. With --compliance the date cannot be released by anyone, root included, nor brought forward.

ADDRESS is a snapshot, or several: MNT/vm1@a..c. With -l it is a mount or a disk, and those of its snapshots are meant
that have such labels.
""",
    examples=(
        "rowfs lock /mnt/rowfs/vm1@before --reason 'until the audit is done'",
        "rowfs lock /mnt/rowfs/vm1@year --until 2027-03-01 --compliance",
        "rowfs lock --release /mnt/rowfs/vm1@before",
    ),
    inputs=(
        Input(
            "addresses",
            Kind.ADDRESS,
            metavar="ADDRESS",
            many=True,
            params=(
                Param("disk", Kind.NAME),
                Param("snapshots", Kind.NAMES),
            ),
        ),
        Input(
            "until",
            Kind.TEXT,
            flags=("--until",),
            help="Until then: 2027-03-01, '2027-03-01 12:00', or a span as 90d.",
            metavar="DATE",
            params=(Param("until", Kind.TEXT, required=False),),
        ),
        Input(
            "reason",
            Kind.TEXT,
            flags=("--reason",),
            help="Why; shown when somebody tries to delete it.",
            metavar="TEXT",
            params=(Param("reason", Kind.TEXT, required=False),),
        ),
        flag("--compliance", "Nobody can release it before its date, only put that off.", on_socket=True),
        flag("--release", "Release what was locked."),
        selector(),
        JSON,
    ),
    method="lock",
    errors=(
        Failure("no such snapshot", "ENOENT"),
        Failure("a date that is over, or too far ahead", "EINVAL"),
        Failure("a compliance lock that would become shorter or is not over", "EPERM"),
    ),
    changes=True,
    result="""\
array of `{"snapshot": name, "lock": …}`. Without `until`, a time or a span as `90d`, it is a hold. All or none; EPERM
where a compliance lock would become shorter
""",
    manual="""\
Keeps snapshots from being deleted, whoever asks: the verb, `rm` in `.snapshots` (EPERM), a policy, the deletion of
the disk with its snapshots (which is refused whole), the rollback that would replace a `before-rollback`. Without
`--until` it is a hold, which lasts until it is released; with it a date, of 100 years ahead at most: `2027-03-01`
(midnight here), `2027-03-01T12:00:00Z`, or a span as `90d`. A snapshot may have both; both have to be over. `a..c`
and lists behind the `@` lock several, all of them or none. A disk may be deleted while its locked snapshots stay, and
a locked snapshot renamed, cloned and rolled back to. JSON: an array of `disk snapshot lock`.

With `--compliance` nobody can release the date, root included, nor bring it nearer: `lock` may only put it off, and
`--release` ends only a hold that is there beside it. That holds for everything that goes through rowfs. **What root
can do beneath it**: remove or overwrite the pool's files, put the host's clock forward, change the records of an
unmounted pool with other tools, or use a rowfs from before there were locks. Who must not be able to needs a copy
elsewhere.

    $ rowfs lock /mnt/rowfs/vm1@before --reason 'until the audit is done'
    /mnt/rowfs/vm1@before: held until it is released (until the audit is done)
    $ rowfs delete /mnt/rowfs/vm1@before
    rowfs: vm1@before is kept by a hold (until the audit is done): release it with rowfs lock --release
""",
)

RELEASE = Verb(
    name="release",
    about="Release snapshots that were locked.",
    inputs=(wire(Param("disk", Kind.NAME), Param("snapshots", Kind.NAMES)),),
    method="release",
    errors=(
        Failure("no such snapshot", "ENOENT"),
        Failure("a compliance lock that is not over", "EPERM"),
    ),
    changes=True,
    result="the same. All or none; EPERM where a compliance lock is not over; a hold beside one is released",
)
