"""What a mount tells of files beside their bytes: times, owners, modes, descriptions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.helpers import MIB, Mounted, noise, read_direct, run

TIMES = ["2300-01-01", "1600-01-01", "1900-01-01", "9999-12-31", "@253402300800", "@-99999999999", "2024-02-29"]


def make(mounted: Mounted, name: str, data: bytes) -> str:
    """A disk that holds `data`: its path."""
    path = mounted.path(name)
    Path(path).write_bytes(data)
    return path


def test_any_time_can_be_set_and_the_pool_is_mounted_again(mounted: Mounted) -> None:
    paths = [make(mounted, f"vm{number}", noise(number, MIB)) for number in range(len(TIMES))]
    for path, time in zip(paths, TIMES, strict=True):
        run("touch", "-d", time, path)
    assert len(mounted.json("list", ":")) == len(TIMES)
    mounted.remount()
    for number, path in enumerate(paths):
        assert read_direct(path) == noise(number, MIB)
        assert mounted.json("info", f":vm{number}")["modified"] == os.getxattr(path, "user.rowfs.modified").decode()
    assert os.stat(paths[0]).st_mtime_ns == 2**63 - 1
    assert os.stat(paths[1]).st_mtime_ns == -(2**63)
    assert os.stat(paths[6]).st_mtime == pytest.approx(1_709_164_800, abs=86_400)


def test_a_description_is_as_long_as_an_extended_attribute(mounted: Mounted) -> None:
    make(mounted, "vm", b"x")
    mounted.call("snapshot", disk="vm", snapshot="s", description="x" * 65_536)
    assert os.getxattr(mounted.snapshot_path("vm", "s"), "user.rowfs.description") == b"x" * 65_536
    assert "65536 bytes" in mounted.refuses("snapshot", ":vm@t", "--description", "x" * 65_537, code=2)
