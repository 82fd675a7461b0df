"""What the pool asks of its host, told from what the kernel lists, whatever names are in there."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from rowfs.base.errors import BusyError, HeldError
from rowfs.persist.hostfs import Lock, file_system_type

LINE = b"%d 20 %s / %s rw,relatime shared:1 - %s /dev/sda1 rw\n"


def listed(monkeypatch: pytest.MonkeyPatch, *mounts: tuple[bytes, bytes, bytes]) -> None:
    """Have the kernel list these mounts: device number, mountpoint, type."""
    data = b"".join(LINE % (n, *mount) for n, mount in enumerate(mounts))

    def fake(path: str, mode: str) -> io.BytesIO:
        assert (path, mode) == ("/proc/self/mountinfo", "rb")
        return io.BytesIO(data)

    monkeypatch.setattr("rowfs.persist.hostfs.open", fake, raising=False)


def device(path: Path) -> bytes:
    number = path.stat().st_dev
    return b"%d:%d" % (os.major(number), os.minor(number))


def test_the_type_is_that_of_the_mount_with_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, (b"0:1", b"/", b"ext4"), (device(tmp_path), b"/elsewhere", b"xfs"))
    assert file_system_type(str(tmp_path)) == "xfs"


def test_a_device_that_is_not_listed_is_told_by_its_mountpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(
        monkeypatch,
        (b"0:1", b"/", b"ext4"),
        (b"0:2", bytes(tmp_path.parent), b"btrfs"),
        (b"0:3", bytes(tmp_path / "below"), b"xfs"),
    )
    assert file_system_type(str(tmp_path)) == "btrfs"


def test_mounts_with_names_that_are_no_utf8_are_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, (b"0:1", b"/mnt/\xff\xfe", b"fuse"), (device(tmp_path), b"/", b"ext4"))
    assert file_system_type(str(tmp_path)) == "ext4"


def test_a_mountpoint_with_a_space_is_compared_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a b" / "pool"
    place.mkdir(parents=True)
    escaped = bytes(place.parent).replace(b" ", b"\\040")
    listed(monkeypatch, (b"0:1", b"/", b"ext4"), (b"0:2", escaped, b"btrfs"))
    assert file_system_type(str(place)) == "btrfs"


def test_a_mountpoint_that_somebody_made_with_a_carriage_return_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(monkeypatch, (b"0:1", b"/mnt/a\rb c", b"fuse"), (device(tmp_path), b"/", b"ext4"))
    assert file_system_type(str(tmp_path)) == "ext4"


def test_this_machine_is_told_without_an_error(tmp_path: Path) -> None:
    assert isinstance(file_system_type(str(tmp_path)), str)


def test_a_lock_is_held_by_one_and_free_again(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path, "the thing")
    with pytest.raises(BusyError, match=f"the thing is in use by process {os.getpid()}"):
        Lock(path, "the thing")
    lock.close()
    Lock(path, "the thing").close()


def test_a_lock_is_let_go_of_whoever_has_a_copy_of_its_descriptor(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path, "the thing")
    copies = [os.dup(int(fd)) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    lock.close()
    Lock(path, "the thing").close()
    for fd in copies:
        os.close(fd)


def test_who_holds_a_lock_says_which_mount_it_serves(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path, "the thing")
    lock.say("/mnt/a\nb", "0:40")
    with pytest.raises(HeldError, match=rf"in use by process {os.getpid()}, mounted on /mnt/a\\nb$") as caught:
        Lock(path, "the thing")
    assert caught.value.mounted_as == "0:40"
    lock.say()
    with pytest.raises(HeldError, match=rf"in use by process {os.getpid()}$") as caught:
        Lock(path, "the thing")
    assert caught.value.mounted_as is None
    lock.close()


def test_a_lock_whose_file_was_removed_keeps_others_out_all_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path, "the thing")
    os.unlink(path)
    for read_only in (False, True):
        with pytest.raises(HeldError, match="the thing is in use by another process"):
            Lock(path, "the thing", read_only)
    lock.close()
    Lock(path, "the thing").close()
