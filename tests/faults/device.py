"""A data file in memory that fails on request and forgets what was not synced when its power is cut.

It has the methods of `rowfs.persist.datafile.DataFile` and is stricter than a file: a block that was never written, or
was punched, cannot be read at all, where a file would answer zeros.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from rowfs.base.errors import NoSpaceError, StorageError
from rowfs.base.format import unpack_label

BLOCK = 4096
Error = NoSpaceError | StorageError


def eio(call: str) -> StorageError:
    """The error of a device that fails."""
    return StorageError(f"{call} of the data file failed: Input/output error")


def enospc(call: str) -> NoSpaceError:
    """The error of a host file system that is full."""
    return NoSpaceError(f"{call}: the file system that holds the pool is full")


class Device:
    """The blocks of a data file: what is stable, what is in the volatile cache, and the order of changes between."""

    def __init__(self) -> None:
        self.stable: dict[int, bytes] = {}
        self.blocks: dict[int, bytes] = {}  # as reads see it
        self.unsynced: list[tuple[int, bytes | None]] = []  # block and what it became; None: punched
        self.script: dict[tuple[str, int], Callable[[str], Error]] = {}  # (call, how many-th from now): its failure
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str], None] = lambda call: None  # before each
        self.after_call: Callable[[str], None] = lambda call: None
        self.sync_works = True

    # The power

    def cut_power(self, rng: random.Random) -> None:
        """Only what was synced is left, and any of the changes since, each block whole."""
        survival = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        for block, data in self.unsynced:
            if rng.random() < survival:
                _change(self.stable, block, data)
        self.unsynced.clear()
        self.blocks = dict(self.stable)
        self.on_call = self.after_call = lambda call: None

    # Failures

    def fail(self, call: str, failure: Callable[[str], Error], count: int = 1) -> None:
        """The `count`-th such call from now on fails."""
        self.script[call, self.calls[call] + count] = failure

    def called(self, call: str) -> None:
        """Count a call; raise if it is to fail."""
        self.on_call(call)
        self.calls[call] += 1
        failure = self.script.pop((call, self.calls[call]), None)
        if failure is not None:
            raise failure(call)

    def change(self, block: int, data: bytes | None) -> None:
        """One block, in the cache."""
        _change(self.blocks, block, data)
        self.unsynced.append((block, data))

    def sync(self) -> None:
        """Everything changed until now is stable."""
        if self.sync_works:
            for block, data in self.unsynced:
                _change(self.stable, block, data)
            self.unsynced.clear()

    def open(self, path: str, read_only: bool) -> FakeData:
        """To be given to a Pool as its `open_data`."""
        return FakeData(path, self)


class FakeData:
    """One opening of a device, with the methods of DataFile."""

    keeps_freed = False

    def __init__(self, path: str, device: Device) -> None:
        self.path = path
        self.device = device
        with open(path, "rb") as file:
            self.uuid = unpack_label(file.read(BLOCK))

    def close(self) -> None:
        """As DataFile.close."""

    def write(self, address: int, data: bytes | memoryview, skip_bytes: int = 0) -> None:
        """As DataFile.write, but a write that fails may have been done in part, block by block."""
        data = bytes(data)
        if skip_bytes or len(data) % BLOCK:
            assert skip_bytes + len(data) <= BLOCK, "a piece crosses blocks"
            assert address in self.device.blocks, f"a piece of block {address} is written, which holds nothing"
            old = self.device.blocks[address]
            data = old[:skip_bytes] + data + old[skip_bytes + len(data) :]
        for start in range(0, len(data), BLOCK):
            self.device.called("write")
            self.device.change(address + start // BLOCK, data[start : start + BLOCK])

    def read(self, spans: Sequence[tuple[int, int, int]], buffer: memoryview) -> None:
        """As DataFile.read."""
        self.device.called("read")
        for position, start, length in spans:
            done = 0
            while done < length:
                block, skip = divmod(position + done, BLOCK)
                assert block in self.device.blocks, f"block {block} is read, which holds nothing"
                piece = self.device.blocks[block][skip : skip + length - done]
                buffer[start + done : start + done + len(piece)] = piece
                done += len(piece)

    def read_cached(self, spans: Sequence[tuple[int, int, int]], buffer: memoryview) -> bool:
        """As DataFile.read_cached."""
        self.read(spans, buffer)
        return True

    def read_disk(self, spans: Sequence[tuple[int, int, int]], buffer: memoryview) -> None:
        """As DataFile.read_disk."""
        self.read(spans, buffer)

    def check_whole(self) -> None:
        """As DataFile.check_whole: nobody cuts off a device."""

    def sync(self) -> None:
        """As DataFile.sync."""
        self.device.called("sync")
        self.device.sync()
        self.device.after_call("sync")

    def write_back(self) -> None:
        """As DataFile.write_back: nothing is durable by that, whatever reaches the disk."""

    def punch(self, first: int, blocks: int) -> None:
        """As DataFile.punch."""
        for block in range(first, first + blocks):
            self.device.called("punch")
            self.device.change(block, None)

    def held_runs(self, first: int, blocks: int) -> list[tuple[int, int]]:
        """As DataFile.held_runs."""
        return [(block, 1) for block in sorted(self.device.blocks) if first <= block < first + blocks]

    def size_bytes(self) -> int:
        """As DataFile.size_bytes."""
        return (max(self.device.blocks, default=0) + 1) * BLOCK

    def used_bytes(self) -> int:
        """As DataFile.used_bytes."""
        return (len(self.device.blocks) + 1) * BLOCK

    def host_free_bytes(self) -> int:
        """As DataFile.host_free_bytes."""
        return 1 << 40

    def blocks_max(self) -> int:
        """As DataFile.blocks_max."""
        return 1 << 32


def _change(blocks: dict[int, bytes], block: int, data: bytes | None) -> None:
    if data is None:
        blocks.pop(block, None)
    else:
        blocks[block] = data
