"""The verbs of the socket: what they answer, what they refuse, and that each is durable when it answers."""

from __future__ import annotations

import re
from errno import EEXIST, EINVAL, ENAMETOOLONG, ENOENT, EPERM, errorcode
from typing import Any

import pytest

from rowfs.base.errors import BusyError, RowfsError
from rowfs.base.names import DESCRIPTION_BYTES_MAX
from rowfs.base.units import DISK_BYTES_MAX, MIB
from rowfs.control.connection import BadParams
from tests.operations.helpers import Fs, Writes
from tests.store.helpers import B, fill

DISK = {
    "name",
    "inode",
    "size_bytes",
    "mapped_bytes",
    "trimmed_held_bytes",
    "damaged_bytes",
    "created",
    "modified",
    "deleted",
    "attached",
    "open",
    "labels",
    "snapshots",
}
SNAPSHOT = {
    "name",
    "inode",
    "created",
    "size_bytes",
    "referenced_bytes",
    "written_bytes",
    "freed_if_deleted_bytes",
    "damaged_bytes",
    "consistency",
    "kind",
    "failed",
    "description",
    "attached",
    "labels",
    "lock",
}
INFO = {
    "pid",
    "pool",
    "mountpoint",
    "uuid",
    "version",
    "format",
    "capacity_bytes",
    "used_bytes",
    "free_bytes",
    "sealed_bytes",
    "sealing",
    "damaged_bytes",
    "read_only",
    "read_only_reason",
    "disks",
    "snapshots",
    "reclaiming",
    "owed_bytes",
    "owed_s",
    "hot",
    "warnings",
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def fails(fs: Fs, number: int, method: str, **params: Any) -> str:
    """The message of an error with this errno; one line."""
    with pytest.raises(RowfsError) as caught:
        await fs.ask(method, **params)
    assert caught.value.errno == number, f"{errorcode[caught.value.errno]}: {caught.value}"
    message = str(caught.value)
    assert message and "\n" not in message
    return message


async def chain(fs: Fs) -> None:
    """A disk of 4 blocks with snapshots a to d, before each of which one more block was written."""
    await fs.disk("vm", 4)
    for block, name in enumerate("abcd"):
        await fs.write("vm", block, f"block {name}")
        await fs.snapshot("vm", name)


async def test_info_tells_of_the_mount(fs: Fs) -> None:
    await chain(fs)
    info = await fs.ask("info")
    assert info.keys() == INFO
    assert (info["disks"], info["snapshots"], info["used_bytes"]) == (1, 4, 5 * B)
    assert (info["read_only"], info["read_only_reason"], info["warnings"]) == (False, None, [])


@pytest.mark.pool(capacity_bytes=MIB)
async def test_info_warns_of_a_pool_that_is_nearly_full(fs: Fs) -> None:
    await fs.disk("vm", 240, *(f"block {block}" for block in range(240)))
    info = await fs.ask("info")
    assert info["capacity_bytes"] == MIB
    assert (info["used_bytes"], info["free_bytes"]) == (241 * B, 15 * B)
    assert "94 % full" in info["warnings"][0]


async def test_list_tells_of_disks_by_name_and_snapshots_by_age(fs: Fs) -> None:
    await chain(fs)
    await fs.disk("b")
    await fs.disk("a", 1, "one")
    found = await fs.ask("list")
    assert [disk["name"] for disk in found] == ["a", "b", "vm"]
    vm = found[2]
    assert vm.keys() == DISK
    assert (vm["size_bytes"], vm["mapped_bytes"], vm["deleted"]) == (4 * B, 4 * B, False)
    assert (vm["attached"], vm["open"]) == ([], 0)
    assert [snapshot["name"] for snapshot in vm["snapshots"]] == list("abcd")
    for number, snapshot in enumerate(vm["snapshots"], 1):
        assert snapshot.keys() == SNAPSHOT
        assert (snapshot["referenced_bytes"], snapshot["written_bytes"]) == (number * B, B)
        assert TIME.fullmatch(snapshot["created"])
    created = [snapshot["created"] for snapshot in vm["snapshots"]]
    assert created == sorted(created)


async def test_list_tells_what_snapshots_hold_of_what_was_trimmed_when_asked_to(fs: Fs) -> None:
    await chain(fs)
    (vm,) = await fs.ask("list", disks=["vm"])
    assert vm["trimmed_held_bytes"] is None
    await fs.ask("resize", disk="vm", size_bytes=B)
    (vm,) = await fs.ask("list", disks=["vm"], figures=False, trimmed=True)
    assert vm["trimmed_held_bytes"] == 3 * B


async def test_list_leaves_out_what_takes_long_when_asked_to(fs: Fs) -> None:
    await chain(fs)
    (vm,) = await fs.ask("list", disks=["vm"], figures=False)
    assert {snapshot["freed_if_deleted_bytes"] for snapshot in vm["snapshots"]} == {None}
    await fails(fs, ENOENT, "list", disks=["vm", "other"])


async def test_a_deleted_disk_is_listed_while_it_has_snapshots(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("delete", disk="vm")
    (vm,) = await fs.ask("list")
    assert (vm["deleted"], vm["size_bytes"], vm["mapped_bytes"], len(vm["snapshots"])) == (True, 0, 0, 4)
    assert (await fs.ask("info"))["disks"] == 0
    await fails(fs, ENOENT, "snapshot", disk="vm")
    await fails(fs, ENOENT, "delete", disk="vm")
    await fs.ask("clone", disk="vm", snapshot="d", targets=["vm"])
    assert await fs.holds("vm", "block a", "block b", "block c", "block d")


async def test_verbs_answer_with_what_they_made(fs: Fs) -> None:
    made = await fs.ask("create", disk="vm", size_bytes=4 * B, mode=0o600)
    assert (made.keys(), made["name"], made["size_bytes"]) == (DISK, "vm", 4 * B)
    assert (await fs.stat("vm")).st_mode & 0o777 == 0o600
    await fs.write("vm", 0, "one")
    taken = await fs.ask("snapshot", disk="vm", snapshot="s", description="why")
    assert taken.keys() == SNAPSHOT | {"disk"}
    assert (taken["disk"], taken["name"], taken["description"], taken["kind"]) == ("vm", "s", "why", "user")
    clones = await fs.ask("clone", disk="vm", snapshot="s", targets=["c1", "c2"])
    assert [(clone["name"], clone["mapped_bytes"]) for clone in clones] == [("c1", B), ("c2", B)]
    resized = await fs.ask("resize", disk="vm", size_bytes=8 * B)
    assert resized["size_bytes"] == 8 * B
    assert await fs.ask("rename", disk="vm", to="web") == {}
    assert await fs.ask("rename", disk="web", snapshot="s", to="t") == {}
    assert await fs.ask("rollback", disk="web", snapshot="t") == {"kept": "before-rollback"}
    assert await fs.ask("rollback", disk="web", snapshot="t", discard=True) == {"kept": None}
    assert (await fs.stat("web")).st_size == 4 * B
    assert fs.kernel.asked.count(("truncate", "vm")) == 1


async def test_trim_makes_holes_of_zeros_that_were_written_long_ago(fs: Fs) -> None:
    await fs.disk("vm", 1200, "one", "two", "three")
    handle = await fs.open("vm")
    await fs.ops.write(handle, B, bytes(B))
    await fs.ops.write(handle, 500 * B, bytes(700 * B))
    await fs.close(handle)
    fs.pool.io.zeros.after_s = None
    fs.pool.io.zeros.__init__()  # type: ignore[misc]
    assert await fs.ask("trim", disk="vm", dry_run=True) == {"trimmed_bytes": 701 * B, "freed_bytes": 0}
    assert (await fs.stat("vm")).st_blocks == 703 * B // 512
    assert await fs.ask("trim", disk="vm") == {"trimmed_bytes": 701 * B, "freed_bytes": 701 * B}
    assert ("flush", "vm") in fs.kernel.asked
    assert fs.caller.told[-1] == (703 * B, 703 * B, "bytes", "looking for zeros")
    assert (await fs.stat("vm")).st_blocks == 2 * B // 512
    crashed = fs.after_a_crash()
    assert (await crashed.stat("vm")).st_blocks == 2 * B // 512
    assert await crashed.holds("vm", "one", "", "three", *[""] * 1197)


async def test_what_is_written_while_a_disk_is_trimmed_stays(fs: Fs) -> None:
    await fs.disk("vm", 512)
    handle = await fs.open("vm")
    await fs.ops.write(handle, 0, bytes(512 * B))

    async def others() -> None:
        await fs.put(handle, 3, "mine")
        await fs.put(handle, 300, "mine too")

    fs.kernel.meanwhile = others
    read = fs.service.committer.trimming._read

    async def slow(disk: Any, spans: Any) -> memoryview:
        data = await read(disk, spans)
        await fs.put(handle, 300, "later")
        await fs.put(handle, 400, "last")
        return data

    fs.service.committer.trimming._read = slow  # type: ignore[method-assign]
    assert (await fs.ask("trim", disk="vm"))["trimmed_bytes"] == 509 * B
    assert fs.pool.read(fs.pool.catalog.disk("vm"), 300 * B, B) == fill("later")
    assert fs.pool.read(fs.pool.catalog.disk("vm"), 400 * B, B) == fill("last")
    await fs.close(handle)


async def test_a_snapshot_without_a_name_gets_one(fs: Fs) -> None:
    await fs.disk("vm")
    names = [(await fs.ask("snapshot", disk="vm"))["name"] for _ in range(3)]
    assert len(set(names)) == 3
    assert all(re.match(r"vm-\d{8}-\d{6}", name) for name in names)


DURABLE: dict[str, dict[str, Any]] = {
    "create": {"disk": "new", "size_bytes": B},
    "resize": {"disk": "vm", "size_bytes": 100 * B},
    "rename": {"disk": "vm", "to": "new"},
    "snapshot": {"disk": "vm", "snapshot": "new"},
    "rollback": {"disk": "vm", "snapshot": "a"},
    "clone": {"disk": "vm", "snapshot": "a", "targets": ["new"]},
    "delete": {"disk": "vm"},
    "delete_several": {"addresses": ["vm@"]},
}


@pytest.mark.parametrize("verb", DURABLE)
async def test_a_verb_that_answered_is_durable(fs: Fs, verb: str) -> None:
    await chain(fs)
    await fs.ask(verb, **DURABLE[verb])
    assert await fs.after_a_crash().ask("list") == await fs.ask("list")


async def test_asking_changes_nothing(fs: Fs) -> None:
    await chain(fs)
    await fs.service.committer.commit()
    writes = Writes(fs)
    await fs.ask("info")
    await fs.ask("list")
    await fs.ask("diff", disk="vm")
    await fs.ask("extents", disk="vm")
    await fs.ask("delete", disk="vm", all_snapshots=True, dry_run=True)
    assert writes.count == 0 and not fs.pool.commits.needed


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["a"], "a"),
        (["b..c"], "bc"),
        (["..b"], "ab"),
        (["c.."], "cd"),
        ([".."], "abcd"),
        (["d", "a"], "ad"),
        (["a..c", "b", "a"], "abc"),
        (["d..d"], "d"),
    ],
)
async def test_a_deletion_frees_what_its_dry_run_said(fs: Fs, specs: list[str], names: str) -> None:
    await chain(fs)
    await fs.write("vm", 0, *"wxyz")
    before = (await fs.ask("info"))["used_bytes"]
    said = await fs.ask("delete", disk="vm", snapshots=specs, dry_run=True)
    assert said["snapshots"] == list(names) and said["disk"] is False
    assert await fs.ask("delete", disk="vm", snapshots=specs, wait=True) == said
    assert before - (await fs.ask("info"))["used_bytes"] == said["freed_bytes"]
    assert set(await fs.list(".snapshots/vm")) == set("abcd") - set(names)
    assert await fs.holds("vm", *"wxyz")


