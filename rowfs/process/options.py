"""The words of `mount -o`."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from dataclasses import dataclass

from rowfs.base.errors import UsageError
from rowfs.base.units import MIB, parse_size
from rowfs.mount.inodes import AS_THEY_ARE, Shown
from rowfs.store.pool import CACHE_BYTES
from rowfs.store.zeros import AFTER_S

CACHE_BYTES_MIN = MIB
ID_MAX = 2**32 - 2  # the one above means "no one" to the kernel
ID_DIGITS_MAX = 20
UMASK_MAX = 0o777
ZEROS_S_MAX = 10**9
# mount(8) and systemd pass these on; they mean nothing here, or are what rowfs does anyway.
_IGNORED = {"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail"} | {
    *("suid", "dev", "exec", "async", "atime", "noatime", "relatime", "norelatime", "diratime", "nodiratime"),
    *("strictatime", "nostrictatime", "lazytime", "nolazytime", "default_permissions", "silent", "loud"),
    *("iversion", "noiversion", "nomand", "nosymfollow", "symfollow"),
}
_IGNORED_BEGINNINGS = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")
_FUSE = {"allow_other", "nosuid", "nodev", "noexec", "sync", "dirsync"}


@dataclass(frozen=True, slots=True)
class Options:
    """How a pool is mounted."""

    read_only: bool = False
    cache_bytes: int = CACHE_BYTES
    fuse: frozenset[str] = frozenset()  # words for libfuse
    shown: Shown = AS_THEY_ARE
    other_owner: bool = False  # the pool may belong to another user
    recovery: bool = True  # what the journal holds is put into the map first
    zeros_s: float | None = AFTER_S  # how long blocks of zeros stay data; None: until the disk is trimmed


def parse_options(text: str) -> Options:
    """The options in `text`, separated by commas. Raises UsageError for one that rowfs does not have."""
    read_only, cache_bytes, fuse = False, CACHE_BYTES, set()
    uid = gid = None
    umask = 0
    zeros_s: float | None = AFTER_S
    other_owner, recovery = False, True
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if word in ("ro", "rw"):
            read_only = word == "ro"  # the last one counts, as for mount(8)
        elif name == "cache" and value:
            cache_bytes = _cache(value)
        elif name == "uid" and value:
            uid = _number(value, lambda user: pwd.getpwnam(user).pw_uid, "user")
        elif name == "gid" and value:
            gid = _number(value, lambda group: grp.getgrnam(group).gr_gid, "group")
        elif name == "umask" and value:
            umask = _umask(value)
        elif name == "zeros" and value:
            zeros_s = _zeros(value)
        elif word == "other_owner":
            other_owner = True
        elif word == "norecovery":
            recovery = False
        elif word in _FUSE:
            fuse.add(word)
        elif word not in _IGNORED and not word.startswith(_IGNORED_BEGINNINGS):
            raise UsageError(
                f"there is no mount option {word}: ro, allow_other, uid=USER, gid=GROUP, umask=MODE, cache=SIZE, "
                f"zeros=SECONDS, other_owner and norecovery are"
            )
    if not recovery and not read_only:
        raise UsageError("norecovery leaves out what was synced last: only with ro")
    return Options(read_only, cache_bytes, frozenset(fuse), Shown(uid, gid, umask), other_owner, recovery, zeros_s)


def _cache(text: str) -> int:
    size = parse_size(text)
    if size < CACHE_BYTES_MIN:
        raise UsageError("the cache needs at least 1M")
    return size


def _zeros(text: str) -> float | None:
    if text == "never":
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > ZEROS_S_MAX:
        raise UsageError(f"zeros={text} is no time: give whole seconds, at most {ZEROS_S_MAX}, or never")
    return float(text)


def _number(text: str, look_up: Callable[[str], int], what: str) -> int:
    if text.isascii() and text.isdigit():
        if len(text) > ID_DIGITS_MAX or int(text) > ID_MAX:
            raise UsageError(f"{text:.20} is no {what} id: it is at most {ID_MAX}")
        return int(text)
    try:
        return look_up(text)
    except (KeyError, ValueError):
        raise UsageError(f"there is no {what} {text}") from None


def _umask(text: str) -> int:
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= UMASK_MAX:
        raise UsageError(f"{text} is no umask: it is an octal number up to 777, as 077")
    return mask
