"""What others hear: systemd's journal of each event; of a pool that became read-only everybody, at the next mount."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from errno import EEXIST, EIO
from pathlib import Path
from typing import Any

import pytest
import trio

from rowfs.base.format import READ_ONLY_FILE, EventRecord
from rowfs.host.journald import Journal, entry
from rowfs.service import reporting
from rowfs.service.reporting import Reporter
from tests.operations.conftest import Log
from tests.operations.helpers import FailingData, Fs
from tests.operations.test_methods import fails


class StandIn:
    """Takes the place of systemd's journal: a socket that gets entries."""

    def __init__(self, path: str = "journal") -> None:
        """In the current directory, since the path of a socket has to be short."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(path)

    def entries(self) -> list[dict[str, str]]:
        """What came since the last time."""
        found = []
        while True:
            try:
                found.append(_fields(self._socket.recv(1 << 16)))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """It is gone, its name stays."""
        self._socket.close()


def _fields(datagram: bytes) -> dict[str, str]:
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[name.decode()], datagram = os.fsdecode(value), rest
    return found


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.chdir(tmp_path)
    made = StandIn()
    yield made
    made.close()


def reporter(fs: Fs, path: str = "journal") -> Reporter:
    """One that tells of what happens from now on."""
    return Reporter(fs.service, Journal(path))


def happened(fs: Fs) -> list[EventRecord]:
    """The durable events."""
    return list(fs.pool.catalog.events.read(0))


def test_an_entry_is_as_the_protocol_has_it() -> None:
    assert entry({"MESSAGE": "a=b", "PRIORITY": 6}) == b"MESSAGE=a=b\nPRIORITY=6\n"
    assert entry({"A": "one\ntwo"}) == b"A\n\x07\0\0\0\0\0\0\0one\ntwo\n"
    assert entry({"A": "\udcff"}) == b"A=\xff\n"


async def test_the_journal_gets_each_durable_event_once_with_its_fields(fs: Fs, journal: StandIn) -> None:
    await fs.disk("before")
    told = reporter(fs)
    await fs.disk("vm", 4)
    await fs.ask("snapshot", disk="vm", snapshot="two\nlines")
    await fails(fs, EEXIST, "create", disk="vm", size_bytes=0)
    await fs.ask("lock", disk="vm", snapshots=["two\nlines"])
    for _ in range(2):
        await told.look()
    found = journal.entries()
    assert [item["ROWFS_VERB"] for item in found][-3:] == ["snapshot", "create", "lock"]
    taken, refused = found[-3:-1]
    number = happened(fs)[-3].id
    assert taken.pop("ROWFS_TIME").endswith("Z")
    assert taken == {
        "MESSAGE": "rowfs: snapshot vm@two\\nlines (16K)",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "rowfs",
        "ROWFS_POOL": fs.pool.path,
        "ROWFS_MOUNT": fs.service.own.mountpoint,
        "ROWFS_EVENT": str(number),
        "ROWFS_VERB": "snapshot",
        "ROWFS_FAILED": "0",
        "ROWFS_DISK": "vm",
        "ROWFS_SNAPSHOT": "two\nlines",
        "ROWFS_SIZE_BYTES": "16384",
        "ROWFS_UID": str(os.getuid()),
        "ROWFS_PID": str(happened(fs)[-3].pid),
        "ROWFS_COMMAND": happened(fs)[-3].command,
    }
    assert (refused["PRIORITY"], refused["ROWFS_FAILED"]) == ("4", "1")
    assert "before" not in {item.get("ROWFS_DISK") for item in found}


async def test_a_journal_without_room_gets_the_rest_later_and_none_at_all_is_nothing(
    fs: Fs, journal: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, nowhere = reporter(fs), reporter(fs, "nowhere")
    send, room = Journal.send, 1

    def crowded(self: Journal, fields: Any) -> bool:
        nonlocal room
        room -= 1
        return room >= 0 and send(self, fields)

    monkeypatch.setattr(Journal, "send", crowded)
    await fs.disk("vm")
    await fs.snapshot("vm", "a")
    await told.look()
    first = journal.entries()
    room = 100
    await told.look()
    numbers = [int(item["ROWFS_EVENT"]) for item in first + journal.entries()]
    assert len(first) == 1 and numbers == [event.id for event in happened(fs)]
    await nowhere.look()
    journal.close()  # its socket is there, and nobody listens
    await fs.snapshot("vm", "b")
    await told.look()


@pytest.mark.pool(open_data=FailingData)
async def test_that_a_pool_became_read_only_is_told_at_once_and_is_an_event_of_the_next_mount(
    fs: Fs, journal: StandIn, log: Log
) -> None:
    told = reporter(fs)
    await fs.disk("vm", 4, "a")
    assert isinstance(fs.pool.data, FailingData)
    fs.pool.data.broken = True
    await fails(fs, EIO, "snapshot", disk="vm", snapshot="s")
    assert "commit failed" in log.take()
    for _ in range(2):
        await told.look()
    last = journal.entries()[-1]
    assert (last["ROWFS_VERB"], last["PRIORITY"]) == ("read-only", "3")
    assert "is read-only since a commit failed: fdatasync" in last["MESSAGE"]
    note = Path(fs.pool.path) / READ_ONLY_FILE
    left = note.read_text()
    after = fs.after_a_crash()
    (Path(after.pool.path) / READ_ONLY_FILE).write_text(left)
    commits = []

    async def commit(whole: bool = False) -> None:
        commits.append(note_after.exists())
        after.pool.commit()

    note_after = Path(after.pool.path) / READ_ONLY_FILE
    after.service.committer.commit = commit  # type: ignore[method-assign]
    await reporter(after).look_back()
    first, second = happened(after)[-2:]
    assert (first.verb, first.failed, second.verb, second.failed) == ("read-only", True, "writable", False)
    assert first.time_ns < second.time_ns and "a commit failed: fdatasync" in first.text
    assert commits == [True] and not note_after.exists()
    await reporter(after).look_back()
    assert happened(after)[-1].id == second.id
    fs.home.abandon()


@pytest.mark.parametrize("text", ["", "{}", '{"time_ns": "x", "why": 1}', "[" * 3000, '{"time_ns": 1e99, "why": ""}'])
async def test_a_note_that_cannot_be_read_is_none(fs: Fs, text: str) -> None:
    (Path(fs.pool.path) / READ_ONLY_FILE).write_text(text)
    before = len(happened(fs))
    await reporter(fs).look_back()
    assert len(happened(fs)) == before


async def test_a_remount_is_told_both_ways(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [False, True, True, False, False]

    async def is_remounted() -> bool:
        return seen.pop(0)

    monkeypatch.setattr(fs.service, "is_remounted_read_only", is_remounted)
    told = reporter(fs)
    while seen:
        await told.look_at_mount()
    fs.pool.catalog.touch_pool()
    await fs.service.committer.commit()
    texts = [(event.verb, event.text) for event in happened(fs)]
    assert texts == [(verb, "the mount, which was remounted") for verb in ("read-only", "writable")]


async def test_a_fault_in_telling_ends_nothing(fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "RETRY_S", 0.0)
    told, looks = reporter(fs), 0

    async def broken() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            done.set()
        raise AssertionError("nobody foresaw this")

    done = trio.Event()
    monkeypatch.setattr(told, "look", broken)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told.run)
        await done.wait()
        nursery.cancel_scope.cancel()
    assert all("telling what happens failed unexpectedly" in line for line in log.lines) and len(log.lines) >= 2
    log._taken += len(log.lines)


async def test_a_map_that_is_damaged_keeps_nobody_from_hearing_of_it(
    fs: Fs, journal: StandIn, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, events = reporter(fs), fs.pool.catalog.events

    def damaged() -> int:
        raise fs.pool.versions.damaged("the block map: page 7 is not what was written")

    monkeypatch.setattr(events, "last", damaged)
    for _ in range(3):
        await told.look()
    assert "page 7" in log.take()
    (only,) = journal.entries()
    assert "is read-only since it is damaged: the block map: page 7" in only["MESSAGE"]
