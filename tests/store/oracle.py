"""What disks and snapshots ought to hold: a bytearray for each disk, frozen bytes for each snapshot.

It shares no code with rowfs. For crashes it knows what the last durable commit was, and what has been written into each
block since: a disk may come back with either in a block, a snapshot with nothing but what it was.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

BLOCK = 4096
BEFORE_ROLLBACK = "before-rollback"


@dataclass(eq=False)
class Image:
    """A disk: its bytes, and which life of it (a rolled back disk, or one made anew, is another)."""

    data: bytearray
    life: int


@dataclass
class State:
    """Everything that has a name."""

    disks: dict[str, Image] = field(default_factory=dict)
    chains: dict[str, dict[str, bytes]] = field(default_factory=dict)  # never an empty one

    def copy(self) -> State:
        """As it is now."""
        disks = {name: Image(bytearray(image.data), image.life) for name, image in self.disks.items()}
        return State(disks, {name: dict(chain) for name, chain in self.chains.items()})


class Oracle:
    """The state, the one that a crash leads back to, and every write between."""

    def __init__(self) -> None:
        self.now = State()
        self._lives = 0
        self._writes: list[tuple[int, int, bytes]] = []  # life, block, what it is then
        self._durable = (State(), 0)
        self._frozen: tuple[State, int] | None = None

    # Looking

    def chain(self, disk: str) -> dict[str, bytes]:
        """The snapshots of a disk, oldest first."""
        return self.now.chains.get(disk, {})

    def snapshots(self) -> list[tuple[str, str]]:
        """All snapshots, as disk and name."""
        return [(disk, name) for disk, chain in self.now.chains.items() for name in chain]

    # Disks

    def create(self, name: str, size: int) -> None:
        """A disk of zeros."""
        self.now.disks[name] = self._image(bytearray(size))

    def _image(self, data: bytearray) -> Image:
        self._lives += 1
        return Image(data, self._lives)

    def write(self, image: Image, offset: int, data: bytes) -> None:
        """Bytes at an offset; past the end the disk grows."""
        if len(image.data) < offset + len(data):
            image.data.extend(bytes(offset + len(data) - len(image.data)))
        image.data[offset : offset + len(data)] = data
        self._note(image, offset, len(data))

    def punch(self, image: Image, offset: int, length: int) -> None:
        """Zeros, as far as the disk goes."""
        length = max(0, min(length, len(image.data) - offset))
        image.data[offset : offset + length] = bytes(length)
        self._note(image, offset, length)

    def resize(self, image: Image, size: int) -> None:
        """Cut off or add zeros."""
        old = len(image.data)
        self.punch(image, size, old)
        del image.data[size:]
        image.data.extend(bytes(size - len(image.data)))

    def _note(self, image: Image, offset: int, length: int) -> None:
        for block in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
            piece = bytes(image.data[block * BLOCK : (block + 1) * BLOCK]).ljust(BLOCK, b"\0")
            self._writes.append((image.life, block, piece))

    def delete(self, name: str, keep_snapshots: bool) -> None:
        """A disk goes, its snapshots stay or go with it."""
        del self.now.disks[name]
        if not keep_snapshots:
            self.now.chains.pop(name, None)

    def rename_fails(self, old: str, new: str, replace: bool) -> bool:
        """Whether a disk cannot have that name."""
        if old == new:
            return False
        return (new in self.now.disks and not replace) or (old in self.now.chains and new in self.now.chains)

    def rename(self, old: str, new: str) -> None:
        """A disk gets a name; the disk that had it goes, a chain that it had goes on."""
        self.now.disks[new] = self.now.disks.pop(old)
        if old != new and old in self.now.chains:
            self.now.chains[new] = self.now.chains.pop(old)

    # Snapshots

    def snapshot(self, disk: str, name: str) -> None:
        """Keep what the disk is."""
        self.now.chains.setdefault(disk, {})[name] = bytes(self.now.disks[disk].data)

    def delete_snapshot(self, disk: str, name: str) -> None:
        """A snapshot goes."""
        del self.now.chains[disk][name]
        if not self.now.chains[disk]:
            del self.now.chains[disk]

    def rename_snapshot(self, disk: str, old: str, new: str) -> None:
        """A snapshot gets a name and keeps its place."""
        chain = self.now.chains[disk]
        self.now.chains[disk] = {new if name == old else name: data for name, data in chain.items()}

    def clone(self, disk: str, name: str, target: str) -> None:
        """A disk that begins as a snapshot."""
        self.now.disks[target] = self._image(bytearray(self.now.chains[disk][name]))

    def become(self, disk: str, data: bytes) -> None:
        """An empty disk becomes what another, or a snapshot, is."""
        self.now.disks[disk] = self._image(bytearray(data))

    def rollback(self, disk: str, name: str, discard: bool) -> None:
        """A disk becomes what its snapshot is."""
        image, chain = self.now.disks[disk], self.now.chains[disk]
        target = chain[name]
        if not discard:
            chain.pop(BEFORE_ROLLBACK, None)
            chain[BEFORE_ROLLBACK] = bytes(image.data)
        image.data[:] = target
        self._lives += 1
        image.life = self._lives

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

    def adopt(self, name: str, data: bytes) -> str | None:
        """Take over what a disk holds after a crash. What is wrong with it, if it is nothing that it may hold."""
        image = self.now.disks[name]
        if data == image.data:
            return None
        if len(data) != len(image.data):
            return f"{name} has {len(data)} bytes after a crash, not {len(image.data)}"
        wrong = self.unlike(data, bytes(image.data), image.life, self._durable[1])
        if wrong is not None:
            return f"block {wrong} of {name} is after a crash what was never written there"
        image.data[:] = data
        return None

    # Reads that may see any of several states

    def writes_so_far(self) -> int:
        """A mark in the order of writes."""
        return len(self._writes)

    def unlike(self, data: bytes, before: bytes, life: int, mark: int) -> int | None:
        """The first block of `data` that is neither what it was before nor what was written there since `mark`."""
        since = defaultdict(set)
        for owner, block, piece in self._writes[mark:]:
            if owner == life:
                since[block].add(piece)
        for start in range(0, len(data), BLOCK):
            piece = data[start : start + BLOCK]
            if piece == before[start : start + BLOCK]:
                continue
            if not any(piece == later[: len(piece)] for later in since[start // BLOCK]):
                return start // BLOCK
        return None
