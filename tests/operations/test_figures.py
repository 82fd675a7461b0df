"""Extended attributes: the figures of `rowfs info`."""

from __future__ import annotations

from errno import EACCES, ENODATA, EOPNOTSUPP, EROFS

from rowfs.mount import attributes
from tests.operations.helpers import Fs, refused
from tests.store.helpers import B

DISK = {"size_bytes", "mapped_bytes", "created", "modified", "snapshots", "labels"}
SNAPSHOT = {
    "created",
    "size_bytes",
    "referenced_bytes",
    "written_bytes",
    "freed_if_deleted_bytes",
    "consistency",
    "kind",
    "description",
    "labels",
    "lock",
}
MOUNT = {"pool", "uuid", "capacity_bytes", "used_bytes", "free_bytes", "read_only"}


async def figures(fs: Fs, path: str) -> dict[str, str]:
    inode = await fs.inode(path)
    assert list(await fs.ops.listxattr(inode, fs.ctx)) == []  # mv, tar and rsync would try to set what is listed
    names = attributes.names(fs.ops.inodes.node(inode))
    assert all(name.startswith("user.rowfs.") for name in names)
    return {name.removeprefix("user.rowfs."): await fs.getxattr(path, name) for name in names}


async def test_a_disk_tells_its_figures(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two")
    await fs.snapshot("vm", "s")
    found = await figures(fs, "vm")
    assert found.keys() == DISK
    assert (found["size_bytes"], found["mapped_bytes"], found["snapshots"]) == (str(4 * B), str(2 * B), "1")


async def test_a_snapshot_tells_its_figures(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two")
    await fs.snapshot("vm", "s")
    await fs.write("vm", 1, "new")
    found = await figures(fs, ".snapshots/vm/s")
    assert found.keys() == SNAPSHOT
    assert [found[name] for name in ("size_bytes", "referenced_bytes", "written_bytes", "freed_if_deleted_bytes")] == [
        str(blocks * B) for blocks in (4, 2, 2, 1)
    ]
    assert (found["consistency"], found["kind"], found["description"]) == ("crash", "user", "")
    disk = (await fs.ask("list"))[0]
    marks = ("labels", "lock")
    told = {name: str(value) for name, value in disk["snapshots"][0].items() if name in SNAPSHOT and name not in marks}
    assert told | dict.fromkeys(marks, "") == found


async def test_labels_locks_and_descriptions_are_read_by_name(fs: Fs) -> None:
    await fs.disk("vm", 4)
    await fs.snapshot("vm", "s")
    await fs.ask("label", disk="vm", changes=["env=prod", "owner=db"])
    await fs.ask("label", disk="vm", snapshot="s", changes=["keep=yes"])
    await fs.ask("lock", disk="vm", snapshots=["s"], reason="audit")
    await fs.ask("describe", disk="vm", snapshot="s", description="before\nthe upgrade")
    assert (await figures(fs, "vm"))["labels"] == "env=prod,owner=db"
    found = await figures(fs, ".snapshots/vm/s")
    assert (found["labels"], found["lock"]) == ("keep=yes", "a hold (audit)")
    assert found["description"] == "before\nthe upgrade"


async def test_the_mount_tells_its_figures(fs: Fs) -> None:
    await fs.disk("vm", 4, "one", "two")
    for path in ("", ".snapshots"):
        found = await figures(fs, path)
        assert found.keys() == MOUNT
        assert (found["used_bytes"], found["read_only"]) == (str(3 * B), "false")


async def test_what_is_no_figure_is_not_there(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    for path in ("", "vm", ".snapshots/vm", ".snapshots/vm/s"):
        for name in ("user.rowfs.nonsense", "user.mine", "security.capability", "size_bytes", "user.rowfs."):
            with refused(ENODATA):
                await fs.getxattr(path, name)


async def test_figures_cannot_be_set_and_there_are_no_others(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    for path, figure, other in (("vm", EACCES, EOPNOTSUPP), (".snapshots/vm/s", EROFS, EROFS)):
        inode = await fs.inode(path)
        with refused(figure):
            await fs.ops.setxattr(inode, b"user.rowfs.size_bytes", b"1", fs.ctx)
        with refused(figure):
            await fs.ops.removexattr(inode, b"user.rowfs.size_bytes", fs.ctx)
        with refused(other):
            await fs.ops.setxattr(inode, b"user.mine", b"1", fs.ctx)
        with refused(other):
            await fs.ops.removexattr(inode, b"user.mine", fs.ctx)
