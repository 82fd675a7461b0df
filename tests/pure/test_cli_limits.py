"""`limit`: what it asks the daemon for and prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pure.test_cli_fakes import World

DISK = {"snapshots": 64, "space_bytes": 20 << 30, "reserve_bytes": 5 << 30, "held_bytes": 1 << 30}
POOL = {"snapshots": None, "disks": 100, "provisioned_percent": 300, "on_warning": []}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (("--snapshots", "64", "--space", "20G"), {"snapshots": 64, "space_bytes": 20 << 30}),
        (("--reserve", "none", "--space", "1G"), {"space_bytes": 1 << 30, "without": ["reserve_bytes"]}),
        ((), {}),
    ],
)
def test_of_a_disk(world: World, words: tuple[str, ...], params: dict[str, Any]) -> None:
    world.answer(limit=DISK)
    code, out, _ = world.run("limit", world.mount / "vm1", *words)
    assert (code, out) == (0, "snapshots  64\nspace      20G, 1.0G held\nreserve    5.0G\n")
    assert world.asked() == [("limit", {"disk": "vm1"} | params)]


def test_of_the_pool(world: World) -> None:
    world.answer(limit=POOL)
    code, out, _ = world.run("limit", world.mount, "--disks", "100", "--provisioned", "300%", "--snapshots", "none")
    assert (code, out) == (0, "snapshots    none\ndisks        100\nprovisioned  300 %\non warning   none\n")
    assert world.asked() == [("limit", {"disks": 100, "provisioned_percent": 300, "without": ["snapshots"]})]


def test_a_hook_is_split_into_words_here(world: World) -> None:
    world.answer(limit=POOL | {"on_warning": ["/bin/tell", "a b"]})
    _, out, _ = world.run("limit", world.mount, "--on-warning", "/bin/tell 'a b'")
    assert out.endswith("on warning   /bin/tell 'a b'\n")
    assert world.asked() == [("limit", {"on_warning": ["/bin/tell", "a b"]})]
    assert world.run("limit", world.mount, "--on-warning", "'")[0] == 2
    world.run("limit", world.mount, "--on-warning", "none")
    assert world.asked() == [("limit", {"without": ["on_warning"]})]


@pytest.mark.parametrize("words", [("--disks", "x"), ("--snapshots", "-1"), ("--space", "x"), ("--disks", "9" * 13)])
def test_what_is_no_limit_is_wrong_usage(world: World, words: tuple[str, ...]) -> None:
    assert world.run("limit", world.mount, *words)[0] == 2
    assert world.asked() == []


def test_a_limit_of_the_other_kind_of_thing_is_told_by_its_option(world: World) -> None:
    for option in ("--disks", "--provisioned", "--on-warning"):
        code, _, err = world.run("limit", world.mount / "vm1", option, "3")
        assert (code, err) == (
            2,
            f"rowfs: --disks, --provisioned and --on-warning are of the pool: name {world.mount} alone\n",
        )
    for option in ("--space", "--reserve"):
        code, _, err = world.run("limit", world.mount, option, "3")
        assert code == 2 and err.startswith("rowfs: --space and --reserve are of a disk: name it, as in ")
    assert world.asked() == []
