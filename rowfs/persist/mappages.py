"""The file of the block map as LMDB lays it out: meta pages, tree pages and their nodes, as arrays. LMDB is not asked.

    page      u64 number, u16 -, u16 kind, u16 lower, u16 upper (of a value's own pages: u32 how many)
              then u16 for each node, where it begins, up to `lower`; the nodes lie from `upper` to the end
    node      u16 + u16 length of the value, u16 flags, u16 length of the key; key; value
              in a branch the first three are the page number of the child
    meta      pages 0 and 1: header, then what `Meta` has; commit n is in page n % 2

In the byte order of the machine. Pages are read with pread: what the host cannot read is an error here, where LMDB's
mapping would end the process.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

import numpy as np

MAGIC, DATA_VERSION = 0xBEEFC0DE, 1
METAS = 2
PAGE_HEADER_BYTES, NODE_HEADER_BYTES, NUMBER_BYTES = 16, 8, 8
PAGE_BYTES_MIN, PAGE_BYTES_MAX = 256, 1 << 15
BRANCH, LEAF, LONG, META_PAGE = 1, 2, 4, 8  # kinds of pages; LONG: of one value
LONG_VALUE, TABLE_ROOT = 1, 2  # flags of nodes: the value has pages of its own; it is the root of a table
NO_PAGE = (1 << 64) - 1  # the root of an empty tree
KEY_BYTES_MAX = 511
COMPARED_BYTES = 16  # of a key; no table of rowfs has longer ones
MINIMUM_NODES = 2  # that fit a page: what is longer gets pages of its own

HEADER = np.dtype([("number", "u8"), ("pad", "u2"), ("kind", "u2"), ("lower", "u2"), ("upper", "u2")])
LONG_HEADER = np.dtype([("number", "u8"), ("pad", "u2"), ("kind", "u2"), ("pages", "u4")])
ROOT = Struct("=IHHQQQQQ")
META = Struct("=IIQQ48s48sQQ")
assert (HEADER.itemsize, LONG_HEADER.itemsize, ROOT.size, META.size) == (16, 16, 48, 136)
FIRST_BYTES = np.array([(1 << 64) - (1 << 64 - 8 * count) for count in range(NUMBER_BYTES + 1)], np.uint64)  # masks


class BrokenError(Exception):
    """Raised when a page is not what it should be: which one, and why."""


class Root(NamedTuple):
    """LMDB's record of a tree."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    longs: int  # pages of long values
    entries: int
    page: int


class Meta(NamedTuple):
    """LMDB's record of a commit."""

    magic: int
    version: int
    address: int
    map_bytes: int
    free: bytes  # the root of the free list; its `pad` is the size of a page
    main: bytes  # the root of the table of tables
    last_page: int
    commit: int


