"""Counting further owners: who else has a block, when it is free, and what a crash would bring back."""

from __future__ import annotations

from collections import Counter
from errno import EOPNOTSUPP

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rowfs.base.errors import CorruptionError, RowfsError
from rowfs.base.sharecode import REGION_BLOCKS
from rowfs.persist import shares as shares_module
from rowfs.persist.shares import REGION_MAX, Shares, shared_regions
from tests.store.machines import machine_settings

FAR = 1000 * REGION_BLOCKS + 7


class Stored(dict[int, np.ndarray]):
    """The durable counts, by region."""

    def load(self, region: int) -> np.ndarray | None:
        return self[region].copy() if region in self else None

    def shares(self) -> Shares:
        return Shares(self.load, self)

    def commit(self, shares: Shares) -> None:
        self.write(shares.freeze())
        shares.committed()

    def write(self, frozen: dict[int, np.ndarray]) -> None:
        for region, counts in frozen.items():
            self.pop(region, None)
            if counts.any():
                self[region] = counts


def at(*addresses: int) -> np.ndarray:
    return np.array(addresses, np.int64)


def test_nothing_is_shared_at_first() -> None:
    shares = Stored().shares()
    assert not shares
    assert shares.shared(at(1, FAR)).tolist() == [False, False]
    assert shares.release(at(1, FAR)).tolist() == [1, FAR]


def test_the_last_owner_of_several_frees_a_block() -> None:
    shares = Stored().shares()
    shares.add(at(1, FAR, FAR))
    assert shares
    assert shares.further(at(1, 2, FAR)).tolist() == [1, 0, 2]
    assert shares.release(at(1, 2, FAR)).tolist() == [2]
    assert shares.release(at(1, FAR)).tolist() == [1]
    assert shares.release(at(FAR)).tolist() == [FAR]


def test_all_owners_may_let_go_in_one_call() -> None:
    shares = Stored().shares()
    shares.add(at(5, 5, 6))
    assert shares.release(at(5, 6, 5, 6, 5)).tolist() == [5, 6]


def test_a_block_that_is_let_go_of_too_often_is_an_error_of_ours() -> None:
    shares = Stored().shares()
    shares.add(at(5))
    with pytest.raises(AssertionError, match="let go of by more than own it"):
        shares.release(at(5, 5, 5))
    with pytest.raises(AssertionError, match="let go of by more than own it"):
        shares.release(at(FAR, FAR))


def test_what_was_shared_is_shared_until_it_is_not_durably() -> None:
    stored = Stored()
    shares = stored.shares()
    shares.add(at(5))
    stored.commit(shares)
    shares.release(at(5))
    assert shares.shared(at(5)).all()
    frozen = shares.freeze()
    assert not frozen[0].any()
    assert shares.shared(at(5)).all()
    stored.write(frozen)
    shares.committed()
    assert not shares.shared(at(5)).any()
    assert not shares
    assert not stored


def test_a_commit_that_began_before_does_not_count() -> None:
    stored = Stored()
    shares = stored.shares()
    shares.add(at(5))
    stored.write(shares.freeze())
    shares.release(at(5))
    shares.committed()
    assert shares.shared(at(5)).all()
    stored.commit(shares)
    assert not shares.shared(at(5)).any()


def test_a_region_that_holds_nothing_any_more_is_let_go_of_once() -> None:
    stored = Stored()
    shares = stored.shares()
    shares.add(at(5))
    stored.commit(shares)
    shares.release(at(5))
    frozen = shares.freeze()
    shares.release(at(6))  # nothing that is shared, but in a region that may hold something
    stored.write(frozen)
    shares.committed()
    stored.commit(shares)
    shares.add(at(5))
    assert shares
    assert shares.release(at(5)).tolist() == []


def test_a_block_that_is_shared_too_often_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares_module, "FURTHER_MAX", 2)
    shares = Stored().shares()
    shares.add(at(FAR, FAR))
    with pytest.raises(RowfsError, match="too often") as caught:
        shares.add(at(1, FAR))
    assert caught.value.errno == EOPNOTSUPP
    assert shares.further(at(1, FAR)).tolist() == [0, 2]
    stored = Stored()
    stored.commit(shares)
    assert stored.shares().further(at(1, FAR)).tolist() == [0, 2]


def test_many_changes_ask_for_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares_module, "CHANGED_REGIONS_MAX", 3)
    stored = Stored()
    shares = stored.shares()
    for region in range(3):
        shares.add(at(region * REGION_BLOCKS))
    assert not shares.crowded
    shares.add(at(FAR))
    assert shares.crowded
    stored.commit(shares)
    assert not shares.crowded


@pytest.mark.parametrize("key", [b"abc", b"12345", (REGION_MAX + 1).to_bytes(4)])
def test_a_key_that_is_none_of_a_region_is_seen(key: bytes) -> None:
    with pytest.raises(CorruptionError, match=key.hex()):
        list(shared_regions([key]))


addresses = st.lists(st.sampled_from([1, 2, 4095, 4096, 9000, FAR, FAR + 1]), min_size=1, max_size=4)


class SharesMachine(RuleBasedStateMachine):
    """Beside a count of owners by address, durable and not."""

    @initialize(loaded=st.sampled_from([1, 2048]))
    def start(self, loaded: int) -> None:
        self.before = shares_module.LOADED_REGIONS_MAX
        shares_module.LOADED_REGIONS_MAX = loaded
        self.stored = Stored()
        self.shares = self.stored.shares()
        self.owners: Counter[int] = Counter()
        self.durable: list[Counter[int]] = [Counter()]  # what a crash may lead back to
        self.frozen: dict[int, np.ndarray] | None = None

    def teardown(self) -> None:
        shares_module.LOADED_REGIONS_MAX = self.before

    @rule(wanted=addresses)
    def own(self, wanted: list[int]) -> None:
        further = [address for n, address in enumerate(wanted) if self.owners[address] or address in wanted[:n]]
        self.shares.add(at(*further))
        self.owners.update(wanted)

    @rule(wanted=addresses)
    def let_go(self, wanted: list[int]) -> None:
        wanted = list((Counter(wanted) & self.owners).elements())
        free = self.shares.release(at(*wanted)).tolist()
        self.owners -= Counter(wanted)
        assert sorted(free) == sorted(address for address in set(wanted) if not self.owners[address])

    @precondition(lambda self: self.frozen is None)
    @rule()
    def freeze(self) -> None:
        self.frozen = self.shares.freeze()
        self.durable.append(self.owners.copy())

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def finish(self) -> None:
        assert self.frozen is not None
        self.stored.write(self.frozen)
        self.shares.committed()
        self.frozen = None
        del self.durable[0]

    @rule()
    def crash(self) -> None:
        self.frozen = None
        self.shares = self.stored.shares()
        self.owners = self.durable[0].copy()
        del self.durable[1:]

    @invariant()
    def says_what_is(self) -> None:
        if hasattr(self, "shares"):
            known = [1, 2, 3, 4095, 4096, 9000, FAR, FAR + 1]
            further = self.shares.further(at(*known)).tolist()
            assert bool(self.shares) or not any(further)
            assert further == [max(0, self.owners[address] - 1) for address in known]
            shared = self.shares.shared(at(*known)).tolist()
            for address, says in zip(known, shared, strict=True):
                must = any(owners[address] > 1 for owners in [self.owners, *self.durable])
                assert says or not must, "a block could be written in place that others own"


TestShares = SharesMachine.TestCase
TestShares.settings = machine_settings(examples=200, steps=40)
