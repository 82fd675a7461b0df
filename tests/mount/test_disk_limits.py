"""Limits of a real mount, with the C extension writing: ENOSPC for one disk alone, a reservation in a full pool."""

from __future__ import annotations

import os
from errno import ENOSPC

import pytest

from tests.mount.conftest import MakeMounted
from tests.mount.helpers import MIB, B, Mounted, noise, read_direct, write_direct

PIECE = 64 * 1024


def filled(mounted: Mounted, disk: str, pieces: int) -> int:
    """How many pieces of a disk can be written past the page cache, one after the other."""
    for piece in range(pieces):
        try:
            write_direct(mounted.path(disk), piece * PIECE, noise(f"{disk}{piece}", PIECE))
        except OSError as error:
            assert error.errno == ENOSPC
            return piece
    return pieces


def test_a_limit_and_a_reservation_hold_in_a_full_pool(make_mounted: MakeMounted) -> None:
    mounted = make_mounted("--capacity", "32M")
    for disk in ("kept", "limited", "other"):
        mounted.cli("create", f":{disk}", "32M")
    mounted.cli("limit", ":kept", "--reserve", "8M")
    mounted.cli("limit", ":limited", "--space", "2M")
    assert filled(mounted, "limited", 512) == 2 * MIB // PIECE
    assert filled(mounted, "other", 512) * PIECE in range(21 * MIB, 22 * MIB)
    with pytest.raises(OSError, match="No space"):
        write_direct(mounted.path("other"), 30 * MIB, noise("x", PIECE))
    mounted.kill()
    mounted.mount()
    with open(mounted.path("kept"), "r+b") as file:  # through the page cache, too
        file.write(noise("kept", 4 * MIB))
        os.fsync(file.fileno())
    assert filled(mounted, "kept", 8 * MIB // PIECE) == 8 * MIB // PIECE
    assert read_direct(mounted.path("kept"), 7 * MIB, B) == noise(f"kept{7 * MIB // PIECE}", PIECE)[:B]
    assert mounted.json("limit", ":kept")["held_bytes"] == 8 * MIB
    mounted.cli("limit", ":limited", "--space", "none")
    assert "no limit" in mounted.refuses("limit", ":limited", "--snapshots", "x", code=2)
