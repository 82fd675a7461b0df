"""A disk of which every byte is known: the oracle is a bytes for the disk, and one for each snapshot."""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from pathlib import Path

from rowfs.cli.client import Client
from soaklib.records import B, Lost
from soaklib.system import MIB, read_direct, write_aligned

DISK_BYTES = 2 * MIB
WRITE_BLOCKS_MAX = 16
SNAPSHOTS_MAX = 6


class VerifiedDisk:
    """A disk that one thread alone changes. It stays open, so that nobody can unmount the pool."""

    def __init__(self, pool: Path, mnt: Path, name: str, direct: bool) -> None:
        self._pool, self._mnt, self.name, self._direct = pool, mnt, name, direct
        with Client(str(pool)) as client:
            client.call("create", {"disk": name, "size_bytes": DISK_BYTES})
        self._fd = os.open(mnt / name, os.O_RDWR | (os.O_DIRECT if direct else 0))
        self._content = bytearray(DISK_BYTES)
        self._frozen: dict[str, bytes] = {}
        self._made = 0
        self.counts: Counter[str] = Counter()

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def step(self, rng: random.Random) -> str:
        """Do something, and hold what is read against what is known. What it was. Raises Lost."""
        steps = [self._write] * 8 + [self._read] * 4 + [self._sync, self._snapshot, self._look, self._clone, self._drop]
        step = rng.choice([*steps, self._roll] if self._direct else steps)
        step(rng)
        what = step.__name__.strip("_")
        self.counts[what] += 1
        return what

    def verify(self) -> None:
        """All of it, past the page cache."""
        os.fsync(self._fd)
        self._compare(read_direct(self._mnt / self.name), 0, "")
        for name in self._frozen:
            self._verify_snapshot(name)

    def _write(self, rng: random.Random) -> None:
        if self._direct:
            blocks = rng.randint(1, WRITE_BLOCKS_MAX)
            offset, data = B * rng.randrange(DISK_BYTES // B - blocks), rng.randbytes(B * blocks)
            write_aligned(self._fd, offset, data)
        else:
            offset, data = rng.randrange(DISK_BYTES - 5 * B), rng.randbytes(rng.randint(1, 5 * B))
            if os.pwrite(self._fd, data, offset) != len(data):
                raise Lost(f"a short write to {self.name}")
        self._content[offset : offset + len(data)] = data

    def _read(self, rng: random.Random) -> None:
        with open(self._mnt / self.name, "rb", buffering=0) as file:
            offset, length = rng.randrange(DISK_BYTES), rng.randint(1, 64 * B)
            self._compare(os.pread(file.fileno(), length, offset), offset, "")

    def _sync(self, rng: random.Random) -> None:
        os.fsync(self._fd)

    def _snapshot(self, rng: random.Random) -> None:
        if len(self._frozen) >= SNAPSHOTS_MAX:
            self._drop(rng)
        self._made += 1
        name = f"v{self._made}"
        self._call("snapshot", snapshot=name)
        self._frozen[name] = bytes(self._content)

    def _look(self, rng: random.Random) -> None:
        if self._frozen:
            self._verify_snapshot(rng.choice(list(self._frozen)))

    def _drop(self, rng: random.Random) -> None:
        if self._frozen:
            name = rng.choice(list(self._frozen))
            self._call("delete", snapshots=[name])
            del self._frozen[name]

    def _roll(self, rng: random.Random) -> None:
        if self._frozen:
            name = rng.choice(list(self._frozen))
            self._call("rollback", snapshot=name, force=True, discard=True)
            self._content[:] = self._frozen[name]

    def _clone(self, rng: random.Random) -> None:
        if not self._frozen:
            return
        name, clone = rng.choice(list(self._frozen)), f"{self.name}-clone"
        self._call("clone", snapshot=name, targets=[clone])
        found = read_direct(self._mnt / clone)
        with Client(str(self._pool)) as client:
            client.call("delete", {"disk": clone})
        if found != self._frozen[name]:
            raise Lost(f"the clone of {self.name}@{name} is not as the snapshot")

    def _call(self, method: str, **params: object) -> None:
        with Client(str(self._pool)) as client:
            client.call(method, {"disk": self.name, **params})

    def _verify_snapshot(self, name: str) -> None:
        found = read_direct(self._mnt / ".snapshots" / self.name / name)
        if found != self._frozen[name]:
            raise Lost(f"the snapshot {self.name}@{name} has changed")

    def _compare(self, found: bytes, offset: int, what: str) -> None:
        right = self._content[offset : offset + len(found)]
        if found != right:
            at = next(i for i, (a, b) in enumerate(zip(found, right, strict=True)) if a != b)
            raise Lost(f"{self.name} holds a wrong byte at {offset + at}{what}")
