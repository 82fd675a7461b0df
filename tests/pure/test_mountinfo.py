"""Reading mountinfo, and where in a mount a path leads. tests/pure/test_cli_mounts.py has more of its format."""

from __future__ import annotations

import os

import pytest

from rowfs.base.mountinfo import MountLine, parse, place_in

TEXT = rb"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
50 27 0:40 / /mnt/rowfs rw,nosuid shared:2 master:3 - fuse.rowfs /srv/pool rw,user_id=0
51 27 0:40 /.snapshots/vm\0401 /mnt/old rw - fuse.rowfs /srv/pool rw
52 27 0:40 /vm1 /mnt/old/one rw - fuse.rowfs /srv/pool rw
53 27 0:40 / / rw - fuse.rowfs /srv/pool rw
"""


@pytest.mark.parametrize(
    "line",
    [
        b"36 35 98:0 / /mnt/a\rb rw - fuse.x y rw",
        b"36 35 98:0 / /mnt/a\x0bb\x0c\x1c\x85 rw - fuse.x y rw",
        b"\r- - -\r - \r",
        b"36 35 98:0 / /mnt - ext4",
        b"x 35 98:0 / /mnt rw - ext4 y rw",
        b"36 35 98 / /mnt rw - ext4 y rw",
        b" - ",
        b"\xff\xfe",
    ],
)
def test_a_line_that_anybody_may_have_made_hides_no_other(line: bytes) -> None:
    found = parse(line + b"\n" + TEXT)
    assert found[-5:] == parse(TEXT) and len(found) <= 6


def test_a_mountpoint_is_its_bytes() -> None:
    (found,) = parse(b"36 35 98:0 / /mnt/a\rb\\012c\\134\xff\xc3\xbc rw - fuse.rowfs %0D rw\n")
    assert os.fsencode(found.mountpoint) == b"/mnt/a\rb\nc\\\xff\xc3\xbc"


def test_all_fields_are_found_however_many_optional_ones_there_are() -> None:
    found = parse(TEXT)
    assert len(found) == 5
    assert found[1] == MountLine(50, "0:40", "/", "/mnt/rowfs", "fuse.rowfs", "/srv/pool", "rw,user_id=0", "rw,nosuid")
    assert found[2] == MountLine(51, "0:40", "/.snapshots/vm 1", "/mnt/old", "fuse.rowfs", "/srv/pool", "rw", "rw")
    assert [line.owner for line in found] == [None, 0, None, None, None]


@pytest.mark.parametrize(
    ("path", "views", "place"),
    [
        ("/mnt/rowfs/vm1", (1,), "vm1"),
        ("/mnt/rowfs/.snapshots/vm1/a", (1,), ".snapshots/vm1/a"),
        ("/mnt/rowfs", (1,), ""),
        ("/mnt/rowfs2/vm1", (1,), None),
        ("/mnt", (1, 2, 3), None),
        ("/mnt/old/before", (1, 2, 3), ".snapshots/vm 1/before"),
        ("/mnt/old/one", (1, 2, 3), "vm1"),
        ("/vm1", (4,), "vm1"),
        ("/mnt/rowfs/vm1", (1, 4), "vm1"),
        ("/vm1", (), None),
    ],
)
def test_a_path_leads_to_one_place(path: str, views: tuple[int, ...], place: str | None) -> None:
    lines = parse(TEXT)
    assert place_in(path, [lines[view] for view in views]) == place
