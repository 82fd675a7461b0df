"""Readers of the block map: what the engine asks of a commit, whoever reads the pages.

That is LMDB (persist.blockmap), or what believes no page that is not what was written (persist.verified). Once one is
found damaged LMDB is not asked for anything any more, in no reader of the map.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from rowfs.base.errors import CorruptionError
from rowfs.base.format import CHANGE_KEY, CHANGES, GROUP_PAGES, PAGE_KEY, PAGES
from rowfs.base.units import BranchId, Epoch, PageIndex
from rowfs.persist.verified import DamagedError

Value = bytes | memoryview
Cursor = Any  # LMDB's, or one with the same methods
P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound="Reader")


class View(Protocol):
    """The tables of one commit."""

    commit: int

    def has(self, table: str) -> bool:
        """Whether there is such a table."""

    def cursor(self, table: str) -> Cursor:
        """A cursor over a table."""

    def entries(self, table: str) -> int:
        """How many keys a table has."""


@dataclass(slots=True)
class Trust:
    """Whether LMDB may be asked; all readers of a map have the same."""

    lost: str | None = None
    replaced: bool = False  # persist.verified is asked in its place, for all but commits
    errors: tuple[type[Exception], ...] = ()  # what else says that something is damaged
    tell: Callable[[str], None] = lambda why: None

    def lose(self, why: str) -> CorruptionError:
        """It may not, from now on. The error to raise."""
        if self.lost is None:
            self.lost = f"the block map is damaged: {why}"
            self.tell(why)
        error = CorruptionError(f"the block map is damaged: {why}")
        error.logged = True
        return error

    def check(self) -> None:
        """Raises CorruptionError if it may not."""
        if self.lost is not None:
            error = CorruptionError(self.lost)
            error.logged = True
            raise error


def _translated(method: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """A method of Reader that answers damage of the map with CorruptionError."""

    @functools.wraps(method)
    def translated(self: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._trust.lost is not None and not self._trust.replaced:
            self._trust.check()
        try:
            return method(self, *args, **kwargs)
        except DamagedError as error:
            raise self._trust.lose(str(error)) from None
        except self._trust.errors as error:
            raise CorruptionError(f"the block map is damaged: {error}") from error
        except struct.error:
            raise CorruptionError("the block map is damaged: a key is not one of its table") from None

    return translated


def _translated_items(method: Callable[Concatenate[R, P], Iterator[T]]) -> Callable[Concatenate[R, P], Iterator[T]]:
    @functools.wraps(method)
    def translated(self: R, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        if not self._trust.replaced:
            self._trust.check()
        try:
            yield from method(self, *args, **kwargs)
        except DamagedError as error:
            raise self._trust.lose(str(error)) from None
        except self._trust.errors as error:
            raise CorruptionError(f"the block map is damaged: {error}") from error
        except struct.error:
            raise CorruptionError("the block map is damaged: a key is not one of its table") from None

    return translated


class Reader:
    """A view of the last commit. Buffers it hands out are valid until `close`."""

    def __init__(self, trust: Trust, view: View, end: Callable[[], None]) -> None:
        """`end` ends what keeps the pages of the commit."""
        self._trust = trust
        self._view = view
        self._end = end
        self._cursors: dict[str, Cursor] = {}  # for what is looked up at once

    def close(self) -> None:
        """Let go of the commit."""
        self._cursors = {}
        self._end()

    @property
    def commit(self) -> int:
        """LMDB's number of the commit that is seen. No other ever has it."""
        return self._view.commit

    def _cursor(self, table: str) -> Cursor:
        cursor = self._cursors.get(table)
        if cursor is None:
            cursor = self._cursors[table] = self._view.cursor(table)
        return cursor

    @_translated
    def get(self, table: str, key: bytes) -> Value | None:
        """The value under `key`, or None."""
        if not self._view.has(table):
            return None
        cursor = self._cursor(table)
        return cursor.value() if cursor.set_key(key) else None

    @_translated_items
    def items(self, table: str, start: bytes = b"") -> Iterator[tuple[bytes, Value]]:
        """All keys from `start` on, ascending, and their values."""
        if not self._view.has(table):
            return
        cursors, cursor = self._cursors, self._view.cursor(table)
        more = cursor.set_range(start)
        while more:
            yield bytes(cursor.key()), cursor.value()
            assert self._cursors is cursors, "a reader was closed amid its items"
            more = cursor.next()

    @_translated
    def last_key(self, table: str) -> bytes | None:
        """The last key of a table; None: it has none."""
        if not self._view.has(table):
            return None
        cursor = self._cursor(table)
        return bytes(cursor.key()) if cursor.last() else None

    @_translated
    def entries(self, table: str) -> int:
        """How many keys a table has."""
        return self._view.entries(table)

    @_translated
    def version(self, branch: BranchId, page: PageIndex, epoch: Epoch) -> tuple[Epoch, Value] | None:
        """The newest version of a branch's page that is not after `epoch`."""
        cursor = self._cursor(PAGES)
        key = PAGE_KEY.pack(branch, page, epoch)
        if cursor.set_range(key):
            found = cursor.key()
            if found == key:
                return epoch, cursor.value()
            if not cursor.prev():
                return None
        elif not cursor.last():
            return None
        held_branch, held_page, held_epoch = PAGE_KEY.unpack(cursor.key())
        if held_branch != branch or held_page != page:
            return None
        return Epoch(held_epoch), cursor.value()

    @_translated
    def next_epoch(self, branch: BranchId, page: PageIndex, after: Epoch) -> Epoch | None:
        """The first epoch later than `after` at which a branch's page has a version."""
        cursor = self._cursor(PAGES)
        if not cursor.set_range(PAGE_KEY.pack(branch, page, after + 1)):
            return None
        held_branch, held_page, epoch = PAGE_KEY.unpack(cursor.key())
        return Epoch(epoch) if held_branch == branch and held_page == page else None

    def epochs(self, branch: BranchId, page: PageIndex, after: Epoch) -> Iterator[Epoch]:
        """All of these epochs, ascending."""
        epoch = self.next_epoch(branch, page, after)
        while epoch is not None:
            yield epoch
            epoch = self.next_epoch(branch, page, epoch)

    @_translated
    def next_page(self, branch: BranchId, page: PageIndex) -> PageIndex | None:
        """The first page from `page` on of which the branch has a version."""
        cursor = self._cursor(PAGES)
        if not cursor.set_range(PAGE_KEY.pack(branch, page, 0)):
            return None
        held_branch, held_page, _ = PAGE_KEY.unpack(cursor.key())
        return PageIndex(held_page) if held_branch == branch else None

    @_translated
    def next_change(self, branch: BranchId, epoch: Epoch, group: int) -> tuple[Epoch, int, list[PageIndex]] | None:
        """The first entry of the change index from (branch, epoch, group) on: its epoch, group and pages."""
        cursor = self._cursor(CHANGES)
        if not cursor.set_range(CHANGE_KEY.pack(branch, epoch, group)):
            return None
        held_branch, held_epoch, held_group = CHANGE_KEY.unpack(cursor.key())
        if held_branch != branch:
            return None
        bits = int.from_bytes(cursor.value(), "little")
        return Epoch(held_epoch), held_group, [PageIndex(held_group * GROUP_PAGES + n) for n in _set_bits(bits)]


def _set_bits(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
