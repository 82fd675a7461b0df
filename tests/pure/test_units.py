"""The sizes people type and read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import UsageError
from rowfs.base.units import DISK_BYTES_MAX, GIB, KIB, MIB, TIB, check_disk_size, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1K", KIB),
        ("64k", 64 * KIB),
        ("64KB", 64 * KIB),
        ("64KiB", 64 * KIB),
        ("1.5M", 3 * MIB // 2),
        ("20G", 20 * GIB),
        ("20 GiB", 20 * GIB),
        (" 20g ", 20 * GIB),
        ("16T", 16 * TIB),
        ("1P", 1024 * TIB),
        ("0.5K", 512),
        ("2.0", 2),
        ("18446744073709551616", 1 << 64),
    ],
)
def test_a_size_is_read_in_powers_of_1024(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "G",
        "-1",
        "+1",
        "1X",
        "1 2",
        "0x10",
        "1e3",
        "1..5G",
        ".5G",
        "5.",
        "1KK",
        "1iB",
        "1,5G",
        "nan",
        "inf",
        "١٢",
        "1\u212a",
    ],
)
def test_what_is_no_size_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["0.3", "1.5B", "0.0001K"])
def test_part_of_a_byte_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 400 + ".0", "9" * 5000 + "T", "0." + "3" * 5000 + "K"])
def test_a_number_of_absurd_length_is_refused_like_any_other(text: str) -> None:
    with pytest.raises(UsageError):
        check_disk_size(parse_size(text))


@settings(deadline=None)
@given(text=st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (10188, "9.9K"),
        (10189, "10K"),
        (10240, "10K"),
        (999 * KIB, "999K"),
        (1000 * KIB, "1.0M"),
        (1023 * KIB, "1.0M"),
        (MIB, "1.0M"),
        (20 * GIB, "20G"),
        (16 * TIB, "16T"),
        (-1536, "-1.5K"),
        (1 << 60, "1.0E"),
        (1 << 70, "1024E"),
    ],
)
def test_a_size_is_shown_in_few_characters(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


@settings(deadline=None)
@given(size_bytes=st.integers(0, 1 << 60))
def test_a_shown_size_is_short_and_near(size_bytes: int) -> None:
    shown = format_size(size_bytes)
    assert len(shown) <= 5
    if not shown.endswith("E"):
        assert abs(float(shown[:-1]) * 1024 ** "BKMGTP".index(shown[-1]) - size_bytes) <= size_bytes * 0.051


@pytest.mark.parametrize("size_bytes", [0, 1, GIB, DISK_BYTES_MAX])
def test_disks_have_0_bytes_to_16_tib(size_bytes: int) -> None:
    assert check_disk_size(size_bytes) == size_bytes


@pytest.mark.parametrize("size_bytes", [-1, DISK_BYTES_MAX + 1, 1 << 70])
def test_other_sizes_are_refused(size_bytes: int) -> None:
    with pytest.raises(UsageError, match="16 TiB"):
        check_disk_size(size_bytes)
