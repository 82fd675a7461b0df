"""The client of the daemon's socket: answers, what comes before them, and all that can go wrong."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from rowfs.base.errors import RowfsError, UsageError
from rowfs.cli.client import Client, DaemonGoneError
from tests.pure.test_cli_fakes import FakeDaemon, HangUp, Notify


def test_the_result_comes_back_and_none_params_stay_away(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, {"create": lambda params, notify: params}) as daemon, Client(str(tmp_path)) as client:
        assert client.call("create", {"disk": "vm1", "size_bytes": 0, "mode": None}) == {"disk": "vm1", "size_bytes": 0}
        assert client.call("create") == {}
    assert daemon.asked == [("create", {"disk": "vm1", "size_bytes": 0}), ("create", {})]


def test_progress_and_parts_come_before_the_answer(tmp_path: Path) -> None:
    def work(params: dict[str, Any], notify: Notify) -> str:
        notify("progress", done=1, total=None, unit="blocks", what="reading")
        notify("part", items=[[0, 4096]])
        notify("progress", done=2, total=2, unit="blocks", what="reading")
        notify("part", items=[[8192, 4096], [20480, 1]])
        notify("progress", done=9, total=9, id=99)
        notify("later-idea", anything=1)
        return "done"

    progress: list[Any] = []
    parts: list[Any] = []
    with FakeDaemon(tmp_path, {"work": work}), Client(str(tmp_path)) as client:
        answer = client.call("work", progress=lambda *step: progress.append(step), parts=parts.extend)
    assert answer == "done"
    assert progress == [(1, None, "reading"), (2, 2, "reading")]
    assert parts == [[0, 4096], [8192, 4096], [20480, 1]]


def test_a_long_answer_is_put_together(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, {"list": lambda params, notify: ["x" * 1000] * 1000}), Client(str(tmp_path)) as client:
        assert client.call("list") == ["x" * 1000] * 1000


def test_names_that_are_not_utf8_survive_both_ways(tmp_path: Path) -> None:
    name = os.fsdecode(b"vm\xff")
    with FakeDaemon(tmp_path, {"list": lambda params, notify: params["disk"]}), Client(str(tmp_path)) as client:
        assert client.call("list", {"disk": name}) == name


def test_a_socket_path_may_be_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    pool = tmp_path / ("p" * 120) / ("q" * 120)
    pool.mkdir(parents=True)
    with FakeDaemon(pool, {"info": lambda params, notify: 1}), Client(str(pool)) as client:
        assert client.call("info") == 1


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        ({"code": -32000, "message": "in use", "data": {"errno": "EBUSY"}}, errno.EBUSY, "in use"),
        ({"code": -32602, "message": "too long", "data": {"errno": "ENAMETOOLONG"}}, errno.ENAMETOOLONG, "too long"),
        ({"code": -32000, "message": "odd", "data": {"errno": "EWHAT"}}, errno.EIO, "odd"),
        ({"code": -32001, "message": "not you"}, errno.EACCES, "not you"),
        ({"code": -32603, "message": "KeyError"}, errno.EIO, "KeyError: see POOL/rowfs.log"),
        ({}, errno.EIO, "the daemon failed and did not say why"),
    ],
)
def test_an_error_keeps_its_words_and_errno(tmp_path: Path, error: dict[str, Any], expected: int, message: str) -> None:
    def refuse(params: dict[str, Any], notify: Notify) -> None:
        raise HangUp(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n")

    answers = {"info": refuse}
    with FakeDaemon(tmp_path, answers), Client(str(tmp_path)) as client, pytest.raises(RowfsError) as caught:
        client.call("info")
    assert str(caught.value) == message.replace("POOL", str(tmp_path))
    assert caught.value.errno == expected
    assert isinstance(caught.value, UsageError) == (error.get("code") == -32602)


@pytest.mark.parametrize("last_words", [b"", b'{"jsonrpc": "2.0", "id": 1, "resu'])
def test_a_daemon_that_goes_in_the_middle_is_told(tmp_path: Path, last_words: bytes) -> None:
    def die(params: dict[str, Any], notify: Notify) -> None:
        raise HangUp(last_words)

    with FakeDaemon(tmp_path, {"list": die}), Client(str(tmp_path)) as client:
        with pytest.raises(RowfsError, match=r"ended before it answered: see .*/rowfs\.log") as caught:
            client.call("list")
        assert caught.value.errno == errno.ECONNRESET
        with pytest.raises(RowfsError, match="ended before it answered"):
            client.call("list")


@pytest.mark.parametrize("line", [b"hello\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_json_rpc_is_told(tmp_path: Path, line: bytes) -> None:
    def babble(params: dict[str, Any], notify: Notify) -> None:
        raise HangUp(line)

    expected = pytest.raises(RowfsError, match="no JSON-RPC")
    with FakeDaemon(tmp_path, {"list": babble}), Client(str(tmp_path)) as client, expected:
        client.call("list")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DaemonGoneError, match="not running"):
        Client(str(tmp_path))
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "control.sock"))
        with pytest.raises(DaemonGoneError, match="not running"):
            Client(str(tmp_path))
    with pytest.raises(DaemonGoneError, match="not running"):
        Client(str(tmp_path / "no-pool"))


def test_something_else_in_its_place(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.touch()
    with pytest.raises(RowfsError, match=r"cannot speak to .*/control\.sock: Not a directory"):
        Client(str(pool))
