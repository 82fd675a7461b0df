"""All verbs, in the order of --help and of the documents: pools, what there is, disks, snapshots, their use."""

from __future__ import annotations

from rowfs.verbs.declare import Declared, Verb, each_verb
from rowfs.verbs.disks import CREATE, DELETE, DELETE_SEVERAL, RENAME, RESIZE, TRIM
from rowfs.verbs.events import EVENTS
from rowfs.verbs.groups import GROUP, GROUP_SNAPSHOT
from rowfs.verbs.limits import LIMIT
from rowfs.verbs.looking import DIFF, EXTENTS, HOLD, INFO, LIST
from rowfs.verbs.marks import DESCRIBE, LABEL, LOCK, RELEASE
from rowfs.verbs.plot import PLOT
from rowfs.verbs.policies import POLICY
from rowfs.verbs.pools import CHECK, HELLO, INIT, MOUNT, UMOUNT
from rowfs.verbs.scrub import REPAIR, SCRUB
from rowfs.verbs.snapshots import CLONE, ROLLBACK, SNAPSHOT
from rowfs.verbs.trash import TRASH_FAMILY, UNDELETE
from rowfs.verbs.usage import USAGE
from rowfs.verbs.using import ATTACH, COMPLETION, DETACH, EXPORT

DECLARED: tuple[Declared, ...] = (
    HELLO,
    INIT,
    MOUNT,
    UMOUNT,
    CHECK,
    SCRUB,
    REPAIR,
    INFO,
    LIST,
    CREATE,
    RESIZE,
    RENAME,
    TRIM,
    DELETE,
    DELETE_SEVERAL,
    SNAPSHOT,
    ROLLBACK,
    CLONE,
    GROUP_SNAPSHOT,
    GROUP,
    LABEL,
    DESCRIBE,
    LOCK,
    RELEASE,
    LIMIT,
    POLICY,
    EVENTS,
    USAGE,
    PLOT,
    TRASH_FAMILY,
    UNDELETE,
    DIFF,
    EXTENTS,
    HOLD,
    EXPORT,
    ATTACH,
    DETACH,
    COMPLETION,
)

# What has a command of its own, by the word behind rowfs; and what is on the socket, by the method's name.
COMMANDS: dict[str, Declared] = {item.name: item for item in DECLARED if not isinstance(item, Verb) or item.place}
METHODS: dict[str, Verb] = {verb.method: verb for verb in each_verb(DECLARED) if verb.method}
