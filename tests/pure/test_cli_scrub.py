"""`scrub`: what it asks the daemon for and prints, and what it repairs from."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.cli.scrub import ranges
from tests.pure.test_cli_fakes import Notify, World

B = 4096
STATUS = {
    "state": "done",
    "scrubbed_bytes": 1 << 30,
    "total_bytes": 1 << 30,
    "rate_bytes_s": None,
    "started": None,
    "ended": None,
    "damaged_bytes": 0,
}


def damage(number: int, *seen: tuple[str, str | None, int]) -> dict[str, Any]:
    """A damage object of docs/CONTROL.md."""
    places = [{"disk": d, "snapshot": s, "in_trash": False, "offset_bytes": offset} for d, s, offset in seen]
    return {"address": number, "length_bytes": B, "seen_by": places}


DAMAGES = [
    damage(7, ("vm1", "s", B), ("vm2", None, B)),
    damage(9, ("vm1", "s", 2 * B), ("vm2", None, 0)),
    damage(11, ("vm1", "s", 8 * B)),
]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


class Pool:
    """A daemon whose blocks are damaged as long as nobody sends what they were."""

    def __init__(self, world: World, state: str = "done") -> None:
        self.damages = list(DAMAGES)
        self.state = state
        self.right = {7: b"a" * B, 9: b"b" * B, 11: b"c" * 100 + bytes(B - 100)}
        world.answer(scrub=self.scrub, repair=self.repair)

    def scrub(self, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        """As the method."""
        if params["action"] == "start":
            self.state = "done"
        if self.state == "done":
            notify("part", items=self.damages)
        return STATUS | {"state": self.state, "damaged_bytes": len(self.damages) * B}

    def repair(self, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        """As the method."""
        number = params["address"]
        fits = base64.b64decode(params["data"]) == self.right[number]
        if fits:
            self.damages = [item for item in self.damages if item["address"] != number]
        return {"repaired": fits}


def test_nothing_damaged(world: World) -> None:
    world.answer(scrub=STATUS)
    assert world.run("scrub", world.mount) == (0, f"{world.mount}: 1.0G scrubbed, nothing is damaged\n", "")
    assert world.asked() == [("scrub", {"action": "start", "wait": True})]
    assert world.run("scrub", world.mount / "vm1", "--rate", "10M")[0] == 0
    assert world.asked() == [("scrub", {"action": "start", "wait": True, "rate": 10 << 20})]


def test_damage_is_told_by_who_sees_it_and_where(world: World) -> None:
    Pool(world)
    code, out, _ = world.run("scrub", world.mount)
    assert (code, out.splitlines()) == (
        1,
        [
            "vm1@s  byte 4096, 8192 bytes",
            "vm1@s  byte 32768, 4096 bytes",
            "vm2    byte 0, 8192 bytes",
            f"{world.mount}: 1.0G scrubbed, 12K damaged: rowfs scrub --repair --from FILE puts it right from a copy",
        ],
    )
    code, out, _ = world.run("scrub", world.mount, "--json")
    assert (code, json.loads(out)) == (1, STATUS | {"damaged_bytes": 3 * B, "damages": DAMAGES})


@pytest.mark.parametrize("word", ["pause", "resume", "stop", "status"])
def test_one_under_way_is_told_what_to_do(world: World, word: str) -> None:
    world.answer(scrub=STATUS | {"state": "paused", "scrubbed_bytes": 1 << 29})
    code, out, _ = world.run("scrub", world.mount, f"--{word}")
    assert (code, out) == (0, f"{world.mount}: paused, 512M of 1.0G scrubbed, nothing is damaged\n")
    assert world.asked() == [("scrub", {"action": word} | ({"wait": True} if word == "resume" else {}))]


def test_what_does_not_go_together_is_wrong_usage(world: World, tmp_path: Path) -> None:
    assert world.run("scrub", world.mount, "--pause", "--stop")[0] == 2
    assert world.run("scrub", world.mount, "--repair")[0] == 2
    assert world.run("scrub", world.mount, "--from", tmp_path)[0] == 2
    assert world.run("scrub", world.mount, "--repair", "--from", tmp_path / "none")[0] == 2
    assert world.asked() == []


@pytest.mark.parametrize("state", ["done", "never"])
def test_repairing_from_a_file(world: World, tmp_path: Path, state: str) -> None:
    pool = Pool(world, state)
    image = tmp_path / "image"
    image.write_bytes(b"x" * B + b"a" * B + b"b" * B)  # the other one is past its end
    code, out, _ = world.run("scrub", world.mount, "--repair", "--from", image)
    assert (code, out.splitlines()[-1]) == (
        1,
        f"{world.mount}: 8.0K repaired, 4.0K still damaged: it is not in that file",
    )
    assert [item["address"] for item in pool.damages] == [11]
    assert ("scrub", {"action": "start", "wait": True}) in world.asked() or state == "done"
    image.write_bytes(bytes(8 * B) + b"c" * 100)  # an image ends where its disk does
    assert world.run("scrub", world.mount, "--repair", "--from", image, "--json")[0] == 0
    assert pool.damages == []


def test_a_file_that_cannot_be_read_repairs_nothing(world: World, tmp_path: Path) -> None:
    pool = Pool(world)
    code, _, err = world.run("scrub", world.mount, "--repair", "--from", tmp_path)
    assert code in (1, 2) and err.startswith("rowfs: ")
    assert len(pool.damages) == 3


def test_ranges_that_meet_are_one() -> None:
    found = [damage(1, ("a", None, 0)), damage(2, ("a", None, 2 * B)), damage(3, ("a", None, B), ("a", "s", 3 * B))]
    assert ranges(found) == [("a", 0, 3 * B), ("a@s", 3 * B, B)]
