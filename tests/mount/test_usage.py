"""What is held, and what comes back, on a real mount."""

from __future__ import annotations

from xml.etree import ElementTree

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


def test_usage_agrees_with_list_and_with_what_deleting_frees(mounted: Mounted) -> None:
    shared_chains(mounted)
    mounted.cli("label", ":vm", "env=prod")
    told = mounted.json("usage", ":")
    rows = {row["name"]: row for row in told["rows"]}
    disks = {disk["name"]: disk for disk in mounted.json("list", ":")}
    assert rows.keys() == disks.keys() == {"vm", "copy"}
    for name, disk in disks.items():
        assert (rows[name]["provisioned_bytes"], rows[name]["mapped_bytes"]) == (8 * MIB, disk["mapped_bytes"])
        assert rows[name]["snapshots"] == len(disk["snapshots"])
        (freed,) = mounted.json("delete", "--dry-run", f":.snapshots/{name}")
        assert rows[name]["snapshots_bytes"] == freed["freed_bytes"]
        (all_of_it,) = mounted.json("delete", "--dry-run", "--snapshots", "delete", f":{name}")
        held = rows[name]["mapped_bytes"] + rows[name]["snapshots_bytes"]
        assert held - rows[name]["shared_bytes"] <= all_of_it["freed_bytes"] <= held
    assert rows["copy"]["snapshots_bytes"] == 0, "its disk has all that its snapshot has"
    assert rows["copy"]["shared_bytes"] == 3 * MIB, "all but what it wrote"
    assert told["used_bytes"] == mounted.used()
    assert mounted.json("usage", ":", "--by", "label", "--since", "1h")["total"]["count"] == 2
    assert mounted.cli("usage", ":", "-l", "env", "--csv").splitlines()[1].startswith(f'"vm",1,2,{8 * MIB},')
    mounted.kill()
    mounted.mount()
    assert {row["name"]: row | {"byte_seconds": 0} for row in mounted.json("usage", ":")["rows"]} == {
        name: row | {"byte_seconds": 0} for name, row in rows.items()
    }
    picture = mounted.pool.with_name("chain.svg")
    assert mounted.cli("plot", ":vm", "-o", str(picture)) == f"{picture}: 2 snapshots of {mounted.path('vm')}\n"
    drawn = "".join(ElementTree.parse(picture).getroot().itertext())
    assert all(name in drawn for name in ("@a", "@b", "copy", "clone"))
