"""What is done on the mount, the same each time: most verbs, and writes of all kinds, each followed by its oracle."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rowfs.cli.client import Client
from soaklib.records import B
from soaklib.system import opened, read_direct, write_aligned
from tormentlib.model import Image, Model, block_of

MIB = 1 << 20
SIZE, GROWN = 4 * MIB, 6 * MIB
PUNCH_HOLE, KEEP_SIZE = 2, 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Script:
    """One run over a mounted pool that was empty."""

    def __init__(self, pool: Path, mnt: Path, model: Model) -> None:
        self._pool, self._mnt, self._model = pool, mnt, model

    def run(self) -> None:
        """All of it. What fails is noted, and the next thing tried. Raises Lost when wrong bytes are read."""
        self._create("vm")
        self._write("vm", range(0, 40), sync=True)
        self._write("vm", range(512, 520), sync=True)
        self._snapshot("vm", "one")
        self._write("vm", range(0, 12), sync=True)
        for block in (3, 100, 101):
            self._write("vm", [block], sync=True)
        self._buffered("vm", range(20, 60))
        self._clone("vm", "one", "copy")
        self._write("copy", range(5, 15), sync=True)
        self._snapshot("vm", "two")
        self._write("vm", range(8, 16), sync=False)
        self._rollback("vm", "one")
        self._write("vm", range(30, 34), sync=True)
        self._share("copy", "vm", range(5, 13))
        self._resize("vm", GROWN)
        self._write("vm", range(SIZE // B, SIZE // B + 8), sync=True)
        self._punch("vm", range(10, 20))
        self._read()
        self._delete_snapshot("vm", "two")
        self._delete("copy")
        self._write("vm", range(600, 640), sync=True)
        self._rename("vm", "renamed")
        self._write("renamed", range(0, 4), sync=False)
        self._read()

    def ask(self, method: str, **params: Any) -> Any:
        """Over the socket. Raises RowfsError."""
        with Client(str(self._pool)) as client:
            return client.call(method, params)

    # Verbs: durable with all before them when they return

    def _verb(self, method: str, **params: Any) -> bool:
        with self._model.step() as done:
            self.ask(method, **params)
            self._model.synced()
        return bool(done)

    def _create(self, name: str) -> None:
        self._model.disks[name] = Image({SIZE}, sure=self._verb("create", disk=name, size_bytes=SIZE))

    def _snapshot(self, disk: str, name: str) -> None:
        if disk in self._model.disks:
            seen = copy.deepcopy(self._model.disks[disk])
            seen.sure = self._verb("snapshot", disk=disk, snapshot=name)
            seen.synced()
            self._model.snapshots[disk, name] = seen

    def _clone(self, disk: str, snapshot: str, target: str) -> None:
        begun = copy.deepcopy(self._model.snapshots[disk, snapshot])
        begun.sure = self._verb("clone", disk=disk, snapshot=snapshot, targets=[target])
        self._model.disks[target] = begun

    def _rollback(self, disk: str, snapshot: str) -> None:
        before, after = self._model.disks[disk], copy.deepcopy(self._model.snapshots[disk, snapshot])
        done = self._verb("rollback", disk=disk, snapshot=snapshot)
        kept = copy.deepcopy(before)
        kept.sure = done
        self._model.snapshots[disk, "before-rollback"] = kept
        self._model.disks[disk] = after if done else before.or_else(after)
        self._model.disks[disk].sure = before.sure

    def _resize(self, disk: str, size: int) -> None:
        done = self._verb("resize", disk=disk, size_bytes=size)
        image = self._model.disks[disk]
        image.sizes = {size} if done else image.sizes | {size}

    def _delete_snapshot(self, disk: str, name: str) -> None:
        if self._verb("delete", disk=disk, snapshots=[name], wait=True):
            del self._model.snapshots[disk, name]
        else:
            self._model.snapshots[disk, name].sure = False

    def _delete(self, disk: str) -> None:
        if self._verb("delete", disk=disk):
            del self._model.disks[disk]
        else:
            self._model.disks[disk].sure = False

    def _rename(self, disk: str, name: str) -> None:
        done = self._verb("rename", disk=disk, to=name)
        disks, snapshots = self._model.disks, self._model.snapshots
        disks[name] = copy.deepcopy(disks[disk])
        chain = {key: image for key, image in snapshots.items() if key[0] == disk}
        for (_, snapshot), image in chain.items():
            snapshots[name, snapshot] = copy.deepcopy(image)
        if done:
            del disks[disk]
            for key in chain:
                del snapshots[key]
            return
        for image in (disks[disk], disks[name]):
            image.sure = False
        for key in chain:
            snapshots[key].sure = snapshots[name, key[1]].sure = False

    # Bytes

    def _write(self, disk: str, blocks: Sequence[int], sync: bool) -> None:
        """Past the page cache, what is side by side in one call."""
        image = self._model.disks[disk]
        numbers = {block: self._model.number() for block in blocks}
        with self._model.step() as done, opened(self._mnt / disk, os.O_RDWR | os.O_DIRECT) as fd:
            write_aligned(fd, blocks[0] * B, b"".join(block_of(*item) for item in numbers.items()))
        for block, number in numbers.items():
            image.put(block, {number}, bool(done))
        if sync:
            self._sync(disk)

    def _sync(self, disk: str) -> None:
        with self._model.step(), opened(self._mnt / disk, os.O_RDWR) as fd:
            os.fsync(fd)
            self._model.synced()

    def _buffered(self, disk: str, blocks: Sequence[int]) -> None:
        """Through it; only the sync says whether it arrived."""
        numbers = {block: self._model.number() for block in blocks}
        with self._model.step() as done, opened(self._mnt / disk, os.O_RDWR) as fd:
            os.pwrite(fd, b"".join(block_of(*item) for item in numbers.items()), blocks[0] * B)
            os.fsync(fd)
        for block, number in numbers.items():
            self._model.disks[disk].put(block, {number}, bool(done))
        if done:
            self._model.synced()

    def _share(self, source: str, disk: str, blocks: Sequence[int]) -> None:
        taken = {block: set(self._model.disks[source].live.get(block, {0})) for block in blocks}
        with contextlib.ExitStack() as stack:
            done = stack.enter_context(self._model.step())
            at = stack.enter_context(opened(self._mnt / source, os.O_RDONLY))
            to = stack.enter_context(opened(self._mnt / disk, os.O_RDWR))
            count = os.copy_file_range(at, to, len(blocks) * B, blocks[0] * B, blocks[0] * B)
            if count < len(blocks) * B:
                done.clear()
            os.fsync(to)
        for block, numbers in taken.items():
            self._model.disks[disk].put(block, numbers, bool(done))
        self._sync(disk)

    def _punch(self, disk: str, blocks: Sequence[int]) -> None:
        with self._model.step() as done, opened(self._mnt / disk, os.O_RDWR) as fd:
            if _libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, blocks[0] * B, len(blocks) * B):
                raise OSError(ctypes.get_errno(), "fallocate")
        for block in blocks:
            self._model.disks[disk].put(block, {0}, bool(done))
        self._sync(disk)

    def _read(self) -> None:
        """What can be read is right."""
        for disk, image in self._model.disks.items():
            with self._model.step():
                image.hold(disk, read_direct(self._mnt / disk), safe=False)
        for (disk, name), image in self._model.snapshots.items():
            with self._model.step():
                image.hold(f"{disk}@{name}", read_direct(self._mnt / ".snapshots" / disk / name), safe=False)
