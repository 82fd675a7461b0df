"""A real file system on a disk, snapshotted ten times while files are written to it."""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
import threading
from pathlib import Path

import pytest

from tests.mount.helpers import (
    DEADLINE_S,
    LABEL_BYTES,
    MIB,
    Mounted,
    digest,
    has_extension,
    loop,
    mounted_device,
    noise,
    run,
    until,
    write_file,
)

TURNS = 10
TREE_BYTES = 60 * MIB  # of the standard library; the whole of it would take minutes to checksum so often
BATCH_FILES = 8


def library_files() -> list[Path]:
    """Files of the Python standard library, in order, up to TREE_BYTES."""
    root = Path(sysconfig.get_path("stdlib"))
    chosen, size = [], 0
    for path in sorted(root.rglob("*")):
        if path.is_file() and "site-packages" not in path.parts:
            size += path.stat().st_size
            if size > TREE_BYTES:
                break
            chosen.append(path)
    return chosen


def copy_library(where: Path) -> dict[str, str]:
    """Copy it, and make it durable: names below `where`, and checksums."""
    root = Path(sysconfig.get_path("stdlib"))
    copied = {}
    for path in library_files():
        target = where / "lib" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        copied[str(target.relative_to(where))] = digest(path)
    run("sync", "-f", where)
    return copied


class Author(threading.Thread):
    """Writes batches of files, and replaces some of those there, syncs each batch, and then records it as safe."""

    def __init__(self, where: Path, seed: int) -> None:
        super().__init__()
        self._where = where
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._safe: dict[str, str] = {}
        self._stopping = False
        self.batches = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """The thread."""
        try:
            while not self._stopping:
                self._write_batch()
        except Exception as error:
            self.failure = error

    def _write_batch(self) -> None:
        paths = []
        for number in range(BATCH_FILES):
            path = self._where / "new" / f"{self.batches}-{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(self._random.randbytes(self._random.randrange(1, 100_000)))
            paths.append(path)
        for path in [*paths, self._where / "new"]:
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        written = {str(path.relative_to(self._where)): digest(path) for path in paths}
        with self._lock:
            self._safe |= written
            self.batches += 1

    def safe(self) -> dict[str, str]:
        """What is synced by now."""
        with self._lock:
            return dict(self._safe)

    def stop(self) -> None:
        """End it."""
        self._stopping = True
        self.join(DEADLINE_S)
        assert self.failure is None, self.failure


def wrong_files(where: Path, expected: dict[str, str]) -> list[str]:
    """The names below `where` that are not there or do not have this checksum."""
    return [name for name, sum_ in expected.items() if not (where / name).is_file() or digest(where / name) != sum_]


def assert_intact(mounted: Mounted, snapshot: str, expected: dict[str, str], where: Path) -> None:
    """The snapshot, cloned, passes e2fsck, mounts, and holds the files."""
    mounted.cli("clone", f":vm@{snapshot}", "clone")
    with loop(mounted.path("clone")) as device:
        run("e2fsck", "-fy", device, codes=(0, 1))
        run("e2fsck", "-fn", device)
        with mounted_device(device, where) as files:
            assert wrong_files(files, expected) == [], f"snapshot {snapshot} lacks files"
    until(lambda: not mounted.disk("clone")["open"], "the device to be detached")
    mounted.cli("delete", ":clone")


@pytest.mark.parametrize("direct", [True, False])
def test_every_snapshot_of_a_busy_ext4_holds_all_that_was_synced(
    mounted: Mounted, tmp_path: Path, direct: bool
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    mounted.cli("create", ":vm", "256M")
    expected: dict[str, dict[str, str]] = {}
    with loop(mounted.path("vm"), direct=direct) as device:
        run("mkfs.ext4", "-q", device)
        with mounted_device(device, tmp_path / "vm") as where:
            library = copy_library(where)
            author = Author(where, seed)
            author.start()
            try:
                for turn in range(TURNS):
                    batches = author.batches
                    until(lambda: author.batches > batches or author.failure, "a batch")  # noqa: B023
                    expected[f"s{turn}"] = library | author.safe()
                    mounted.call("snapshot", disk="vm", snapshot=f"s{turn}")
            finally:
                author.stop()
    until(lambda: not mounted.disk("vm")["open"], "the device to be detached")
    check_and_delete(mounted, expected, tmp_path / "clone", random.Random(seed))


def check_and_delete(mounted: Mounted, expected: dict[str, dict[str, str]], where: Path, order: random.Random) -> None:
    """All snapshots are intact; they go in random order, each frees what it said, and the rest stay as they are."""
    names = list(expected)
    for name in names:
        assert_intact(mounted, name, expected[name], where)
    sums = {name: digest(mounted.snapshot_path("vm", name)) for name in names}
    order.shuffle(names)
    while names:
        name = names.pop()
        used = mounted.used()
        (answer,) = mounted.json("delete", "--wait", f":vm@{name}")
        assert used - mounted.used() == answer["freed_bytes"]
        if len(names) in (7, 3, 1):  # reading all of them each time would take minutes
            for left in names:
                assert digest(mounted.snapshot_path("vm", left)) == sums[left], f"deleting {name} changed {left}"
    assert mounted.used() == mounted.disk("vm")["mapped_bytes"] + LABEL_BYTES


def test_used_space_is_what_the_figures_of_the_snapshots_add_up_to(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "16M")
    for turn in range(5):
        write_file(mounted.path("vm"), noise(turn, 2 * MIB), turn * MIB, sync=True)
        mounted.cli("snapshot", ":vm@s" + str(turn))
    (disk,) = mounted.json("list", ":vm")
    written = sum(snapshot["written_bytes"] for snapshot in disk["snapshots"])
    assert mounted.used() == written + LABEL_BYTES  # nothing was written since the last, and nothing is freed
    freed = {snapshot["name"]: snapshot["freed_if_deleted_bytes"] for snapshot in disk["snapshots"]}
    for name in ("s2", "s0", "s4", "s1", "s3"):
        said = mounted.json("list", ":vm@" + name)[0]["snapshots"]
        frees = next(item["freed_if_deleted_bytes"] for item in said if item["name"] == name)
        used = mounted.used()
        mounted.cli("delete", "--wait", f":vm@{name}")
        assert used - mounted.used() == frees >= freed[name]
    assert mounted.used() == mounted.disk("vm")["mapped_bytes"] + LABEL_BYTES == 6 * MIB + LABEL_BYTES


def test_trimmed_space_of_a_mounted_file_system_comes_back(mounted: Mounted, tmp_path: Path) -> None:
    if not has_extension():
        pytest.skip("without the C extension there is no discard")
    mounted.cli("create", ":vm", "128M")
    with loop(mounted.path("vm")) as device:
        run("mkfs.ext4", "-q", device)
        with mounted_device(device, tmp_path / "fs") as where:
            before = mounted.used()
            (where / "big").write_bytes(noise("big", 40 * MIB))
            run("sync", "-f", where)
            assert mounted.used() >= before + 40 * MIB
            (where / "big").unlink()
            run("sync", "-f", where)
            run("fstrim", where)
            assert mounted.used() <= before + 2 * MIB
            (where / "small").write_bytes(noise("small", MIB))
        run("e2fsck", "-fn", device)
        with mounted_device(device, tmp_path / "fs", "-o", "discard") as where:
            assert (where / "small").read_bytes() == noise("small", MIB)
