"""Data files that fail on purpose, to be given to Pool as `open_data`."""

from __future__ import annotations

from collections.abc import Sequence

from rowfs.base.errors import NoSpaceError, StorageError
from rowfs.base.ranges import Span
from rowfs.persist.datafile import DataFile
from tests.store.helpers import B


class Volatile(DataFile):
    """A data file on a device with a volatile write cache: `lose_power` undoes what no `sync` followed."""

    def __init__(self, path: str, read_only: bool = False) -> None:
        super().__init__(path, read_only)
        self._before: list[tuple[int, bytes]] = []

    def write(self, address: int, data: bytes | memoryview, skip_bytes: int = 0) -> None:
        """As DataFile.write."""
        position = address * B + skip_bytes
        with open(self.path, "rb") as file:
            file.seek(position)
            self._before.append((position, file.read(len(data)).ljust(len(data), b"\0")))
        super().write(address, data, skip_bytes)

    def sync(self) -> None:
        """As DataFile.sync."""
        super().sync()
        self._before.clear()

    def lose_power(self) -> None:
        """Put back what was there before every write since the last sync."""
        with open(self.path, "r+b") as file:
            for position, data in reversed(self._before):
                file.seek(position)
                file.write(data)


class Scripted(DataFile):
    """A data file that does what it is told to, and writes down what it was asked for.

    `fails` counts down, for each method, the calls that still succeed; at 0 they fail from then on.
    """

    def __init__(self, path: str, read_only: bool = False) -> None:
        super().__init__(path, read_only)
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.full = False

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            if self.fails[name] == 0:
                if self.full:
                    raise NoSpaceError("the file system that holds the pool is full")
                raise StorageError(f"{name} of the data file failed")
            self.fails[name] -= 1

    def write(self, address: int, data: bytes | memoryview, skip_bytes: int = 0) -> None:
        """As DataFile.write."""
        self._called("write")
        super().write(address, data, skip_bytes)

    def read(self, spans: Sequence[Span], buffer: memoryview) -> None:
        """As DataFile.read."""
        self._called("read")
        super().read(spans, buffer)

    def sync(self) -> None:
        """As DataFile.sync."""
        self._called("sync")
        super().sync()

    def punch(self, first: int, blocks: int) -> None:
        """As DataFile.punch."""
        self._called("punch")
        super().punch(first, blocks)
