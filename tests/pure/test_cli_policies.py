"""`policy`: what is asked for what was typed, and what is printed of the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.cli.policies import own_zone
from tests.pure.test_cli_fakes import World

NIGHTLY: dict[str, Any] = {
    "name": "nightly",
    "id": 7,
    "schedule": "every 1d at 02:00, Europe/Berlin",
    "explained": "every 1d at 02:00, Europe/Berlin",
    "tz": "Europe/Berlin",
    "keeps": "daily 14, for 90d",
    "chooses": "vm*",
    "disks": ["vm1", "vm2"],
    "snapshots": 28,
    "paused": False,
    "freeze": False,
    "group": False,
    "when_limited": "refuse",
    "hooks": {"pre": [], "post": [], "on_failure": [], "limit": "30s", "after_pre": "skip"},
    "running": False,
    "failures": 0,
    "retry": None,
    "next": "2026-11-21T01:00:00.000000Z",
    "last": None,
}
OUTCOME = {"due": "2026-11-20T01:00:00Z", "ended": None, "taken": 2, "expired": 1, "failures": [], "kept": []}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    with made.daemon:
        yield made


# Making and changing


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (
            ("--every", "1d", "--at", "02:00", "--at", "14:00,20:00", "--disks", "vm*", "--disks", "db"),
            {"every": "1d", "at": ["02:00", "14:00,20:00"], "disks": ["vm*", "db"]},
        ),
        (
            ("--cron", "0 2 * * 1-5", "--tz", "UTC", "-l", "env=prod"),
            {"cron": "0 2 * * 1-5", "selector": "env=prod", "tz": "UTC"},
        ),
        (
            ("--every", "1h", "--keep-last", "0", "--keep-daily", "7", "--keep-for", "90d"),
            {"every": "1h", "keep_last": 0, "keep_daily": 7, "keep_for": "90d"},
        ),
        (("--every", "1h", "--freeze", "--group"), {"every": "1h", "freeze": True, "group": True}),
        (
            ("--every", "1h", "--pre", "/bin/dump 'a b' $(x)", "--hook-limit", "1m", "--after-pre", "mark"),
            {"every": "1h", "pre": ["/bin/dump", "a b", "$(x)"], "hook_limit": "1m", "after_pre": "mark"},
        ),
        (("--when-limited", "expire"), {"when_limited": "expire"}),
    ],
)
def test_create_asks_for_what_was_typed_and_nothing_else(
    world: World, words: tuple[str, ...], asked: dict[str, Any]
) -> None:
    world.answer(policy_create=NIGHTLY)
    code, out, err = world.run("policy", "create", world.mount, "nightly", *words)
    assert (code, err) == (0, "")
    assert out == ("nightly: every 1d at 02:00, Europe/Berlin; keeps daily 14, for 90d; next 2026-11-21 02:00 +01:00\n")
    assert world.asked() == [("policy_create", {"policy": "nightly", "tz": "Europe/Berlin"} | asked)]


def test_the_zone_is_that_of_this_machine_by_its_name_or_utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, expected in {":America/Lima": "America/Lima", "CET-1CEST": "UTC", "Nowhere/Land": "UTC"}.items():
        monkeypatch.setenv("TZ", name)
        assert own_zone() == expected
    monkeypatch.delenv("TZ")
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    assert own_zone(str(link)) == "Asia/Tokyo"
    assert own_zone(str(tmp_path / "missing")) == "UTC"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("--to", "daily", "--keep-last", "0"), {"to": "daily", "keep_last": 0}),
        (("--no-freeze", "--group"), {"freeze": False, "group": True}),
        (("--pre", ""), {"pre": []}),
        (("--on", "", "--label", ""), {"on": "", "selector": ""}),
        ((), {}),
    ],
)
def test_edit_changes_what_is_named_and_takes_back_what_is_empty(
    world: World, words: tuple[str, ...], asked: dict[str, Any]
) -> None:
    world.answer(policy_edit=NIGHTLY)
    assert world.run("policy", "edit", world.mount, "nightly", *words)[0] == 0
    assert world.asked() == [("policy_edit", {"policy": "nightly"} | asked)]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--every"),
        ("create", "--keep-last", "-1"),
        ("create", "--keep-last", "x"),
        ("create", "--pre", "'"),
        ("create", "--when-limited", "maybe"),
        ("edit", "--freeze", "--no-freeze"),
        ("edit", "--group", "--no-group"),
        ("edit", "--post", "a 'b"),
    ],
)
def test_what_is_wrong_usage_asks_nobody(world: World, words: tuple[str, ...]) -> None:
    verb, *options = words
    code, out, err = world.run("policy", verb, world.mount, "nightly", *options)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert world.asked() == []


def test_a_policy_that_is_about_no_disk_says_so(world: World) -> None:
    world.answer(policy_create=NIGHTLY | {"disks": [], "paused": True})
    code, out, err = world.run("policy", "create", world.mount, "nightly", "--every", "1d")
    assert code == 0 and out.endswith("; paused\n")
    assert err == "rowfs: warning: there is no disk now that nightly is about: vm*\n"


PREVIEW = {
    "tz": "UTC",
    "runs": [
        {"due": "2026-11-21T01:00:00Z", "takes": "n-1", "goes": [], "kept": 1},
        {"due": "2026-11-22T01:00:00Z", "takes": "n-2", "goes": ["n-0", "n-x"], "kept": 10},
    ],
    "kept": [{"snapshot": "n-2", "text": "stays: just taken"}],
}
PREVIEWED = """\
RUN                   TAKES  GOES            KEPT
2026-11-21 01:00 UTC  n-1    -                  1
2026-11-22 01:00 UTC  n-2    n-0 and 1 more    10

kept then:
  n-2  stays: just taken
