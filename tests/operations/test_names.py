"""Names: finding, making, removing and renaming, and what is refused."""

from __future__ import annotations

import os
import stat
from errno import (
    EEXIST,
    EINVAL,
    EISDIR,
    ENAMETOOLONG,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
    EROFS,
    ESTALE,
)

import pyfuse3
import pytest

from rowfs.base.errors import UsageError
from rowfs.base.inodenumbers import ROOT, SNAPSHOTS
from rowfs.base.names import for_snapshots
from tests.operations.helpers import Fs, refused
from tests.store.helpers import B

BAD_NAMES = {"a@b": EINVAL, "@": EINVAL, ".hidden": EINVAL, "..x": EINVAL, "n\0l": EINVAL, "x" * 256: ENAMETOOLONG}
ODD_NAMES = [
    "x" * 255,
    "with space",
    "\u00fcn\u00efc\u00f6de",
    "new\nline",
    "\udcff\udcfe",
    "a,b",
    "a\\b",
    "a..b",
    "-f",
]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_bad_name_is_refused_for_disks_and_snapshots(fs: Fs, name: str) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    with refused(BAD_NAMES[name]):
        await fs.create(name)
    with refused(BAD_NAMES[name]):
        await fs.create(f".snapshots/vm/{name}", os.O_WRONLY)
    with refused(BAD_NAMES[name]):
        await fs.rename("vm", name)
    with refused(BAD_NAMES[name]):
        await fs.rename(".snapshots/vm/s", f".snapshots/vm/{name}")
    assert set(await fs.list()) == {".snapshots", "vm"}
    assert set(await fs.list(".snapshots/vm")) == {"s"}


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_an_odd_name_is_as_good_as_any(fs: Fs, name: str) -> None:
    await fs.disk(name, 2, "one")
    snapshot = for_snapshots(name)
    await fs.snapshot(name, snapshot)
    await fs.write(name, 1, "two")
    await fs.rename(name, "plain")
    await fs.rename("plain", name)
    assert await fs.holds(name, "one", "two")
    assert await fs.holds(f".snapshots/{name}/{snapshot}", "one", "")
    assert os.fsencode(name) in [os.fsencode(found) for found in await fs.list()]


