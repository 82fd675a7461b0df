"""Policies as they are stored: across crashes, damage, and pools that an older rowfs made."""

from __future__ import annotations

import pytest

from rowfs.base.errors import ExistsError, NotFoundError
from rowfs.base.format import ID_KEY, POLICIES
from rowfs.rules.policies import Policy
from rowfs.rules.retention import Retention
from rowfs.rules.runs import Outcome, RunState, Start, begun, finished
from rowfs.rules.schedules import Schedule
from rowfs.rules.selectors import Choice
from rowfs.rules.times import HOUR_NS
from rowfs.store.pool import Pool
from tests.store.damage import put as put_record
from tests.store.helpers import Home, checks, disk_of, findings

NOW = 500_000 * HOUR_NS


def nightly(pool: Pool, name: str = "nightly") -> Policy:
    """A policy of each hour."""
    wanted = Policy(
        id=0,
        name=name,
        schedule=Schedule(every_ns=HOUR_NS),
        retention=Retention(daily=7),
        choice=Choice(("d*",)),
    )
    return pool.policies.create(wanted, NOW)


@pytest.mark.parametrize("committed", [False, True])
def test_a_policy_is_there_after_a_crash_if_it_was_acknowledged(home: Home, committed: bool) -> None:
    pool = home.open()
    made = nightly(pool)
    if committed:
        pool.commit()
    found = home.crash().policies.all.readable
    assert found == ({made.id: made} if committed else {})


@pytest.mark.parametrize("committed", ["before", "begun", "taken"])
def test_a_snapshot_and_what_is_known_of_its_run_are_durable_together(home: Home, committed: str) -> None:
    """Commits of others may come between any two steps; a crash after each leaves what the next daemon goes on with."""
    pool = home.open()
    policy, disk = nightly(pool), disk_of(pool, "x")
    pool.commit()
    state = begun(pool.policies.state(policy.id, NOW), NOW + HOUR_NS, "one life")
    pool.policies.set_state(policy.id, state)
    if committed == "begun":
        pool.commit()
    pool.snapshot(disk, "n1", start=Start(policy=policy.id, due_ns=NOW + HOUR_NS))
    pool.policies.set_state(policy.id, finished(state))
    pool.policies.set_outcome(policy.id, Outcome(due_ns=NOW + HOUR_NS, ended_ns=NOW, taken=1))
    if committed == "taken":
        pool.commit()
    pool = home.crash()
    disk = pool.catalog.disk("d")
    found = pool.policies.state(policy.id, NOW)
    assert pool.policies.run_of(disk, policy, NOW + HOUR_NS) == (committed == "taken") == bool(disk.chain)
    assert (pool.policies.outcome(policy.id) is not None) == (committed == "taken")
    assert found.running_due_ns == (NOW + HOUR_NS if committed == "begun" else None)
    assert findings(pool) == []


def test_its_snapshots_are_told_by_its_id_whatever_they_are_called(home: Home) -> None:
    pool = home.open()
    policy, disk = nightly(pool), disk_of(pool, "x")
    pool.snapshot(disk, "mine")
    snapshot = pool.snapshot(disk, "n1", start=Start(policy=policy.id, due_ns=7, failed=True))
    pool.rename_snapshot(snapshot, "other")
    pool.rename_disk(disk, "e")
    pool = home.reopen()
    mine, other = pool.policies.taken(pool.catalog.disk("e").chain.values(), NOW)
    assert (mine.policy, mine.good, other.policy, other.good, other.due_ns) == (None, True, policy.id, False, 7)
    assert pool.catalog.disk("e").chain["other"].kind == "policy"
    assert pool.policies.delete("nightly") == 1
    (_, left) = home.reopen().policies.taken(home.pool.catalog.disk("e").chain.values(), NOW)  # type: ignore[union-attr]
    assert left.policy == policy.id


