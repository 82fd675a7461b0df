"""Whether LMDB can be trusted with the file of the block map: its pages, looked at before LMDB follows them.

LMDB believes what it reads. A page that is not what it should be makes it abort the process, read past the end of its
mapping or write over pages in use. So what it would believe of the commit that it would show is checked at every open:

    meta       both meta pages are of LMDB's data format 1; the later commit is in the page that it belongs into
    trees      the free list, the table of tables and each table: every page is there once and of the kind its level
               asks for; as deep, and with as many pages and entries, as the root says
    nodes      lie side by side in their page; keys ascend, between those that the branches above give
    values     are in their node, or in pages of their own, of which there are enough
    free list  ascending commits, each with descending pages, none of them in use or listed twice
    length     the file has all pages, but for free ones at its end (LMDB does not write what it frees at once)

At most PAGES_MAX pages are read, from the roots down and the pages of long values last, so that a huge map is open
soon; `rowfs check` reads all (`verify` in persist.blockmap). What keys and values say is for others to check.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rowfs.persist.mappages import (
    BRANCH,
    COMPARED_BYTES,
    LEAF,
    LONG,
    LONG_VALUE,
    METAS,
    NO_PAGE,
    NUMBER_BYTES,
    PAGE_HEADER_BYTES,
    ROOT,
    TABLE_ROOT,
    BrokenError,
    MapPages,
    Meta,
    Nodes,
    Root,
    refuse,
)

PAGES_MAX = 1 << 15  # 128 MiB: all pages of the trees that map some 6 TiB
ALL_PAGES = 1 << 62
SLAB_PAGES = 256  # looked at together
DEPTH_MAX = 32
MANY_VALUES_FLAGS = 0x74  # of a tree with several values for a key: rowfs has none
COMMIT_MAX = 1 << 62
FREE_LIST = "the free list"


class CommitGoneError(Exception):
    """Raised when the file no longer has the meta page of the commit that is asked for."""


def find_damage(path: str, tables: tuple[str, ...], commit: int | None = None, pages_max: int = PAGES_MAX) -> list[str]:
    """What is wrong with LMDB's file at `path`, in which rowfs would open `tables`; empty: LMDB may have it.

    The commit looked at is the last one, or `commit` where a reader holds it and others may go on writing. Raises
    CommitGoneError, OSError.
    """
    pages = MapPages(path)
    with contextlib.closing(pages):
        try:
            meta = _pick(pages.metas(), commit)
        except BrokenError as error:
            return [str(error)]
        return _Check(pages, meta, tables, pages_max).run()


def find_damage_of(path: str, tables: tuple[str, ...], meta: Meta, pages_max: int) -> list[str]:
    """As find_damage, of the commit of a meta page. Raises OSError."""
    pages = MapPages(path)
    with contextlib.closing(pages):
        try:
            pages.metas()  # which say how large pages are
        except BrokenError as error:
            return [str(error)]
        return _Check(pages, meta, tables, pages_max).run()


def meta_of(path: str, commit: int) -> Meta:
    """The meta page of one of the last two commits. Raises BrokenError, CommitGoneError, OSError."""
    pages = MapPages(path)
    with contextlib.closing(pages):
        return _pick(pages.metas(), commit)


def _pick(metas: list[Meta], commit: int | None) -> Meta:
    """The meta page that LMDB picks. Raises BrokenError, CommitGoneError."""
    if commit is not None:
        if metas[commit % METAS].commit != commit:
            raise CommitGoneError
        return metas[commit % METAS]
    return last_meta(metas)


def last_meta(metas: list[Meta]) -> Meta:
    """That of the last commit. Raises BrokenError when it cannot be."""
    place = int(metas[0].commit < metas[1].commit)
    found = metas[place]
    if found.commit % METAS != place or found.commit > COMMIT_MAX:
        raise BrokenError(f"meta page {place} cannot be of commit {found.commit}")
    return found


@dataclass(slots=True)
class _Level:
    """Pages of one level of a tree, and between which keys theirs have to lie."""

    numbers: np.ndarray
    low: np.ndarray  # two rows of numbers, as Nodes.keys has them
    high: np.ndarray
    exact: bool  # whether those are whole keys: then one that equals `high` is too high


OnLeaves = Callable[[_Level, Nodes], None]


class _Check:
    def __init__(self, pages: MapPages, meta: Meta, tables: tuple[str, ...], pages_max: int) -> None:
        self._pages = pages
        self._meta = meta
        self._tables = {name.encode() for name in tables}
        self._left = pages_max  # that may still be read
        self._end = min(meta.last_page + 1, pages.file_pages)  # pages in use are before this one
        self._used = np.zeros(self._end, bool)
        self._findings: list[str] = []
        self._roots: list[tuple[bytes, Root]] = []
        self._freed: list[bytes] = []  # the free list: what each commit freed
        self._longs: list[tuple[str, np.ndarray, np.ndarray]] = []  # by tree: first pages, how many are needed
        self._entries = 0  # of the tree that is walked

    def run(self) -> list[str]:
        free, main = (Root._make(ROOT.unpack(root)) for root in (self._meta.free, self._meta.main))
        listed = self._tree(FREE_LIST, free, self._on_free)
        self._tree("the table of tables", main, self._on_main)
        # What is large comes last: if not all can be read, it is of that.
        for name, root in sorted(self._roots, key=lambda item: item[1].leaves):
            if name in self._tables or not root.flags:
                self._tree(f"the table {name.decode(errors='replace')}", root, self._on_table)
        for tree, first, need in self._longs:
            with self._finding(tree):
                self._long_headers(first, need)
        if listed:
            with self._finding(FREE_LIST):
                self._free_pages()
        return self._findings

    @contextlib.contextmanager
    def _finding(self, tree: str) -> Iterator[None]:
        try:
            yield
        except BrokenError as error:
            self._findings.append(f"{tree}: {error}")

    # Trees

    def _tree(self, tree: str, root: Root, on_leaves: OnLeaves) -> bool:
        """Look at a tree. Whether all of it was read and is in order."""
        with self._finding(tree):
            if root.flags & MANY_VALUES_FLAGS if tree == FREE_LIST else root.flags or root.pad:
                raise BrokenError("its root has flags that rowfs does not use")
            if root.page == NO_PAGE and root.depth == root.entries == 0:
                return True
            if not 0 < root.depth <= DEPTH_MAX:
                raise BrokenError(f"its root is {root.depth} levels deep")
            self._entries = 0
            branches, leaves, whole = self._walk(tree, root, on_leaves)
            if whole and (branches, leaves, self._entries) != (root.branches, root.leaves, root.entries):
                raise BrokenError("its root does not count what is there")
            return whole
        return False

    def _walk(self, tree: str, root: Root, on_leaves: OnLeaves) -> tuple[int, int, bool]:
        """Look at all pages, level by level. How many branches and leaves there are, and whether all were read."""
        number = np.array([min(root.page, NO_PAGE >> 1)], np.int64)
        level = _Level(number, np.zeros((2, 1), np.uint64), np.full((2, 1), NO_PAGE, np.uint64), False)
        branches, whole = 0, True
        for _ in range(root.depth - 1):
            self._use(level.numbers)
            branches += len(level.numbers)
            level, read = self._branches(level, tree == FREE_LIST)
            whole &= read
        self._use(level.numbers)
        read_pages = 0
        for slab in self._slabs(level):
            nodes = self._pages.nodes(slab.numbers, LEAF, 1)
            _ordered(slab, nodes, LEAF, tree == FREE_LIST)
            read_pages += len(slab.numbers)
            self._entries += len(nodes.page)
            self._on_long(tree, slab, nodes)
            on_leaves(slab, nodes)
        return branches, len(level.numbers), whole and read_pages == len(level.numbers)

    def _branches(self, level: _Level, is_free_list: bool) -> tuple[_Level, bool]:
        """The level below one of branches, and whether all of them were read."""
        numbers, lows, highs, exact, read_pages = [], [], [], True, 0
        for slab in self._slabs(level):
            nodes = self._pages.nodes(slab.numbers, BRANCH, 1 if is_free_list else 2)  # LMDB aborts below that
            keys, whole_keys = _ordered(slab, nodes, BRANCH, is_free_list)
            first, last = nodes.slot == 0, nodes.slot == nodes.count[nodes.page] - 1
            numbers.append(nodes.child)
            lows.append(np.where(first, slab.low[:, nodes.page], keys))
            highs.append(np.where(last, slab.high[:, nodes.page], np.roll(keys, -1, axis=1)))
            exact &= whole_keys
            read_pages += len(slab.numbers)
        if not numbers:
            return _Level(level.numbers[:0], level.low[:, :0], level.high[:, :0], False), False
        below = _Level(np.concatenate(numbers), np.concatenate(lows, 1), np.concatenate(highs, 1), exact)
        return below, read_pages == len(level.numbers)

    def _slabs(self, level: _Level) -> Iterator[_Level]:
        """The pages of a level, some at a time, as long as any may be read."""
        at = 0
        while at < len(level.numbers) and self._left > 0:
            end = min(at + SLAB_PAGES, at + self._left, len(level.numbers))
            self._left -= end - at
            yield _Level(level.numbers[at:end], level.low[:, at:end], level.high[:, at:end], level.exact)
            at = end

    def _use(self, numbers: np.ndarray) -> None:
        """These pages are in use. Raises BrokenError when one cannot be, or is already."""
        refuse((numbers < METAS) | (numbers >= self._end), numbers, "is in use and is not there")
        ascending = np.sort(numbers)
        refuse(ascending[1:] == ascending[:-1], ascending, "is in use twice")
        refuse(self._used[numbers], numbers, "is in use twice")
        self._used[numbers] = True

    # Leaves

    def _on_main(self, slab: _Level, nodes: Nodes) -> None:
        own = slab.numbers[nodes.page]
        is_root = nodes.flags == TABLE_ROOT
        refuse(~is_root & (nodes.flags & ~LONG_VALUE != 0), own, "has a node of no known kind")
        refuse(is_root & (nodes.value_bytes != ROOT.size), own, "has a root of a table that is none")
        for node in np.flatnonzero(is_root).tolist():
            self._roots.append((nodes.key(node), Root._make(ROOT.unpack(nodes.value(node)))))

    def _on_table(self, slab: _Level, nodes: Nodes) -> None:
        refuse(nodes.flags & ~LONG_VALUE != 0, slab.numbers[nodes.page], "has a node of no known kind")

    def _on_free(self, slab: _Level, nodes: Nodes) -> None:
        own = slab.numbers[nodes.page]
        refuse(nodes.flags & ~LONG_VALUE != 0, own, "has a node of no known kind")
        commits = nodes.keys(native=True)[0]
        refuse((commits == 0) | (commits > self._meta.commit), own, "lists a commit that was not yet")
        long_nodes, first, _ = nodes.long_values()
        place = dict(zip(long_nodes.tolist(), first.tolist(), strict=True))
        for node in range(len(nodes.page)):
            if node in place:
                start = place[node] * self._pages.page_bytes + PAGE_HEADER_BYTES
                self._freed.append(self._pages.read(start, int(nodes.value_bytes[node])))
            else:
                self._freed.append(nodes.value(node))

    def _on_long(self, tree: str, slab: _Level, nodes: Nodes) -> None:
        """Note values with pages of their own, which must be there and theirs alone."""
        of, first, value_bytes = nodes.long_values()
        need = (PAGE_HEADER_BYTES - 1 + value_bytes) // self._pages.page_bytes + 1
        outside = (first >= self._end) | (need > self._end)
        outside[~outside] = first[~outside].astype(np.int64) + need[~outside] > self._end
        refuse(outside, slab.numbers[nodes.page[of]], "has a value in pages that are not there")
        if need.sum() > self._end:
            raise BrokenError("values share pages")
        first = first.astype(np.int64)
        self._use(np.repeat(first - np.cumsum(need) + need, need) + np.arange(need.sum()))
        self._longs.append((tree, first, need))

    def _long_headers(self, first: np.ndarray, need: np.ndarray) -> None:
        """Whether the pages of long values say of themselves what the nodes say, as long as any may be read."""
        order = np.argsort(first)[: self._left]
        self._left -= len(order)
        first, need = first[order], need[order]
        header = self._pages.long_headers(first)
        refuse(header["number"] != first, first, "is another page")
        refuse(header["kind"] != LONG, first, f"is not of kind {LONG}")
        pages = header["pages"].astype(np.int64)
        refuse((pages < need) | (pages > self._end - first), first, "counts other pages than it has")
        for place in np.flatnonzero(pages > need).tolist():  # LMDB shortens a value in place within one commit
            self._use(np.arange(first[place] + need[place], first[place] + pages[place]))

    # The free list

    def _free_pages(self) -> None:
        end = self._meta.last_page + 1
        lists = [_page_list(value) for value in self._freed]
        if end - self._end > sum(len(pages) for pages in lists):
            raise BrokenError("the file is cut off")
        free = np.zeros(end, bool)
        for pages in lists:
            refuse((pages < METAS) | (pages >= end), pages, "is free and is not there")
            refuse(free[pages], pages, "is free twice")
            in_file = pages[pages < self._end]
            refuse(self._used[in_file], in_file, "is in use and free")
            free[pages] = True
        refuse(~free[self._end :], np.arange(self._end, end), "is in use and is not there: the file is cut off")


def _ordered(level: _Level, nodes: Nodes, kind: int, native: bool) -> tuple[np.ndarray, bool]:
    """The keys of nodes as numbers, and whether these are whole. Raises BrokenError when they are out of order."""
    keys = nodes.keys(native)
    least = 1 if kind == BRANCH else 0  # a branch's first key stands for all that is lower
    sizes = nodes.key_bytes[nodes.slot >= least]
    if native:
        refuse((nodes.slot >= least) & (nodes.key_bytes != NUMBER_BYTES), level.numbers[nodes.page], "has a bad key")
    exact = bool(len(sizes) and sizes[0] <= COMPARED_BYTES and (sizes == sizes[0]).all())
    page = np.flatnonzero(nodes.count > least)
    ends = np.cumsum(nodes.count)
    first, last = (ends - nodes.count + least)[page], (ends - 1)[page]
    after = nodes.slot[1:] > least
    wrong = after & _less(keys[:, 1:], keys[:, :-1], exact)
    refuse(wrong, level.numbers[nodes.page[1:]], "has keys out of order")
    wrong = _less(keys[:, first], level.low[:, page]) | _less(level.high[:, page], keys[:, last], exact and level.exact)
    refuse(wrong, level.numbers[page], "has keys of another page")
    return keys, exact


def _less(left: np.ndarray, right: np.ndarray, or_equal: bool = False) -> np.ndarray:
    """Of pairs of keys, as Nodes.keys has them, which left ones are less."""
    second = left[1] <= right[1] if or_equal else left[1] < right[1]
    less: np.ndarray = (left[0] < right[0]) | ((left[0] == right[0]) & second)
    return less


def _page_list(value: bytes) -> np.ndarray:
    """The pages that one commit freed: a count, then so many, descending. Raises BrokenError."""
    numbers = np.frombuffer(value[: len(value) // NUMBER_BYTES * NUMBER_BYTES], np.uint64)
    if not len(numbers) or numbers.nbytes != len(value) or int(numbers[0]) >= len(numbers):
        raise BrokenError("a list does not have the length that it says")
    pages = np.minimum(numbers[1 : 1 + int(numbers[0])], NO_PAGE >> 1).astype(np.int64)
    refuse(pages[1:] >= pages[:-1], pages, "is out of order")
    return pages
