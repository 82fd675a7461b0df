"""`export`: sparse files that are complete or not there at all, and a temporary snapshot that always goes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowfs.base.errors import BusyError, NotFoundError, ReadOnlyError, RowfsError, no_snapshot
from rowfs.cli.signals import ended_in_order
from rowfs.cli.sparse import COPY_BYTES, copy_sparse, stream_out
from tests.pure.test_cli_fakes import Notify, World, snapshot

SIZE = 3 * COPY_BYTES + 512
EXTENTS = [[4096, 8192], [COPY_BYTES, COPY_BYTES + 4096], [SIZE - 512, 512]]


def ignore(length: int) -> None:
    """Nobody wants to know."""


def content() -> bytes:
    """What the disk reads as: the extents hold data, the rest is zero."""
    data = bytearray(SIZE)
    for number, (offset, length) in enumerate(EXTENTS, start=1):
        data[offset : offset + length] = bytes([number]) * length
    return bytes(data)


class Exporting(World):
    """A disk vm1 with a snapshot `a`, to be exported. Taking a snapshot makes its file, deleting takes that away."""

    def prepare(self) -> None:
        """Makes the snapshot's file and the daemon's answers."""
        (self.mount / ".snapshots" / "vm1").mkdir(parents=True)
        self.file("a").write_bytes(content())
        self.answer(extents=self.extents, snapshot=self.take, delete=self.delete)

    def file(self, name: str) -> Path:
        """The file of snapshot `name`."""
        return self.mount / ".snapshots" / "vm1" / name

    def extents(self, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        notify("part", items=EXTENTS[:1])
        notify("part", items=EXTENTS[1:])
        return {"size_bytes": SIZE, "mapped_bytes": sum(length for _, length in EXTENTS)}

    def take(self, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        self.file(params["snapshot"]).write_bytes(content())
        return snapshot(params["snapshot"])

    def delete(self, params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        (name,) = params["snapshots"]
        if not self.file(name).exists():
            raise no_snapshot("vm1", name)
        self.file(name).unlink()
        return {"disk": False, "snapshots": [name], "freed_bytes": 0}

    def snapshots(self) -> list[str]:
        """The snapshots there are."""
        return os.listdir(self.mount / ".snapshots" / "vm1")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Exporting]:
    made = Exporting(tmp_path, monkeypatch, capfd)
    made.prepare()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with made.daemon:
        yield made


def test_only_data_is_written(tmp_path: Path) -> None:
    with open(tmp_path / "target", "w+b") as target:
        copied: list[int] = []
        copy_sparse(io.BytesIO(content()), EXTENTS, target, SIZE, copied.append)
        target.seek(0)
        assert target.read() == content()
    assert sum(copied) == sum(length for _, length in EXTENTS)
    assert max(copied) == COPY_BYTES


def test_holes_stay_holes(tmp_path: Path) -> None:
    with open(tmp_path / "target", "w+b") as target:
        copy_sparse(io.BytesIO(b"x" * 4096), [[0, 4096]], target, 1 << 40, ignore)
        found = os.fstat(target.fileno())
    assert (found.st_size, found.st_blocks * 512 <= 1 << 20) == (1 << 40, True)


@pytest.mark.parametrize("size", [0, SIZE])
def test_a_disk_without_data_is_all_zeros(tmp_path: Path, size: int) -> None:
    out = io.BytesIO()
    stream_out(io.BytesIO(), [], out, size, ignore)
    assert out.getvalue() == bytes(size)


def test_a_stream_gets_its_zeros() -> None:
    out = io.BytesIO()
    stream_out(io.BytesIO(content()), EXTENTS, out, SIZE, ignore)
    assert out.getvalue() == content()


def test_a_file_that_ends_early_is_an_error() -> None:
    with pytest.raises(RowfsError, match="ends at byte 5000, before the data"):
        stream_out(io.BytesIO(bytes(5000)), EXTENTS, io.BytesIO(), SIZE, ignore)


def test_a_read_that_fails_is_an_error() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(RowfsError, match="cannot read the snapshot at byte 4096: Input/output error"):
        stream_out(Broken(), EXTENTS, io.BytesIO(), SIZE, ignore)


def test_a_snapshot_is_exported(world: Exporting) -> None:
    assert world.run("export", world.mount / "vm1@a", "vm1.img") == (0, "vm1.img: 3.0M, of it 1.0M data\n", "")
    assert Path("vm1.img").read_bytes() == content()
    assert os.listdir() == ["vm1.img"]
    assert world.asked() == [("extents", {"disk": "vm1", "snapshot": "a"})]
    answer = json.loads(world.run("export", world.mount / "vm1@a", "2.img", "--json")[1])
    assert answer == {"file": "2.img", "size_bytes": SIZE, "mapped_bytes": COPY_BYTES + 12800}


def test_a_disk_is_exported_through_a_snapshot_that_goes(world: Exporting) -> None:
    assert world.run("export", world.mount / "vm1", "vm1.img")[0] == 0
    (_, taken), (_, read), (_, deleted) = world.asked()
    assert taken["snapshot"].startswith("export-") and taken["temporary"] is True
    assert taken["snapshot"] == read["snapshot"] == deleted["snapshots"][0]
    assert world.snapshots() == ["a"]
    assert Path("vm1.img").read_bytes() == content()


def test_what_is_there_is_only_replaced_by_force(world: Exporting) -> None:
    Path("vm1.img").write_text("mine")
    assert world.run("export", world.mount / "vm1", "vm1.img")[::2] == (
        1,
        "rowfs: vm1.img is there already: --force replaces it\n",
    )
    assert (Path("vm1.img").read_text(), world.asked()) == ("mine", [])
    Path("link").symlink_to("vm1.img")
    assert world.run("export", world.mount / "vm1", "link", "--force")[0] == 0
    assert Path("link").is_symlink()
    assert Path("vm1.img").read_bytes() == content()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none/vm1.img"], 1, "is no directory"),
        (["."], 2, ". is a directory: name a FILE in it"),
        ([".", "--force"], 2, ". is a directory: name a FILE in it"),
        (["/dev/null"], 2, "is no regular file"),
        (["/dev/null", "--force"], 2, "is no regular file: write to it with rowfs export ADDRESS - > /dev/null"),
        (["-", "--json"], 2, "both want stdout"),
    ],
)
def test_a_target_that_cannot_be_is_refused_first(
    world: Exporting, arguments: list[str], code: int, message: str
) -> None:
    found, _, err = world.run("export", world.mount / "vm1", *arguments)
    assert (found, message in err, world.asked()) == (code, True, [])


def test_a_closed_stdout_is_told(world: Exporting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)  # as Python has it then
    code, _, err = world.run("export", world.mount / "vm1", "-")
    assert (code, "wants stdout, which is closed" in err, world.asked()) == (2, True, [])


def test_a_failed_export_leaves_nothing(world: Exporting) -> None:
    def cut_short(params: dict[str, Any], notify: Notify) -> dict[str, Any]:
        notify("part", items=[[0, 4096], [SIZE, 4096]])
        return {"size_bytes": SIZE + 4096, "mapped_bytes": 8192}

    world.answer(extents=cut_short)
    Path("vm1.img").write_text("mine")
    code, _, err = world.run("export", world.mount / "vm1", "vm1.img", "--force")
    assert (code, err) == (1, f"rowfs: the snapshot's file ends at byte {SIZE}, before the data it should hold\n")
    assert (os.listdir(), Path("vm1.img").read_text()) == (["vm1.img"], "mine")
    assert world.snapshots() == ["a"]


def test_a_full_target_is_told_by_its_name(world: Exporting, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rowfs.cli.export.copy_sparse", full)
    code, _, err = world.run("export", world.mount / "vm1@a", "vm1.img")
    assert (code, err) == (1, f"rowfs: cannot write {os.getcwd()}/vm1.img: No space left on device\n")
    assert os.listdir() == []


def test_ctrl_c_leaves_nothing(world: Exporting, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("rowfs.cli.export.copy_sparse", interrupted)
    assert world.run("export", world.mount / "vm1", "vm1.img")[0] == 130
    assert (os.listdir(), world.snapshots()) == ([], ["a"])


def test_a_snapshot_that_was_not_taken_is_not_missed(world: Exporting) -> None:
    def missing(params: dict[str, Any], notify: Notify) -> None:
        raise NotFoundError("there is no disk 'vm1'")

    world.answer(snapshot=missing)
    assert world.run("export", world.mount / "vm1", "x") == (1, "", "rowfs: there is no disk 'vm1'\n")
    assert [method for method, _ in world.asked()] == ["snapshot"]


def test_on_a_read_only_mount_only_snapshots_are_exported(world: Exporting) -> None:
    def refuse(params: dict[str, Any], notify: Notify) -> None:
        raise ReadOnlyError("the pool is mounted read-only")

    world.answer(snapshot=refuse)
    code, _, err = world.run("export", world.mount / "vm1", "x")
    assert (code, "the pool is mounted read-only" in err, "export one it has" in err) == (1, True, True)
    assert world.run("export", world.mount / "vm1@a", "x")[0] == 0


def test_a_snapshot_that_cannot_go_now_is_told(world: Exporting) -> None:
    def busy(params: dict[str, Any], notify: Notify) -> None:
        raise BusyError("it is open")

    world.answer(delete=busy)
    code, out, err = world.run("export", world.mount / "vm1", "vm1.img")
    assert (code, out) == (0, "vm1.img: 3.0M, of it 1.0M data\n")
    assert err.startswith(f"rowfs: warning: {world.mount}/vm1@export-")
    assert err.endswith(" stays until the pool is mounted again: it is open\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_block_in_order(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, ended_in_order():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_stdout_gets_everything(world: Exporting, tmp_path: Path) -> None:
    code = """
import sys, rowfs.cli.mounts as mounts
mounts.MOUNTINFO = sys.argv.pop(1)
from rowfs.cli.main import main
main()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "mountinfo"), "export", str(world.mount / "vm1"), "-"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (content(), b"")
    assert world.snapshots() == ["a"]
