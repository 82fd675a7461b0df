"""Events of a real mount: plain tools and verbs are told with who they were, across kills, and to who follows."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.mount.helpers import COMMAND, Mounted, run, until


def test_everything_is_told_in_order_and_followed_across_a_kill(mounted: Mounted) -> None:
    command = [*COMMAND, "events", str(mounted.mnt), "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        mounted.cli("create", ":vm", "1M")
        run("touch", mounted.snapshot_path("vm", "a"))
        mounted.cli("rename", ":vm@a", "b")
        with open(mounted.path("vm"), "rb"):  # an open disk is renamed by a request of the daemon's own
            mounted.cli("rename", ":vm", "vm2")
        run("rm", mounted.snapshot_path("vm2", "b"))
        until(lambda: _told(mounted)[-1]["verb"] == "delete", "the deletion to be durable")
        mounted.umount()
        out, err = follower.communicate(timeout=30)
    assert follower.returncode == 0 and err == ""
    followed = [json.loads(line) for line in out.splitlines()]
    mounted.mount()
    found = _told(mounted)
    assert [(event["verb"], event["command"]) for event in found if event["disk"]] == [
        ("create", "python"),
        ("snapshot", "touch"),
        ("rename", "python"),
        ("rename", "python"),
        ("delete", "rm"),
    ]
    assert [event["number"] for event in found] == list(range(1, len(found) + 1))
    assert {event["uid"] for event in found if event["disk"]} == {os.getuid()}
    assert followed == found[: len(followed)] and len(followed) >= 6
    mounted.cli("create", ":other", "1M")
    mounted.kill()
    mounted.mount()
    until(lambda: "not unmounted in order" in _told(mounted)[-1]["text"], "the mount to be told")
    assert Path(mounted.path("vm2")).exists()


def _told(mounted: Mounted) -> list[dict]:  # type: ignore[type-arg]
    found: list[dict] = mounted.json("events", ":")  # type: ignore[type-arg]
    return found or [{"verb": "", "text": ""}]
