"""Reading mountinfo, and following a path up to a mount without touching it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rowfs.cli.mounts import Mount, mount_at, parse_mountinfo, resolve_path

MNT = Mount("/mnt/rowfs", "/srv/pool")


def test_rowfs_mounts_are_found_among_others() -> None:
    text = b"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
50 27 0:40 / /mnt/rowfs rw,nosuid shared:2 master:3 - fuse.rowfs /srv/pool rw,user_id=0
51 27 0:41 / /mnt/other rw - fuse.sshfs me@host: rw
52 27 0:42 / /mnt/two rw - fuse.rowfs /srv/pool2 rw
"""
    assert parse_mountinfo(text) == [MNT, Mount("/mnt/two", "/srv/pool2")]


def test_octal_escapes_are_decoded() -> None:
    text = rb"50 27 0:40 / /mnt/a\040b\134c\011\012\043 rw - fuse.rowfs /srv/p\040q rw" + b"\n"
    assert parse_mountinfo(text) == [Mount("/mnt/a b\\c\t\n#", "/srv/p q")]


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    (mount,) = parse_mountinfo(b"50 27 0:40 / /mnt/\xff rw - fuse.rowfs /srv/pool rw\n")
    assert os.fsencode(mount.mountpoint) == b"/mnt/\xff"


@pytest.mark.parametrize("over", ["/mnt/rowfs", "/mnt", "/"])
def test_what_is_mounted_over_is_hidden(over: str) -> None:
    below = b"50 27 0:40 / /mnt/rowfs rw - fuse.rowfs /srv/pool rw\n"
    above = f"51 27 0:41 / {over} rw - tmpfs tmpfs rw\n".encode()
    assert parse_mountinfo(below + above) == []
    assert parse_mountinfo(above + below) == [MNT]


def test_of_two_on_one_directory_the_last_counts() -> None:
    line = "50 27 0:40 / /mnt/rowfs rw - fuse.rowfs {} rw\n"
    text = (line.format("/srv/old") + line.format("/srv/pool")).encode()
    assert parse_mountinfo(text) == [MNT]


def test_a_bind_mount_of_a_part_is_left_out() -> None:
    assert parse_mountinfo(b"50 27 0:40 /.snapshots /mnt/s rw - fuse.rowfs /srv/pool rw\n") == []


def test_the_longest_mountpoint_holds_the_path() -> None:
    inner = Mount("/mnt/rowfs/inner", "/srv/inner")
    assert mount_at("/mnt/rowfs/inner/vm1", [MNT, inner]) == inner
    assert mount_at("/mnt/rowfs/inner/vm1", [inner, MNT]) == inner
    assert mount_at("/mnt/rowfs/vm1", [MNT, inner]) == MNT
    assert mount_at("/mnt/rowfs", [MNT]) == MNT
    assert mount_at("/mnt/rowfs2/vm1", [MNT]) is None
    assert mount_at("/mnt", [MNT]) is None
    assert mount_at("/anything", [Mount("/", "/srv/pool")]) == Mount("/", "/srv/pool")


LINKS = {"/home/me/disks": "/mnt/rowfs/", "/home/me/mnt": "../../mnt", "/home/me/loop": "loop", "/mnt/rowfs/x": "/etc"}


def fake_readlink(path: str) -> str:
    """The links above. Fails the test when it is asked about the mount itself: a dead daemon would hang there."""
    assert not path.startswith("/mnt/rowfs")
    if path not in LINKS:
        raise OSError(errno.EINVAL, "not a link")
    return LINKS[path]


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("/mnt/rowfs/vm1", "/mnt/rowfs/vm1"),
        ("/mnt//./rowfs/vm1/", "/mnt/rowfs/vm1"),
        ("/mnt/rowfs/.snapshots/../vm1", "/mnt/rowfs/vm1"),
        ("/mnt/rowfs/../other", "/mnt/other"),
        ("/mnt/rowfs/x", "/mnt/rowfs/x"),
        ("/home/me/disks/vm1@a", "/mnt/rowfs/vm1@a"),
        ("/home/me/disks/../x", "/mnt/x"),
        ("/home/me/mnt/rowfs/vm1", "/mnt/rowfs/vm1"),
        ("/nowhere/../mnt/rowfs", "/mnt/rowfs"),
        ("/..", "/"),
        ("/", "/"),
    ],
)
def test_paths_are_followed_up_to_the_mount(path: str, resolved: str) -> None:
    assert resolve_path(path, [MNT], fake_readlink) == resolved


def test_a_relative_path_starts_where_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/mnt/rowfs/.snapshots")
    assert resolve_path("../vm1", [MNT], fake_readlink) == "/mnt/rowfs/vm1"
    assert resolve_path("", [MNT], fake_readlink) == "/mnt/rowfs/.snapshots"


def test_links_in_circles_end() -> None:
    with pytest.raises(OSError, match="symbolic links"):
        resolve_path("/home/me/loop/vm1", [MNT], fake_readlink)


def test_real_links_work(tmp_path: Path) -> None:
    mount = Mount(str(tmp_path / "real"), "/srv/pool")
    (tmp_path / "link").symlink_to("real")
    assert resolve_path(str(tmp_path / "link" / "vm1"), [mount]) == str(tmp_path / "real" / "vm1")