def check_owned(pool: Pool, *numbers: int) -> None:
    """What a policy knows as its own, beside a look at all snapshots."""
    shown = pool.catalog.snapshots
    for number in numbers:
        expected = {item.id for item in shown.values() if item.policy == number and item.kind == "policy"}
        assert set(shown.of_policy(number)) == expected
    owned = pool.policies.owned(pool.policies.named("nightly"))
    by_chain = {
        chain: [item for item in chain.chain.values() if item.policy == numbers[0]]
        for chain in pool.catalog.disks.values()
    }
    assert owned == {chain: found for chain, found in by_chain.items() if found}


def test_a_policy_knows_its_own_snapshots_through_all_that_becomes_of_them(home: Home) -> None:
    pool = home.open()
    policy, gone = nightly(pool), nightly(pool, name="gone")
    disk, other = disk_of(pool, "x"), disk_of(pool, "y", name="other")
    pool.trash.set_keep(HOUR_NS)
    for number in range(4):
        for taker in (policy, gone):
            pool.snapshot(disk, f"{taker.name}-{number}", start=Start(policy=taker.id, due_ns=number))
    pool.snapshot(other, "mine")
    pool.policies.delete("gone")
    for step in (
        lambda: pool.delete_snapshot(disk.chain["nightly-0"]),
        lambda: pool.trash.delete_snapshot(disk.chain["nightly-3"]),
        lambda: pool.rename_snapshot(disk.chain["nightly-2"], "renamed"),
        lambda: pool.trash.restore(next(iter(pool.trash)), "back"),
        lambda: pool.rename_disk(disk, "moved"),
        lambda: pool.trash.delete_disk(disk),  # its chain stays
        lambda: pool.rename_disk(disk_of(pool, "z", name="new"), "moved"),  # and goes on under another
    ):
        step()
        pool.commit()
        check_owned(pool, policy.id, gone.id)
    check_owned(home.reopen(), policy.id, gone.id)


def test_names_are_one_policys_alone(pool: Pool) -> None:
    made = nightly(pool)
    with pytest.raises(ExistsError, match="there is a policy nightly already"):
        nightly(pool)
    other = nightly(pool, "other")
    with pytest.raises(ExistsError, match="already"):
        pool.policies.edit(other, {"name": "nightly"}, NOW)
    pool.policies.edit(made, {"name": "nightly", "paused": True}, NOW)
    with pytest.raises(NotFoundError, match="there is no policy x"):
        pool.policies.delete("x")


@pytest.mark.parametrize("value", [b"\xff", b"[]", b"{}", b'{"id":99,"rule":{}}', b'{"id":%d,"rule":{"name":"n"}}'])
def test_one_that_cannot_be_read_opens_with_the_pool_and_is_named(home: Home, value: bytes) -> None:
    pool = home.open()
    policy = nightly(pool)
    good = nightly(pool, "good")
    home.close()
    put_record(home.path, POLICIES, ID_KEY.pack(policy.id), value % policy.id if b"%d" in value else value)
    pool = home.open()
    assert list(pool.policies.all.readable) == [good.id]
    (name,) = [pool.policies.called(number) for number in pool.policies.all.unreadable]
    assert name == ("n" if b'"n"' in value else f"#{policy.id}")
    assert checks(pool) == {"names"}
    pool.policies.delete(name)
    assert findings(home.reopen()) == []


def test_runs_that_cannot_be_read_count_from_now(home: Home) -> None:
    pool = home.open()
    policy = nightly(pool)
    home.close()
    record = b'{"id":%d,"rule":null,"runs":{"since_ns":"x"},"outcome":7}' % policy.id
    put_record(home.path, POLICIES, ID_KEY.pack(policy.id), record)
    pool = home.open()
    assert pool.policies.state(policy.id, NOW) == RunState(since_ns=NOW)
    assert pool.policies.outcome(policy.id) is None
    pool.policies.delete(f"#{policy.id}")