@dataclass(slots=True)
class Nodes:
    """The nodes of some pages of one level of a tree, in their order; an item each but for `buffer` and `count`."""

    buffer: np.ndarray  # the pages, as bytes
    count: np.ndarray  # nodes by page
    page: np.ndarray  # which of the pages it is in
    slot: np.ndarray  # its place among its page's nodes
    start: np.ndarray  # where it begins in the buffer
    key_bytes: np.ndarray
    value_bytes: np.ndarray
    flags: np.ndarray
    child: np.ndarray  # in a branch

    def keys(self, native: bool = False) -> np.ndarray:
        """The beginnings of all keys as two rows of numbers that order as they do; `native`: keys are one number."""
        at = self.start + NODE_HEADER_BYTES
        if native:
            return np.stack((self._numbers(at), np.zeros(len(at), np.uint64)))
        keys = np.stack((self._numbers(at), self._numbers(at + NUMBER_BYTES)))
        if sys.byteorder == "little":
            keys.byteswap(inplace=True)
        keys[0] &= FIRST_BYTES[np.minimum(self.key_bytes, NUMBER_BYTES)]
        keys[1] &= FIRST_BYTES[np.clip(self.key_bytes - NUMBER_BYTES, 0, NUMBER_BYTES)]
        return keys

    def _numbers(self, at: np.ndarray) -> np.ndarray:
        found: np.ndarray = numbers_in(self.buffer)[at >> 1]
        return found

    def value(self, node: int) -> bytes:
        """The bytes of a value that lies in its node."""
        start = int(self.start[node] + NODE_HEADER_BYTES + self.key_bytes[node])
        return self.buffer[start : start + int(self.value_bytes[node])].tobytes()

    def key(self, node: int) -> bytes:
        """The bytes of a key."""
        start = int(self.start[node]) + NODE_HEADER_BYTES
        return self.buffer[start : start + int(self.key_bytes[node])].tobytes()

    def long_values(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of values with pages of their own: which nodes they are of, their first pages, their lengths."""
        nodes = np.flatnonzero(self.flags & LONG_VALUE)
        at = self.start[nodes] + NODE_HEADER_BYTES + self.key_bytes[nodes]
        first = self.buffer[at[:, None] + np.arange(NUMBER_BYTES)].view(np.uint64)[:, 0]
        return nodes, first, self.value_bytes[nodes]


class MapPages:
    """LMDB's file, open for reading."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.page_bytes = 0
        self.file_pages = 0  # that are there in whole

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def metas(self) -> list[Meta]:
        """Both meta pages, as far as LMDB checks them too. Raises BrokenError."""
        first = self._meta(0, 0)
        self.page_bytes = Root._make(ROOT.unpack(first.free)).pad
        size = self.page_bytes
        if size & (size - 1) or not PAGE_BYTES_MIN <= size <= PAGE_BYTES_MAX:
            raise BrokenError(f"meta page 0 says that pages have {size} bytes")
        second = self._meta(1, size)
        if Root._make(ROOT.unpack(second.free)).pad != size:
            raise BrokenError("the meta pages contradict each other")
        self.file_pages = os.fstat(self._fd).st_size // size
        return [first, second]

    def _meta(self, number: int, position: int) -> Meta:
        content = os.pread(self._fd, PAGE_HEADER_BYTES + META.size, position)
        if len(content) < PAGE_HEADER_BYTES + META.size:
            raise BrokenError("the file is cut off")
        meta = Meta._make(META.unpack_from(content, PAGE_HEADER_BYTES))
        header = np.frombuffer(content, HEADER, 1)[0]
        if not header["kind"] & META_PAGE or meta.magic != MAGIC:
            raise BrokenError(f"meta page {number} is none")
        if meta.version != DATA_VERSION:
            raise BrokenError(f"meta page {number} is of LMDB's data format {meta.version}, not {DATA_VERSION}")
        return meta

    def read(self, position: int, length: int) -> bytes:
        """Bytes of the file. Raises BrokenError when it ends before."""
        content = os.pread(self._fd, length, position)
        if len(content) < length:
            raise BrokenError("the file is cut off")
        return content

    def long_headers(self, numbers: np.ndarray) -> np.ndarray:
        """The headers of the first pages of long values."""
        size = self.page_bytes
        content = b"".join(self.read(number * size, LONG_HEADER.itemsize) for number in numbers.tolist())
        return np.frombuffer(content, LONG_HEADER)

    def nodes(self, numbers: np.ndarray, kind: int, least: int) -> Nodes:
        """The nodes of pages that are all of one kind and have at least so many of them. Raises BrokenError."""
        buffer = self._pages(numbers)
        size, words = self.page_bytes, buffer.view(np.uint16)
        pages = buffer[: len(numbers) * size].reshape(-1, size)
        header = np.ascontiguousarray(pages[:, :PAGE_HEADER_BYTES]).view(HEADER)[:, 0]
        refuse(header["number"] != numbers, numbers, "is another page")
        refuse(header["kind"] != kind, numbers, f"is not of kind {kind}")
        lower, upper = header["lower"].astype(np.int64), header["upper"].astype(np.int64)
        wrong = (lower < PAGE_HEADER_BYTES + 2 * least) | (lower > upper) | (upper > size) | ((lower | upper) & 1 != 0)
        refuse(wrong, numbers, "has impossible bounds")
        count = (lower - PAGE_HEADER_BYTES) >> 1
        page = np.repeat(np.arange(len(numbers)), count)
        slot = np.arange(len(page)) - np.repeat(np.cumsum(count) - count, count)
        offset = words[((page * size + PAGE_HEADER_BYTES) >> 1) + slot].astype(np.int64)
        outside = (offset < upper[page]) | (offset > size - NODE_HEADER_BYTES) | (offset & 1 != 0)
        refuse(outside, numbers[page], "has a node out of its bounds")
        start = page * size + offset
        node = numbers_in(buffer)[start >> 1]
        if sys.byteorder == "big":  # its four fields the other way round
            node = node >> 32 | (node & 0xFFFF0000) << 16 | node << 48
        whole, flags, key_bytes = (
            part.astype(np.int64) for part in (node & 0xFFFFFFFF, node >> 32 & 0xFFFF, node >> 48)
        )
        nodes = Nodes(buffer, count, page, slot, start, key_bytes, whole, flags, whole | flags << 32)
        self._measure(nodes, numbers, upper, kind)
        return nodes

    def _pages(self, numbers: np.ndarray) -> np.ndarray:
        """The pages one after the other, and room behind them for a key that is read too far."""
        size = self.page_bytes
        buffer = np.empty(len(numbers) * size + COMPARED_BYTES, np.uint8)
        view = buffer.data
        for index, number in enumerate(numbers.tolist()):
            if os.preadv(self._fd, [view[index * size : (index + 1) * size]], number * size) < size:
                raise BrokenError("the file is cut off")
        return buffer

    def _measure(self, nodes: Nodes, numbers: np.ndarray, upper: np.ndarray, kind: int) -> None:
        """Raises BrokenError unless the nodes have the lengths that LMDB gives them and lie side by side."""
        size, key_bytes = self.page_bytes, nodes.key_bytes
        own = numbers[nodes.page]
        empty = (key_bytes == 0) & ((kind == LEAF) | (nodes.slot > 0))  # a branch has its first key from above
        refuse(empty | (key_bytes > KEY_BYTES_MAX), own, "has a key of impossible length")
        length = NODE_HEADER_BYTES + key_bytes
        if kind == LEAF:
            inside = length + nodes.value_bytes
            is_long = nodes.flags & LONG_VALUE != 0
            refuse(~is_long & (inside > _node_bytes_max(size)), own, "has a value of impossible length")
            length = np.where(is_long, length + NUMBER_BYTES, inside)
        length = (length + 1) & ~1
        places = np.sort(nodes.start << 16 | length)
        begin, end = places >> 16, (places >> 16) + (places & 0xFFFF)
        last = np.cumsum(nodes.count) - 1
        follows = np.append(begin[1:], 0)
        follows[last] = (np.arange(len(numbers)) + 1) * size
        refuse(end != follows, own, "has nodes that overlap or leave gaps")
        first = begin[last - nodes.count + 1]
        refuse(first != np.arange(len(numbers)) * size + upper, numbers, "has room between bounds and nodes")


def numbers_in(buffer: np.ndarray) -> np.ndarray:
    """The 64-bit numbers that begin at every other byte."""
    return np.ndarray(((len(buffer) - NUMBER_BYTES) // 2 + 1,), np.uint64, buffer.data, strides=(2,))


def refuse(bad: np.ndarray, numbers: np.ndarray, what: str) -> None:
    """Raise BrokenError for the first of the page `numbers` whose place in `bad` is true."""
    if bad.any():
        raise BrokenError(f"page {int(numbers[int(np.argmax(bad))])} {what}")


def _node_bytes_max(page_bytes: int) -> int:
    return ((page_bytes - PAGE_HEADER_BYTES) // MINIMUM_NODES & -2) - 2
