"""Pools to test with. Each one is held against all invariants when its test is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.store.pool import Pool
from tests.store.helpers import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A new pool, closed. What is open at the end is committed, reclaimed and checked, to the block."""
    place = Home(tmp_path / "pool")
    yield place
    place.finish()


@pytest.fixture
def pool(home: Home) -> Pool:
    """A new pool, open."""
    return home.open()
