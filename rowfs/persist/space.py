"""Which blocks of the data file are free, and handing them out in long contiguous runs.

Invariants:
- A set bit in memory is a block that is allocated, or freed by a commit that is not yet recycled. Only `recycle` clears
  bits, so a freed block is never handed out before the commit that freed it is durable and its readers are done.
- What `freeze` gives the commit has the bits of all freed blocks clear: durable bitmaps never know a block as both.
- A block that several owners share (persist.shares) is freed when the last of them lets go of it.
- What is free has no sum (seal.sums): `forget` is called in the step that frees it.
- A claim is a run of free blocks that one writer alone allocates from. It lives in memory only; its bits are clear.
- available[chunk] = blocks of the chunk that are neither allocated, nor claimed, nor being punched.

Blocks are handed out in this order:
1. long runs where the host holds most of what is free (persist.unpunched): that takes nothing of the host;
2. other long runs;
3. whatever the host holds, the chunk that has most of it first, once that is more than a share of what is allocated:
   the host gives up more for what waits than short runs cost. When the host is short of space, this comes first;
4. the end of the data file, which may become twice as long as what is allocated, and some more;
5. short runs.

Deleting a snapshot of a disk that is written at random leaves free runs of a block or two. To fill them costs more than
to write them, and what is written there can never be read in one go: so they wait until what is around them is free.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from rowfs.base import bitmap
from rowfs.base.bitmap import CHUNK_BLOCKS
from rowfs.base.errors import CorruptionError, NoSpaceError
from rowfs.base.format import CHUNK_KEY
from rowfs.base.units import BLOCK_BYTES, GIB, MIB, BlockAddress
from rowfs.persist.shares import Shares
from rowfs.persist.unpunched import Unpunched

CLAIM_BLOCKS = 512  # 2 MiB: random overwrites of one disk land side by side even when others write too
RUN_BLOCKS_MIN = 32  # 128 KiB: shorter runs, and chunks with less than this free, wait until the data file may not grow
ROOMY_BLOCKS = CHUNK_BLOCKS // 8
SCANS_MAX = 4  # of chunks for one claim, before the data file grows: about 100 us each
SLACK_BLOCKS = 8 * GIB // BLOCK_BYTES  # that the data file may be longer than twice what is allocated
LOADED_CHUNKS_MAX = 1024  # 4 MiB of bitmaps in memory, beside the changed ones
CHUNK_MAX = 1 << 23  # 1 PiB of data; a table of all chunks is kept in memory
SHORT_BLOCKS = 256 * MIB // BLOCK_BYTES  # with less than this to be had, or 1/16 of the capacity, space is short
UNPUNCHED_SHARE, UNPUNCHED_BLOCKS = 16, 256 * MIB // BLOCK_BYTES  # that may wait: a 16th of what is allocated, and some
HOST_RESERVE_BYTES = 64 * MIB  # left on the host file system, so that a full pool can still commit and delete
NO_ADDRESSES = np.empty(0, np.int64)


@dataclass(slots=True, eq=False)
class Claim:
    """Where a writer allocates next: the free blocks [next, end).

    `room`: how many more blocks the writer may have, or None, which is as many as there are. Raises NoSpaceError.
    """

    next: int = 0
    end: int = 0
    room: Callable[[], int | None] | None = None


@dataclass(slots=True)
class Punching:
    """Runs (first address, count) of free blocks that nobody gets until they are punched, and how many blocks."""

    chunk: int
    runs: list[tuple[int, int]]
    blocks: int


@dataclass(slots=True)
class FrozenSpace:
    """What a commit takes of the free space: bitmaps and shares as they will be durable, and the blocks it frees."""

    chunks: dict[int, bytearray]
    freed: np.ndarray
    shares: dict[int, np.ndarray] = field(default_factory=dict)


class Space:
    """The free space of one pool."""

    def __init__(
        self,
        load: Callable[[int], bytearray | None],
        used: dict[int, int],
        capacity_blocks: int | None,
        host_free_bytes: Callable[[], int],
        shares: Shares,
        host_keeps: Callable[[], bool] = lambda: False,
        host_blocks_max: int = CHUNK_MAX * CHUNK_BLOCKS,
        length_blocks: int = 0,
    ) -> None:
        """`load` gives a chunk's durable bitmap, `used` how many blocks of each chunk are allocated (others: none).

        `host_keeps` says whether the host cannot have back what is freed, `host_blocks_max` how long the data file can
        become there, `length_blocks` how long it is.
        """
        self._load = load
        self._host_free_bytes = host_free_bytes
        self._host_keeps = host_keeps
        self.shares = shares
        self.forget: Callable[[np.ndarray], object] = lambda addresses: None  # of what is free from now on, its sum
        self.is_sealed: Callable[[int, int], bool] = lambda address, blocks: False
        self.capacity_blocks = capacity_blocks
        self._length_max = host_blocks_max // CHUNK_BLOCKS * CHUNK_BLOCKS
        self.run_blocks_min = RUN_BLOCKS_MIN
        self.allocated_blocks = sum(used.values())
        chunks = max(max(used, default=-1) + 1, -(-length_blocks // CHUNK_BLOCKS))
        self._available = array("q", [CHUNK_BLOCKS]) * chunks
        for chunk, count in used.items():
            self._available[chunk] -= count
        self._scattered = bytearray(len(self._available))  # chunks without long free runs when last scanned
        self._chunks: OrderedDict[int, bytearray] = OrderedDict()
        self._changed: set[int] = set()
        self._committing: set[int] = set()
        self._claims: set[Claim] = set()
        self._punching: Punching | None = None
        self.unpunched = Unpunched(chunk for chunk in range(chunks) if length_blocks and self._available[chunk])
        self._scanned = -1  # the chunk that _free_runs are of
        self._scanned_unpunched = False  # whether they are all unpunched
        self._free_runs: deque[tuple[int, int]] = deque()
        self._freed: list[np.ndarray] = []  # since the last freeze
        self._unrecycled: list[np.ndarray] = []  # durable or in a commit, not yet recycled
        self.freed_blocks = 0  # how many are in the two above
        self.shortage = False  # there is little left: looked at when a claim is made and when blocks are recycled

    # Allocating

    def allocate(self, claim: Claim, blocks: int) -> tuple[BlockAddress, int]:
        """Up to `blocks` consecutive free blocks, now allocated: the first and how many.

        Raises NoSpaceError when there are none.
        """
        if claim.next == claim.end:
            self._renew(claim, blocks)
        address = claim.next
        count = min(blocks, claim.end - address)
        claim.next += count
        chunk, first = divmod(address, CHUNK_BLOCKS)
        bits = self._chunks.get(chunk)
        if bits is None:
            bits = self._chunk(chunk)
        bitmap.set_range(bits, first, count)
        self.unpunched.taken(chunk, first, count)
        self._changed.add(chunk)
        self.allocated_blocks += count
        return BlockAddress(address), count

    def undo(self, address: BlockAddress, blocks: int) -> None:
        """Take back allocations that no page holds which anybody has seen (the write into them failed)."""
        self.allocated_blocks -= blocks
        while blocks:
            chunk, first = divmod(address, CHUNK_BLOCKS)
            count = min(blocks, CHUNK_BLOCKS - first)
            bitmap.clear_range(self._chunk(chunk), first, count)
            self.unpunched.add(chunk, np.arange(first, first + count))  # some of it may have been written
            self._give_back(chunk, count)
            address, blocks = BlockAddress(address + count), blocks - count

    def drop(self, claim: Claim) -> None:
        """Give back what is left of a claim."""
        if claim.end > claim.next:
            self._give_back(claim.next // CHUNK_BLOCKS, claim.end - claim.next)
        claim.next = claim.end = 0
        self._claims.discard(claim)

    def drop_all(self) -> None:
        """Give back what is left of all claims, those of deleted disks too: whoever writes next asks anew."""
        for claim in list(self._claims):
            self.drop(claim)

    def _give_back(self, chunk: int, blocks: int) -> None:
        self._available[chunk] += blocks
        self._scattered[chunk] = False

    def _renew(self, claim: Claim, blocks: int) -> None:
        self.drop(claim)
        short = self._host_free_bytes() < HOST_RESERVE_BYTES
        want = max(CLAIM_BLOCKS, min(blocks, CHUNK_BLOCKS))
        room = None if claim.room is None else claim.room()
        want = want if room is None else min(want, room)
        run = self._claim_run(want, short)
        if run is None:  # what is left may be claimed by writers who do not use it
            self.drop_all()
            self._forget_runs()
            run = self._claim_run(want, short)
        if run is None and short:
            self.shortage = True
            raise NoSpaceError(
                "the file system that holds the pool is full: free some space there, or delete snapshots"
            )
        if run is None:
            self.shortage = True
            raise NoSpaceError("the pool is full: delete snapshots or disks")
        assert not self.is_sealed(run[0], run[1] - run[0]), "a free block has a sum"
        claim.next, claim.end = run
        self._claims.add(claim)
        self._look_for_shortage()

    def _forget_runs(self) -> None:
        self._scanned = -1
        self._free_runs.clear()

    def _claim_run(self, want: int, short: bool) -> tuple[int, int] | None:
        """Free blocks, `want` of them at most. With `short` those that the host holds, for it has no others."""
        if self.capacity_blocks is not None:
            want = min(want, self.capacity_blocks - self.allocated_blocks - self._claimed_blocks())
        if short and not self._scanned_unpunched:
            self._forget_runs()
        scans = 0
        tried: set[int] = set()  # where all that is unpunched is claimed, or being punched
        while want > 0:
            if self._free_runs:
                first, count = self._free_runs.popleft()
                if count > want:
                    self._free_runs.appendleft((first + want, count - want))
                    count = want
                self._available[self._scanned] -= count
                start = self._scanned * CHUNK_BLOCKS + first
                return start, start + count
            chunk, run_min, unpunched = (
                self._next_unpunched(tried) if short else self._next_chunk(scans < SCANS_MAX, tried)
            )
            if chunk is None:
                return None
            self._scan(chunk, run_min, unpunched)
            if unpunched:
                tried.add(chunk)
            scans += 1
        return None

    def _next_chunk(self, may_scan: bool, tried: set[int]) -> tuple[int | None, int, bool]:
        """Where to look for free runs, how long they have to be, and whether only in what the host holds.

        The data file grows for it if need be.
        """
        available = np.frombuffer(self._available, np.int64)
        if may_scan:
            roomy = (available >= ROOMY_BLOCKS) & (np.frombuffer(self._scattered, np.uint8) == 0)
            if roomy.any():
                held = self.unpunched.counts(len(available)) * roomy
                chunk = int(np.argmax(held))
                return chunk if held[chunk] else int(np.argmax(roomy)), self.run_blocks_min, False
        emptiest = int(np.argmax(available)) if len(available) else 0
        left = bool(available[emptiest]) if len(available) else False
        del available  # an array that is being looked at cannot grow
        if self.unpunched_much:
            found = self._next_unpunched(tried)
            if found[0] is not None:
                return found
        if self._may_grow(left):
            self._available.append(CHUNK_BLOCKS)
            self._scattered.append(False)
            return len(self._available) - 1, 1, False
        return (emptiest, 1, False) if left else (None, 1, False)

    def _next_unpunched(self, tried: Iterable[int] = ()) -> tuple[int | None, int, bool]:
        counts = np.minimum(self.unpunched.counts(len(self._available)), np.frombuffer(self._available, np.int64))
        counts[list(tried)] = 0
        chunk = int(np.argmax(counts)) if len(counts) else 0
        return (chunk if len(counts) and counts[chunk] else None), 1, True

    @property
    def unpunched_much(self) -> bool:
        """Whether the host holds so much that is free that it has to be used again, or punched."""
        return self.unpunched.blocks > self.allocated_blocks // UNPUNCHED_SHARE + UNPUNCHED_BLOCKS

    def _may_grow(self, left: bool) -> bool:
        """Whether the data file may, where there are free runs `left`, too short ones probably."""
        length = len(self._available) * CHUNK_BLOCKS
        if length >= self._length_max:
            return False
        if self.capacity_blocks is not None and length >= self.capacity_blocks * (2 if left else 1):
            return False
        return not left or (not self._host_keeps() and length < 2 * self.allocated_blocks + SLACK_BLOCKS)

    def _scan(self, chunk: int, run_min: int, unpunched: bool) -> None:
        bits = self._unavailable(chunk)
        assert bitmap.free_blocks(bits) == self._available[chunk], "free blocks are miscounted"
        if unpunched:
            bits = bitmap.pack(bitmap.unpack(bits) | ~self.unpunched.flags(chunk))
        self._scanned, self._scanned_unpunched = chunk, unpunched
        self._free_runs = deque(bitmap.free_runs(bits, run_min))
        if not unpunched:
            self._scattered[chunk] = not self._free_runs

    def _unavailable(self, chunk: int) -> bytearray:
        """The blocks of a chunk that are allocated, claimed or being punched."""
        bits = self._chunk(chunk)
        start = chunk * CHUNK_BLOCKS
        held = [(claim.next, claim.end - claim.next) for claim in self._claims if claim.next // CHUNK_BLOCKS == chunk]
        if self._punching is not None and self._punching.chunk == chunk:
            held += self._punching.runs
        if held:
            bits = bytearray(bits)
            for first, count in held:
                if count:
                    bitmap.set_range(bits, first - start, count)
        return bits

    def _chunk(self, chunk: int) -> bytearray:
        bits = self._chunks.get(chunk)
        if bits is None:
            self._evict()
            bits = self._load(chunk) or bytearray(bitmap.CHUNK_BYTES)
            self._restore_unrecycled(chunk, bits)
            self._chunks[chunk] = bits
        else:
            self._chunks.move_to_end(chunk)
        return bits

    def _restore_unrecycled(self, chunk: int, bits: bytearray) -> None:
        # The durable bitmap has these blocks free already; in memory they stay allocated until they are recycled.
        for addresses in self._unrecycled:
            for block in bitmap.of_chunk(addresses, chunk).tolist():
                if not bits[block >> 3] >> (block & 7) & 1:
                    bitmap.set_range(bits, block, 1)

    def _evict(self) -> None:
        if len(self._chunks) < LOADED_CHUNKS_MAX:
            return
        for chunk in list(self._chunks):
            if chunk not in self._changed and chunk not in self._committing:
                del self._chunks[chunk]
                if len(self._chunks) < LOADED_CHUNKS_MAX:
                    return

    # Freeing

    def free(self, addresses: np.ndarray) -> int:
        """An owner lets go of these blocks: free those that nobody else owns, with the next commit. How many?"""
        if self.shares:
            addresses = self.shares.release(addresses)
        if len(addresses):
            self._freed.append(addresses.astype(np.int64))
            self.freed_blocks += len(addresses)
            self.forget(self._freed[-1])
        return len(addresses)

    @property
    def freed_now(self) -> bool:
        """Whether blocks were freed since the last freeze."""
        return bool(self._freed)

    def freeze(self) -> FrozenSpace:
        """What the commit that begins now makes durable. Its freed blocks must come back through `recycle`."""
        freed = np.concatenate([NO_ADDRESSES, *self._freed])
        freed.sort()
        self._freed = []
        if len(freed):
            self._unrecycled.append(freed)
        chunks = {}
        for chunk in self._changed | set(np.unique(freed // CHUNK_BLOCKS).tolist()):
            bits = bytearray(self._chunk(chunk))
            for addresses in self._unrecycled:
                blocks = bitmap.of_chunk(addresses, chunk)
                if len(blocks):
                    bitmap.clear_many(bits, blocks)
            chunks[chunk] = bits
        self._committing, self._changed = set(chunks), set()
        return FrozenSpace(chunks, freed, self.shares.freeze())

    def committed(self) -> None:
        """What `freeze` gave last is durable now, and what `load` reads."""
        self._committing = set()
        self.shares.committed()

    def recycle(self, freed: np.ndarray) -> None:
        """Make the blocks of a durable commit, whose readers are done, free for new data."""
        if not len(freed):
            return
        place = next((at for at, addresses in enumerate(self._unrecycled) if addresses is freed), None)
        assert place is not None, "blocks are recycled twice"
        chunks, counts = np.unique(freed // CHUNK_BLOCKS, return_counts=True)
        for chunk, count in zip(chunks.tolist(), counts.tolist(), strict=True):
            blocks = bitmap.of_chunk(freed, chunk)
            bitmap.clear_many(self._chunk(chunk), blocks)
            self.unpunched.add(chunk, blocks)
            self._give_back(chunk, count)
        del self._unrecycled[place]  # only now: bitmaps that were loaded above had to have these blocks
        self.allocated_blocks -= len(freed)
        self.freed_blocks -= len(freed)
        self._forget_runs()  # what was freed comes first
        self._look_for_shortage()

    # Punching

    def begin_punching(self, blocks_min: int = 1) -> Punching | None:
        """Free runs of one chunk with what is unpunched in them, for `end_punching` once they are punched.

        The chunk is the one that has most. Of each free run as long as `blocks_min` it is all between the first and the
        last that is unpunched, in one piece. None: there is no such run there.
        """
        assert self._punching is None, "one at a time"
        chunk, _, _ = self._next_unpunched()
        if chunk is None or self._host_keeps():
            return None
        if chunk == self._scanned:
            self._forget_runs()
        unpunched = np.flatnonzero(self.unpunched.flags(chunk))
        runs = []
        for first, count in bitmap.free_runs(self._unavailable(chunk), blocks_min):
            low, high = np.searchsorted(unpunched, (first, first + count))
            if low < high:
                first, end = int(unpunched[low]), int(unpunched[high - 1]) + 1
                runs.append((chunk * CHUNK_BLOCKS + first, end - first))
        if not runs:
            return None
        blocks = sum(count for _, count in runs)
        self._available[chunk] -= blocks
        self._punching = Punching(chunk, runs, blocks)
        return self._punching

    def end_punching(self, punching: Punching, done: int) -> None:
        """The first `done` of the runs are punched; all of them may be handed out again."""
        assert punching is self._punching, "another one is under way"
        self._punching = None
        start = punching.chunk * CHUNK_BLOCKS
        punched = [np.arange(first - start, first - start + count) for first, count in punching.runs[:done]]
        self.unpunched.remove(punching.chunk, np.concatenate([NO_ADDRESSES, *punched]))
        self._give_back(punching.chunk, punching.blocks)

    def found_held(self, chunk: int, runs: list[tuple[int, int]]) -> None:
        """The host holds these runs (first address, count) of a chunk that was `unpunched.unknown`."""
        self.unpunched.unknown.discard(chunk)
        if chunk >= len(self._available) or self._available[chunk] == 0:
            return
        held = np.zeros(CHUNK_BLOCKS, bool)
        start = chunk * CHUNK_BLOCKS
        for first, count in runs:
            held[first - start : first - start + count] = True
        held &= ~bitmap.unpack(self._chunk(chunk))
        self.unpunched.add(chunk, np.flatnonzero(held))

    # Looking

    def _look_for_shortage(self) -> None:
        capacity = self.capacity_blocks
        few = SHORT_BLOCKS if capacity is None else min(SHORT_BLOCKS, capacity // 16)
        self.shortage = self.free_blocks() - self._claimed_blocks() < few

    def unclaimed_blocks(self) -> int:
        """How many blocks nobody has, nor has claimed."""
        return self.free_blocks() - self._claimed_blocks()

    def _claimed_blocks(self) -> int:
        return sum(claim.end - claim.next for claim in self._claims)

    def end_of_used(self) -> int:
        """The address behind the last block that was allocated when the pool was opened."""
        for chunk in range(len(self._available) - 1, -1, -1):
            runs = bitmap.used_runs(self._chunk(chunk)) if self._available[chunk] < CHUNK_BLOCKS else NO_ADDRESSES
            if len(runs):
                return chunk * CHUNK_BLOCKS + int(runs[-1][1])
        return 0

    def free_blocks(self) -> int:
        """How many blocks a writer could still get."""
        host = (self._host_free_bytes() - HOST_RESERVE_BYTES) // BLOCK_BYTES
        host = max(0, host) + self.unpunched.blocks
        limit = self._length_max if self.capacity_blocks is None else min(self._length_max, self.capacity_blocks)
        return max(0, min(host, limit - self.allocated_blocks))


def used_counts(items: Iterator[tuple[bytes, bytes | memoryview]]) -> dict[int, int]:
    """How many blocks of each chunk the stored bitmaps say are allocated. Raises CorruptionError."""
    counts = {}
    for key, value in items:
        chunk = int.from_bytes(key)
        if len(key) != CHUNK_KEY.size or chunk > CHUNK_MAX:
            raise CorruptionError(f"there is an allocation bitmap under the key {key.hex()}, which is none of a chunk")
        counts[chunk] = min(bitmap.used_blocks(value), CHUNK_BLOCKS)  # what else is wrong is seen when it is decoded
    return counts
