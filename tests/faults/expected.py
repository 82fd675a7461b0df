"""What a pool ought to be, block by block, and what a power cut may leave of it. Shares no code with rowfs.

A disk is a size and its blocks that are not zeros. A crash leads back to the last durable commit: names, sizes and
snapshots exactly as they were; a block of a disk as it was then, or as any write since then left it, if that went to
the same life of the disk (a disk that is rolled back, emptied or made anew begins another one).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 4096
ZERO = bytes(BLOCK)
BEFORE_ROLLBACK = "before-rollback"


@dataclass(eq=False)
class Image:
    """A disk or a snapshot."""

    size: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    life: int = 0

    def copy(self, life: int | None = None) -> Image:
        """The same, as it is now."""
        return Image(self.size, dict(self.blocks), self.life if life is None else life)

    def block(self, number: int) -> bytes:
        """A block, as far as it lies before the end."""
        return self.blocks.get(number, ZERO)[: max(0, self.size - number * BLOCK)]


@dataclass
class State:
    """Everything that has a name."""

    disks: dict[str, Image] = field(default_factory=dict)
    chains: dict[str, dict[str, Image]] = field(default_factory=dict)  # never an empty one; snapshots do not change

    def copy(self) -> State:
        """As it is now."""
        return State(
            {name: image.copy() for name, image in self.disks.items()},
            {name: dict(chain) for name, chain in self.chains.items()},
        )


class Expected:
    """The state now, the one that a crash leads back to, and every value written between."""

    def __init__(self) -> None:
        self.now = State()
        self._lives = 0
        self._writes: list[tuple[int, int, bytes]] = []  # life, block, what it is then
        self._durable = (State(), 0)
        self._frozen: tuple[State, int] | None = None

    def snapshots(self) -> list[tuple[str, str]]:
        """All snapshots, as disk and name."""
        return [(disk, name) for disk, chain in self.now.chains.items() for name in chain]

    # Changing

    def create(self, name: str, size: int) -> None:
        """A disk of zeros."""
        self.now.disks[name] = Image(size, life=self._life())

    def _life(self) -> int:
        self._lives += 1
        return self._lives

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Bytes at an offset; past the end the disk grows."""
        image = self.now.disks[name]
        image.size = max(image.size, offset + len(data))
        self._put(image, offset, data)

    def share(self, source: Image, at: int, name: str, to: int, length: int) -> None:
        """Blocks of another disk or snapshot: none is written in place, so a crash leaves them only if a commit was."""
        image = self.now.disks[name]
        end = at + length
        data = b"".join(source.block(number).ljust(BLOCK, b"\0") for number in range(at // BLOCK, -(-end // BLOCK)))
        image.size = max(image.size, to + length)
        self._put(image, to, data, noted=False)

    def punch(self, name: str, offset: int, length: int) -> None:
        """Zeros, as far as the disk goes."""
        image = self.now.disks[name]
        end = min(offset + length, image.size)
        for number in [n for n in image.blocks if max(offset, n * BLOCK) < min(end, (n + 1) * BLOCK)]:
            start = max(offset, number * BLOCK)
            self._put(image, start, bytes(min(end, (number + 1) * BLOCK) - start))

    def resize(self, name: str, size: int) -> None:
        """Cut off or add zeros."""
        image = self.now.disks[name]
        if size == 0 and image.blocks:
            self.now.disks[name] = Image(0, life=self._life())
            return
        self.punch(name, size, image.size)
        image.size = size

    def _put(self, image: Image, offset: int, data: bytes, noted: bool = True) -> None:
        done = 0
        while done < len(data):
            number, skip = divmod(offset + done, BLOCK)
            old = image.blocks.get(number, ZERO)
            piece = data[done : done + BLOCK - skip]
            new = old[:skip] + piece + old[skip + len(piece) :]
            image.blocks.pop(number, None)
            if new != ZERO:
                image.blocks[number] = new
            if noted:
                self._writes.append((image.life, number, new))
            done += len(piece)

    def put_back(self, name: str, number: int, value: bytes) -> None:
        """A block is what it was: it was not written after all."""
        image = self.now.disks[name]
        image.blocks.pop(number, None)
        if value != ZERO:
            image.blocks[number] = value

    def cut_off(self, name: str) -> None:
        """Past the end there is nothing: it did not grow after all."""
        image = self.now.disks[name]
        held = {number: image.block(number).ljust(BLOCK, b"\0") for number in image.blocks}
        image.blocks = {number: value for number, value in held.items() if value != ZERO}

    def delete(self, name: str, keep: bool) -> None:
        """A disk goes, its snapshots stay or go with it."""
        del self.now.disks[name]
        if not keep:
            self.now.chains.pop(name, None)

    def snapshot(self, disk: str, name: str) -> None:
        """Keep what the disk is."""
        self.now.chains.setdefault(disk, {})[name] = self.now.disks[disk].copy()

    def delete_snapshot(self, disk: str, name: str) -> None:
        """A snapshot goes."""
        chain = self.now.chains[disk]
        del chain[name]
        if not chain:
            del self.now.chains[disk]

    def copy_of(self, source: Image, name: str) -> None:
        """A disk that begins as a snapshot or as another disk (a clone; or an empty one became it)."""
        self.now.disks[name] = source.copy(self._life())

    def rollback(self, disk: str, name: str, discard: bool) -> None:
        """A disk becomes what its snapshot is."""
        chain = self.now.chains[disk]
        target = chain[name]
        if not discard:
            chain.pop(BEFORE_ROLLBACK, None)
            chain[BEFORE_ROLLBACK] = self.now.disks[disk].copy()
        self.copy_of(target, disk)

    # Commits and crashes

    def freeze(self) -> None:
        """A commit begins."""
        self._frozen = (self.now.copy(), len(self._writes))

    def durable(self) -> None:
        """The commit that began last is durable."""
        assert self._frozen is not None
        self._durable, self._frozen = self._frozen, None

    def commit(self) -> None:
        """All of it is durable."""
        self.freeze()
        self.durable()

    def crash(self) -> None:
        """Back to the last commit."""
        self._frozen = None
        self.now = self._durable[0].copy()

    def adopt(self, name: str, found: Iterator[tuple[int, bytes]]) -> None:
        """Take over what a disk holds after a crash, block by block; an AssertionError if it may not hold that."""
        image = self.now.disks[name]
        since = defaultdict(set)
        for life, number, value in self._writes[self._durable[1] :]:
            if life == image.life:
                since[number].add(value)
        for number, value in found:
            durable = image.blocks.get(number, ZERO)
            if value == durable[: len(value)]:
                continue
            fitting = [later for later in since[number] if later[: len(value)] == value]
            assert fitting, f"block {number} of {name} is after a cut what was never written there: {value[:8].hex()}"
            image.blocks[number] = value.ljust(BLOCK, b"\0")  # what is past the end is zeros, should the disk grow

    def adopted(self) -> None:
        """All disks are: what they hold now is what is durable."""
        self._writes.clear()
        self._durable = (self.now.copy(), 0)
