"""Reading and writing disks: byte ranges to blocks, blocks to addresses, redirect-on-write.

A block is overwritten in place where the head's version of its page owns it and it is not sealed; else a new block is
allocated, written, and only then put into the page. So a write that fails leaves the disk as it was, and data under a
snapshot is never touched. A range that is shared gets the blocks of another range: none is copied, each has one owner
more. What is read of sealed blocks is held against their sums before anybody gets it.

Zeros are data like any other: a write never frees a block and never makes a hole, so that a disk which was written once
is overwritten without a change of the map. Which blocks came as zeros is noted (store.zeros), and these become holes
later. Where space is short they do at once, so that a full pool still takes zeros.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from errno import EFBIG, EINVAL, EOPNOTSUPP
from itertools import groupby

import numpy as np

from rowfs.base.errors import NoSpaceError, RowfsError, UsageError
from rowfs.base.ranges import Segment, Span, runs, segments
from rowfs.base.units import (
    BLOCK_BITS,
    BLOCK_BYTES,
    DISK_BYTES_MAX,
    HOLE,
    PAGE_BLOCKS,
    PAGE_BYTES,
    BlockAddress,
    PageIndex,
)
from rowfs.persist.datafile import DataFile
from rowfs.persist.space import Space
from rowfs.seal.crc32c import block_sums
from rowfs.seal.reading import sums_read
from rowfs.seal.sums import Sums
from rowfs.store.damage import Damage
from rowfs.store.model import INHERITED, OWNED, SEALED, SHARED, Branch, Disk, Page, Point, Snapshot, State, VersionKey
from rowfs.store.versions import Versions
from rowfs.store.zeros import Zeros, slot_bits, zero_blocks

ZERO_BLOCK = bytes(BLOCK_BYTES)
SLOT_MASK = PAGE_BLOCKS - 1
OWNED_ALL = bytes([OWNED]) * PAGE_BLOCKS
HOLES = np.full(PAGE_BLOCKS, HOLE, np.int64)
ZERO, IN_PLACE, REDIRECT = 0, 1, 2  # what becomes of a block that is written

SLICE_PAGES = 16  # whose extents are found before others may work: 20 us each
RECENT_BLOCKS_MAX = 16  # 64 KiB: what the journal takes of data with one record

Extent = tuple[int, int]  # offset and length in bytes


class DiskIO:
    """The path of a block."""

    def __init__(self, data: DataFile, space: Space, versions: Versions, sums: Sums, damage: Damage) -> None:
        self.data = data
        self.sums = sums
        self.damage = damage
        self.space = space
        self.versions = versions
        self.zeros = Zeros()
        self.recent = array("q", bytes(8 * (1 + RECENT_BLOCKS_MAX)))  # how many, and which, as `recent_blocks` tells
        self.unsynced = False  # something that an fsync has to wait for was changed since the last commit began
        self.changed: set[Disk | Branch] = set()  # whose counts changed since then
        self.unjournaled: set[Disk | Page] = set()  # what the journal's next record has to hold; always this very set
        self.revisits: set[VersionKey] = set()  # versions of watched branches that let go of something

    # Reading

    def plan(self, point: Point | Branch, offset: int, length: int) -> list[Span]:
        """Where the bytes of a range are in the data file; what no span covers is zeros."""
        if length == BLOCK_BYTES and not offset & (BLOCK_BYTES - 1):
            block = offset >> BLOCK_BITS
            address = self.versions.page(point, PageIndex(block // PAGE_BLOCKS)).addresses[block & SLOT_MASK]
            return [Span(address << BLOCK_BITS, 0, BLOCK_BYTES)] if address != HOLE else []
        spans: list[Span] = []
        start = 0
        for segment in segments(offset, length):
            page = self.versions.page(point, segment.page)
            for slot, blocks, address in runs(page.addresses, segment.slot, segment.blocks or 1):
                if address == HOLE:
                    continue
                position = (address << BLOCK_BITS) + segment.skip_bytes
                at = start + (slot - segment.slot << BLOCK_BITS)
                size = blocks << BLOCK_BITS if segment.blocks else segment.length_bytes
                last = spans[-1] if spans else None
                if last and last[0] + last[2] == position and last[1] + last[2] == at:
                    spans[-1] = Span(last[0], last[1], last[2] + size)
                else:
                    spans.append(Span(position, at, size))
            start += segment.length_bytes
        return spans

    def read(self, target: Disk | Snapshot, offset: int, length: int) -> bytes | bytearray:
        """The bytes of a range, waiting for the host's disk where need be; fewer at the end of the disk.

        Raises BlockDamagedError when a sealed block of it is not what was sealed.
        """
        reading = Reading(self, target, offset, length)
        with self.damage.noted(target, reading.offset):
            reading.wait()
        return reading.data()

    def fetch(self, target: Disk, spans: Sequence[Span], buffer: memoryview, wait: bool = True) -> bool:
        """Fill `buffer` with what lies in spans of whole blocks of a disk. Without `wait` only if the host has it in
        memory, else False. Raises BlockDamagedError.
        """
        expected = self.sums.expected(spans)
        if wait:
            self.data.read(spans, buffer)
        elif not self.data.read_cached(spans, buffer):
            return False
        if expected is not None:
            with self.damage.noted(target):
                expected.check(buffer)
        return True

    # Writing

    def write(self, disk: Disk, offset: int, data: bytes | memoryview) -> None:
        """Write `data` at `offset`; past the end, the disk grows as a file does.

        Raises NoSpaceError, StorageError (what was written of `data` until then stays, but the disk does not grow),
        UsageError past 16 TiB.
        """
        head = disk.head
        assert head is not None, "a deleted disk is written"
        length = len(data)
        if length == BLOCK_BYTES and not offset & (BLOCK_BYTES - 1):
            block = offset >> BLOCK_BITS
            page = head.pages.get(PageIndex(block // PAGE_BLOCKS))
            slot = block & SLOT_MASK
            if (
                page is not None
                and page.owned[slot] == OWNED
                and page.epoch > head.floor
                and offset + length <= disk.size_bytes
                and data != ZERO_BLOCK
            ):
                assert not self.sums.has_any(page.addresses[slot], 1), "a sealed block is written in place"
                self.data.write(BlockAddress(page.addresses[slot]), data)
                page.used = self.unsynced = True
                self._wrote(page.addresses[slot], 1)
                return
        end = offset + length
        if end > DISK_BYTES_MAX:
            raise UsageError("a disk cannot be larger than 16 TiB", EFBIG)
        if offset > disk.size_bytes:
            self.clear_tail(disk, offset)
        view, size_bytes = memoryview(data), disk.size_bytes
        done = 0
        for segment in segments(offset, length):
            piece = view[done : done + segment.length_bytes]
            try:
                if segment.blocks:
                    self._write_blocks(disk, head, segment, piece)
                else:
                    self._write_piece(disk, head, segment, piece)
            except BaseException:
                self._undo_growth(disk, head, size_bytes, offset, offset + done + segment.length_bytes)
                raise
            done += segment.length_bytes
            if offset + done > disk.size_bytes:
                disk.size_bytes = offset + done
                self._grown(disk)

    def clear_tail(self, disk: Disk, end: int) -> None:
        """Before a disk grows to `end`: zero what its last block holds past its size.

        A write in place whose new size was never committed may have left something there.
        """
        head, size = disk.head, disk.size_bytes
        assert head is not None, "a deleted disk is written"
        end = min(end, -(-size // BLOCK_BYTES) * BLOCK_BYTES)
        for segment in segments(size, max(0, end - size)):
            if self.versions.page(head, segment.page).addresses[segment.slot] != HOLE:
                self._write_piece(disk, head, segment, memoryview(bytes(segment.length_bytes)))

    def _undo_growth(self, disk: Disk, head: Branch, size_bytes: int, offset: int, end: int) -> None:
        # What a failed write has mapped past the end would show when the disk grows. It is free at once: nobody has
        # seen it, no commit has it. Freed by a commit, it would look like new space to who then tries again.
        disk.size_bytes = size_bytes
        start = max(-(-size_bytes // BLOCK_BYTES), offset // BLOCK_BYTES) * BLOCK_BYTES
        for segment in segments(start, max(0, end - start)):
            page = self.versions.page(head, segment.page)
            for slot, blocks, address in runs(page.addresses, segment.slot, segment.blocks or 1):
                if address == HOLE:
                    continue
                assert page.state is State.DIRTY and page.epoch > head.floor, "there was something past the end"
                page.places()[slot : slot + blocks] = HOLE
                page.owned[slot : slot + blocks] = bytes(blocks)
                self.space.undo(address, blocks)
                disk.mapped_blocks -= blocks
                head.written_blocks -= blocks

    def lacking(self, disk: Disk, offset: int, length: int) -> int:
        """How many blocks of a range a write would need new places for, if none of them becomes a hole."""
        blocks = (offset + length - 1 >> BLOCK_BITS) - (offset >> BLOCK_BITS) + 1
        return blocks - sum(self.owned(disk, offset, length))

    def owned(self, disk: Disk, offset: int, length: int) -> Iterator[int]:
        """Page by page, how many blocks of a range are written in place; the disk may change between two of them."""
        first, end = offset >> BLOCK_BITS, -(-(offset + length) // BLOCK_BYTES)
        head = disk.head
        assert head is not None, "a deleted disk is written"
        pages = PageIndex(first // PAGE_BLOCKS), PageIndex(-(-end // PAGE_BLOCKS))
        for index in self.versions.mapped_pages(head, *pages):
            start = max(first, index * PAGE_BLOCKS)
            yield self._owned(head, index, start & SLOT_MASK, min(end, (index + 1) * PAGE_BLOCKS) - start)

    def _write_piece(self, disk: Disk, head: Branch, segment: Segment, piece: memoryview) -> None:
        page = self.versions.page(head, segment.page)
        address = page.addresses[segment.slot]
        if page.owned[segment.slot] == OWNED and page.epoch > head.floor:
            assert not self.sums.has_any(address, 1), "a sealed block is written in place"
            self.data.write(BlockAddress(address), piece, segment.skip_bytes)
            self.unsynced = True
            self._wrote(address, 1)
            return
        block = bytearray(BLOCK_BYTES)
        if address != HOLE:
            self.fetch(disk, [Span(address << BLOCK_BITS, 0, BLOCK_BYTES)], memoryview(block))
        block[segment.skip_bytes : segment.skip_bytes + len(piece)] = piece
        self._write_blocks(disk, head, segment._replace(blocks=1), memoryview(block))

    def _write_blocks(self, disk: Disk, head: Branch, segment: Segment, data: memoryview) -> None:
        zeros = zero_blocks(data)
        if not zeros.any():
            self._write_data(disk, head, segment, data)
        elif self.space.shortage:
            self._write_mixed(disk, head, segment, data, zeros)
        else:
            try:
                self._write_data(disk, head, segment, data)
            except NoSpaceError:
                self._write_mixed(disk, head, segment, data, zeros)
            self.zeros.note(disk, segment.page, slot_bits(zeros) << segment.slot)

    def _write_data(self, disk: Disk, head: Branch, segment: Segment, data: memoryview) -> None:
        slot, blocks = segment.slot, segment.blocks
        owned = self._owned(head, segment.page, slot, blocks)
        if owned == blocks:
            self._write_in_place(head, segment.page, slot, blocks, data)
        elif owned == 0:
            self.redirect(disk, head, segment.page, slot, blocks, data)
        else:
            self._write_mixed(disk, head, segment, data, np.zeros(blocks, bool))

    def _owned(self, head: Branch, index: PageIndex, slot: int, blocks: int) -> int:
        page = self.versions.page(head, index)
        return page.owned.count(OWNED, slot, slot + blocks) if page.epoch > head.floor else 0

    def _write_mixed(self, disk: Disk, head: Branch, segment: Segment, data: memoryview, zeros: np.ndarray) -> None:
        page = self.versions.page(head, segment.page)
        owned = page.owned if page.epoch > head.floor else bytes(PAGE_BLOCKS)
        fates = [
            ZERO if zero else IN_PLACE if owned[segment.slot + at] == OWNED else REDIRECT
            for at, zero in enumerate(zeros.tolist())
        ]
        start = 0
        for fate, group in groupby(fates):
            blocks = len(list(group))
            piece = data[start << BLOCK_BITS : start + blocks << BLOCK_BITS]
            slot = segment.slot + start
            if fate == ZERO:
                self._unmap(disk, head, segment.page, slot, blocks)
            elif fate == IN_PLACE:
                self._write_in_place(head, segment.page, slot, blocks, piece)
            else:
                self.redirect(disk, head, segment.page, slot, blocks, piece)
            start += blocks

    def _write_in_place(self, head: Branch, index: PageIndex, slot: int, blocks: int, data: memoryview) -> None:
        page = self.versions.page(head, index)
        self.unsynced = True
        for first, count, address in runs(page.addresses, slot, blocks):
            assert address != HOLE, "a hole is owned"
            assert not self.sums.has_any(address, count), "a sealed block is written in place"
            start = first - slot << BLOCK_BITS
            self.data.write(address, data[start : start + (count << BLOCK_BITS)])
            self._wrote(address, count)

    def redirect(self, disk: Disk, head: Branch, index: PageIndex, slot: int, blocks: int, data: memoryview) -> None:
        """Write blocks that the head does not own to new places (also for native/_writes.c).

        Raises as `write`, with what was written until then mapped.
        """
        page = self.versions.writable(head, index)
        while blocks:
            address, count = self.space.allocate(head.claim, blocks)
            try:
                self.data.write(address, data[: count << BLOCK_BITS])
            except BaseException:
                self.space.undo(address, count)
                raise
            self._wrote(address, count)
            self._map(disk, head, page, slot, count, address)
            slot, blocks, data = slot + count, blocks - count, data[count << BLOCK_BITS :]

    def _map(self, disk: Disk, head: Branch, page: Page, slot: int, blocks: int, address: BlockAddress) -> None:
        # Redirected blocks are not owned: their old data belongs to an older version. Or others own them as well.
        addresses = page.addresses
        given_up = self._give_up(page, slot, blocks)
        if blocks == 1:
            holes = 1 if addresses[slot] == HOLE else 0
            addresses[slot] = address
            page.owned[slot] = OWNED
        else:
            window = np.frombuffer(addresses, np.int64)[slot : slot + blocks]
            holes = blocks - int(np.count_nonzero(window))
            window[:] = np.arange(address, address + blocks)
            page.owned[slot : slot + blocks] = OWNED_ALL[:blocks]
        disk.mapped_blocks += holes
        head.written_blocks += blocks - given_up
        self._note(disk, head, (page,), blocks - holes - given_up)
        self._unjournaled(disk, page)

    def placed(
        self, disk: Disk, head: Branch, pages: list[Page], address: BlockAddress, blocks: int, holes: int
    ) -> None:
        """What native/_writes.c redirected itself: so many blocks, from `address` on, where the head's claim goes on.

        `pages` hold them, where they owned nothing, `holes` of them in place of holes. What the journal has to hold of
        that is noted already, or is in a record since.
        """
        taken = self.space.allocate(head.claim, blocks)
        assert taken == (address, blocks), "blocks were placed beyond a claim"
        disk.mapped_blocks += holes
        head.written_blocks += blocks
        self._note(disk, head, pages, blocks - holes)

    def _give_up(self, page: Page, slot: int, blocks: int) -> int:
        owned = page.owned[slot : slot + blocks]
        if INHERITED not in owned and SHARED not in owned and SEALED not in owned:
            return 0
        mine = np.frombuffer(owned, np.uint8) != 0
        self.space.free(page.places()[slot : slot + blocks][mine])
        return int(np.count_nonzero(mine))

    def _unmap(self, disk: Disk, head: Branch, index: PageIndex, slot: int, blocks: int) -> None:
        self.remap(disk, head, index, slot, HOLES[:blocks])

    def remap(self, disk: Disk, head: Branch, index: PageIndex, slot: int, wanted: np.ndarray) -> None:
        """Have slots hold other blocks, which the head owns beside others from now on, or holes."""
        end = slot + len(wanted)
        page = self.versions.page(head, index)
        changed = page.places()[slot:end] != wanted
        if not changed.any():
            return  # a page that reads as holes need not become a version
        page = self.versions.writable(head, index)
        mapped = changed & (wanted != HOLE)
        self.space.shares.add(wanted[mapped])  # first: what is let go of may be among them
        window = page.places()[slot:end]
        owned = np.frombuffer(page.owned, np.uint8)[slot:end]
        mine = changed & (owned != 0)
        lost = int(np.count_nonzero(changed & (window != HOLE)))
        self.space.free(window[mine])
        window[:] = wanted
        owned[changed] = 0
        owned[mapped] = SHARED
        gained, given_up = int(np.count_nonzero(mapped)), int(np.count_nonzero(mine))
        disk.mapped_blocks += gained - lost
        head.written_blocks += gained - given_up
        self._note(disk, head, (page,), lost - given_up)
        self._unjournaled(disk, page)

    def _note(self, disk: Disk, head: Branch, pages: Iterable[Page], let_go: int) -> None:
        head.changes += 1
        head.replaced_blocks += let_go
        self.unsynced = True  # even by zeros behind the end, which write no data: until their record is durable
        self.changed.update((disk, head))
        if let_go and head.watched:
            self.revisits.update((head.id, page.index, page.epoch) for page in pages)

    def _unjournaled(self, disk: Disk, page: Page) -> None:
        self.unjournaled.add(disk)
        self.unjournaled.add(page)

    def _grown(self, disk: Disk) -> None:
        self.unsynced = True
        self.changed.add(disk)
        self.unjournaled.add(disk)

    def unseal(self, disk: Disk, offset: int, length: int) -> int:
        """Have what the disk alone holds of a range lose its sums, so that it can be written in place once that is
        durable: for who finds no space for new blocks. How many blocks that are.

        One that is damaged keeps its sum. What is left of it would pass for whole.
        """
        head, unsealed = disk.head, 0
        assert head is not None, "a deleted disk is written"
        for segment in segments(offset, length):
            page = self.versions.page(head, segment.page)
            window = np.frombuffer(page.owned, np.uint8)[segment.slot : segment.slot + (segment.blocks or 1)]
            slots = segment.slot + np.flatnonzero(window == SEALED)
            if page.epoch <= head.floor or not len(slots):
                continue
            places = page.places()[slots]
            alone = ~self.space.shares.shared(places) if self.space.shares else np.ones(len(slots), bool)
            alone &= sums_read(self.data, places) == self.sums.of(places)
            page = self.versions.writable(head, segment.page)
            np.frombuffer(page.owned, np.uint8)[slots[alone]] = INHERITED  # until it is durable that they have none
            unsealed += self.sums.forget(places[alone])
        return unsealed

    def restore(self, address: int, block: bytes) -> bool:
        """Write a sealed block anew: the one case where that is done in place, with the very bytes that were sealed.

        False: `block` is not what was sealed, and nothing was done; or the block is free by now.
        """
        sum_ = int(self.sums.of_run(address, 1)[0]) if address > 0 else 0
        if not sum_ or len(block) != BLOCK_BYTES or block_sums(block)[0] != sum_:
            return False
        self.data.write(BlockAddress(address), block)
        self.unsynced = True
        self._wrote(address, 1)
        self.damage.forget(np.array([address]))
        return True

    # What was written since the last sync began, as far as that is little (native/_writes.c adds to it as well)

    def _wrote(self, address: int, blocks: int) -> None:
        recent = self.recent
        count = recent[0]
        if count + blocks > RECENT_BLOCKS_MAX:
            recent[0] = RECENT_BLOCKS_MAX + 1
            return
        for block in range(address, address + blocks):
            recent[1 + count] = block
            count += 1
        recent[0] = count

    def recent_blocks(self) -> list[int] | None:
        """The addresses of all that was written since `forget_recent`, ascending; None: it is too much to tell."""
        count = self.recent[0]
        return None if count > RECENT_BLOCKS_MAX else sorted(set(self.recent[1 : 1 + count]))

    def forget_recent(self) -> None:
        """What was written until now is being made durable."""
        self.recent[0] = 0

    # Holes

    def punch(self, disk: Disk, offset: int, length: int) -> Iterator[None]:
        """Make a range read as zeros and free what it alone held; pauses (yields) after each page.

        The range ends where the disk does. Blocks it covers in part are zeroed to the byte.
        """
        head = disk.head
        assert head is not None, "a deleted disk is written"
        end = offset + length
        if end >= disk.size_bytes:  # behind the end of the disk is nothing to keep
            end = -(-disk.size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        first, last = offset // PAGE_BYTES, -(-end // PAGE_BYTES)
        for index in self.versions.mapped_pages(head, PageIndex(first), PageIndex(last)):
            if disk.head is not head:  # rolled back during a pause: the range means another state now
                return
            begin = max(offset, index * PAGE_BYTES)
            for segment in segments(begin, min(end, (index + 1) * PAGE_BYTES) - begin):
                if segment.blocks:
                    self._unmap(disk, head, segment.page, segment.slot, segment.blocks)
                elif self.versions.page(head, index).addresses[segment.slot] != HOLE:
                    self._write_piece(disk, head, segment, memoryview(bytes(segment.length_bytes)))
            yield

    # Sharing

    def share(self, source: Disk | Snapshot, at: int, disk: Disk, to: int, length: int) -> Iterator[int]:
        """Have a range of `disk` hold the blocks of a range of `source`; pauses after each page with the bytes done.

        The range ends where the source does. Blocks are shared whole: what is left of a range that ends within one is
        for the caller to copy, unless both disks end there. It ends early when a disk gets another head in a pause.
        Raises RowfsError with EOPNOTSUPP when nothing can be shared, UsageError past 16 TiB and for a range that
        overlaps itself.
        """
        head, point = disk.head, point_of(source)
        assert head is not None, "a deleted disk is written"
        length = readable(source, at, length)
        if to + length > DISK_BYTES_MAX:
            raise UsageError("a disk cannot be larger than 16 TiB", EFBIG)
        if disk is source and abs(at - to) < length:
            raise UsageError("a range is shared with one that it overlaps", EINVAL)
        if length and ((at | to) & (BLOCK_BYTES - 1) or not _whole_blocks(source, at, disk, to, length)):
            raise RowfsError("only whole blocks can be shared", EOPNOTSUPP)
        if to > disk.size_bytes:
            self.clear_tail(disk, to)
        done = 0
        while disk.head is head and point_of(source) is point:
            blocks = _whole_blocks(source, at + done, disk, to + done, length - done)
            if not blocks:
                return
            blocks = self._share_in_page(point, at + done >> BLOCK_BITS, disk, head, to + done >> BLOCK_BITS, blocks)
            done = min(length, done + (blocks << BLOCK_BITS))
            if to + done > disk.size_bytes:
                disk.size_bytes = to + done
                self._grown(disk)
            yield done

    def _share_in_page(self, point: Point | Branch, at: int, disk: Disk, head: Branch, to: int, blocks: int) -> int:
        """Share blocks as far as they lie in one page on either side: how many that were."""
        first, slot = at & SLOT_MASK, to & SLOT_MASK
        blocks = min(blocks, PAGE_BLOCKS - max(first, slot))
        index = PageIndex(at // PAGE_BLOCKS)
        addresses = np.frombuffer(self.versions.page(point, index).addresses, np.int64)
        self.remap(disk, head, PageIndex(to // PAGE_BLOCKS), slot, addresses[first : first + blocks].copy())
        if isinstance(point, Branch):
            self.versions.mark_shared(point, index)
        return blocks

    # Extents

    def extents(self, target: Disk | Snapshot, start: int = 0) -> Iterator[Extent]:
        """What holds data from byte `start` on, as (offset, length), ascending and joined, within the disk."""
        return (extent for extent in self.extents_in_slices(target, start) if extent is not None)

    def extents_in_slices(self, target: Disk | Snapshot, start: int = 0) -> Iterator[Extent | None]:
        """The same; None now and then, where others may work, for one extent may be as large as a disk.

        What they write meanwhile may be there or not; after a rollback it is what the disk was.
        """
        point, size = point_of(target), target.size_bytes
        offset = length = 0
        pages = self.versions.mapped_pages(point, PageIndex(start // PAGE_BYTES), PageIndex(-(-size // PAGE_BYTES)))
        for step, index in enumerate(pages):
            if step % SLICE_PAGES == SLICE_PAGES - 1:
                yield None
            for slot, blocks, address in runs(self.versions.page(point, index).addresses, 0, PAGE_BLOCKS):
                if address == HOLE:
                    continue
                at = index * PAGE_BYTES + (slot << BLOCK_BITS)
                if at == offset + length:
                    length += blocks << BLOCK_BITS
                    continue
                yield from _clipped(offset, length, start, size)
                offset, length = at, blocks << BLOCK_BITS
        yield from _clipped(offset, length, start, size)


class Reading:
    """A read of a range of a disk or snapshot: planned here, carried out in any thread, and held against the sums."""

    def __init__(self, io: DiskIO, target: Disk | Snapshot, offset: int, length: int) -> None:
        """What is there is planned at once; the owner thread calls this."""
        self._io, self._file = io, io.data
        self._length = length = readable(target, offset, length)
        self._skip = 0
        if io.sums and (offset | length) & (BLOCK_BYTES - 1):  # a sum is of a whole block
            self._skip = offset & (BLOCK_BYTES - 1)
            offset, length = offset - self._skip, -(-(self._skip + length) // BLOCK_BYTES) * BLOCK_BYTES
        self.offset = offset  # of the buffer in the disk or snapshot
        self._spans = io.plan(point_of(target), offset, length) if self._length else []
        self._buffer = bytearray(length)
        self._expected = io.sums.expected(self._spans)

    def cached(self) -> bool:
        """Read it if the host has it in memory; else False. Raises BlockDamagedError."""
        if self._spans and not self._file.read_cached(self._spans, memoryview(self._buffer)):
            return False
        self._check()
        return True

    def wait(self) -> None:
        """Read it, and wait for the disk. Raises BlockDamagedError."""
        self._file.read(self._spans, memoryview(self._buffer))
        self._check()

    @property
    def outdated(self) -> bool:
        """Whether blocks lost the sums they were held against: in a full pool they may have been written in place."""
        return self._expected is not None and not self._expected.is_as(self._io.sums.expected(self._spans))

    def _check(self) -> None:
        if self._expected is not None:
            self._expected.check(self._buffer)

    def data(self) -> bytes | bytearray:
        """What was read."""
        if len(self._buffer) == self._length:
            return self._buffer
        return self._buffer[self._skip : self._skip + self._length]


def point_of(target: Disk | Snapshot) -> Point | Branch:
    """Where a disk or snapshot reads."""
    if isinstance(target, Disk):
        assert target.head is not None, "a deleted disk is read"
        return target.head
    return target.point


def readable(target: Disk | Snapshot, offset: int, length: int) -> int:
    """How many of `length` bytes from `offset` on there are."""
    return max(0, min(length, target.size_bytes - offset))


def _whole_blocks(source: Disk | Snapshot, at: int, disk: Disk, to: int, length: int) -> int:
    """How many blocks of a range can be shared: those it covers, and one more if both disks end in it."""
    blocks, rest = divmod(length, BLOCK_BYTES)
    return blocks + bool(rest and at + length >= source.size_bytes and to + length >= disk.size_bytes)


def _clipped(offset: int, length: int, start: int, size: int) -> Iterator[Extent]:
    end = min(offset + length, size)
    offset = max(offset, start)
    if offset < end:
        yield offset, end - offset
