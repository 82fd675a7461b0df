"""Locks of snapshots: what keeps one from being deleted, until when, and who may end that.

A lock is a hold, which lasts until somebody releases it, or a date, or both; both have to be over before anything goes.
A date of compliance can be put off and never brought forward, nor released, by anyone. Whatever deletes asks here:
`rm`, a policy, the deletion of a disk with its chain, the trash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo

from rowfs.base.errors import LockedError, UsageError
from rowfs.base.names import printable
from rowfs.base.times import TIME_NS_MAX
from rowfs.rules.times import YEAR_NS, format_instant

LOCK_MAX_NS = 100 * YEAR_NS
REASON_CHARACTERS_MAX = 500


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What keeps a snapshot. Neither `hold` nor `until_ns`: nothing does."""

    hold: bool = False
    until_ns: int | None = None
    compliance: bool = False  # the date cannot come nearer
    reason: str = ""

    def keeps(self, now_ns: int) -> bool:
        """Whether the snapshot has to stay at `now_ns`."""
        return self.hold or self.dated(now_ns)

    def dated(self, now_ns: int) -> bool:
        """Whether its date is still to come. At that very instant it is over."""
        return self.until_ns is not None and now_ns < self.until_ns

    def described(self, now_ns: int, zone: tzinfo = UTC) -> str:
        """What keeps the snapshot, for people: `a hold and a lock until 2027-03-01 00:00 UTC (audit)`."""
        kept_by = ["a hold"] * self.hold
        if self.until_ns is not None and self.dated(now_ns):
            kind = "a compliance lock" if self.compliance else "a lock"
            kept_by.append(f"{kind} until {format_instant(self.until_ns, zone)}")
        reason = f" ({printable(self.reason)})" if self.reason else ""
        return " and ".join(kept_by) + reason if kept_by else "nothing"


UNLOCKED = Lock()


def check_lock(lock: Lock) -> Lock:
    """`lock`, if it could have been set. Raises UsageError otherwise: what was read so keeps everything."""
    if lock.until_ns is not None and not 0 <= lock.until_ns <= TIME_NS_MAX:
        raise UsageError("the date of a lock is out of reach: it lies between 1970 and 2262")
    if lock.compliance and lock.until_ns is None:
        raise UsageError("a compliance lock needs a date: add --until, as in --until 2027-03-01")
    if len(lock.reason) > REASON_CHARACTERS_MAX:
        raise UsageError(f"the reason of a lock has at most {REASON_CHARACTERS_MAX} characters")
    return lock


def locked(lock: Lock, now_ns: int, until_ns: int | None, compliance: bool = False, reason: str = "") -> Lock:
    """`lock` after `rowfs lock`: held, or with the date `until_ns`; what it had beside that stays.

    Raises UsageError for a date that is over, or more than 100 years ahead, and LockedError where a compliance lock
    would become shorter.
    """
    asked = check_lock(Lock(hold=until_ns is None, until_ns=until_ns, compliance=compliance, reason=reason))
    if until_ns is None:
        return replace(lock, hold=True, reason=reason or lock.reason)
    _check_date(until_ns, now_ns)
    if not (lock.compliance and lock.dated(now_ns)):
        return replace(asked, hold=lock.hold, reason=reason or lock.reason)
    assert lock.until_ns is not None
    if until_ns < lock.until_ns:
        at = format_instant(lock.until_ns, UTC)
        raise LockedError(f"its compliance lock lasts until {at} and cannot be made shorter, only longer")
    return replace(lock, until_ns=until_ns, reason=reason or lock.reason)


def _check_date(until_ns: int, now_ns: int) -> None:
    if until_ns <= now_ns:
        at = format_instant(until_ns, UTC)
        raise UsageError(f"a lock until {at} would be over already: name a date to come, as in --until 90d")
    if until_ns - now_ns > LOCK_MAX_NS:
        raise UsageError("a lock lasts at most 100 years: name a nearer date, or leave --until out for a hold")


def released(lock: Lock, now_ns: int) -> Lock:
    """`lock` after `rowfs lock --release`: no hold and no date. Raises LockedError where a compliance lock is not over.

    Its hold can go before that: `unheld`.
    """
    if lock.compliance and lock.dated(now_ns):
        raise LockedError(f"it has {replace(lock, hold=False).described(now_ns)}: nobody can release that before")
    return UNLOCKED


def unheld(lock: Lock) -> Lock:
    """`lock` without its hold; a date stays."""
    return replace(lock, hold=False)


def check_deletable(locks: Mapping[str, Lock], now_ns: int, what: str = "") -> None:
    """Raises LockedError when a lock keeps one of several snapshots, by address, that would go together.

    `what` would go with them, as a disk does: nothing of it goes then.
    """
    kept = {address: lock for address, lock in locks.items() if lock.keeps(now_ns)}
    if not kept:
        return
    address, lock = next(iter(kept.items()))
    more = f", and {len(kept) - 1} more of them too" if len(kept) > 1 else ""
    hint = "wait for that" if lock.compliance and lock.dated(now_ns) else "release it with rowfs lock --release"
    whole = f"{printable(what)} is not deleted: " if what else ""
    raise LockedError(f"{whole}{printable(address)} is kept by {lock.described(now_ns)}{more}: {hint}")
