"""Damage to the file of a block map while somebody has it mounted, and taking it back."""

from __future__ import annotations

import os
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rowfs.persist.mappages import BRANCH, LEAF, LONG_VALUE, METAS, NO_PAGE, ROOT, TABLE_ROOT, MapPages, Root

PAGE = 4096
KINDS = ("meta", "branch", "leaf", "long value", "free list", "unused")


@dataclass(frozen=True)
class Done:
    """What was done: where, what was there, what is there instead."""

    what: str
    at: int
    before: bytes
    after: bytes  # shorter: the file was cut off

    def undo(self, path: Path) -> None:
        """Put back what was there, but for pages that were written since."""
        with open(path, "r+b") as file:
            for start in range(0, len(self.before), PAGE):
                old, new = self.before[start : start + PAGE], self.after[start : start + PAGE].ljust(PAGE, b"\0")
                file.seek(self.at + start)
                if file.read(PAGE).ljust(PAGE, b"\0") == new:
                    file.seek(self.at + start)
                    file.write(old)


def damage(rng: random.Random, path: Path) -> Done:
    """Overwrite a page of some kind in some way, or cut the file off."""
    size = os.stat(path).st_size
    content = path.read_bytes()
    if rng.random() < 0.25:
        cut = rng.choice((0, 1, PAGE, 2 * PAGE, 3 * PAGE, size // 2, size - PAGE, rng.randrange(size)))
        done = Done(
            f"cut off at {cut}", cut // PAGE * PAGE, content[cut // PAGE * PAGE :], content[:cut][cut // PAGE * PAGE :]
        )
        os.truncate(path, cut)
        return done
    kinds = pages_by_kind(path)
    kind = rng.choice([kind for kind in KINDS if kinds[kind]])
    number = rng.choice(kinds[kind])
    before = content[number * PAGE : (number + 1) * PAGE]
    how = rng.choice(list(WAYS))
    after = WAYS[how](rng, before, content, number)
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, after, number * PAGE)
    finally:
        os.close(fd)
    return Done(f"{how} in page {number} ({kind})", number * PAGE, before, after)


# Ways

Way = Callable[[random.Random, bytes, bytes, int], bytes]


def _another(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) // PAGE) * PAGE
    return content[at : at + PAGE]


def _flipped(page: bytes, bit: int) -> bytes:
    changed = bytearray(page)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _numbered(page: bytes, number: int) -> bytes:
    return number.to_bytes(8, "little") + page[8:]


def _node_bit(rng: random.Random, page: bytes) -> bytes:
    """A bit of a node: its lengths, its flags, the page that it leads to, its key, its value."""
    lower = struct.unpack_from("<H", page, 12)[0]
    if not 18 <= lower <= PAGE:
        return _flipped(page, rng.randrange(8 * PAGE))
    at = struct.unpack_from("<H", page, 16 + 2 * rng.randrange((lower - 16) // 2))[0]
    return _flipped(page, 8 * min(at + rng.randrange(32), PAGE - 1) + rng.randrange(8))


WAYS: dict[str, Way] = {
    "zeros": lambda rng, page, content, number: bytes(PAGE),
    "random bytes": lambda rng, page, content, number: rng.randbytes(PAGE),
    "ones": lambda rng, page, content, number: b"\xff" * PAGE,
    "another page": lambda rng, page, content, number: _another(rng, content),
    "another page with the right number": lambda rng, page, content, number: _numbered(_another(rng, content), number),
    "a bit of the header": lambda rng, page, content, number: _flipped(page, rng.randrange(8 * 24)),
    "a bit": lambda rng, page, content, number: _flipped(page, rng.randrange(8 * PAGE)),
    "a bit of a node": lambda rng, page, content, number: _node_bit(rng, page),
    "half of it": lambda rng, page, content, number: page[: PAGE // 2] + rng.randbytes(PAGE // 2),
}


# Kinds


def pages_by_kind(path: Path) -> dict[str, list[int]]:
    """The pages of the file by what the last commit uses them for."""
    pages = MapPages(str(path))
    try:
        meta = max(pages.metas(), key=lambda meta: meta.commit)
        found: dict[str, list[int]] = defaultdict(list, {"meta": list(range(METAS))})
        for kind, number in _tree(pages, Root._make(ROOT.unpack(meta.free))):
            found["long value" if kind == "long value" else "free list"].append(number)
        for kind, number in _tree(pages, Root._make(ROOT.unpack(meta.main))):
            found[kind].append(number)
        used = {number for numbers in found.values() for number in numbers}
        found["unused"] = [number for number in range(min(meta.last_page + 1, pages.file_pages)) if number not in used]
        return found
    finally:
        pages.close()


def _tree(pages: MapPages, root: Root) -> Iterator[tuple[str, int]]:
    if root.page == NO_PAGE:
        return
    level = [root.page]
    for depth in range(root.depth, 0, -1):
        below: list[int] = []
        for number in level:
            yield "branch" if depth > 1 else "leaf", number
            page = pages.read(number * PAGE, PAGE)
            (kind, lower) = struct.unpack_from("<HH", page, 10)
            assert kind == (BRANCH if depth > 1 else LEAF), "the pool is in order before it is damaged"
            for offset in struct.unpack_from(f"<{(lower - 16) // 2}H", page, 16):
                low, high, flags, key_bytes = struct.unpack_from("<4H", page, offset)
                value, length = offset + 8 + key_bytes, low | high << 16
                if depth > 1:
                    below.append(length | flags << 32)
                elif flags & LONG_VALUE:
                    first = struct.unpack_from("<Q", page, value)[0]
                    yield from (("long value", first + n) for n in range((15 + length) // PAGE + 1))
                elif flags & TABLE_ROOT:
                    yield from _tree(pages, Root._make(ROOT.unpack_from(page, value)))
        level = below
