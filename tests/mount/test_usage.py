"""What is held, and what comes back, on a real mount."""

from __future__ import annotations

from tests.mount.helpers import MIB, Mounted, noise, write_file


def shared_chains(mounted: Mounted) -> None:
    """A disk with two snapshots, a clone of the first with one of its own; each has written beside the others."""
    mounted.cli("create", ":vm", "8M")
    write_file(mounted.path("vm"), noise("vm", 4 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@a")
    mounted.cli("clone", ":vm@a", ":copy")
    write_file(mounted.path("vm"), noise("more", 2 * MIB), 0, sync=True)
    mounted.cli("snapshot", ":vm@b")
    write_file(mounted.path("copy"), noise("copy", MIB), MIB, sync=True)
    mounted.cli("snapshot", ":copy@c")
    write_file(mounted.path("vm"), noise("last", MIB), 0, sync=True)


def test_several_disks_deleted_together_free_what_was_said_and_more_than_each_alone(mounted: Mounted) -> None:
    shared_chains(mounted)
    names = (":vm@a", ":vm@b", ":copy@c", ":copy")
    alone = [mounted.json("delete", "--dry-run", name)[0]["freed_bytes"] for name in names]
    said = mounted.json("delete", "--dry-run", *names)
    assert sum(item["freed_bytes"] for item in said) == 4 * MIB > sum(alone)
    before = mounted.used()
    *_, together = mounted.cli("delete", "--wait", *names).splitlines()
    assert together == "together 4.0M came back"
    assert before - mounted.used() == 4 * MIB
