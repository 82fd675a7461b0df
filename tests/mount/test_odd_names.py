"""Names are bytes: of pools, mountpoints, disks and snapshots, through every verb, and whatever the locale."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowfs.base.names import for_snapshots
from tests.mount.helpers import (
    COMMAND,
    MIB,
    ROOT,
    Mounted,
    is_mounted,
    mounted_device,
    noise,
    read_direct,
    run,
    write_file,
)
from tests.mount.linux import make_file_system

ODD = os.fsdecode(b"a\rb\nc d\\e\\040,%0D#\xff\x0c\xc3\xbc")
TAKEN = for_snapshots(ODD)  # what its snapshot is called: as odd, but for the comma
# A locale in which Python takes names for ASCII, unless it is told better.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def odd(make_mounted: Callable[..., Mounted]) -> Mounted:
    """A pool of such a name on a mountpoint of such a name, both in a directory of such a name."""
    return make_mounted(pool=f"{ODD}/pool{ODD}", mnt=f"{ODD}/mnt{ODD}")


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[None]:
    """What any user can do in namespaces of their own: a mount on a directory named as if mountinfo had more lines."""
    script = 'mkdir "$1"; mount -t tmpfs "$2" "$1"; echo; read -r _'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-e", "-c", script, "sh"]
    place = os.fsencode(tmp_path) + b"/\r1 2 0:3 x rw - fuse.rowfs"
    with subprocess.Popen([*words, place, b"\r- -\r"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == b"\n"
            yield
        finally:
            process.stdin.close()


def test_every_verb_takes_them(stranger: None, odd: Mounted, tmp_path: Path) -> None:
    disk, other = f":{ODD}", f":{ODD}2"
    odd.cli("create", disk, "64M")
    assert os.listdir(odd.mnt) == [".snapshots", ODD]
    device = odd.json("attach", disk)["device"]
    assert "attached already" in odd.refuses("attach", disk)
    make_file_system("ext4", device)
    where = tmp_path / f"fs{ODD}"
    with mounted_device(device, where):
        (where / "file").write_bytes(noise("file", MIB))
        odd.cli("snapshot", "--freeze", f"{disk}@{TAKEN}")
        (found,) = odd.json("list", ":")
        assert found["attached"] == [{"device": device, "mounts": [str(where)]}]
        assert (found["name"], [item["name"] for item in found["snapshots"]]) == (ODD, [TAKEN])
        assert "is in use by" in odd.refuses("rollback", f"{disk}@{TAKEN}")
    assert odd.json("detach", disk) == {"detached": [device]}
    odd.cli("rollback", f"{disk}@{TAKEN}")
    odd.cli("clone", f"{disk}@{TAKEN}", f"{ODD}2")
    odd.cli("rename", other, f"{ODD}3")
    odd.cli("resize", f":{ODD}3", "+1M")
    odd.cli("export", f"{disk}@{TAKEN}", str(tmp_path / f"{ODD}.img"))
    assert (tmp_path / f"{ODD}.img").read_bytes() == read_direct(odd.snapshot_path(ODD, TAKEN))
    assert odd.json("diff", f"{disk}@{TAKEN}")["ranges"] == []
    assert odd.json("info", str(odd.pool))["pool"] == str(odd.pool)
    assert odd.json("info", f"{disk}@{TAKEN}")["name"] == TAKEN
    odd.cli("delete", f":.snapshots/{ODD}")
    odd.cli("delete", "--wait", disk, f":{ODD}3")
    assert odd.json("list", ":") == []
    with open(odd.path("held"), "wb"):
        assert "is in use by" in odd.refuses("umount", ":")
    odd.umount()
    assert not is_mounted(odd.mnt)


def in_ascii(mounted: Mounted, *words: str) -> bytes:
    """What a verb says under a locale that knows no more than ASCII."""
    environment = os.environ | ASCII | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*COMMAND, *words], capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_no_locale_changes_them(mounted: Mounted) -> None:
    names = ["küche", "日本", os.fsdecode(b"\xff")]
    for name in names:
        write_file(mounted.path(name), b"", flags=os.O_CREAT)
    mounted.umount()
    in_ascii(mounted, "mount", str(mounted.pool), str(mounted.mnt))
    mounted.pid = mounted.info()["pid"]
    try:
        assert sorted(os.listdir(mounted.mnt)) == sorted([".snapshots", *names])
        in_ascii(mounted, "snapshot", mounted.path("küche@zwölf"))
        in_ascii(mounted, "create", mounted.path("straße"), "1M")
        assert os.listdir(mounted.path(".snapshots/küche")) == ["zwölf"]
        for listed in (json.loads(in_ascii(mounted, "list", "--json", mounted.path())), mounted.call("list")):
            assert [disk["name"] for disk in listed] == sorted([*names, "straße"])
        for name in (*names, "straße"):
            assert os.fsencode(name) in in_ascii(mounted, "list", mounted.path(name)) or name == names[2]
        os.environ.pop("_ROWFS_COMPLETE", None)
        completing = ASCII | {"_ROWFS_COMPLETE": "bash_complete", "COMP_CWORD": "2", "PYTHONPATH": str(ROOT)}
        for start in ("k", "日"):
            words = {"COMP_WORDS": f"rowfs info {mounted.path(start)}"}
            done = run(*COMMAND, env=os.environ | completing | words)
            assert mounted.path(start) in done.stdout
    finally:
        mounted.umount()
