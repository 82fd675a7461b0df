"""A pool that is really mounted. Skipped, and why is printed, where that cannot be done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.helpers import Mounted


def _obstacle() -> str:
    """Why nothing can be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "only root attaches loop devices and drops caches"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return f"this machine has no {device}"
    return ""


@pytest.fixture(scope="session", autouse=True)
def _mounts_work() -> None:
    reason = _obstacle()
    if reason:
        pytest.skip(reason)


MakeMounted = Callable[..., Mounted]


@pytest.fixture
def make_mounted(tmp_path: Path) -> Iterator[MakeMounted]:
    """Makes pools and mounts them: `make_mounted(*options_of_init, pool=…, mnt=…)`. All of them end in order."""
    made: list[Mounted] = []

    def make(*options: str, pool: str = "pool", mnt: str = "mnt", mount: tuple[str, ...] = ()) -> Mounted:
        new = Mounted(tmp_path / pool, tmp_path / mnt)
        new.mnt.mkdir(parents=True)
        new.pool.parent.mkdir(parents=True, exist_ok=True)
        new.init(*options)
        made.append(new)
        new.mount(*mount)
        return new

    yield make
    failures = [error for each in made if (error := _finish(each)) is not None]
    if failures:
        raise failures[0]


def _finish(mounted: Mounted) -> AssertionError | None:
    """Ends one pool, so that whatever is wrong with it, the others are ended too."""
    try:
        mounted.finish()
    except (AssertionError, pytest.fail.Exception) as error:
        return error if isinstance(error, AssertionError) else AssertionError(str(error))
    return None


@pytest.fixture
def mounted(make_mounted: MakeMounted) -> Mounted:
    """A new pool, mounted."""
    return make_mounted()
