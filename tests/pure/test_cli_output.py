"""Tables, sizes, times and names as they are printed."""

from __future__ import annotations

import io
import os
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from rowfs.cli.listing import format_list
from rowfs.cli.output import attached_shown, count, format_table, local_time, say, size_or_nothing
from rowfs.cli.progress import Progress
from tests.pure.test_cli_fakes import disk, snapshot


def test_columns_are_aligned_and_lines_end_with_text() -> None:
    rows = [("NAME", "SIZE", "KIND"), ("vm1", "1.0G", ""), ("a-long-one", "5K", "disk")]
    assert format_table(rows, right=[1]) == ["NAME        SIZE  KIND", "vm1         1.0G", "a-long-one    5K  disk"]


def test_a_table_of_nothing_is_empty() -> None:
    assert format_table([]) == []


def test_disks_are_listed_with_their_chains_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowfs.cli.listing.local_time", lambda text: local_time(text, UTC))
    disks = [
        disk("vm1", snapshot("before"), snapshot("before-rollback", kind="rollback", consistency="frozen")),
        disk("vm2", attached=[{"device": "/dev/loop0", "mounts": ["/mnt/a"]}]),
        disk("old", snapshot("s", freed_if_deleted_bytes=None), deleted=True, size_bytes=0, mapped_bytes=0),
    ]
    assert format_list(disks) == [
        "NAME                SIZE  MAPPED  WRITTEN  FREES  CREATED              KIND",
        "vm1                  20G    3.0M                  2026-11-20 14:25:01  disk",
        "  @before            20G    2.0M     1.0M   4.0K  2026-11-20 14:30:00  crash",
        "  @before-rollback   20G    2.0M     1.0M   4.0K  2026-11-20 14:30:00  frozen, rollback",
        "vm2                  20G    3.0M                  2026-11-20 14:25:01  disk, /dev/loop0 on /mnt/a",
        "old                    -       -                                       deleted, its snapshots stay",
        "  @s                 20G    2.0M     1.0M      -  2026-11-20 14:30:00  crash",
    ]


@pytest.mark.parametrize(
    ("attached", "shown"),
    [
        ({"device": "/dev/loop0", "mounts": ["/a", "/b"]}, "/dev/loop0 on /a, /b"),
        ({"device": "/dev/loop1", "mounts": []}, "/dev/loop1"),
    ],
)
def test_attachments(attached: dict[str, Any], shown: str) -> None:
    assert attached_shown(attached) == shown


def test_times_are_shown_where_the_user_is() -> None:
    assert local_time("2026-11-20T23:30:00.900000Z", timezone(timedelta(hours=1))) == "2026-11-21 00:30:00"


def test_a_printed_path_keeps_its_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    say(os.fsdecode(b"/mnt/vm\xff"))
    assert capfdbinary.readouterr().out == b"/mnt/vm\xff\n"


def test_on_a_terminal_a_printed_path_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as seen, open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        say(os.fsdecode(b"/mnt/vm\xff\n\x1b[2J"), "/mnt/ä")
        assert seen.read(100) == "/mnt/vm\\xff\\n\\x1b[2J\r\n/mnt/ä\r\n".encode()


def test_small_words() -> None:
    assert [count(1, "disk"), count(0, "disk"), count(2, "disk")] == ["1 disk", "0 disks", "2 disks"]
    assert [size_or_nothing(None), size_or_nothing(0)] == ["-", "0B"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal() -> None:
    terminal = Terminal()
    with Progress(terminal) as progress:
        progress(1, None, "counting")
        progress(5, 10, "reclaiming\n")
        progress(10, 10, "reclaiming\n")
    assert "reclaiming\\n" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_progress_needs_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)  # as Python has it when it was started with it closed
    with Progress() as progress:
        progress(5, 10, "reclaiming")


def test_progress_is_silent_elsewhere_and_when_nothing_happens() -> None:
    stream, terminal = io.StringIO(), Terminal()
    with Progress(stream) as progress, Progress(terminal):
        progress(5, 10, "reclaiming")
    assert (stream.getvalue(), terminal.getvalue()) == ("", "")
