"""Policies through a real mount: made, run and explained by the command line, across a kill."""

from __future__ import annotations

import os
from pathlib import Path

import policykills
from tests.mount.helpers import MIB, Mounted, noise, read_file, write_file


def test_a_policy_takes_snapshots_of_a_disk_in_use_and_outlives_a_kill(mounted: Mounted, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$ROWFS_HOOK $ROWFS_DISK $1" >>{tmp_path}/told\n')
    hook.chmod(0o755)
    mounted.cli("create", ":vm", "1M")
    write_file(mounted.path("vm"), noise("one", MIB))
    options = ("--every", "1d", "--at", "02:00", "--tz", "Europe/Berlin", "--keep-last", "2", "--disks", "v*")
    preview = mounted.json("policy", "create", ":", "nightly", *options, "--preview")
    assert len(preview["runs"]) == 30 and mounted.json("policy", "list", ":")["policies"] == []
    made = mounted.cli("policy", "create", ":", "nightly", *options, "--pre", f"{hook} 'a b'")
    assert made.startswith("nightly: every 1d at 02:00, Europe/Berlin; keeps last 2; next ")
    for _ in range(3):
        mounted.cli("policy", "run", ":", "nightly")
    (disk,) = mounted.json("list", ":")
    assert [item["kind"] for item in disk["snapshots"]] == ["policy"] * 2
    assert (tmp_path / "told").read_text().splitlines() == ["pre vm a b"] * 3
    mounted.kill()
    mounted.mount()
    names = [item["name"] for item in disk["snapshots"]]
    assert sorted(os.listdir(mounted.path(".snapshots/vm"))) == names
    assert read_file(mounted.snapshot_path("vm", names[0])) == noise("one", MIB)
    shown = mounted.cli("policy", "explain", ":vm")
    assert all(f"@{name}" in shown for name in names) and "last 2, snapshot 1" in shown
    assert "every 1d at 02:00" in mounted.cli("policy", "show", ":", "nightly")
    assert "1 taken, 1 gone" in mounted.cli("policy", "list", ":")
    mounted.cli("policy", "edit", ":", "nightly", "--pre", "/nowhere/hook", "--no-freeze")
    mounted.expected_log.append("/nowhere/hook cannot be run")
    assert "/nowhere/hook cannot be run" in mounted.refuses("policy", "run", ":", "nightly")
    assert "the policy nightly failed" in mounted.json("info", ":")["warnings"][0]
    mounted.cli("policy", "delete", ":", "nightly")
    assert "its policy is gone" in mounted.cli("policy", "explain", ":vm")


def test_a_run_whose_daemon_is_killed_at_a_commit_is_there_afterwards_once(tmp_path: Path) -> None:
    counts = policykills.kill_policies(tmp_path, seed=1, kills=1)
    assert counts["died at a commit"] == 1 and counts["snapshots looked at"] >= 6
