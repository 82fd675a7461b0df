"""What disks and snapshots may be called."""

from __future__ import annotations

import errno
import os
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import UsageError
from rowfs.base.names import NAME_BYTES_MAX, check_name, check_new_snapshot_name, default_snapshot_name, printable

NOW = datetime(2026, 11, 20, 14, 25, 1)


@pytest.mark.parametrize(
    "name", ["a", "vm1", "a.b", "a b", "-", "--help", "~", "ä" * 127, "x" * 255, "a\nb", "\udcff", "*", "snap shot"]
)
def test_almost_anything_is_a_name(name: str) -> None:
    assert check_name(name) == name


def test_names_cannot_move_the_cursor() -> None:
    assert printable("vm1 ä") == "vm1 ä"
    assert printable("a\n\x1b[2J") == "a\\n\\x1b[2J"
    assert printable("\u202e\ud800") == "\\u202e\\ud800"
    assert printable(os.fsdecode(b"\xff\x80")) == "\\xff\\x80"


@pytest.mark.parametrize("name", ["a/b", "/", "a@b", "@", "a\0b", ".", "..", ".hidden", ".snapshots"])
def test_what_paths_and_addresses_are_made_of_is_no_name(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name, "disk name")
    assert caught.value.errno == errno.EINVAL
    assert "disk name" in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_name_is_not_empty() -> None:
    with pytest.raises(UsageError, match="a snapshot name cannot be empty"):
        check_name("", "snapshot name")


@pytest.mark.parametrize("name", ["x" * 256, "ä" * 128, "\udcff" * 256])
def test_a_name_has_at_most_255_bytes_not_characters(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("name", ["\ud800", "a\udc00", "vm\udfff"])
def test_what_no_file_system_can_store_is_no_name(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@settings(deadline=None)
@given(name=st.text(st.characters(), max_size=300))
def test_any_text_is_a_name_or_a_usage_error(name: str) -> None:
    try:
        check_name(name)
    except UsageError as error:
        assert error.errno in (errno.EINVAL, errno.ENAMETOOLONG)


def test_a_snapshot_is_called_by_its_disk_and_time() -> None:
    assert default_snapshot_name("vm1", NOW, ()) == "vm1-20261120-142501"


def test_a_taken_name_gets_a_number() -> None:
    taken = {"vm1-20261120-142501", "vm1-20261120-142501-2"}
    assert default_snapshot_name("vm1", NOW, taken) == "vm1-20261120-142501-3"


@pytest.mark.parametrize("disk", ["a,b", "a..b", "a...", ",,", "....x"])
def test_the_name_of_a_snapshot_that_nobody_named_never_means_several(disk: str) -> None:
    assert check_new_snapshot_name(default_snapshot_name(disk, NOW, ()))


@pytest.mark.parametrize("disk", ["x" * 255, "ä" * 127, "x" + "ä" * 127, "\U0001f600" * 63])
def test_a_long_disk_name_is_cut_at_a_character(disk: str) -> None:
    name = check_name(default_snapshot_name(disk, NOW, ()))
    stem = name.removesuffix("-20261120-142501")
    assert disk.startswith(stem)
    assert NAME_BYTES_MAX - 4 < len(name.encode()) <= NAME_BYTES_MAX


def test_a_long_disk_name_leaves_room_for_the_number() -> None:
    disk = "x" * 255
    first = default_snapshot_name(disk, NOW, ())
    second = check_name(default_snapshot_name(disk, NOW, {first}))
    assert second.endswith("-20261120-142501-2")


@settings(deadline=None)
@given(disk=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300), taken=st.integers(0, 12))
def test_the_default_name_is_one_that_is_allowed_and_free(disk: str, taken: int) -> None:
    try:
        check_name(disk)
    except UsageError:
        return
    names: set[str] = set()
    for _ in range(taken + 1):
        names.add(check_name(default_snapshot_name(disk, NOW, names)))
    assert len(names) == taken + 1
