"""Whose a pool is: what another user has put in place of its files is not opened, and a read-only host is enough."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import BusyError, PoolError, ReadOnlyError, RowfsError
from rowfs.persist.pooldir import ForeignError, PoolDirectory, open_regular
from rowfs.store.check import check_pool
from rowfs.store.pool import Pool, init_pool, open_log
from tests.store.helpers import B, fill, journaled

SOMEBODY = 4242  # a user
FILES = ["lock", "journal", "data", "map/data.mdb"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A pool with a disk, and all the files that there can be."""
    path = tmp_path / "pool"
    init_pool(str(path))
    pool = Pool(str(path))
    pool.write(pool.create_disk("vm", 4 * B), 0, fill("one"))
    pool.close()
    (path / "journal").touch()
    return path


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of somebody else's, to which nothing may happen."""
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    before = path.stat()
    yield path
    assert path.read_bytes() == b"precious" and path.stat().st_mtime_ns == before.st_mtime_ns


def a_symbolic_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def a_dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made"))


def a_hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def a_pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path, victim: Path) -> None:
    path.mkdir()


Trap = Callable[[Path, Path], None]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("trap", [a_symbolic_link, a_dangling_link, a_hard_link, a_pipe, a_directory])
def test_what_is_no_file_of_the_pools_is_not_opened(made: Path, victim: Path, name: str, trap: Trap) -> None:
    (made / name).unlink()
    trap(made / name, victim)
    for use in (
        lambda: Pool(str(made)).close(),
        lambda: check_pool(str(made)),
        lambda: check_pool(str(made), repair=True),
    ):
        with pytest.raises(PoolError) as caught:
            use()
        assert str(made) in str(caught.value) and "/proc/" not in str(caught.value)
    assert not victim.with_name("made").exists()