@pytest.mark.parametrize(
    ("addresses", "left"),
    [
        (["vm@a..d", "vm@b", "clone@x"], []),
        (["clone", "vm@d", "clone@x"], ["vm@a", "vm@b", "vm@c"]),
        (["vm@", "clone"], ["clone@x"]),
        (["vm", "clone@..x"], ["vm@a", "vm@b", "vm@c", "vm@d"]),
        (["clone", "vm", "vm@a", "clone@"], ["vm@b", "vm@c", "vm@d"]),
    ],
)
async def test_what_several_disks_free_together_is_what_their_dry_run_said(
    fs: Fs, addresses: list[str], left: list[str]
) -> None:
    """The clone shares with the snapshots, and writes beside them: alone each frees less than all together."""
    await chain(fs)
    await fs.ask("clone", disk="vm", snapshot="b", targets=["clone"])
    await fs.write("vm", 0, *"wxyz")
    await fs.write("clone", 1, "c")
    await fs.snapshot("clone", "x")
    await fs.write("clone", 0, "d")
    before = (await fs.ask("info"))["used_bytes"]
    said = await fs.ask("delete_several", addresses=addresses, dry_run=True)
    assert (await fs.ask("info"))["used_bytes"] == before
    assert [item["name"] for item in said["deleted"]] == list(dict.fromkeys(item.split("@")[0] for item in addresses))
    assert sum(item["freed_bytes"] for item in said["deleted"]) == said["freed_bytes"] > 0
    assert await fs.ask("delete_several", addresses=addresses, wait=True) == said
    assert before - (await fs.ask("info"))["used_bytes"] == said["freed_bytes"]
    there = [f"{disk['name']}@{item['name']}" for disk in await fs.ask("list") for item in disk["snapshots"]]
    assert sorted(there) == left


