"""Clones share what they do not write, and live on without what they came from. And what deleting gives back."""

from __future__ import annotations

import os

import pytest

from tests.mount.helpers import LABEL_BYTES, MIB, B, Mounted, noise, read_direct, run, write_file

SNAPSHOTS = "abcdef"


def test_fifty_clones_are_one_command_and_take_no_space(mounted: Mounted) -> None:
    mounted.cli("create", ":golden", "4M")
    write_file(mounted.path("golden"), noise("golden", 4 * MIB))
    mounted.cli("snapshot", ":golden@v1")
    used = mounted.used()
    made = mounted.json("clone", ":golden@v1", "--count", "50", "--name", "vm-{:02}")
    names = [f"vm-{number:02}" for number in range(1, 51)]
    assert [disk["name"] for disk in made] == names
    assert mounted.used() == used
    for number, name in enumerate(names):
        write_file(mounted.path(name), noise(name, B), number * B)
    run("sync", "-f", mounted.path())
    mounted.cli("delete", ":golden", "--snapshots", "delete")
    assert mounted.used() == 4 * MIB + 50 * B + LABEL_BYTES
    for number, name in enumerate(names):
        whole = noise("golden", 4 * MIB)
        assert read_direct(mounted.path(name)) == whole[: number * B] + noise(name, B) + whole[(number + 1) * B :]


def test_a_clone_lives_on_without_its_snapshot_and_its_disk(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "4M")
    write_file(mounted.path("vm"), noise("old", 4 * MIB))
    mounted.cli("snapshot", ":vm@s")
    write_file(mounted.path("vm"), noise("new", 2 * MIB))
    mounted.cli("clone", ":vm@s", "a", mounted.path("b"))
    write_file(mounted.path("a"), noise("a", MIB), MIB)
    mounted.cli("snapshot", ":a@s")
    mounted.cli("clone", ":a@s", "c")
    for address in (":vm@s", ":vm", ":a@s", ":a"):
        mounted.cli("delete", "--wait", address)
        assert read_direct(mounted.path("b")) == noise("old", 4 * MIB)
        expected = noise("old", 4 * MIB)[:MIB] + noise("a", MIB) + noise("old", 4 * MIB)[2 * MIB :]
        assert read_direct(mounted.path("c")) == expected
    assert mounted.used() == 5 * MIB + LABEL_BYTES
    mounted.cli("delete", "--wait", ":b")
    assert mounted.used() == 4 * MIB + LABEL_BYTES
    mounted.remount()
    assert read_direct(mounted.path("c")) == expected


def test_clones_are_made_all_or_none(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "1M")
    mounted.cli("create", ":taken", "1M")
    mounted.cli("snapshot", ":vm@s")
    assert "taken" in mounted.refuses("clone", ":vm@s", "new", "taken")
    mounted.refuses("clone", ":vm@s", "new", "a@b", code=2)
    mounted.refuses("clone", ":vm@s", "new", "new", code=2)
    mounted.refuses("clone", ":vm@s", code=2)
    assert set(os.listdir(mounted.path())) == {".snapshots", "vm", "taken"}


@pytest.fixture
def chain(mounted: Mounted) -> Mounted:
    """A disk of 8 MiB and a chain of snapshots, between which it was written in places that overlap."""
    mounted.cli("create", ":vm", "8M")
    for turn, name in enumerate(SNAPSHOTS):
        write_file(mounted.path("vm"), noise(name, 2 * MIB), turn * MIB, sync=True)
        mounted.call("snapshot", disk="vm", snapshot=name)
    write_file(mounted.path("vm"), noise("head", 3 * MIB), MIB, sync=True)
    return mounted


def contents(mounted: Mounted, names: str) -> dict[str, bytes]:
    return {name: read_direct(mounted.snapshot_path("vm", name)) for name in names}


@pytest.mark.parametrize(
    ("address", "gone"),
    [
        (":vm@c", "c"),
        (":vm@b..d", "bcd"),
        (":vm@..c", "abc"),
        (":vm@e..", "ef"),
        (":vm@a,c,e..f", "acef"),
        (":.snapshots/vm/b", "b"),
        (":.snapshots/vm", SNAPSHOTS),
    ],
)
def test_a_deletion_gives_back_exactly_what_its_dry_run_said(chain: Mounted, address: str, gone: str) -> None:
    left = "".join(sorted(set(SNAPSHOTS) - set(gone)))
    before, disk = contents(chain, left), read_direct(chain.path("vm"))
    used = chain.used()
    (said,) = chain.json("delete", "--dry-run", address)
    assert said["snapshots"] == list(gone)
    assert chain.used() == used and len(chain.disk("vm")["snapshots"]) == len(SNAPSHOTS)
    assert chain.json("delete", "--wait", address) == [said]
    assert used - chain.info()["used_bytes"] == said["freed_bytes"]
    assert contents(chain, left) == before and read_direct(chain.path("vm")) == disk
    assert [item["name"] for item in chain.disk("vm")["snapshots"]] == list(left)


