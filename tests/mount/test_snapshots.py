"""What a snapshot holds: the classic example, and everything that was written before it was asked for."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.mount.helpers import (
    COMMAND,
    LABEL_BYTES,
    MIB,
    B,
    Mounted,
    forget_pages,
    loop,
    noise,
    read_direct,
    read_file,
    run,
    unsynced,
    until,
    write_direct,
    write_file,
)


def test_the_snapshot_of_an_export_that_is_killed_goes(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "16M")
    write_file(mounted.path("vm"), noise("vm", 16 * MIB), sync=True)
    mounted.cli("snapshot", ":vm@s")
    with exporting(mounted) as export:
        export.kill()
        until(lambda: snapshots(mounted) == ["s"], "the export's snapshot to go")
    assert mounted.used() == 16 * MIB + LABEL_BYTES


def test_the_snapshot_of_an_export_goes_with_the_next_mount_when_the_daemon_is_killed(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "16M")
    write_file(mounted.path("vm"), noise("vm", 16 * MIB), sync=True)
    with exporting(mounted) as export:
        mounted.kill()
        assert export.communicate()[1].count(b"\n") <= 2
    assert export.returncode == 1
    mounted.mount()
    assert snapshots(mounted) == []


@contextlib.contextmanager
def exporting(mounted: Mounted) -> Iterator[subprocess.Popen[bytes]]:
    """An export of the disk vm to somebody who does not read on, under way."""
    with subprocess.Popen(
        [*COMMAND, "export", mounted.path("vm"), "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as export:
        assert export.stdout is not None and export.stdout.read(B) == noise("vm", 16 * MIB)[:B]
        assert [kind for item in mounted.disk("vm")["snapshots"] if (kind := item["kind"]) != "user"] == ["temporary"]
        yield export


def snapshots(mounted: Mounted) -> list[str]:
    return [item["name"] for item in mounted.disk("vm")["snapshots"]]


WAYS: dict[str, Callable[[Mounted, str], object]] = {
    "cli": lambda mounted, name: mounted.cli("snapshot", f":vm@{name}"),
    "touch": lambda mounted, name: run("touch", mounted.snapshot_path("vm", name)),
    "socket": lambda mounted, name: mounted.call("snapshot", disk="vm", snapshot=name),
}


@pytest.mark.parametrize("direct", [True, False])
def test_the_classic_example_over_a_loop_device(mounted: Mounted, direct: bool) -> None:
    d1, d2, d3, d4 = (noise(name, MIB) for name in ("d1", "d2", "d3", "d4"))
    mounted.cli("create", ":vm", "16M")
    with loop(mounted.path("vm"), direct=direct) as device:
        put_at(device, 0, d1 + d2, direct)
        mounted.cli("snapshot", ":vm@s1")
        used = mounted.used()
        put_at(device, 2 * MIB, d3, direct)
        put_at(device, MIB, d4, direct)
        mounted.cli("snapshot", ":vm@s2")
        forget_pages(device)
        assert read_direct(device, 0, 4 * MIB) == d1 + d4 + d3 + bytes(MIB)
    assert read_direct(mounted.snapshot_path("vm", "s1"), 0, 4 * MIB) == d1 + d2 + bytes(2 * MIB)
    assert read_direct(mounted.snapshot_path("vm", "s2"), 0, 4 * MIB) == d1 + d4 + d3 + bytes(MIB)
    assert read_direct(mounted.path("vm"), 0, 4 * MIB) == d1 + d4 + d3 + bytes(MIB)
    assert (used, mounted.used()) == (2 * MIB + LABEL_BYTES, 4 * MIB + LABEL_BYTES)
    first, second = mounted.disk("vm")["snapshots"]
    figures = ("referenced_bytes", "written_bytes", "freed_if_deleted_bytes")
    assert [first[name] for name in figures] == [2 * MIB, 2 * MIB, MIB]
    assert [second[name] for name in figures] == [3 * MIB, 2 * MIB, 0]
    mounted.remount()
    assert read_direct(mounted.snapshot_path("vm", "s1"), 0, 2 * MIB) == d1 + d2


def put_at(device: str, offset: int, data: bytes, direct: bool) -> None:
    if direct:
        write_direct(device, offset, data)
    else:
        write_file(device, data, offset)


@pytest.mark.parametrize("way", WAYS)
def test_a_snapshot_holds_what_was_written_to_the_file_and_not_yet_synced(mounted: Mounted, way: str) -> None:
    mounted.cli("create", ":vm", "32M")
    with open(mounted.path("vm"), "r+b", buffering=0) as file:
        for turn in range(3):
            for place in range(8):
                file.seek(place * 4 * MIB + 100)
                file.write(noise((turn, place), 50_000))
            WAYS[way](mounted, f"s{turn}")
    for turn in range(3):
        for place in range(8):
            found = read_direct(mounted.snapshot_path("vm", f"s{turn}"), place * 4 * MIB, 53248)
            assert found[100:50_100] == noise((turn, place), 50_000), f"turn {turn}, place {place}"


@pytest.mark.parametrize("way", WAYS)
def test_a_snapshot_holds_what_was_written_to_a_buffered_loop_device_without_sync(mounted: Mounted, way: str) -> None:
    mounted.cli("create", ":vm", "16M")
    with loop(mounted.path("vm"), direct=False) as device, open(device, "rb"):  # else who closes it last writes it back
        for turn in range(3):
            data = noise(turn, 4 * MIB)
            WAYS[way](mounted, f"before{turn}")
            with unsynced(device, bytes(turn * MIB) + data):
                WAYS[way](mounted, f"s{turn}")
            assert read_direct(mounted.snapshot_path("vm", f"s{turn}"), turn * MIB, 4 * MIB) == data
            run("dd", "if=/dev/urandom", f"of={device}", "bs=64k", "count=8", "conv=notrunc", "seek=200")
            WAYS[way](mounted, f"dd{turn}")
            forget_pages(mounted.snapshot_path("vm", f"dd{turn}"))
            assert read_file(mounted.snapshot_path("vm", f"dd{turn}")) == read_file(device)


def test_a_snapshot_of_a_renamed_disk_that_is_open_holds_what_was_written(mounted: Mounted) -> None:
    mounted.cli("create", ":old", "4M")
    with open(mounted.path("old"), "r+b", buffering=0) as file, loop(mounted.path("old"), direct=False) as device:
        run("mv", mounted.path("old"), mounted.path("vm"))
        with unsynced(device, noise("device", MIB)):
            file.seek(2 * MIB)
            file.write(noise("file", MIB))
            mounted.cli("snapshot", ":vm@s")
        assert read_direct(mounted.snapshot_path("vm", "s"), 0, MIB) == noise("device", MIB)
        assert read_direct(mounted.snapshot_path("vm", "s"), 2 * MIB, MIB) == noise("file", MIB)


class Writer(threading.Thread):
    """Writes a number that counts up into one block after the other, until it is told to stop."""

    BLOCKS = 64

    def __init__(self, path: str, flags: int) -> None:
        super().__init__()
        self.path = path
        self.flags = flags
        self.written = 0  # every number up to this one is in the file
        self.stopping = False

    def run(self) -> None:
        """The thread."""
        fd = os.open(self.path, os.O_WRONLY | self.flags)
        with mmap.mmap(-1, B) as buffer:  # aligned, as O_DIRECT wants it
            while not self.stopping:
                number = self.written + 1
                buffer[:] = number.to_bytes(8) * (B // 8)
                os.pwritev(fd, [buffer], number % self.BLOCKS * B)
                self.written = number
        os.close(fd)

    def stop(self) -> None:
        """End it."""
        self.stopping = True
        self.join()


def numbers(block: bytes) -> set[int]:
    """The numbers in a block."""
    return {int.from_bytes(block[at : at + 8]) for at in range(0, B, 8)}


@pytest.mark.parametrize("flags", [0, os.O_DIRECT])
def test_writes_go_on_while_snapshots_are_taken_and_each_holds_what_came_before(mounted: Mounted, flags: int) -> None:
    mounted.cli("create", ":vm", f"{Writer.BLOCKS * B}")
    writer = Writer(mounted.path("vm"), flags)
    writer.start()
    asked: list[int] = []
    try:
        until(lambda: writer.written > Writer.BLOCKS, "the writer")
        for turn in range(30):
            asked.append(writer.written)
            WAYS["socket" if turn % 3 else "touch"](mounted, f"s{turn}")
            until(lambda: writer.written > asked[-1] + 3, "a write after a snapshot")
    finally:
        writer.stop()
    for turn, before in enumerate(asked):
        data = read_direct(mounted.snapshot_path("vm", f"s{turn}"))
        for place in range(Writer.BLOCKS):
            found = numbers(data[place * B : (place + 1) * B])
            last = before - (before - place) % Writer.BLOCKS  # the last number for this place when it was asked for
            assert min(found) >= last, f"snapshot {turn} lacks {last} at block {place}: {found}"
            # Of a page that is written while the kernel hands it over, Linux 6.18 hands over a mixture.
            assert len(found) == 1 or not flags, f"snapshot {turn} has a torn block {place}: {found}"
    place = writer.written % Writer.BLOCKS
    assert numbers(read_direct(mounted.path("vm"), place * B, B)) == {writer.written}


def test_a_snapshot_never_changes_while_its_disk_does(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "8M")
    write_file(mounted.path("vm"), noise("before", 8 * MIB))
    mounted.cli("snapshot", ":vm@s")
    expected = noise("before", 8 * MIB)
    with open(mounted.snapshot_path("vm", "s"), "rb", buffering=0) as snapshot:
        for turn in range(10):
            write_file(mounted.path("vm"), noise(turn, MIB), turn % 8 * MIB, sync=bool(turn % 2))
            run("truncate", "-s", f"{8 - turn % 3}M", mounted.path("vm"))
            forget_pages(mounted.snapshot_path("vm", "s"))
            snapshot.seek(0)
            assert snapshot.read() == expected
    assert read_direct(mounted.snapshot_path("vm", "s")) == expected


def test_several_disks_are_snapshotted_by_one_command(mounted: Mounted) -> None:
    for name in ("a", "b", "c"):
        mounted.cli("create", f":{name}", "1M")
        write_file(mounted.path(name), noise(name, MIB))
    taken = mounted.json("snapshot", ":a@x", ":b", ":c@y", "--description", "all of them")
    assert [(item["disk"], item["description"]) for item in taken] == [(name, "all of them") for name in "abc"]
    for item in taken:
        assert read_direct(mounted.snapshot_path(item["disk"], item["name"])) == noise(item["disk"], MIB)