async def test_of_several_all_go_or_none(fs: Fs) -> None:
    await chain(fs)
    await fs.ask("clone", disk="vm", snapshot="b", targets=["clone"])
    await fs.ask("lock", disk="vm", snapshots=["c"])
    await fails(fs, EPERM, "delete_several", addresses=["clone", "vm@a..d"])
    await fails(fs, EPERM, "delete_several", addresses=["vm", "clone"], all_snapshots=True, dry_run=True)
    await fails(fs, ENOENT, "delete_several", addresses=["clone", "vm@x"])
    await fails(fs, EINVAL, "delete_several", addresses=[])
    assert set(await fs.list(".snapshots/vm")) == set("abcd")
    assert "clone" in await fs.list("")


async def test_a_name_that_looks_like_a_range_comes_before_the_range(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    await chain(fs)
    monkeypatch.setattr("rowfs.store.pool.check_new_snapshot_name", str)  # as an older rowfs took it
    await fs.snapshot("vm", "a..c")
    answer = await fs.ask("delete", disk="vm", snapshots=["a..c"])
    assert answer["snapshots"] == ["a..c"]
    assert set(await fs.list(".snapshots/vm")) == set("abcd")


async def test_a_deletion_of_what_is_not_there_deletes_nothing(fs: Fs) -> None:
    await chain(fs)
    for specs in (["x"], ["a", "x"], ["a..x"], ["x..c"], ["x.."]):
        await fails(fs, ENOENT, "delete", disk="vm", snapshots=specs)
    await fails(fs, EINVAL, "delete", disk="vm", snapshots=["c..a"])
    await fails(fs, ENOENT, "delete", disk="other")
    assert set(await fs.list(".snapshots/vm")) == set("abcd")


@pytest.mark.parametrize(
    ("params", "disk_left", "names_left"),
    [
        ({}, False, "abcd"),
        ({"all_snapshots": True}, False, ""),
        ({"all_snapshots": True, "keep_disk": True}, True, ""),
        ({"snapshots": []}, True, "abcd"),
    ],
)
async def test_what_goes_with_a_disk(fs: Fs, params: dict[str, Any], disk_left: bool, names_left: str) -> None:
    await chain(fs)
    before = (await fs.ask("info"))["used_bytes"]
    answer = await fs.ask("delete", disk="vm", wait=True, **params)
    assert answer["disk"] is not disk_left
    assert ("vm" in await fs.list()) is disk_left
    left = await fs.list(".snapshots/vm") if "vm" in await fs.list(".snapshots") else {}
    assert set(left) == set(names_left)
    assert before - (await fs.ask("info"))["used_bytes"] == answer["freed_bytes"]


async def test_waiting_for_what_is_still_open_does_not_hang(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    handle = await fs.open("vm")
    answer = await fs.ask("delete", disk="vm", wait=True)
    assert answer["disk"] is True
    await fs.close(handle)


async def test_fifty_clones_are_one_commit(fs: Fs) -> None:
    await chain(fs)
    await fs.service.committer.commit()
    writes = Writes(fs)
    names = [f"clone{number}" for number in range(50)]
    assert [disk["name"] for disk in await fs.ask("clone", disk="vm", snapshot="b", targets=names)] == names
    assert writes.count == 1
    assert await fs.holds("clone17", "block a", "block b", "", "")


async def test_all_clones_are_made_or_none(fs: Fs) -> None:
    await chain(fs)
    for targets, number in (
        (["new", "vm"], EEXIST),
        (["new", "a@b"], EINVAL),
        (["new", "new"], EINVAL),
        (["new", "x" * 256], ENAMETOOLONG),
        (["new", ""], EINVAL),
        ([], EINVAL),
    ):
        await fails(fs, number, "clone", disk="vm", snapshot="a", targets=targets)
    assert set(await fs.list()) == {".snapshots", "vm"}


async def test_a_rollback_of_an_open_disk_is_refused_unless_forced(fs: Fs) -> None:
    await chain(fs)
    handle = await fs.open("vm")
    with pytest.raises(BusyError, match="the disk vm is in use"):
        await fs.ask("rollback", disk="vm", snapshot="a")
    await fs.ask("rollback", disk="vm", snapshot="a", force=True)
    assert fs.kernel.asked[-3:] == [("flush", "vm"), ("drop", "vm"), ("truncate", "vm")]
    assert bytes(await fs.ops.read(handle, B, 3 * B)) == bytes(3 * B)
    await fs.close(handle)
    await fs.ask("rollback", disk="vm", snapshot="before-rollback")
    assert await fs.holds("vm", "block a", "block b", "block c", "block d")


async def test_a_rollback_that_changes_the_size_of_a_closed_disk_tells_the_kernel(fs: Fs) -> None:
    await chain(fs)  # with its writeback cache on, the kernel keeps to the size that it knows
    await fs.truncate("vm", 2 * B)
    await fs.ask("rollback", disk="vm", snapshot="d")
    assert fs.kernel.asked[-2:] == [("drop", "vm"), ("truncate", "vm")]


async def test_a_rollback_goes_to_the_disks_own_snapshots_alone(fs: Fs) -> None:
    await chain(fs)
    await fs.disk("other", 1, "other")
    await fs.snapshot("other", "s")
    await fails(fs, ENOENT, "rollback", disk="vm", snapshot="s")
    await fails(fs, ENOENT, "rollback", disk="nothing", snapshot="a")
    assert await fs.holds("vm", "block a", "block b", "block c", "block d")


async def test_bad_input_changes_nothing(fs: Fs) -> None:
    await chain(fs)
    before = await fs.ask("list")
    for number, method, params in (
        (EEXIST, "create", {"disk": "vm", "size_bytes": B}),
        (EINVAL, "create", {"disk": "", "size_bytes": B}),
        (EINVAL, "create", {"disk": "a/b", "size_bytes": B}),
        (EINVAL, "create", {"disk": "a@b", "size_bytes": B}),
        (EINVAL, "create", {"disk": ".snapshots", "size_bytes": B}),
        (EINVAL, "create", {"disk": "a\0b", "size_bytes": B}),
        (ENAMETOOLONG, "create", {"disk": "\u00fc" * 128, "size_bytes": B}),
        (EINVAL, "create", {"disk": "new", "size_bytes": -1}),
        (EINVAL, "create", {"disk": "new", "size_bytes": DISK_BYTES_MAX + 1}),
        (EINVAL, "create", {"disk": "new", "size_bytes": 10**40}),
        (EINVAL, "resize", {"disk": "vm", "size_bytes": -1}),
        (EINVAL, "resize", {"disk": "vm", "size_bytes": DISK_BYTES_MAX + 1}),
        (ENOENT, "resize", {"disk": "other", "size_bytes": 1}),
        (ENOENT, "snapshot", {"disk": "other"}),
        (EEXIST, "snapshot", {"disk": "vm", "snapshot": "a"}),
        (EINVAL, "snapshot", {"disk": "vm", "snapshot": "a/b"}),
        (ENOENT, "rename", {"disk": "other", "to": "new"}),
        (EINVAL, "rename", {"disk": "vm", "to": "a@b"}),
        (ENOENT, "rename", {"disk": "vm", "snapshot": "x", "to": "y"}),
        (EEXIST, "rename", {"disk": "vm", "snapshot": "a", "to": "b"}),
        (ENOENT, "clone", {"disk": "vm", "snapshot": "x", "targets": ["new"]}),
        (ENOENT, "diff", {"disk": "vm", "from_snapshot": "x"}),
        (ENOENT, "diff", {"disk": "vm", "to_snapshot": "x"}),
        (ENOENT, "extents", {"disk": "other"}),
    ):
        await fails(fs, number, method, **params)
    assert await fs.ask("list") == before


@pytest.mark.parametrize("name", ["\ud800", "vm\udfff"])  # no bytes are escaped as these
async def test_a_name_that_is_no_bytes_is_refused(fs: Fs, name: str) -> None:
    await chain(fs)
    for method, params in (
        ("create", {"disk": name, "size_bytes": B}),
        ("snapshot", {"disk": "vm", "snapshot": name}),
        ("rename", {"disk": "vm", "to": name}),
        ("rename", {"disk": "vm", "snapshot": "a", "to": name}),
        ("clone", {"disk": "vm", "snapshot": "a", "targets": [name]}),
    ):
        await fails(fs, EINVAL, method, **params)  # type: ignore[arg-type]


async def test_a_description_that_is_no_text_is_kept_or_refused(fs: Fs) -> None:
    await chain(fs)
    for description in ("\ud800", "new\nline", "\0", "x" * 100_000):
        try:
            await fs.ask("snapshot", disk="vm", description=description)
        except RowfsError as error:
            assert error.errno == EINVAL
    assert await fs.after_a_crash().ask("list") == await fs.ask("list")


async def test_wrong_parameters_are_refused_by_name(fs: Fs) -> None:
    for method, params, word in (
        ("create", {"disk": "vm"}, "size_bytes"),
        ("create", {"size_bytes": 1}, "disk"),
        ("create", {"disk": "vm", "size_bytes": "1"}, "size_bytes"),
        ("create", {"disk": "vm", "size_bytes": True}, "size_bytes"),
        ("create", {"disk": "vm", "size_bytes": 1.5}, "size_bytes"),
        ("create", {"disk": 5, "size_bytes": 1}, "disk"),
        ("create", {"disk": None, "size_bytes": 1}, "disk"),
        ("create", {"disk": "vm", "size_bytes": 1, "colour": "red"}, "colour"),
        ("list", {"disks": "vm"}, "disks"),
        ("list", {"disks": [1]}, "disks"),
        ("delete", {"disk": "vm", "wait": 1}, "wait"),
        ("clone", {"disk": "vm", "snapshot": "s", "targets": {}}, "targets"),
        ("info", {"x": 1}, "x"),
        ("umount", {"force": "yes"}, "force"),
    ):
        with pytest.raises(BadParams, match=word):
            await fs.ask(method, **params)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("create", {"disk": "new", "size_bytes": 10**400}),
        ("create", {"disk": "new", "size_bytes": -(10**400)}),
        ("create", {"disk": "\ud800", "size_bytes": 1}),
        ("resize", {"disk": "vm", "size_bytes": DISK_BYTES_MAX + 1}),
        ("snapshot", {"disk": "vm", "snapshot": "new", "description": "\ud800"}),
        ("snapshot", {"disk": "vm", "snapshot": "new", "description": "x" * 70_000}),
        ("snapshot", {"disk": "vm", "snapshot": "\udfff\ud800"}),
        ("snapshot", {"disk": "vm", "freeze": True, "freeze_timeout_s": 10**400}),
        ("snapshot", {"disk": "vm", "freeze": True, "freeze_timeout_s": float("nan")}),
        ("snapshot", {"disk": "vm", "freeze": True, "freeze_timeout_s": float("inf")}),
    ],
)
async def test_what_could_not_be_read_back_is_refused_and_changes_nothing(
    fs: Fs, method: str, params: dict[str, Any]
) -> None:
    await fs.disk("vm")
    before = await fs.ask("list")
    await fails(fs, EINVAL, method, **params)
    assert await fs.ask("list") == before


