"""Addresses: what a path names, and which names a range or a list behind an @ stands for."""

from __future__ import annotations

import pytest

from rowfs.base.errors import NotFoundError, UsageError
from rowfs.cli.addresses import (
    Address,
    need_disk,
    need_same_mount,
    need_snapshot,
    parse_address,
)
from rowfs.cli.mounts import Mount
from rowfs.cli.ranges import may_be_several, split_range, split_specs

MNT = Mount("/mnt/rowfs", "/srv/pool")
OTHER = Mount("/mnt/other", "/srv/other")


def parse(path: str) -> Address:
    return parse_address(path, path, [MNT, OTHER], mount_of={MNT.pool: MNT}.get)


@pytest.mark.parametrize(
    ("path", "disk", "snapshot", "exact", "chain"),
    [
        ("/mnt/rowfs", None, None, False, False),
        ("/mnt/rowfs/.snapshots", None, None, False, False),
        ("/srv/pool", None, None, False, False),
        ("/mnt/rowfs/vm1", "vm1", None, False, False),
        ("/mnt/rowfs/a b", "a b", None, False, False),
        ("/mnt/rowfs/vm1@before", "vm1", "before", False, False),
        ("/mnt/rowfs/vm1@a..c", "vm1", "a..c", False, False),
        ("/mnt/rowfs/vm1@..c", "vm1", "..c", False, False),
        ("/mnt/rowfs/.snapshots/vm1", "vm1", None, False, True),
        ("/mnt/rowfs/.snapshots/vm1/before", "vm1", "before", True, False),
        ("/mnt/rowfs/.snapshots/vm1/a..c", "vm1", "a..c", True, False),
    ],
)
def test_a_path_names(path: str, disk: str | None, snapshot: str | None, exact: bool, chain: bool) -> None:
    assert parse(path) == Address(path, MNT, disk, snapshot, exact, chain)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/home/me/vm1", "name a path on /mnt/other, /mnt/rowfs$"),
        ("/mnt/rowfs2/vm1", "name a path on /mnt/other, /mnt/rowfs$"),
        ("/srv/pool/vm1", "mounted on /mnt/rowfs: use the paths there"),
    ],
)
def test_a_path_elsewhere_is_told_what_to_do(path: str, hint: str) -> None:
    with pytest.raises(NotFoundError, match=f"'{path}' is not on a rowfs mount: .*{hint}"):
        parse(path)


def test_where_nothing_is_mounted_that_is_said() -> None:
    with pytest.raises(NotFoundError, match="nothing is mounted, rowfs mount POOL DIR mounts a pool"):
        parse_address("vm1", "/home/me/vm1", [])


@pytest.mark.parametrize("path", ["/srv/idle", "/srv/idle/vm1"])
@pytest.mark.parametrize("mounts", [[], [MNT]])
def test_a_pool_that_is_not_mounted_is_to_be_mounted(path: str, mounts: list[Mount]) -> None:
    with pytest.raises(NotFoundError, match="the pool /srv/idle is not mounted: .* rowfs mount /srv/idle DIR"):
        parse_address(path, path, mounts, lambda asked: asked == "/srv/idle")


@pytest.mark.parametrize(
    "path",
    [
        "/mnt/rowfs/dir/vm1",
        "/mnt/rowfs/.snapshots/vm1/a/b",
        "/mnt/rowfs/.hidden",
        "/mnt/rowfs/@a",
        "/mnt/rowfs/.snapshots/vm1/a@b",
        "/mnt/rowfs/.snapshots/vm1@a",
        f"/mnt/rowfs/{'x' * 256}",
    ],
)
def test_what_can_be_no_disk_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        parse(path)


def test_a_verb_on_a_disk_takes_nothing_else() -> None:
    assert need_disk(parse("/mnt/rowfs/vm1")) == "vm1"
    with pytest.raises(UsageError, match="names no disk: add its name, as in /mnt/rowfs/vm1"):
        need_disk(parse("/mnt/rowfs"))
    for path in ("/mnt/rowfs/vm1@a", "/mnt/rowfs/.snapshots/vm1", "/mnt/rowfs/.snapshots/vm1/a"):
        with pytest.raises(UsageError, match="this works on a disk"):
            need_disk(parse(path))


def test_a_verb_on_a_snapshot_takes_nothing_else() -> None:
    assert need_snapshot(parse("/mnt/rowfs/vm1@a")) == ("vm1", "a")
    assert need_snapshot(parse("/mnt/rowfs/.snapshots/vm1/a")) == ("vm1", "a")
    with pytest.raises(UsageError, match="write it as /mnt/rowfs/vm1@name"):
        need_snapshot(parse("/mnt/rowfs/vm1"))
    for path in ("/mnt/rowfs/vm1@", "/mnt/rowfs/vm1@a@b", "/mnt/rowfs/vm1@.a"):
        with pytest.raises(UsageError):
            need_snapshot(parse(path))


def test_two_mounts_are_told_apart_by_their_pool() -> None:
    again = Address("again", Mount("/mnt/bind", "/srv/pool"), "vm1")
    need_same_mount(parse("/mnt/rowfs/vm1"), again)
    with pytest.raises(UsageError, match="another mount"):
        need_same_mount(parse("/mnt/rowfs/vm1"), parse("/mnt/other/vm1"))


def test_addresses_are_shown_as_they_are_taken() -> None:
    assert parse("/mnt/rowfs/.snapshots/vm1/a").shown() == "/mnt/rowfs/vm1@a"
    assert parse("/mnt/rowfs/vm1").shown() == "/mnt/rowfs/vm1"
    assert Address("", Mount("/", "/srv/pool"), "vm1").shown() == "/vm1"
    assert parse("/mnt/rowfs/vm1").sibling("vm2").shown() == "/mnt/rowfs/vm2"


CHAIN = ["a", "b", "c", "x..y", "p,q"]


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("a", ["a"]),
        ("new", ["new"]),
        ("a,b", ["a", "b"]),
        ("a..c", ["a..c"]),
        ("..b", ["..b"]),
        ("b..", ["b.."]),
        ("a,b..c", ["a", "b..c"]),
        ("x..y", ["x..y"]),
        ("p,q", ["p,q"]),
    ],
)
def test_a_list_is_split_unless_a_snapshot_is_called_so(text: str, specs: list[str]) -> None:
    assert split_specs(text, CHAIN) == specs


@pytest.mark.parametrize("text", ["", "a,", "a,,b", "a..b/c", ".a", "a...b"])
def test_a_list_with_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        split_specs(text, CHAIN)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("a", ("a", None)),
        ("a..b", ("a", "b")),
        ("a..", ("a", None)),
        ("..b", (None, "b")),
        ("x..y", ("x..y", None)),
        ("p,q", ("p,q", None)),
    ],
)
def test_a_range_has_two_ends(text: str, ends: tuple[str | None, str | None]) -> None:
    assert split_range(text, CHAIN) == ends


def test_only_dots_and_commas_make_several() -> None:
    assert [may_be_several(text) for text in ("a", "a.b", "a..b", "a,b")] == [False, False, True, True]