@pytest.mark.parametrize("name", ["a,b", "a..b", "b..", ",", "a..."])
async def test_what_means_several_snapshots_is_no_name_of_a_new_one_and_an_old_one_keeps_it(
    fs: Fs, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    with refused(EINVAL):
        await fs.snapshot("vm", name)
    with refused(EINVAL):
        await fs.rename(".snapshots/vm/s", f".snapshots/vm/{name}")
    for method, params in (
        ("snapshot", {"disk": "vm", "snapshot": name}),
        ("rename", {"disk": "vm", "snapshot": "s", "to": name}),
        ("group_snapshot", {"disks": ["vm"], "group": name}),
    ):
        with pytest.raises(UsageError, match="means several snapshots"):
            await fs.ask(method, **params)
    assert list(fs.pool.catalog.disk("vm").chain) == ["s"]
    monkeypatch.setattr("rowfs.store.pool.check_new_snapshot_name", str)  # as a rowfs before this rule
    await fs.snapshot("vm", name)
    monkeypatch.undo()
    await fs.service.committer.commit()
    fs = fs.after_a_crash()
    await fs.rename(f".snapshots/vm/{name}", f".snapshots/vm/{name}")
    assert await fs.holds(f".snapshots/vm/{name}", "one")
    fs.pool.clone(fs.pool.catalog.disk("vm").chain[name], ["clone"])
    await fs.rename(f".snapshots/vm/{name}", ".snapshots/vm/t")
    assert list(fs.pool.catalog.disk("vm").chain) == ["s", "t"]


async def test_an_unknown_name_is_not_there(fs: Fs) -> None:
    await fs.disk("vm")
    for path in ("other", ".snapshots/other", ".snapshots/vm/s", ".snapshots/other/s"):
        with refused(ENOENT):
            await fs.stat(path)
        with refused(ENOENT):
            await fs.unlink(path)
    with refused(ENOENT):
        await fs.rename("other", "another")


async def test_a_file_is_no_directory(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    for path in ("vm", ".snapshots/vm/s"):
        with refused(ENOTDIR):
            await fs.stat(f"{path}/x")
        with refused(ENOTDIR):
            await fs.list(path)
        with refused(ENOTDIR):
            await fs.ops.rmdir(*await fs.parent(path), fs.ctx)


async def test_a_directory_is_no_file(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    for path in ("", ".snapshots", ".snapshots/vm"):
        with refused(EISDIR):
            await fs.open(path, os.O_RDONLY)
    for path in (".snapshots", ".snapshots/vm"):
        with refused(EISDIR):
            await fs.unlink(path)
        with refused(EPERM):
            await fs.setattr(path, mode=0o700)
        with refused(EPERM):
            await fs.rename(path, f"{path}2")


async def test_a_name_that_is_taken_is_refused(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    with refused(EEXIST):
        await fs.create("vm")
    with refused(EEXIST):
        await fs.create(".snapshots/vm/s", os.O_WRONLY)
    with refused(EEXIST, EINVAL):
        await fs.create(".snapshots")
    assert await fs.holds("vm", "one")


async def test_directories_cannot_be_made_or_removed(fs: Fs) -> None:
    await fs.disk("vm")
    with refused(EPERM):
        await fs.ops.mkdir(*await fs.parent("new"), 0o755, fs.ctx)
    with refused(EPERM):
        await fs.ops.mkdir(*await fs.parent(".snapshots/new"), 0o755, fs.ctx)
    with refused(EPERM):
        await fs.ops.rmdir(*await fs.parent(".snapshots"), fs.ctx)
    with refused(EPERM):
        await fs.ops.rmdir(*await fs.parent(".snapshots/vm"), fs.ctx)
    await fs.snapshot("vm", "s")
    with refused(ENOTEMPTY):
        await fs.ops.rmdir(*await fs.parent(".snapshots/vm"), fs.ctx)
    with refused(EPERM):
        await fs.create(".snapshots/new")


async def test_there_are_no_links_and_no_special_files(fs: Fs) -> None:
    await fs.disk("vm")
    root, name = await fs.parent("new")
    with refused(EPERM):
        await fs.ops.symlink(root, name, b"vm", fs.ctx)
    with refused(EPERM):
        await fs.ops.link(await fs.inode("vm"), root, name, fs.ctx)
    for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        with refused(EPERM):
            await fs.ops.mknod(root, name, kind | 0o644, 0, fs.ctx)
    assert set(await fs.list()) == {".snapshots", "vm"}


async def test_mknod_makes_a_disk_and_leaves_no_handle(fs: Fs) -> None:
    root, name = await fs.parent("vm")
    entry = await fs.ops.mknod(root, name, stat.S_IFREG | 0o600, 0, fs.ctx)
    assert stat.S_IMODE(entry.st_mode) == 0o600
    assert fs.pool.catalog.disk("vm").handles == 0


async def test_a_new_disk_has_the_mode_asked_for_and_the_owner_who_asked(fs: Fs) -> None:
    fs.ctx.uid, fs.ctx.gid = 1000, 100
    await fs.close(await fs.create("vm", mode=0o640))
    entry = await fs.stat("vm")
    assert (stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid) == (0o640, 1000, 100)
    assert (entry.st_nlink, entry.st_size, entry.st_blocks) == (1, 0, 0)


async def test_a_disk_is_renamed_with_its_chain(fs: Fs) -> None:
    await fs.disk("old", 1, "one")
    await fs.snapshot("old", "s")
    inode = await fs.inode("old")
    await fs.rename("old", "new")
    assert set(await fs.list()) == {".snapshots", "new"}
    assert set(await fs.list(".snapshots")) == {"new"}
    assert await fs.holds(".snapshots/new/s", "one")
    assert await fs.inode("new") == inode


async def test_a_disk_renamed_over_another_takes_its_place(fs: Fs) -> None:
    await fs.disk("a", 1, "a")
    await fs.disk("b", 1, "b")
    await fs.rename("a", "b")
    assert set(await fs.list()) == {".snapshots", "b"}
    assert await fs.holds("b", "a")


async def test_renaming_over_another_can_be_forbidden(fs: Fs) -> None:
    await fs.disk("a", 1, "a")
    await fs.disk("b", 1, "b")
    with refused(EEXIST):
        await fs.rename("a", "b", pyfuse3.RENAME_NOREPLACE)
    with refused(EINVAL):
        await fs.rename("a", "b", pyfuse3.RENAME_EXCHANGE)
    assert await fs.holds("a", "a") and await fs.holds("b", "b")


async def test_a_disk_renamed_over_one_with_snapshots_takes_the_chain_over(fs: Fs) -> None:
    await fs.disk("a", 1, "a")
    await fs.disk("b", 1, "b")
    await fs.snapshot("b", "s")
    await fs.rename("a", "b")
    assert await fs.holds("b", "a")
    assert await fs.holds(".snapshots/b/s", "b")


async def test_no_chain_is_lost_in_a_rename(fs: Fs) -> None:
    await fs.disk("a", 1, "a")
    await fs.disk("b", 1, "b")
    await fs.snapshot("a", "s")
    await fs.snapshot("b", "s")
    with refused(EEXIST):
        await fs.rename("a", "b")
    assert await fs.holds("a", "a") and await fs.holds("b", "b")


async def test_renaming_something_to_its_own_name_changes_nothing(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    await fs.rename("vm", "vm")
    await fs.rename(".snapshots/vm/s", ".snapshots/vm/s")
    assert await fs.holds("vm", "one") and await fs.holds(".snapshots/vm/s", "one")


async def test_a_snapshot_stays_in_its_chain(fs: Fs) -> None:
    await fs.disk("a", 1, "a")
    await fs.disk("b", 1, "b")
    await fs.snapshot("a", "s")
    for target in (".snapshots/b/s", "s", ".snapshots/s"):
        with refused(EPERM):
            await fs.rename(".snapshots/a/s", target)
    with refused(EPERM):
        await fs.rename("a", ".snapshots/b/a")
    assert await fs.holds(".snapshots/a/s", "a")


async def test_a_snapshot_is_renamed_and_keeps_its_place(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    for name in ("a", "b", "c"):
        await fs.snapshot("vm", name)
    inode = await fs.inode(".snapshots/vm/b")
    await fs.rename(".snapshots/vm/b", ".snapshots/vm/z")
    assert list(fs.pool.catalog.disk("vm").chain) == ["a", "z", "c"]
    assert await fs.inode(".snapshots/vm/z") == inode
    with refused(EEXIST):
        await fs.rename(".snapshots/vm/z", ".snapshots/vm/a")


async def test_a_deleted_disk_leaves_its_chain_which_does_not_grow(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    await fs.unlink("vm")
    assert set(await fs.list()) == {".snapshots"}
    assert await fs.holds(".snapshots/vm/s", "one")
    with refused(EROFS):
        await fs.create(".snapshots/vm/t", os.O_WRONLY)
    await fs.unlink(".snapshots/vm/s")
    assert await fs.list(".snapshots") == {}


async def test_a_disk_made_anew_gets_the_chain_back(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    await fs.unlink("vm")
    await fs.disk("vm", 1, "two")
    await fs.snapshot("vm", "t")
    assert set(await fs.list(".snapshots/vm")) == {"s", "t"}
    assert await fs.holds(".snapshots/vm/s", "one") and await fs.holds(".snapshots/vm/t", "two")


async def test_the_kernel_forgets_what_it_was_told_as_often_as_it_was_told(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.ops.forget([(await fs.inode("vm"), 100)])
    inode = await fs.inode("vm")
    for _ in range(2):
        assert await fs.inode("vm") == inode
    await fs.ops.forget([(inode, 2)])
    assert (await fs.ops.getattr(inode, fs.ctx)).st_ino == inode
    await fs.ops.forget([(inode, 1)])
    with refused(ENOENT):
        await fs.ops.getattr(inode, fs.ctx)


async def test_what_stays_in_the_catalog_is_found_again_after_it_was_forgotten(fs: Fs) -> None:
    await fs.disk("vm")
    await fs.snapshot("vm", "s")
    before = {path: await fs.inode(path) for path in ("vm", ".snapshots/vm", ".snapshots/vm/s")}
    await fs.ops.forget([(inode, 1 << 40) for inode in before.values()])
    assert {path: await fs.inode(path) for path in before} == before


async def test_the_fixed_directories_are_never_forgotten(fs: Fs) -> None:
    await fs.inode(".snapshots")
    await fs.ops.forget([(pyfuse3.InodeT(ROOT), 1 << 40), (pyfuse3.InodeT(SNAPSHOTS), 1 << 40)])
    await fs.ops.forget([(pyfuse3.InodeT(12345), 1)])
    assert await fs.list() == {".snapshots": SNAPSHOTS}


async def test_an_inode_number_never_comes_back(fs: Fs) -> None:
    seen: list[int] = []
    for number in range(5):
        await fs.disk("vm", 1, str(number))
        await fs.snapshot("vm", "s")
        await fs.snapshot("vm", "kept" + str(number))
        seen += [await fs.inode("vm"), await fs.inode(".snapshots/vm/s")]
        await fs.unlink(".snapshots/vm/s")
        await fs.unlink("vm")
    assert len(set(seen)) == len(seen)


async def test_a_disk_renamed_into_a_deleted_ones_place_shares_no_inode(fs: Fs) -> None:
    await fs.disk("a", 1, "a")
    await fs.disk("b", 1, "b")
    await fs.snapshot("b", "s")
    old = await fs.inode("b")
    await fs.rename("a", "b")
    await fs.disk("a", 1, "new")
    await fs.snapshot("a", "s")
    paths = ("a", "b", ".snapshots/a", ".snapshots/b", ".snapshots/a/s", ".snapshots/b/s")
    inodes = [await fs.inode(path) for path in paths]
    assert len({old, *inodes}) == len(paths) + 1


async def test_statfs_tells_what_is_used_and_what_is_left(fs: Fs) -> None:
    before = await fs.ops.statfs(fs.ctx)
    await fs.disk("vm", 8, *"abcdef")
    after = await fs.ops.statfs(fs.ctx)
    used = [data.f_blocks - data.f_bfree for data in (before, after)]
    assert used == [1, 7]
    assert (after.f_bsize, after.f_frsize, after.f_namemax) == (B, B, 255)


# File handles, as an NFS server keeps them: all that is left of a file is its number


@pytest.mark.parametrize("path", ["", "vm", ".snapshots", ".snapshots/vm", ".snapshots/vm/s"])
async def test_a_file_is_found_by_its_number_when_the_kernel_has_forgotten_it(fs: Fs, path: str) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    inode = await fs.inode(path)
    parent = await fs.inode(path.rpartition("/")[0])
    fs = fs.after_a_crash()
    again = await fs.ops.lookup(inode, b".", fs.ctx)
    assert (again.st_ino, again.generation) == (inode, 0)
    assert (await fs.ops.getattr(inode, fs.ctx)).st_ino == inode
    assert (await fs.ops.lookup(inode, b"..", fs.ctx)).st_ino == parent


async def test_what_was_removed_is_stale_and_never_another_file(fs: Fs) -> None:
    await fs.disk("vm", 1, "one")
    await fs.snapshot("vm", "s")
    inodes = [await fs.inode(path) for path in ("vm", ".snapshots/vm/s", ".snapshots/vm")]
    await fs.ask("delete", disk="vm", all_snapshots=True)
    await fs.disk("vm", 1, "two")
    await fs.snapshot("vm", "s")
    fs = fs.after_a_crash()
    for inode in inodes:
        for name in (b".", b".."):
            with refused(ESTALE):
                await fs.ops.lookup(inode, name, fs.ctx)