async def test_a_description_is_read_back_whatever_its_text(fs: Fs) -> None:
    await fs.disk("vm")
    for number, text in enumerate(["", "why \u00fc\n", "\udcff is a byte", "x" * DESCRIPTION_BYTES_MAX]):
        await fs.ask("snapshot", disk="vm", snapshot=f"s{number}", description=text)
        assert await fs.getxattr(f".snapshots/vm/s{number}", "user.rowfs.description") == text


async def test_diff_and_extents_come_in_parts(fs: Fs) -> None:
    await chain(fs)
    handle = await fs.open("vm")
    await fs.extra("fallocate", handle, 3, 0, B)  # a hole
    await fs.put(handle, 3, "new")
    await fs.close(handle)
    assert await fs.ask("diff", disk="vm", from_snapshot="b") == {"changed_bytes": 3 * B}
    assert fs.caller.items == [(0, B, "zero"), (2 * B, 2 * B, "data")]
    fs.caller.items.clear()
    assert await fs.ask("diff", disk="vm", from_snapshot="a", to_snapshot="c") == {"changed_bytes": 2 * B}
    assert fs.caller.items == [(B, 2 * B, "data")]
    fs.caller.items.clear()
    assert await fs.ask("extents", disk="vm") == {"size_bytes": 4 * B, "mapped_bytes": 3 * B}
    assert fs.caller.items == [(B, 3 * B)]
    fs.caller.items.clear()
    assert await fs.ask("extents", disk="vm", snapshot="a") == {"size_bytes": 4 * B, "mapped_bytes": B}
    assert fs.caller.items == [(0, B)]


async def test_umount_is_passed_on(fs: Fs) -> None:
    assert await fs.ask("umount") == {}
    assert await fs.ask("umount", force=True) == {}
    assert fs.unmounted == [False, True]
