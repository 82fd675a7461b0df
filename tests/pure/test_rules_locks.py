"""What keeps a snapshot, until when, and who may end that."""

from __future__ import annotations

import errno
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowfs.base.errors import LockedError, UsageError
from rowfs.rules.locks import UNLOCKED, Lock, check_deletable, check_lock, locked, released, unheld
from rowfs.rules.times import DAY_NS, SECOND_NS, YEAR_NS, parse_instant

NOW = 1_800_000_000 * SECOND_NS
LATER, LATEST = NOW + 10 * DAY_NS, NOW + 20 * DAY_NS
COMPLIANT = locked(UNLOCKED, NOW, LATER, compliance=True)


def test_a_lock_without_a_date_is_a_hold_until_released() -> None:
    lock = locked(UNLOCKED, NOW, None, reason="audit")
    assert lock.keeps(NOW + 1000 * YEAR_NS)
    assert not released(lock, NOW).keeps(NOW)
    assert lock.described(NOW) == "a hold (audit)"


def test_a_lock_with_a_date_is_over_at_that_instant() -> None:
    lock = locked(UNLOCKED, NOW, LATER)
    assert lock.keeps(LATER - 1)
    assert not lock.keeps(LATER)
    assert not released(lock, NOW).keeps(NOW)


def test_k3_compliance_can_be_extended_and_never_shortened_by_anyone() -> None:
    assert locked(COMPLIANT, NOW, LATEST).until_ns == LATEST
    assert locked(COMPLIANT, NOW, LATEST).compliance
    assert locked(COMPLIANT, NOW, LATER) == COMPLIANT
    for attempt in (LATER - 1, NOW + 1):
        for compliance in (False, True):
            with pytest.raises(LockedError, match="only longer"):
                locked(COMPLIANT, NOW, attempt, compliance)
    with pytest.raises(LockedError, match="nobody can release"):
        released(COMPLIANT, NOW)
    assert released(COMPLIANT, LATER) == UNLOCKED
    assert locked(COMPLIANT, LATER, LATER + 1) == Lock(until_ns=LATER + 1)


def test_k4_hold_and_date_must_both_end() -> None:
    both = locked(COMPLIANT, NOW, None)
    assert both.keeps(LATER)
    assert unheld(both).keeps(LATER - 1)
    assert not unheld(both).keeps(LATER)
    assert locked(Lock(hold=True), NOW, LATER).hold
    assert both.described(NOW).startswith("a hold and a compliance lock until 2027-01-25 08:00 UTC")


@pytest.mark.parametrize("text", ["0d", "2020-01-01", "5300w", "2200-01-01"])
def test_k5_no_days_a_past_date_and_a_century_are_refused(text: str) -> None:
    until_ns = parse_instant(text, NOW, UTC, ahead=True)
    with pytest.raises(UsageError):
        locked(UNLOCKED, NOW, until_ns)


@pytest.mark.parametrize("text", ["9999w9999w", "999999999999d", "9999-12-31", "-1d"])
def test_k5_a_date_that_overflows_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        locked(UNLOCKED, NOW, parse_instant(text, NOW, UTC, ahead=True))


@pytest.mark.parametrize(
    "lock", [Lock(until_ns=-1), Lock(until_ns=1 << 70), Lock(compliance=True), Lock(reason="x" * 501)]
)
def test_a_lock_that_cannot_have_been_set_is_refused(lock: Lock) -> None:
    with pytest.raises(UsageError):
        check_lock(lock)
    assert check_lock(COMPLIANT) == COMPLIANT


def test_compliance_needs_a_date() -> None:
    with pytest.raises(UsageError, match="--until"):
        locked(UNLOCKED, NOW, None, compliance=True)


def test_k6_a_refused_deletion_names_the_lock_and_is_not_busy() -> None:
    with pytest.raises(LockedError) as caught:
        check_deletable({"vm1@a": UNLOCKED, "vm1@b": Lock(hold=True, reason="audit\n")}, NOW)
    assert str(caught.value) == "vm1@b is kept by a hold (audit\\n): release it with rowfs lock --release"
    assert caught.value.errno == errno.EPERM
    with pytest.raises(LockedError, match="compliance lock until 2027-01-25 08:00 UTC: wait for that"):
        check_deletable({"vm1@a": COMPLIANT}, NOW)


def test_k2_a_disk_with_locked_snapshots_is_refused_whole() -> None:
    chain = {"vm1@a": Lock(hold=True), "vm1@b": UNLOCKED, "vm1@c": COMPLIANT}
    with pytest.raises(LockedError, match="^vm1 is not deleted: vm1@a is kept by a hold, and 1 more of them too"):
        check_deletable(chain, NOW, "vm1")
    check_deletable({"vm1@b": UNLOCKED, "vm1@c": COMPLIANT}, LATER, "vm1")


def test_a_reason_stays_until_another_is_given() -> None:
    lock = locked(UNLOCKED, NOW, LATER, compliance=True, reason="law")
    assert locked(lock, NOW, LATEST).reason == "law"
    assert locked(lock, NOW, None, reason="audit").reason == "audit"


STEPS = st.lists(
    st.tuples(st.sampled_from(["hold", "date", "comply", "release", "unhold", "wait"]), st.integers(1, 30)), max_size=12
)


@given(steps=STEPS)
def test_nothing_anybody_does_frees_what_compliance_promised(steps: list[tuple[str, int]]) -> None:
    lock, now_ns, promised_ns = UNLOCKED, NOW, 0
    for what, days in steps:
        try:
            match what:
                case "hold":
                    lock = locked(lock, now_ns, None)
                case "date" | "comply":
                    lock = locked(lock, now_ns, now_ns + days * DAY_NS, compliance=what == "comply")
                case "release":
                    lock = released(lock, now_ns)
                case "unhold":
                    lock = unheld(lock)
                case "wait":
                    now_ns += days * DAY_NS
        except LockedError:
            pass
        if lock.compliance and lock.until_ns:
            promised_ns = max(promised_ns, lock.until_ns)
        assert now_ns >= promised_ns or lock.keeps(now_ns)
        assert check_lock(lock) == lock
