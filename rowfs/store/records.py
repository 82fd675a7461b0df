"""A sub-database of records beside those of disks and snapshots: all in memory, changed there, stored by the commit.

What an older rowfs does not know it leaves alone. So such a record may be of what that one deleted: whoever reads the
records knows which those are, and drops them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from rowfs.base.errors import CorruptionError
from rowfs.base.format import ID_KEY, Record
from rowfs.persist.blockmap import MapUpdate
from rowfs.persist.mapread import Reader, Value

log = logging.getLogger(__name__)


class Numbered(Protocol):
    """A record that is stored under its id."""

    id: int

    def pack(self) -> bytes:
        """The record as stored."""


R = TypeVar("R", bound=Numbered)
K = TypeVar("K", bound=Record)


def told(kind: type[K], value: Value, **extra: Any) -> K:
    """As Record.unpack; the log has what stands for something else."""
    wrong: list[str] = []
    record = kind.unpack(value, wrong, **extra)
    for line in wrong:
        what = kind.record_class().__name__.removesuffix("Record").lower()
        name = getattr(record, "name", getattr(record, "id", ""))
        log.warning("the record of the %s %s: %s (check --repair mends it)", what, name, line)
    return record


class Records(Generic[R]):
    """The records of one sub-database, by id, in the order of their ids."""

    def __init__(self, table: str, unpack: Callable[[Value], R]) -> None:
        """`unpack` makes a record of what is stored, or raises CorruptionError."""
        self._table = table
        self._unpack = unpack
        self._held: dict[int, R] = {}
        self._changed: set[int] = set()

    def load(self, reader: Reader, next_id: int) -> None:
        """Read all records. Raises CorruptionError for what is none, or has an id that nothing had yet."""
        for key, value in reader.items(self._table):
            record = self._unpack(value)
            if key != ID_KEY.pack(record.id) or record.id >= next_id:
                raise CorruptionError(
                    f"the record of {self._table} under the key {key.hex()} cannot be the one with id {record.id}"
                )
            self._held[record.id] = record

    def __iter__(self) -> Iterator[R]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def get(self, number: int) -> R | None:
        """The record with this id; None: there is none."""
        return self._held.get(number)

    def put(self, record: R) -> None:
        """A new record, or one that was changed."""
        self._held[record.id] = record
        self._changed.add(record.id)

    def drop(self, number: int) -> None:
        """Forget a record, if there is one with this id."""
        if self._held.pop(number, None) is not None:
            self._changed.add(number)

    @property
    def unsaved(self) -> bool:
        """Whether a commit would change anything here."""
        return bool(self._changed)

    def freeze(self, update: MapUpdate) -> None:
        """Put what changed since the last freeze into `update`."""
        for number in self._changed:
            record = self._held.get(number)
            update.put(self._table, ID_KEY.pack(number), None if record is None else record.pack())
        self._changed = set()
