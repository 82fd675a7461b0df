"""The trash of a real mount: rm and mv put things there, undelete brings them back to the byte, across a kill."""

from __future__ import annotations

import os
from pathlib import Path

from tests.mount.helpers import MIB, Mounted, noise, read_file, write_file


def test_what_rm_and_mv_take_away_comes_back(mounted: Mounted) -> None:
    mounted.cli("trash", ":", "--keep", "7d")
    for name in ("vm", "other"):
        mounted.cli("create", f":{name}", "1M")
        write_file(mounted.path(name), noise(name, MIB))
    mounted.cli("snapshot", ":vm@s")
    write_file(mounted.path("vm"), noise("later", MIB))
    Path(mounted.snapshot_path("vm", "s")).unlink()
    os.rename(mounted.path("other"), mounted.path("vm"))
    assert [entry["disk"] for entry in mounted.json("trash", "list", ":")] == ["vm", "vm"]
    assert os.listdir(mounted.path()) == ["vm"] or sorted(os.listdir(mounted.path())) == [".snapshots", "vm"]
    os.fsync(fd := os.open(mounted.path(), os.O_RDONLY))
    os.close(fd)
    mounted.kill()
    mounted.mount()
    assert read_file(mounted.path("vm")) == noise("other", MIB)
    mounted.cli("undelete", ":vm", "--name", "old")
    mounted.cli("undelete", ":vm@s")
    assert read_file(mounted.path("old")) == noise("later", MIB)
    (disk,) = [disk["name"] for disk in mounted.call("list") if disk["snapshots"]]
    assert read_file(mounted.snapshot_path(disk, "s")) == noise("vm", MIB)
    assert mounted.json("trash", "list", ":") == []
