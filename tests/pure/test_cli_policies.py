"""`policy`: what it prints of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pure.test_cli_fakes import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (["vm1: no"], "vm1: no"),
        ([f"vm{number}: no" for number in range(20)], "vm0: no; and 19 more: rowfs policy show tells of them"),
    ],
)
def test_a_run_that_fails_for_many_disks_stays_a_line_that_can_be_read(
    world: World, failures: list[str], told: str
) -> None:
    world.answer(policy_run={"due": "2026-11-20T02:00:00Z", "taken": 2, "expired": 0, "failures": failures})
    assert world.run("policy", "run", world.mount, "nightly") == (
        1,
        "nightly: 2 snapshots taken, 0 gone\n",
        f"rowfs: the run of nightly failed: {told}\n",
    )
