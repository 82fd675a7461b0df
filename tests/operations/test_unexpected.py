"""Nothing but FUSEError leaves a handler: pyfuse3 would tear the whole mount down. And a pool that may not change."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from errno import EIO, EROFS
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pyfuse3
import pytest

from rowfs.base.errors import CorruptionError
from rowfs.mount.operations import Operations
from tests.operations.conftest import Log
from tests.operations.helpers import Context, Fs, refused
from tests.store.helpers import B


class Broken:
    """A part of the daemon that has a fault."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("a fault")

    def __getitem__(self, key: object) -> NoReturn:
        raise RuntimeError("a fault")

    def pop(self, key: object) -> NoReturn:
        """As of a dict."""
        raise RuntimeError("a fault")


CTX: Any = Context()
FIELDS = SimpleNamespace(update_size=True)
SIZE = SimpleNamespace(st_size=1)
HANDLERS: dict[str, tuple[Any, ...]] = {
    "lookup": (1, b"vm", CTX),
    "forget": ([(4, 1)],),
    "getattr": (4, CTX),
    "setattr": (4, SIZE, FIELDS, None, CTX),
    "create": (1, b"vm", 0o644, os.O_RDWR, CTX),
    "mknod": (1, b"vm", 0o100644, 0, CTX),
    "unlink": (1, b"vm", CTX),
    "rmdir": (1, b".snapshots", CTX),
    "rename": (1, b"a", 1, b"b", 0, CTX),
    "open": (4, os.O_RDWR, CTX),
    "read": (1, 0, 4096),
    "write": (1, 0, b"data"),
    "flush": (1,),
    "fsync": (1, False),
    "release": (1,),
    "opendir": (1, CTX),
    "fsyncdir": (1, False),
    "readdir": (1, 0, None),
    "statfs": (CTX,),
    "getxattr": (4, b"user.rowfs.size_bytes", CTX),
    "listxattr": (4, CTX),
    "setxattr": (4, b"user.x", b"", CTX),
    "removexattr": (4, b"user.x", CTX),
}
NOTHING_CAN_FAIL = {"access", "link", "mkdir", "releasedir", "symlink"}  # one line each


def test_every_handler_is_looked_at_here() -> None:
    handlers = {
        name for name, value in vars(Operations).items() if inspect.iscoroutinefunction(value) and name[0] != "_"
    }
    assert handlers == HANDLERS.keys() | NOTHING_CAN_FAIL


@pytest.mark.parametrize("name", HANDLERS)
async def test_a_fault_in_a_handler_is_eio_and_one_line_in_the_log(fs: Fs, log: Log, name: str) -> None:
    handler: Callable[..., Awaitable[object]] = getattr(fs.ops, name)
    broken: Any = Broken()
    fs.ops.inodes = fs.ops._handles = fs.ops._service = fs.ops._pool = fs.ops._catalog = broken
    with refused(EIO):
        await handler(*HANDLERS[name])
    assert log.take().endswith(" failed unexpectedly")


async def test_an_unknown_handle_or_inode_is_answered(fs: Fs, log: Log) -> None:
    with refused(EIO):
        await fs.ops.read(pyfuse3.FileHandleT(999), 0, 10)
    assert "read" in log.take()
    with pytest.raises(pyfuse3.FUSEError):
        await fs.ops.getattr(pyfuse3.InodeT(999), fs.ctx)


async def test_corruption_is_eio_and_one_line_in_the_log(fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> NoReturn:
        raise CorruptionError("page 0 of branch 1 cannot be decoded")

    await fs.disk("vm", 1, "one")
    handle = await fs.open("vm")
    with monkeypatch.context() as patch:
        patch.setattr(fs.pool.io, "plan", damaged)
        with refused(EIO):
            await fs.ops.read(handle, 0, B)
    assert "page 0 of branch 1" in log.take()
    assert await fs.holds("vm", "one")


async def test_a_fault_is_not_kept_from_its_caller_as_an_errno_of_a_file(fs: Fs, log: Log) -> None:
    def missing(*_: object) -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory")

    fs.pool.create_disk = missing  # type: ignore[method-assign]
    with refused(EIO):  # ENOENT would tell the caller that its own name is wrong
        await fs.create("vm")
    log.take()


async def made_before(fs: Fs) -> None:
    """A pool to be mounted read-only."""
    await fs.disk("vm", 2, "one", "two")
    await fs.snapshot("vm", "s")


async def test_nothing_of_a_read_only_mount_can_be_changed(fs: Fs) -> None:
    await made_before(fs)
    ro = fs.after_a_crash(read_only=True)
    handle = await ro.open("vm", os.O_RDONLY)
    for flags in (os.O_WRONLY, os.O_RDWR):
        with refused(EROFS):
            await ro.open("vm", flags)
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: ro.create("new"),
        lambda: ro.unlink("vm"),
        lambda: ro.rename("vm", "new"),
        lambda: ro.truncate("vm", B),
        lambda: ro.truncate("vm", 0),
        lambda: ro.setattr("vm", mode=0o600),
        lambda: ro.create(".snapshots/vm/t", os.O_WRONLY),
        lambda: ro.unlink(".snapshots/vm/s"),
        lambda: ro.rename(".snapshots/vm/s", ".snapshots/vm/t"),
        lambda: ro.ops.write(handle, 0, bytes(B)),
    ]
    for attempt in attempts:
        with refused(EROFS):
            await attempt()
    await ro.ops.fsync(handle, False)
    await ro.close(handle)
    assert await ro.holds("vm", "one", "two") and await ro.holds(".snapshots/vm/s", "one", "two")
    assert await ro.getxattr("", "user.rowfs.read_only") == "true"
    assert await ro.getxattr(".snapshots/vm/s", "user.rowfs.freed_if_deleted_bytes") == "0"


OPEN_WITH_A_FAULT = """
import sys
import rowfs.process.daemon as daemon
def broken(*_):
    raise KeyError("a fault\\nof two lines")
daemon._open = broken
sys.exit(daemon.main())
"""


def test_a_fault_while_a_pool_is_mounted_is_one_line_to_who_waits_and_the_rest_in_the_log(tmp_path: Path) -> None:
    pool, mountpoint = tmp_path / "pool", tmp_path / "mnt"
    pool.mkdir()
    mountpoint.mkdir()
    command = [sys.executable, "-c", OPEN_WITH_A_FAULT, str(pool), str(mountpoint), "--ready-fd", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("error: a fault in rowfs itself: KeyError") and done.stdout.count("\n") == 1
    assert "Traceback" in (pool / "rowfs.log").read_text()
