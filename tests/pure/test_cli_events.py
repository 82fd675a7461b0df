"""`events`: what it asks the daemon for and prints, and how following goes on and ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.cli.events import event_shown
from tests.pure.test_cli_fakes import Notify, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def event(number: int = 1, **fields: Any) -> dict[str, Any]:
    """An event object of docs/CONTROL.md."""
    made = {"number": number, "time": "2026-11-20T14:30:00.000000Z", "verb": "snapshot", "failed": False, "disk": "vm1"}
    made |= {"snapshot": "s", "group": None, "size_bytes": 20 << 30, "uid": 0, "pid": 7, "command": "rowfs", "text": ""}
    return made | fields


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "root (rowfs 7)  snapshot vm1@s (20G)"),
        ({"uid": None}, "rowfs itself  snapshot vm1@s (20G)"),
        ({"uid": 54321, "command": ""}, "54321 (? 7)  snapshot vm1@s (20G)"),
        ({"verb": "rename", "snapshot": None, "text": "to b"}, "root (rowfs 7)  rename vm1 (20G) to b"),
        ({"verb": "delete", "failed": True, "size_bytes": None, "text": "why"}, "delete failed vm1@s: why"),
        (
            {"disk": None, "snapshot": None, "group": "g", "size_bytes": None, "text": "of a, b"},
            "snapshot group g of a, b",
        ),
        ({"disk": "a\nb\x1b", "snapshot": None}, "snapshot a\\nb\\x1b (20G)"),
    ],
)
def test_an_event_is_one_line(fields: dict[str, Any], shown: str) -> None:
    assert event_shown(event(**fields)).endswith(shown)


def test_events_are_asked_for_and_printed(world: World) -> None:
    def answer(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        notify("part", items=[event(1)])
        notify("part", items=[event(2)])
        return {"last": 2, "lost": 3, "ending": False}

    world.answer(events=answer)
    code, out, err = world.run("events", world.mount, "--after", "0", "--since", "2026-11-20 14:00+01:00")
    assert (code, len(out.splitlines())) == (0, 2)
    assert err == "rowfs: warning: 3 events before these are no longer kept\n"
    assert world.asked() == [("events", {"after": 0, "since": "2026-11-20T13:00:00+00:00"})]
    assert [item["number"] for item in json.loads(world.run("events", "--json")[1])] == [1, 2]


def test_following_goes_on_where_it_was_until_the_daemon_ends(world: World) -> None:
    numbers = iter([1, 2, 3])

    def answer(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        number = next(numbers)
        notify("part", items=[event(number)])
        return {"last": number, "lost": 0, "ending": number == 3}

    world.answer(events=answer)
    code, out, err = world.run("events", world.mount, "--follow", "--json")
    assert [json.loads(line)["number"] for line in out.splitlines()] == [1, 2, 3]
    assert [params.get("after") for _, params in world.asked()] == [None, 1, 2]
    assert (code, err) == (0, "")


def test_what_is_no_time_is_wrong_usage(world: World) -> None:
    assert world.run("events", world.mount, "--since", "soon")[0] == 2
    assert world.asked() == []
