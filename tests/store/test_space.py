"""Free space: nothing is handed out twice, nothing is lost, and runs are long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rowfs.base import bitmap
from rowfs.base.bitmap import CHUNK_BLOCKS, CHUNK_BYTES
from rowfs.base.errors import NoSpaceError
from rowfs.persist import space as space_module
from rowfs.persist import unpunched as unpunched_module
from rowfs.persist.shares import Shares
from rowfs.persist.space import CLAIM_BLOCKS, ROOMY_BLOCKS, RUN_BLOCKS_MIN, Claim, FrozenSpace, Punching, Space
from tests.store.machines import machine_settings

PLENTY = 1 << 50
CHUNKS = 3


class Stored(dict[int, bytearray]):
    """The durable bitmaps, by chunk."""

    def load(self, chunk: int) -> bytearray | None:
        return bytearray(self[chunk]) if chunk in self else None

    def space(
        self,
        capacity_blocks: int | None = None,
        host_free_bytes: int = PLENTY,
        host_keeps: bool = True,
        host_blocks_max: int = 1 << 32,
        length_blocks: int = 0,
    ) -> Space:
        """With `host_keeps` the data file does not grow as long as anything is free."""
        used = {chunk: int.from_bytes(bits, "little").bit_count() for chunk, bits in self.items()}
        shares = Shares(lambda region: None, ())
        return Space(
            self.load,
            used,
            capacity_blocks,
            lambda: host_free_bytes,
            shares,
            lambda: host_keeps,
            host_blocks_max,
            length_blocks,
        )

    def commit(self, space: Space) -> None:
        """A whole commit: durable, and its freed blocks recycled."""
        frozen = space.freeze()
        self.update(frozen.chunks)
        space.committed()
        space.recycle(frozen.freed)

    def allocated(self) -> int:
        """A bit for each block that is."""
        return sum(int.from_bytes(bits, "little") << chunk * CHUNK_BLOCKS for chunk, bits in self.items())


def full_but(*free: tuple[int, int]) -> bytearray:
    """A chunk that has only these ranges (first, count) free."""
    bits = bytearray(b"\xff" * CHUNK_BYTES)
    for first, count in free:
        bitmap.clear_range(bits, first, count)
    return bits


def take(space: Space, blocks: int, claim: Claim | None = None) -> list[int]:
    claim = claim or Claim()
    taken: list[int] = []
    while len(taken) < blocks:
        first, count = space.allocate(claim, blocks - len(taken))
        taken += range(first, first + count)
    return taken


def test_a_writer_gets_one_long_run() -> None:
    assert take(Stored().space(), 5000) == list(range(5000))


def test_two_writers_do_not_interleave() -> None:
    space, one, two = Stored().space(), Claim(), Claim()
    runs: dict[int, list[int]] = {1: [], 2: []}
    for _ in range(CLAIM_BLOCKS):
        runs[1] += take(space, 1, one)
        runs[2] += take(space, 1, two)
    assert runs[1] == list(range(runs[1][0], runs[1][0] + CLAIM_BLOCKS))
    assert runs[2] == list(range(runs[2][0], runs[2][0] + CLAIM_BLOCKS))


def test_a_dropped_claim_is_used_by_others() -> None:
    space, claim = Stored({0: full_but((100, 50))}).space(capacity_blocks=CHUNK_BLOCKS), Claim()
    take(space, 1, claim)
    space.drop(claim)
    assert take(space, 49) == list(range(101, 150))


def test_the_last_blocks_can_be_had_though_another_writer_claims_them() -> None:
    space, idle = Stored({0: full_but((100, 50))}).space(capacity_blocks=CHUNK_BLOCKS), Claim()
    first = take(space, 1, idle)
    assert sorted(first + take(space, 49)) == list(range(100, 150))
    with pytest.raises(NoSpaceError):
        space.allocate(idle, 1)


def test_capacity_is_a_limit_to_the_block() -> None:
    space = Stored().space(capacity_blocks=700)
    take(space, 700)
    with pytest.raises(NoSpaceError, match="the pool is full"):
        space.allocate(Claim(), 1)
    assert space.free_blocks() == 0


def test_little_left_on_the_host_is_kept_for_commits() -> None:
    space = Stored().space(host_free_bytes=space_module.HOST_RESERVE_BYTES - 1)
    with pytest.raises(NoSpaceError, match="file system that holds the pool is full"):
        space.allocate(Claim(), 1)
    assert space.free_blocks() == 0


SCATTERED = [(at, RUN_BLOCKS_MIN - 1) for at in range(0, CHUNK_BLOCKS // 2, 2 * RUN_BLOCKS_MIN)]


@pytest.mark.parametrize("capacity_blocks", [None, CHUNK_BLOCKS])
@pytest.mark.parametrize("crumbs", [[(100, 50)], SCATTERED])
def test_the_file_grows_before_crumbs_are_used(capacity_blocks: int | None, crumbs: list[tuple[int, int]]) -> None:
    space = Stored({0: full_but(*crumbs)}).space(capacity_blocks, host_keeps=False)
    assert take(space, 1) == [CHUNK_BLOCKS]


def test_long_runs_are_used_before_the_file_grows() -> None:
    space = Stored({0: full_but(*SCATTERED, (20_000, 600), (30_000, RUN_BLOCKS_MIN))}).space(host_keeps=False)
    assert take(space, 633) == [*range(20_000, 20_600), *range(30_000, 30_000 + RUN_BLOCKS_MIN), CHUNK_BLOCKS]


def test_crumbs_become_a_run_when_what_lies_between_is_freed() -> None:
    stored = Stored({0: full_but(*SCATTERED), 1: full_but()})
    space = stored.space(host_keeps=False)
    claim = Claim()
    assert take(space, 1, claim) == [2 * CHUNK_BLOCKS]
    space.free(np.array([RUN_BLOCKS_MIN - 1 + at for at in range(RUN_BLOCKS_MIN + 1)]))
    stored.commit(space)
    assert take(space, CLAIM_BLOCKS - 1, claim) == list(range(2 * CHUNK_BLOCKS + 1, 2 * CHUNK_BLOCKS + CLAIM_BLOCKS))
    assert take(space, 2, claim) == [0, 1]


def test_crumbs_are_used_when_the_file_is_twice_as_long_as_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "SLACK_BLOCKS", 0)
    assert take(Stored({0: full_but(*SCATTERED)}).space(host_keeps=False), 1) == [CHUNK_BLOCKS], "a quarter is free"
    two_thirds = [(at, 20) for at in range(0, CHUNK_BLOCKS - 20, 30)]
    assert take(Stored({0: full_but(*two_thirds)}).space(host_keeps=False), 22) == [*range(20), 30, 31]


def test_one_claim_scans_few_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored({chunk: full_but(*SCATTERED) for chunk in range(20)})
    scanned: list[int] = []
    load = stored.load
    monkeypatch.setattr(stored, "load", lambda chunk: scanned.append(chunk) or load(chunk), raising=False)
    space, claims = stored.space(host_keeps=False), [Claim() for _ in range(8)]
    for number, claim in enumerate(claims, 1):
        assert take(space, 1, claim) == [20 * CHUNK_BLOCKS + (number - 1) * CLAIM_BLOCKS]
        assert len([chunk for chunk in scanned if chunk < 20]) <= number * space_module.SCANS_MAX


def test_crumbs_are_used_when_the_file_cannot_grow() -> None:
    space = Stored({0: full_but((100, 5), (200, 5))}).space(capacity_blocks=CHUNK_BLOCKS)
    assert take(space, 10) == [*range(100, 105), *range(200, 205)]


@pytest.mark.parametrize("capacity_blocks", [None, 5 * CHUNK_BLOCKS])
def test_crumbs_are_used_when_the_host_lets_the_file_become_no_longer(capacity_blocks: int | None) -> None:
    space = Stored({0: full_but((100, 5), (200, 5))}).space(
        capacity_blocks, host_keeps=False, host_blocks_max=3 * CHUNK_BLOCKS - 1
    )
    assert space.free_blocks() == CHUNK_BLOCKS + 10
    assert take(space, CHUNK_BLOCKS) == list(range(CHUNK_BLOCKS, 2 * CHUNK_BLOCKS))
    assert take(space, 10) == [*range(100, 105), *range(200, 205)]
    with pytest.raises(NoSpaceError):
        space.allocate(Claim(), 1)
    assert space.free_blocks() == 0


def test_a_freed_block_is_not_handed_out_before_it_is_recycled() -> None:
    stored = Stored({0: full_but()})
    space = stored.space(capacity_blocks=CHUNK_BLOCKS)
    space.free(np.array([77]))
    frozen = space.freeze()
    stored.update(frozen.chunks)
    space.committed()
    with pytest.raises(NoSpaceError):
        space.allocate(Claim(), 1)
    space.recycle(frozen.freed)
    assert space.allocate(Claim(), 1) == (77, 1)


def test_the_durable_bitmap_has_freed_blocks_clear() -> None:
    stored = Stored({0: full_but()})
    space = stored.space()
    space.free(np.array([77]))
    frozen = space.freeze()
    assert bitmap.free_runs(frozen.chunks[0]) == [(77, 1)]


def test_a_bitmap_loaded_before_recycling_does_not_offer_freed_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "LOADED_CHUNKS_MAX", 1)
    stored = Stored({0: full_but(), 1: full_but((5, 1))})
    space = stored.space(capacity_blocks=2 * CHUNK_BLOCKS)
    space.free(np.array([77]))
    frozen = space.freeze()
    stored.update(frozen.chunks)
    space.committed()
    assert take(space, 1) == [CHUNK_BLOCKS + 5]  # which pushes chunk 0 out of memory
    with pytest.raises(NoSpaceError):
        space.allocate(Claim(), 1)
    space.recycle(frozen.freed)
    assert take(space, 1) == [77]


def test_an_allocation_that_failed_can_be_undone() -> None:
    space = Stored({0: full_but((100, 50))}).space(capacity_blocks=CHUNK_BLOCKS)
    first, count = space.allocate(Claim(), 50)
    space.undo(first, count)
    assert take(space, 50) == list(range(100, 150))


def test_freeing_across_more_chunks_than_stay_in_memory_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "LOADED_CHUNKS_MAX", 2)
    stored = Stored({chunk: full_but() for chunk in range(5)})
    space = stored.space(capacity_blocks=5 * CHUNK_BLOCKS)
    freed = [chunk * CHUNK_BLOCKS + 7 for chunk in range(5)]
    space.free(np.array(freed))
    stored.commit(space)
    assert take(space, 5) == freed


def test_an_allocation_beside_a_commit_of_many_chunks_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "LOADED_CHUNKS_MAX", 2)
    stored = Stored({0: full_but(), 1: full_but(), 2: full_but(), 3: full_but((0, 20000))})
    space = stored.space()
    space.free(np.array([7, CHUNK_BLOCKS + 7, 2 * CHUNK_BLOCKS + 7]))
    frozen = space.freeze()
    (taken,) = take(space, 1)  # in chunk 3, while the three others cannot leave memory
    stored.update(frozen.chunks)
    space.committed()
    space.recycle(frozen.freed)
    stored.commit(space)
    assert stored.allocated() >> taken & 1


def test_a_bitmap_that_a_commit_is_taking_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "LOADED_CHUNKS_MAX", 1)
    stored = Stored({chunk: full_but((0, CLAIM_BLOCKS)) for chunk in range(3)})
    space = stored.space(capacity_blocks=3 * CHUNK_BLOCKS)
    one, two, three = Claim(), Claim(), Claim()
    taken = take(space, 1, one) + take(space, 1, two)
    frozen = space.freeze()
    taken += take(space, 1, three) + take(space, 1, one)
    stored.update(frozen.chunks)
    space.committed()
    stored.commit(space)
    assert len({block // CHUNK_BLOCKS for block in taken}) == 3
    assert all(stored.allocated() >> block & 1 for block in taken)


# What is free and the host holds


def freed(stored: Stored, space: Space, *runs: tuple[int, int]) -> None:
    """Free these ranges (first, count), durably."""
    space.free(np.concatenate([np.arange(first, first + count) for first, count in runs]))
    stored.commit(space)


def test_what_was_freed_is_used_again_before_what_was_free() -> None:
    stored = Stored({0: full_but((0, 20_000)), 1: full_but()})
    space = stored.space(host_keeps=False)
    freed(stored, space, (CHUNK_BLOCKS + 100, ROOMY_BLOCKS))
    assert space.unpunched.blocks == ROOMY_BLOCKS
    assert take(space, 3) == [CHUNK_BLOCKS + 100 + n for n in range(3)]
    assert space.unpunched.blocks == ROOMY_BLOCKS - 3


def test_the_file_does_not_grow_while_the_host_holds_much_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "UNPUNCHED_BLOCKS", 0)
    stored = Stored({0: full_but(), 1: full_but()})
    space, claim = stored.space(host_keeps=False), Claim()
    crumbs = [(at, 3) for at in range(0, CHUNK_BLOCKS, 9)]  # a third of one chunk, a sixth of what is allocated
    freed(stored, space, *crumbs)
    taken = take(space, 9 * len(crumbs) // 4, claim)
    assert max(taken) < CHUNK_BLOCKS
    assert taken == [at + n for at, count in crumbs for n in range(count)][: len(taken)]
    assert not space.unpunched_much
    assert max(take(space, 9000, claim)) >= 2 * CHUNK_BLOCKS, "few are left, which are worth less than long runs"


def test_a_full_host_gives_what_it_holds_already_to_the_block() -> None:
    stored = Stored({0: full_but((100, 50))})
    space = stored.space(host_free_bytes=space_module.HOST_RESERVE_BYTES - 1, host_keeps=False)
    with pytest.raises(NoSpaceError, match="file system that holds the pool is full"):
        space.allocate(Claim(), 1)
    freed(stored, space, (7, 1), (140 + 60, 5))
    assert space.free_blocks() == 6
    assert take(space, 6) == [7, *range(200, 205)]
    assert space.free_blocks() == 0
    with pytest.raises(NoSpaceError):
        space.allocate(Claim(), 1)


def test_a_full_host_gives_what_another_writer_claims() -> None:
    stored = Stored({0: full_but()})
    space = stored.space(host_free_bytes=0, host_keeps=False)
    freed(stored, space, (7, 2))
    idle = Claim()
    assert take(space, 1, idle) == [7]
    assert take(space, 1) == [8]


def test_what_is_punched_goes_together_and_is_handed_out_to_nobody_meanwhile() -> None:
    stored = Stored({0: full_but((100, 50))})
    space = stored.space(CHUNK_BLOCKS, host_keeps=False)
    freed(stored, space, (90, 10), (150, 5), (1000, 1))
    punching = space.begin_punching()
    assert punching is not None and punching.runs == [(90, 65), (1000, 1)]
    with pytest.raises(NoSpaceError):
        space.allocate(Claim(), 1)
    space.end_punching(punching, 1)
    assert space.unpunched.blocks == 1
    punching = space.begin_punching()
    assert punching is not None and punching.runs == [(1000, 1)]
    space.end_punching(punching, 1)
    assert space.begin_punching() is None
    assert len(take(space, 66)) == 66


def test_only_long_runs_are_punched_where_that_is_asked_for() -> None:
    stored = Stored({0: full_but()})
    space = stored.space(host_keeps=False)
    freed(stored, space, (90, 10), (1000, 1))
    assert space.begin_punching(11) is None
    punching = space.begin_punching(10)
    assert punching is not None and punching.runs == [(90, 10)]
    space.end_punching(punching, 1)


def test_what_an_earlier_mount_left_is_found() -> None:
    stored = Stored({0: full_but((100, 50))})
    space = stored.space(host_keeps=False, length_blocks=2 * CHUNK_BLOCKS)
    assert space.unpunched.unknown == {0, 1}
    space.found_held(0, [(90, 20), (140, 100)])
    space.found_held(1, [(CHUNK_BLOCKS + 5, 1)])
    assert space.unpunched.blocks == 10 + 10 + 1
    assert not space.unpunched.unknown


def test_what_does_not_fit_into_memory_is_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpunched_module, "CHUNKS_MAX", 8)
    stored = Stored({chunk: full_but() for chunk in range(9)})
    space = stored.space(host_keeps=False)
    freed(stored, space, *((chunk * CHUNK_BLOCKS, 9 - chunk) for chunk in range(9)))
    assert space.unpunched.unknown == {8}
    assert space.unpunched.blocks == sum(range(2, 10))


def test_blocks_are_not_recycled_twice() -> None:
    stored = Stored({0: full_but()})
    space = stored.space()
    space.free(np.array([77]))
    frozen = space.freeze()
    space.committed()
    space.recycle(frozen.freed)
    with pytest.raises(AssertionError):
        space.recycle(frozen.freed)


class SpaceMachine(RuleBasedStateMachine):
    """Writers, frees and commits over chunks of which one fits into memory. Sets of blocks are bits of an int."""

    host_keeps = True

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(space_module, "LOADED_CHUNKS_MAX", 1)
        crumbs = full_but((10, 40), (100, 3), (5000, 600))
        self.stored = Stored({chunk: bytearray(crumbs) for chunk in range(CHUNKS)})
        self.space = self.stored.space(CHUNKS * CHUNK_BLOCKS, host_keeps=self.host_keeps)
        self.held = self.stored.allocated()
        self.freed = 0
        self.unrecycled: list[FrozenSpace] = []
        self.frozen: FrozenSpace | None = None
        self.held_at_freeze = 0
        self.claims = [Claim(), Claim(), Claim()]
        self.unpunched = 0  # a bit for each block
        self.punching: Punching | None = None

    def teardown(self) -> None:
        self.patch.undo()

    def _allocate(self, writer: int, blocks: int) -> tuple[int, int] | None:
        try:
            first, count = self.space.allocate(self.claims[writer], blocks)
        except NoSpaceError:
            assert (self.held | self.freed | self._set_aside()).bit_count() == CHUNKS * CHUNK_BLOCKS
            return None
        assert 0 < count <= blocks
        assert not mask(first, count) & (self.held | self.freed | self._set_aside()), "a block is handed out twice"
        self.unpunched &= ~mask(first, count)
        return first, count

    @rule(writer=st.integers(0, 2), blocks=st.sampled_from([1, 3, 50, 700]))
    def allocate(self, writer: int, blocks: int) -> None:
        self.held |= mask(*self._allocate(writer, blocks) or (0, 0))

    @rule(writer=st.integers(0, 2), blocks=st.sampled_from([1, 9]))
    def allocate_and_fail(self, writer: int, blocks: int) -> None:
        taken = self._allocate(writer, blocks)
        if taken is not None:
            self.space.undo(*taken)
            self.unpunched |= mask(*taken)

    @rule(first=st.integers(0, CHUNKS * CHUNK_BLOCKS - 1), count=st.sampled_from([1, 5, 2000]))
    def free(self, first: int, count: int) -> None:
        gone = mask(first, count) & self.held
        self.space.free(np.array([first + n for n in range(count) if gone >> first + n & 1], np.int64))
        self.held &= ~gone
        self.freed |= gone

    @rule(writer=st.integers(0, 2))
    def drop(self, writer: int) -> None:
        self.space.drop(self.claims[writer])

    @precondition(lambda self: self.frozen is None)
    @rule()
    def freeze(self) -> None:
        self.frozen, self.held_at_freeze = self.space.freeze(), self.held

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def commit(self) -> None:
        self.stored.update(self.frozen.chunks)
        assert self.stored.allocated() == self.held_at_freeze, "what is durable is what was allocated"
        self.space.committed()
        self.unrecycled.append(self.frozen)
        self.frozen = None

    @precondition(lambda self: self.unrecycled)
    @rule()
    def recycle(self) -> None:
        freed = self.unrecycled.pop(0).freed
        self.space.recycle(freed)
        for block in freed.tolist():
            self.freed &= ~mask(block, 1)
            self.unpunched |= mask(block, 1)

    def _set_aside(self) -> int:
        return sum(mask(*run) for run in self.punching.runs) if self.punching is not None else 0

    @precondition(lambda self: self.punching is None)
    @rule(blocks_min=st.sampled_from([1, 40]))
    def begin_punching(self, blocks_min: int) -> None:
        self.punching = self.space.begin_punching(blocks_min)
        assert not self._set_aside() & (self.held | self.freed), "what is in use is punched"

    @precondition(lambda self: self.punching is not None)
    @rule(whole=st.booleans())
    def end_punching(self, whole: bool) -> None:
        done = len(self.punching.runs) if whole else len(self.punching.runs) // 2
        self.space.end_punching(self.punching, done)
        for run in self.punching.runs[:done]:
            self.unpunched &= ~mask(*run)
        self.punching = None

    @invariant()
    def nothing_is_miscounted(self) -> None:
        assert self.space.allocated_blocks == (self.held | self.freed).bit_count()
        assert self.space.freed_blocks == self.freed.bit_count()
        assert self.space.unpunched.blocks == self.unpunched.bit_count()


def mask(first: int, count: int) -> int:
    return ((1 << count) - 1) << first


class GrowingMachine(SpaceMachine):
    """The same with a data file that grows rather than having its short runs filled."""

    host_keeps = False


TestSpaceModel = SpaceMachine.TestCase
TestSpaceModel.settings = machine_settings(examples=40, steps=40)
TestGrowingModel = GrowingMachine.TestCase
TestGrowingModel.settings = machine_settings(examples=40, steps=40)