@pytest.mark.parametrize("trap", [a_symbolic_link, a_dangling_link, a_hard_link, a_pipe])
def test_nor_is_the_log(made: Path, victim: Path, trap: Trap) -> None:
    trap(made / "rowfs.log", victim)
    with pytest.raises(PoolError, match="rowfs.log"):
        open_log(str(made), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    assert not victim.with_name("made").exists()


def test_a_link_that_is_put_there_as_the_file_is_made_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere, opened = tmp_path / "journal", tmp_path / "elsewhere", os.open

    def open_late(name: str, flags: int, *rest: int) -> int:
        try:
            return opened(name, flags, *rest)
        finally:
            if flags & os.O_PATH and not path.is_symlink():  # it was looked for, and is not there
                path.symlink_to(elsewhere)

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(PoolError, match="symbolic link"):
        open_regular(str(path), os.O_RDWR | os.O_CREAT)
    assert not elsewhere.exists()


def test_a_map_that_leads_elsewhere_is_not_followed(made: Path, tmp_path: Path) -> None:
    shutil.move(made / "map", tmp_path / "map")
    (made / "map").symlink_to(tmp_path / "map")
    for use in (lambda: Pool(str(made)).close(), lambda: check_pool(str(made))):
        with pytest.raises(PoolError, match="map is no directory"):
            use()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@needs_root
@pytest.mark.parametrize("name", ["", *FILES, "map"])
def test_what_belongs_to_somebody_else_is_refused_unless_told(made: Path, name: str) -> None:
    os.chown(made / name, SOMEBODY, SOMEBODY)
    for use in (lambda: Pool(str(made)).close(), lambda: check_pool(str(made))):
        with pytest.raises(ForeignError, match=f"belongs to user {SOMEBODY}.*--other-owner"):
            use()
    os.chown(made, SOMEBODY, SOMEBODY)
    assert check_pool(str(made), other_owner=True) == ([], False)
    Pool(str(made), other_owner=True).close()


@needs_root
def test_nor_is_the_log_of_somebody_else_written_to(made: Path) -> None:
    log = made / "rowfs.log"
    log.write_text("theirs")
    os.chown(log, SOMEBODY, SOMEBODY)
    descriptors = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ForeignError, match="rowfs.log belongs to"):
        open_log(str(made), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    assert set(os.listdir("/proc/self/fd")) <= descriptors


@needs_root
def test_nor_is_a_pool_made_there(tmp_path: Path) -> None:
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    with pytest.raises(ForeignError):
        init_pool(str(tmp_path))
    assert os.listdir(tmp_path) == []
    init_pool(str(tmp_path), other_owner=True)
    Pool(str(tmp_path), other_owner=True).close()


@pytest.mark.parametrize(("name", "mode"), [("", 0o707), ("map", 0o770), ("map", 0o707)])
def test_what_others_can_write_is_refused(made: Path, name: str, mode: int) -> None:
    (made / name).chmod(mode)
    with pytest.raises(ForeignError, match="chmod"):
        Pool(str(made))


def test_a_pool_that_is_moved_goes_on_and_says_where(made: Path) -> None:
    pool = Pool(str(made))
    pool.keep_reserve()
    new = made.with_name("elsewhere")
    made.rename(new)
    made.mkdir()  # what is there now is not ours
    pool.write(pool.catalog.disks["vm"], B, fill("two"))
    pool.commits.run()
    pool.release_reserve()
    assert pool.directory.current_path() == str(new)
    with pytest.raises(BusyError, match="elsewhere is in use by process"):
        Pool(str(new))
    pool.close()
    assert os.listdir(made) == []
    again = Pool(str(new))
    assert again.read(again.catalog.disks["vm"], 0, 2 * B) == fill("one") + fill("two")
    again.close()


def test_a_file_that_is_exchanged_all_the_time_holds_nobody_up(tmp_path: Path) -> None:
    directory = PoolDirectory(str(tmp_path))
    with contextlib.closing(directory):
        fd = directory.open("file", os.O_RDWR | os.O_CREAT)
        os.close(fd)
        fd = directory.open("file", os.O_RDWR | os.O_CREAT)
        os.close(fd)
        with pytest.raises(FileNotFoundError):
            directory.open("other", os.O_RDWR)


# A host that is only to be read


@pytest.fixture
def read_only(made: Path, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Shows the pool where it cannot be written."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    where = tmp_path / "ro"

    def show() -> Path:
        where.mkdir()
        subprocess.run(["mount", "--bind", made, where], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
        return where

    yield show
    if where.exists():
        subprocess.run(["umount", "--lazy", where], check=True)  # a test that failed may hold it


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    """All files below a directory, and when they were changed."""
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("locked", [True, False])
def test_it_can_be_read_and_checked_and_nothing_is_written(
    made: Path, read_only: Callable[[], Path], locked: bool
) -> None:
    if not locked:
        (made / "lock").unlink()
    before = contents(made)
    where = read_only()
    pool = Pool(str(where), read_only=True)
    assert pool.read(pool.catalog.disks["vm"], 0, B) == fill("one")
    pool.close()
    assert check_pool(str(where)) == ([], False)
    assert contents(made) == before
    with pytest.raises((RowfsError, OSError)):
        Pool(str(where))


def test_what_is_in_use_elsewhere_is_not_read_from_here(made: Path, read_only: Callable[[], Path]) -> None:
    pool = Pool(str(made))
    where = read_only()
    with pytest.raises(BusyError):
        Pool(str(where), read_only=True)
    with pytest.raises(BusyError, match="in use by process"):
        check_pool(str(where))
    pool.close()


def test_what_only_the_journal_holds_is_not_left_out_unasked(made: Path, read_only: Callable[[], Path]) -> None:
    (made / "journal").unlink()
    pool = Pool(str(made))
    disk = pool.catalog.disks["vm"]
    pool.write(disk, 0, fill("two"))
    pool.commits.run()
    pool.write(disk, B, fill("synced"))
    assert journaled(pool)
    pool.abandon()
    before = contents(made)
    where = read_only()
    with pytest.raises(ReadOnlyError, match="norecovery"):
        Pool(str(where), read_only=True)
    pool = Pool(str(where), read_only=True, recovery=False)
    assert pool.read(pool.catalog.disks["vm"], 0, B) == fill("two")
    pool.close()
    assert contents(made) == before
