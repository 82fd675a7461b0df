"""tools/floors.py finds each kind of violation, and rowfs has none."""

from __future__ import annotations

from pathlib import Path

import pytest

import floors


def found(package: Path, place: str, code: str) -> list[str]:
    """What floors.py says of `code` at `place` in a package of nothing else, without the path in front."""
    file = package / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    return [line.removeprefix(f"{package}/") for line in floors.violations(package)]


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        ("base/a.py", "import rowfs.persist.blockmap", "base imports rowfs.persist.blockmap, which is not below it"),
        ("persist/a.py", "from rowfs.store.pool import Pool", "persist imports rowfs.store.pool, which is"),
        ("store/a.py", "from rowfs import mount", "store imports rowfs.mount, which is not"),
        ("store/a.py", "from ..mount import inodes", "store imports rowfs.mount, which is not"),
        ("store/a.py", "from .. import mount", "store imports rowfs.mount, which is not"),
        ("store/deep/a.py", "from ...mount.inodes import Inode", "store imports rowfs.mount.inodes, which is not"),
        ("mount/a.py", "def f():\n import rowfs.process", "mount imports rowfs.process, which is not"),
        ("mount/a.py", "import importlib\nimportlib.import_module('rowfs.process')", "mount imports rowfs.process"),
        ("process/a.py", "import rowfs.cli.main", "process imports rowfs.cli.main, which is not"),
        ("cli/a.py", "import rowfs.persist", "cli imports rowfs.persist, which is not"),
        ("cli/a.py", "from rowfs.store import pool", "cli imports rowfs.store outside a function"),
        ("__init__.py", "import rowfs.base", "__init__.py imports rowfs.base, which is not"),
        ("__main__.py", "import rowfs.store", "__main__.py imports rowfs.store, which is not"),
        ("helpers.py", "", "helpers.py is on no floor"),
        ("extra/a.py", "", "extra is on no floor"),
        ("store/a.py", "import lmdb", "imports lmdb, which only persist/blockmap.py may"),
        ("persist/datafile.py", "from lmdb import Environment", "imports lmdb, which only persist/blockmap.py may"),
        ("service/a.py", "from rowfs.mount import inodes", "service imports rowfs.mount, which is not"),
        ("host/a.py", "from rowfs.store import pool", "host imports rowfs.store, which is not"),
        ("control/a.py", "import pyfuse3", "imports pyfuse3, which only"),
        ("store/a.py", "import trio", "imports trio, which only host/ and service/"),
        ("cli/a.py", "def f():\n import pyfuse3.asyncio", "imports pyfuse3, which only mount/ and native/ may"),
        (
            "store/a.py",
            "import os\nos.pread(0, 1, 0)",
            "uses pread, which only persist/datafile.py and persist/journal.py and persist/mappages.py may",
        ),
        ("store/a.py", "import os as system\nsystem.pwritev", "uses pwritev, which only"),
        ("persist/blockmap.py", "from os import fdatasync", "uses fdatasync, which only"),
        ("mount/a.py", "import os\nrun(os.fdatasync, 3)", "uses fdatasync, which only"),
        ("store/a.py", "import os\nos.fsync(3)", "uses fsync, which only persist/datafile.py and persist"),
        ("store/a.py", "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.fallocate(3)", "uses fallocate, which only"),
        ("store/a.py", "from ctypes import CDLL\nCDLL(None).fallocate(3)", "uses fallocate, which only"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, place: str, code: str, says: str) -> None:
    line = len(code.splitlines()) or 1
    (only,) = found(tmp_path, place, code)
    assert only.startswith(f"{place}:{line}: {says}")


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("__main__.py", "from rowfs.cli.main import main"),
        ("store/a.py", "from rowfs import __version__\nfrom rowfs.base.units import BlockIndex\nfrom . import pool"),
        ("process/a.py", "import trio\nfrom rowfs.mount import inodes\nfrom rowfs.store import pool"),
        ("cli/a.py", "def f():\n from rowfs.store.pool import Pool"),
        ("cli/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n from rowfs.store.pool import Pool"),
        ("persist/blockmap.py", "import lmdb"),
        ("persist/datafile.py", "import os\nos.pread(0, 1, 0)\nos.fsync(0)"),
        ("service/kernelcache.py", "import os\nos.fsync(3)"),
        ("cli/export.py", "import os\nos.fsync(3)"),
        ("store/a.py", "data.pread(0, 1)\nasync def fsync(self):\n await self.data.fsync()"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, place: str, code: str) -> None:
    assert found(tmp_path, place, code) == []


def test_rowfs_has_no_violation() -> None:
    assert list(floors.violations(Path(floors.__file__).parents[1] / "rowfs")) == []


def test_violations_are_printed_and_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base" / "a.py"
    file.parent.mkdir()
    file.write_text("import lmdb\nimport trio\n")
    monkeypatch.setattr("sys.argv", ["floors.py", str(tmp_path)])
    assert floors.main() == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in printed] == [f"{file}:1:", f"{file}:2:"]


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        (
            "_workers.c",
            '#include "_workers.h"\n#include "_receive.h"',
            "_workers includes _receive, which is not below it",
        ),
        ("_reads.h", '#include "_syncs.h"', "_reads includes _syncs, which is not below it"),
        ("_extra.c", "", "_extra is on no floor"),
    ],
)
def test_a_circle_in_the_c_extension_is_found(tmp_path: Path, name: str, code: str, says: str) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / name).write_text(code)
    (only,) = floors.native_violations(tmp_path)
    assert says in only
