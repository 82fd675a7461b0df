"""The host calls of a daemon: which there are, what each may fail with, and how one is made to."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from errno import EDQUOT, EIO, EMFILE, ENOLCK, ENOMEM, ENOSPC, EOPNOTSUPP, errorcode
from pathlib import Path
from typing import NamedTuple

HALF = 0  # instead of an errno: half of what was to be written is
NO_ROOM = (ENOSPC, EDQUOT)
ERRNOS: dict[str, tuple[int, ...]] = {
    "open": (EMFILE, EIO, ENOMEM),
    "create": (EMFILE, EIO, ENOMEM, *NO_ROOM),
    "memfd_create": (EMFILE, ENOMEM),
    "pwrite": (EIO, ENOMEM, *NO_ROOM, HALF),
    "pwritev": (EIO, ENOMEM, *NO_ROOM, HALF),
    "write": (EIO, *NO_ROOM),
    "pread": (EIO, ENOMEM),
    "preadv": (EIO, ENOMEM),
    "preadv2": (EIO, ENOMEM, EOPNOTSUPP),
    "read": (EIO, ENOMEM),
    "fsync": (EIO, *NO_ROOM),
    "fdatasync": (EIO, *NO_ROOM),
    "ftruncate": (EIO, *NO_ROOM),
    "truncate": (EIO, *NO_ROOM),
    "fallocate": (EIO, EOPNOTSUPP, *NO_ROOM),
    "posix_fallocate": (EIO, EOPNOTSUPP, *NO_ROOM),
    "sync_file_range": (EIO, *NO_ROOM),
    "flock": (EIO, ENOLCK, ENOMEM),
    "fstatvfs": (EIO, ENOMEM),
    "statvfs": (EIO, ENOMEM),
    "mmap": (ENOMEM, EMFILE),
    "bind": (EIO, ENOMEM, *NO_ROOM),
    "symlink": (EIO, ENOMEM, *NO_ROOM),
    "mkdir": (EIO, ENOMEM, *NO_ROOM),
    "rmdir": (EIO,),
    "unlink": (EIO, ENOMEM),
    "rename": (EIO, *NO_ROOM),
}


class Case(NamedTuple):
    """The `number`-th call of a name on a file of the pool fails with an errno."""

    name: str
    file: str
    number: int
    errno: int

    def __str__(self) -> str:
        what = errorcode.get(self.errno, "done by half")
        return f"{self.name} of {self.file}, call {self.number}: {what}"

    @property
    def environment(self) -> dict[str, str]:
        """What tells refuse.c."""
        return {"TORMENT_FAIL": " ".join(map(str, self))}


def build(directory: Path) -> Path:
    """Compile refuse.c: the object to preload."""
    made = directory / "refuse.so"
    source = Path(__file__).with_name("refuse.c")
    subprocess.run(["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True, timeout=60)
    return made


def counted(log: Path) -> Counter[tuple[str, str]]:
    """How many calls of each name on each file a daemon made."""
    lines = (line.split(maxsplit=1) for line in log.read_text(errors="replace").splitlines())
    return Counter((name, file) for name, file in lines if " " not in file)


def cases(calls: Counter[tuple[str, str]]) -> Iterator[Case]:
    """Every call with everything that it may fail with."""
    for (name, file), count in sorted(calls.items()):
        for number in range(1, count + 1):
            for code in ERRNOS[name]:
                yield Case(name, file, number, code)


def sample(calls: Counter[tuple[str, str]], size: int, rng: random.Random) -> list[Case]:
    """So many of them, of each name and file about as many: there are hundreds of one and one of another."""
    kinds = sorted(calls)
    chosen: list[Case] = []
    while len(chosen) < size:
        rng.shuffle(kinds)
        for name, file in kinds[: size - len(chosen)]:
            number = rng.randint(1, calls[name, file])
            chosen.append(Case(name, file, number, rng.choice(ERRNOS[name])))
    return chosen