def test_a_deleted_disk_keeps_its_snapshots_and_can_be_made_again(chain: Mounted) -> None:
    before = contents(chain, SNAPSHOTS)
    said = chain.cli("delete", "--wait", ":vm")
    assert "6 snapshots stay" in said
    assert contents(chain, SNAPSHOTS) == before
    assert not os.path.exists(chain.path("vm"))
    assert chain.disk("vm")["deleted"] is True
    chain.remount()
    assert contents(chain, SNAPSHOTS) == before
    chain.cli("create", ":vm", "1M")
    chain.cli("snapshot", ":vm@g")
    assert [item["name"] for item in chain.disk("vm")["snapshots"]] == [*SNAPSHOTS, "g"]
    chain.cli("rollback", ":vm@c")
    assert read_direct(chain.path("vm")) == before["c"]
    chain.cli("delete", "--wait", ":vm", "--snapshots", "delete")
    assert chain.used() == LABEL_BYTES
    assert os.listdir(chain.path(".snapshots")) == []


def test_a_disk_and_its_snapshots_go_as_rm_and_delete_say(chain: Mounted) -> None:
    run("rm", chain.path("vm"))
    run("rm", "-f", *(chain.snapshot_path("vm", name) for name in "abc"))
    assert os.listdir(chain.path(".snapshots/vm")) == ["d", "e", "f"]
    (said,) = chain.json("delete", "--dry-run", ":.snapshots/vm")
    assert said["disk"] is False and said["snapshots"] == ["d", "e", "f"]
    run("rm", "-rf", *(chain.snapshot_path("vm", name) for name in "def"))
    assert chain.used() == LABEL_BYTES
    assert os.listdir(chain.path(".snapshots")) == []


def test_several_addresses_are_deleted_together_or_none_of_them(chain: Mounted) -> None:
    chain.cli("create", ":other", "1M")
    assert "no snapshot x" in chain.refuses("delete", ":vm@a", ":vm@x", ":other")
    assert [item["name"] for item in chain.disk("vm")["snapshots"]] == list("abcdef")
    assert os.path.exists(chain.path("other"))
    chain.cli("delete", ":vm@a", ":other")
    assert [item["name"] for item in chain.disk("vm")["snapshots"]] == list("bcdef")
    assert not os.path.exists(chain.path("other"))


def test_a_reclaim_that_a_kill_cut_short_goes_on(chain: Mounted) -> None:
    chain.cli("delete", ":vm@a..f")
    chain.kill()
    chain.mount()
    assert chain.used() == chain.disk("vm")["mapped_bytes"] + LABEL_BYTES
    assert chain.disk("vm")["snapshots"] == []


def test_export_and_diff_agree_with_what_is_read(chain: Mounted, tmp_path: object) -> None:
    image = f"{tmp_path}/image"
    answer = chain.json("export", ":vm@d", image)
    expected = read_direct(chain.snapshot_path("vm", "d"))
    with open(image, "rb") as file:
        assert file.read() == expected
    assert answer["size_bytes"] == 8 * MIB
    assert os.stat(image).st_blocks * 512 <= answer["mapped_bytes"] + 16 * B
    older, newer = read_direct(chain.snapshot_path("vm", "b")), bytearray(read_direct(chain.snapshot_path("vm", "b")))
    found = chain.json("diff", ":vm@b..e")
    for offset, length, kind in found["ranges"]:
        piece = read_direct(chain.snapshot_path("vm", "e"), offset, length)
        assert piece != older[offset : offset + length]
        newer[offset : offset + length] = piece if kind == "data" else bytes(length)
    assert newer == read_direct(chain.snapshot_path("vm", "e"))
    chain.cli("export", ":vm", f"{tmp_path}/now")
    with open(f"{tmp_path}/now", "rb") as file:
        assert file.read() == read_direct(chain.path("vm"))
    assert [item["name"] for item in chain.disk("vm")["snapshots"]] == list(SNAPSHOTS)
