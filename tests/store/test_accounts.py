"""Accounts in a pool: what is noted with which commit, what becomes of what is gone, and that they stay in bounds."""

from __future__ import annotations

import logging

import pytest

from rowfs.base.format import ACCOUNTS, DISKS, ID_KEY
from rowfs.base.units import GIB, MIB
from rowfs.rules import usage
from rowfs.rules.times import DAY_NS, HOUR_NS, SECOND_NS
from rowfs.rules.usage import ALL_BYTES_MAX, NOTHING, Account, Amounts, Kind, byte_seconds, plus
from rowfs.rules.usagecode import pack
from rowfs.store import accounts
from rowfs.store.accounts import OTHERS, Held
from rowfs.store.check import check_pool
from rowfs.store.figures import finish
from rowfs.store.model import Disk
from rowfs.store.pool import Pool
from tests.store import damage
from tests.store.helpers import B, Home, checks, disk_of, put

NOON_NS = 1_800_000_000 * SECOND_NS


class Days:
    """A pool, and a clock that a test moves."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.now_ns = NOON_NS
        self.pool: Pool
        self.open()

    def open(self) -> None:
        """Open the pool, and have its accounts go by our clock."""
        self.pool = self.home.open()
        self.pool.catalog.accounts.now_ns = lambda: self.now_ns

    def later(self, span_ns: int) -> None:
        """Time goes by, up to a commit."""
        self.now_ns += span_ns
        self.pool.commit()

    def sample(self) -> None:
        """Count what there is, durably."""
        for _ in self.pool.catalog.accounts.record(finish(self.pool.holdings.count())):
            pass
        self.pool.commit()

    def held(self, number: int, since_ns: int = 0) -> Amounts:
        """What an account held, in bytes x seconds."""
        account = self.pool.catalog.accounts.get(number)
        assert account is not None
        return byte_seconds(account, since_ns, self.now_ns)

    def total(self) -> Amounts:
        """What all of them held."""
        found = NOTHING
        for _, account in self.pool.catalog.accounts:
            found = plus(found, byte_seconds(account, 0, self.now_ns))
        return found


@pytest.fixture
def days(home: Home) -> Days:
    return Days(home)


def test_a_size_counts_from_its_commit_on_to_the_second(days: Days) -> None:
    disk = days.pool.create_disk("vm", GIB)
    days.later(0)
    days.later(90 * SECOND_NS)
    days.pool.resize(disk, 3 * GIB)
    days.later(0)
    days.later(10 * SECOND_NS)
    days.pool.delete_disk(disk)
    days.later(0)
    days.later(HOUR_NS)
    assert days.held(disk.id)[0] == 90 * GIB + 30 * GIB
    days.home.close()
    days.open()
    assert days.held(disk.id)[0] == 120 * GIB, "it is durable"


def test_days_without_a_mount_are_billed_with_what_there_was(days: Days) -> None:
    disk = disk_of(days.pool, "a", "b")
    days.sample()
    put(days.pool, disk, 2, "c")
    days.home.abandon()  # a crash
    days.now_ns += 10 * DAY_NS
    days.open()
    days.sample()
    assert days.held(disk.id)[1] == 10 * 86400 * 2 * B


def test_what_rests_is_not_sampled_again(days: Days) -> None:
    disk = disk_of(days.pool, "a", "b")
    days.pool.snapshot(disk, "s")
    days.sample()
    stored = dict(days.pool.catalog.accounts._stored)
    days.now_ns += DAY_NS
    for _ in days.pool.catalog.accounts.record(finish(days.pool.holdings.count())):
        pass
    assert not days.pool.catalog.accounts.unsaved
    assert days.pool.catalog.accounts._stored == stored
    assert days.held(disk.id)[1] == 86400 * 2 * B


def test_a_disk_that_is_gone_is_billed_under_its_last_name_and_labels(days: Days) -> None:
    disk = disk_of(days.pool, "a")
    days.pool.marking.label(disk, {"env": "prod"})
    days.sample()
    days.now_ns += HOUR_NS
    days.pool.rename_disk(disk, "last")
    days.pool.delete_disk(disk)
    days.later(DAY_NS)
    days.sample()
    account = days.pool.catalog.accounts.get(disk.id)
    assert account is not None and account.ended
    assert (account.name, account.labels, account.holds) == ("last", {"env": "prod"}, NOTHING)
    assert days.held(disk.id)[1] == 3600 * B


def test_what_is_in_the_trash_counts_for_the_disk_that_it_was(days: Days) -> None:
    days.pool.trash.set_keep(DAY_NS)
    disk = disk_of(days.pool, "a", "b")
    days.sample()
    days.pool.trash.delete_disk(disk)
    days.sample()
    days.later(HOUR_NS)
    assert days.held(disk.id) == (0, 0, 0, 0, 3600 * 2 * B)
    back = days.pool.trash.restore(next(iter(days.pool.trash)))
    days.sample()
    days.later(HOUR_NS)
    assert days.held(disk.id) == (0, 0, 0, 0, 3600 * 2 * B)
    assert days.held(back.id)[1] == 3600 * 2 * B


def test_a_chain_that_stays_goes_on_in_the_account_and_so_does_a_disk_of_its_name(days: Days) -> None:
    disk = disk_of(days.pool, "a")
    days.pool.snapshot(disk, "s")
    days.pool.delete_disk(disk)
    days.sample()
    days.later(HOUR_NS)
    assert days.held(disk.id)[2] == 3600 * B
    again = days.pool.create_disk(disk.name, GIB)
    days.later(0)
    days.later(SECOND_NS)
    assert (again.id, days.held(disk.id)[0]) == (disk.id, GIB)
    other = days.pool.create_disk("other", MIB)
    days.later(HOUR_NS)
    days.pool.delete_disk(again)
    number = other.id
    days.pool.rename_disk(other, "d")  # it takes the chain over, and its id
    days.sample()
    ended = days.pool.catalog.accounts.get(number)
    assert ended is not None and ended.ended and ended.name == "d" and other.id == disk.id
    days.later(SECOND_NS)
    assert days.total()[0] == 3601 * GIB + MIB


def test_a_disk_that_an_older_rowfs_deleted_ends_with_the_next_sample(days: Days) -> None:
    disk = disk_of(days.pool, "a")
    days.sample()
    days.home.close()
    damage.remove(days.home.path, DISKS, ID_KEY.pack(disk.id))
    days.now_ns += DAY_NS
    days.open()
    days.sample()
    days.later(DAY_NS)
    account = days.pool.catalog.accounts.get(disk.id)
    assert account is not None and account.ended and account.name == ""
    assert days.held(disk.id)[1] == 86400 * B
    days.home.abandon()  # without its record the disk's blocks are nobody's


def test_a_damaged_account_begins_anew_and_check_drops_it(days: Days, caplog: pytest.LogCaptureFixture) -> None:
    disk = disk_of(days.pool, "a")
    days.sample()
    days.home.close()
    damage.put(days.home.path, ACCOUNTS, ID_KEY.pack(disk.id), b"\1\2no account")
    days.open()
    assert checks(days.pool) == {"names"}
    with caplog.at_level(logging.CRITICAL):
        assert days.pool.catalog.accounts.get(disk.id) is None
    days.sample()
    assert checks(days.pool) == set()
    days.later(SECOND_NS)
    assert days.held(disk.id)[1] == B
    days.home.close()
    damage.put(days.home.path, ACCOUNTS, ID_KEY.pack(1 << 40), pack(Account()))
    ((found,), mended) = check_pool(str(days.home.path), repair=True)
    assert "accounts is no account" in str(found) and mended
    assert check_pool(str(days.home.path)) == ([], False)


def test_thousands_of_disks_that_go_are_added_together_and_nothing_is_lost(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ENDED_BYTES_MAX", 4000)
    table = days.pool.catalog.accounts
    for number in range(300):
        disk = Disk(
            id=1000 + number, name=f"ci-{number}", size_bytes=GIB, branch=None, created_ns=0, modified_ns=0, inode=1
        )
        disk.head = days.pool.catalog.new_branch()
        table.see(disk)
        days.now_ns += 60 * SECOND_NS
        table.end(disk.id, disk.name, {"env": "ci"})
    others = table.get(OTHERS[Kind.DISK])
    assert others is not None and not others.ended
    assert 10 < len(table._ended) < 100 and min(table._ended) > 1000
    assert days.total() == (300 * 60 * GIB, 0, 0, 0, 0)
    assert sum(map(len, (table._stored[number] for number in table._ended))) == table._ended_bytes <= 4000
    days.home.abandon()


def test_more_disks_than_have_accounts_are_counted_together(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (accounts, usage):
        monkeypatch.setattr(module, "OWN_MAX", 3)
    table = days.pool.catalog.accounts
    held = {number: Held(Kind.DISK, (GIB, number, 0, 0, 0)) for number in range(1, 8)}
    for _ in table.record(held):
        pass
    days.now_ns += SECOND_NS
    assert {number for number, _ in table} == {1, 2, 3, OTHERS[Kind.DISK]}
    assert days.total() == (7 * GIB, sum(range(1, 8)), 0, 0, 0)
    days.home.abandon()


def test_all_accounts_together_stay_within_their_bounds(days: Days) -> None:
    table = days.pool.catalog.accounts
    for hour in range(30):
        held = {
            number: Held(Kind.DISK, (GIB, number * hour * B, hour * B, 0, 0)) for number in range(1, 40 if hour else 10)
        }
        for _ in table.record(held):
            pass
        days.now_ns += HOUR_NS
    stored = sum(map(len, table._stored.values()))
    assert stored == table._own_bytes + table._ended_bytes <= ALL_BYTES_MAX
    assert days.total()[0] == (9 + 29 * 39) * 3600 * GIB
    days.home.abandon()


def test_a_policy_that_is_gone_ends_with_its_last_snapshot(days: Days) -> None:
    table = days.pool.catalog.accounts
    for there, held in ((True, B), (False, B)):
        for _ in table.record({7: Held(Kind.POLICY, (0, 0, held, 0, 0), there, "nightly" if there else "")}):
            pass
        days.now_ns += SECOND_NS
    for _ in table.record({}):
        pass
    days.now_ns += DAY_NS
    account = table.get(7)
    assert account is not None and (account.kind, account.ended, account.name) == (Kind.POLICY, True, "nightly")
    assert days.held(7) == (0, 0, 2 * B, 0, 0)
    days.home.abandon()


def test_a_new_account_knows_nothing_of_before(days: Days) -> None:
    assert byte_seconds(Account(), 0, days.now_ns) == NOTHING