"""


def test_previews(world: World) -> None:
    world.answer(policy_create=PREVIEW, policy_preview=PREVIEW)
    assert world.run("policy", "create", world.mount, "n", "--every", "1d", "--preview")[:2] == (0, PREVIEWED)
    assert world.run("policy", "preview", world.mount / "vm1", "n")[:2] == (0, PREVIEWED)
    assert json.loads(world.run("policy", "preview", world.mount, "n", "--json")[1]) == PREVIEW
    (_, created), *others = world.asked()
    assert created["preview"] is True
    assert others == [
        ("policy_preview", {"disk": "vm1", "policy": "n"}),
        ("policy_preview", {"policy": "n"}),
    ]


# Looking


LISTED = """\
NAME     SCHEDULE                          KEEPS              NEXT                     LAST RUN
nightly  every 1d at 02:00, Europe/Berlin  daily 14, for 90d  2026-11-21 02:00 +01:00  {}
"""


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        ({}, "-"),
        ({"running": True}, "running"),
        ({"last": OUTCOME}, "2026-11-20 02:00 +01:00, 2 taken, 1 gone"),
        ({"failures": 1}, "failed: it ended with its daemon"),
        ({"last": OUTCOME | {"failures": ["vm1: no\nspace", "vm2: no"]}}, "failed: vm1: no\\nspace"),
    ],
)
def test_the_list_says_how_the_last_run_ended(world: World, fields: dict[str, Any], last: str) -> None:
    world.answer(policy_list={"policies": [NIGHTLY | fields], "unreadable": [], "unprotected": []})
    assert world.run("policy", "list", world.mount) == (0, LISTED.format(last), "")
    world.answer(policy_list={"policies": [NIGHTLY | {"paused": True}], "unreadable": [], "unprotected": []})
    assert "paused" in world.run("policy", "list")[1]  # the only mount there is


def test_the_list_names_what_cannot_be_read_and_what_none_protects(world: World) -> None:
    found = {
        "policies": [NIGHTLY],
        "unreadable": [{"id": 9, "name": "#9", "why": "it is of a newer rowfs"}],
        "unprotected": ["lone\n", "other"],
    }
    world.answer(policy_list=found)
    code, out, err = world.run("policy", "list", world.mount)
    assert code == 0 and out.endswith("in no policy that runs: lone\\n, other\n")
    assert err == "rowfs: warning: the policy #9 takes and deletes nothing: it is of a newer rowfs\n"
    assert json.loads(world.run("policy", "list", world.mount, "--json")[1]) == found


def test_show_tells_all_of_one(world: World) -> None:
    hooks = NIGHTLY["hooks"] | {"pre": ["/bin/dump", "a b"]}
    last = OUTCOME | {"failures": ["vm1: no"], "kept": ["vm1@x stays for now: it sticks"]}
    retry = "2026-11-20T01:02:00Z"
    more = {"hooks": hooks, "last": last, "retry": retry, "failures": 1, "freeze": True, "group": True}
    world.answer(policy_show=NIGHTLY | more)
    code, out, _ = world.run("policy", "show", world.mount, "nightly")
    fields = {(parts := line.split("  ", 1))[0]: parts[1].strip() for line in out.splitlines()}
    assert code == 0 and fields == {
        "policy": "nightly",
        "schedule": "every 1d at 02:00, Europe/Berlin",
        "keeps": "daily 14, for 90d",
        "of": "vm*",
        "disks now": "vm1, vm2",
        "snapshots": "28",
        "taken with": "freeze, group",
        "at a limit": "refuse",
        "hook pre": "/bin/dump 'a b'",
        "next": "2026-11-21 02:00 +01:00",
        "last run": "failed: vm1: no",
        "tried again": "2026-11-20 02:02 +01:00",
        "failure": "vm1: no",
        "kept": "vm1@x stays for now: it sticks",
    }


def test_explain_says_a_line_of_each_snapshot(world: World) -> None:
    found = [{"snapshot": "a\x1b", "policy": "n", "text": "stays: just taken"}, {"snapshot": "b", "text": "goes"}]
    world.answer(policy_explain=found)
    code, out, _ = world.run("policy", "explain", world.mount / "vm1")
    assert (code, out) == (0, "@a\\x1b  stays: just taken\n@b      goes\n")
    assert world.asked() == [("policy_explain", {"disk": "vm1"})]
    assert world.run("policy", "explain", world.mount)[0] == 2


# Carrying out


def test_pause_resume_and_delete(world: World) -> None:
    world.answer(policy_pause=NIGHTLY | {"paused": True}, policy_resume=NIGHTLY, policy_delete={"snapshots": 28})
    assert world.run("policy", "pause", world.mount, "nightly")[1].endswith("; paused\n")
    assert "; next 2026-11-21" in world.run("policy", "resume", world.mount, "nightly")[1]
    said = "nightly: deleted; its 28 snapshots stay until deleted by hand\n"
    assert world.run("policy", "delete", world.mount, "nightly")[:2] == (0, said)
    world.answer(policy_delete={"snapshots": 0})
    assert world.run("policy", "delete", world.mount, "nightly")[1] == "nightly: deleted\n"
    assert {params["policy"] for _, params in world.asked()} == {"nightly"}


def test_a_run_that_went_well(world: World) -> None:
    world.answer(policy_run=OUTCOME)
    said = (0, "nightly: 2 snapshots taken, 1 gone\n", "")
    assert world.run("policy", "run", world.mount, "nightly", "--confirm-clock") == said
    assert json.loads(world.run("policy", "run", world.mount, "nightly", "--json")[1]) == OUTCOME
    assert world.asked() == [
        ("policy_run", {"policy": "nightly", "confirm_clock": True}),
        ("policy_run", {"policy": "nightly"}),
    ]


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
