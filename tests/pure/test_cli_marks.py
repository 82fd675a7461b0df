"""`label`, `lock` and the option -l: what they ask the daemon for and print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pure.test_cli_fakes import World, disk, snapshot

HELD = {"hold": True, "until": None, "compliance": False, "reason": "audit"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def labelled(world: World) -> None:
    """Disks a (env=prod; its snapshot x has env=test) and b (nothing)."""
    world.answer(
        list=[
            disk("a", snapshot("x", labels={"env": "test"}), snapshot("y"), labels={"env": "prod"}),
            disk("b", snapshot("z")),
        ]
    )


@pytest.mark.parametrize(
    ("address", "params"), [("a", {"disk": "a", "snapshot": None}), ("a@x", {"disk": "a", "snapshot": "x"})]
)
def test_label(world: World, address: str, params: dict[str, Any]) -> None:
    world.answer(label={"labels": {"env": "prod"}})
    assert world.run("label", world.mount / address, "env=prod", "owner-") == (0, "", "")
    wanted = {key: value for key, value in params.items() if value} | {"changes": ["env=prod", "owner-"]}
    assert world.asked() == [("label", wanted)]
    assert json.loads(world.run("label", world.mount / address, "env=prod", "--json")[1])["labels"] == {"env": "prod"}


def test_label_without_changes_shows_those_there_are(world: World) -> None:
    labelled(world)
    assert world.run("label", world.mount / "a@x")[1] == "env=test\n"


def test_what_is_no_label_is_wrong_usage(world: World) -> None:
    assert world.run("label", world.mount / "a", "env")[0] == 2
    assert world.asked() == []


def test_lock(world: World) -> None:
    world.answer(lock=[{"snapshot": "x", "lock": HELD}])
    code, out, _ = world.run("lock", world.mount / "a@x", "--reason", "audit")
    assert (code, out) == (0, f"{world.mount}/a@x: held until it is released (audit)\n")
    assert world.asked() == [("lock", {"disk": "a", "snapshots": ["x"], "reason": "audit"})]


def test_lock_until_a_date_is_sent_in_utc(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    until = "2199-03-01T00:00:00.000000Z"
    world.answer(lock=[{"snapshot": "x", "lock": HELD | {"hold": False, "until": until, "compliance": True}}])
    code, out, _ = world.run("lock", world.mount / "a@x", "--until", "2199-03-01 00:00+02:00", "--compliance")
    assert code == 0 and "locked for compliance until 2199-0" in out
    wanted = {"disk": "a", "snapshots": ["x"], "compliance": True, "until": "2199-02-28T22:00:00+00:00"}
    assert world.asked() == [("lock", wanted)]


def test_release(world: World) -> None:
    world.answer(release=[{"snapshot": "x", "lock": None}])
    assert world.run("lock", "--release", world.mount / "a@x")[1] == f"{world.mount}/a@x: not locked\n"
    assert world.asked() == [("release", {"disk": "a", "snapshots": ["x"]})]


@pytest.mark.parametrize(
    "options", [("--release", "--until", "1d"), ("--compliance",), ("--release", "--compliance"), ("--until", "x")]
)
def test_options_of_lock_that_do_not_go_together(world: World, options: tuple[str, ...]) -> None:
    assert world.run("lock", world.mount / "a@x", *options)[0] == 2
    assert world.asked() == []


def test_lock_by_labels(world: World) -> None:
    labelled(world)
    world.answer(lock=[])
    assert world.run("lock", world.mount, "-l", "env=test")[0] == 0
    assert world.asked()[-1] == ("lock", {"disk": "a", "snapshots": ["x"]})


def test_delete_by_labels_takes_snapshots_alone(world: World) -> None:
    labelled(world)
    world.answer(delete={"disk": False, "snapshots": ["x"], "freed_bytes": 0})
    assert world.run("delete", world.mount, "-l", "env in (test,prod)")[0] == 0
    assert world.asked()[-1] == ("delete", {"disk": "a", "snapshots": ["x"]})
    code, _, err = world.run("delete", world.mount, "-l", "env=none")
    assert (code, err) == (1, "rowfs: no snapshot has labels as 'env=none': rowfs list -l shows what has\n")
    assert world.run("delete", world.mount, "-l", "")[0] == 1
    assert world.run("delete", world.mount / "a@x", "-l", "env=test")[0] == 2


def test_snapshot_by_labels_takes_disks(world: World) -> None:
    labelled(world)
    world.answer(snapshot={"disk": "a", **snapshot("n")})
    assert world.run("snapshot", world.mount, "-l", "env=prod")[:2] == (0, f"{world.mount}/a@n\n")
    assert world.asked()[-1] == ("snapshot", {"disk": "a"})
    assert world.run("snapshot", world.mount, "-l", "")[0] == 1
    assert world.run("snapshot", world.mount / "a", "-l", "env=prod")[0] == 2


def test_list_by_labels(world: World) -> None:
    labelled(world)
    assert world.run("list", world.mount, "-l", "env=prod")[0] == 0
    assert ("list", {"figures": True, "selector": "env=prod"}) in world.asked()
    assert world.run("list", world.mount / "a@x", "-l", "env=prod")[0] == 2


def test_locks_and_labels_are_shown(world: World) -> None:
    world.answer(list=[disk("a", snapshot("x", lock=HELD, labels={"env": "test"}), labels={"env": "prod"})])
    assert "crash, locked" in world.run("list", world.mount)[1]
    world.answer(list=[disk("a", snapshot("x", lock=HELD, kind="policy", failed=True))])
    assert "crash, policy, failed, locked" in world.run("list", world.mount)[1]
    world.answer(list=[disk("a", snapshot("x", lock=HELD, labels={"env": "test"}), labels={"env": "prod"})])
    out = world.run("info", world.mount / "a@x")[1]
    assert "held until it is released (audit)" in out and "env=test" in out
    assert "env=prod" in world.run("info", world.mount / "a")[1]


def test_describe_sets_and_shows(world: World) -> None:
    world.answer(describe={"description": "why"}, list=[disk("a", snapshot("x", description="so"))])
    assert world.run("describe", world.mount / "a@x", "why") == (0, "", "")
    assert world.asked() == [("describe", {"disk": "a", "snapshot": "x", "description": "why"})]
    assert world.run("describe", world.mount / "a@x")[1] == "so\n"
    assert json.loads(world.run("describe", world.mount / "a@x", "", "--json")[1]) == {"description": "why"}
    assert world.asked()[-1][1]["description"] == ""
    assert world.run("describe", world.mount / "a", "why")[0] == 2
