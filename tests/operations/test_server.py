"""The daemon's socket: JSON-RPC 2.0, one object a line, over a real unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rowfs.base.errors import NotFoundError
from rowfs.base.format import abstract_socket
from rowfs.cli.client import DaemonGoneError
from rowfs.cli.connecting import client_of
from rowfs.cli.mounts import Mount
from rowfs.control import server as control
from rowfs.control.connection import REQUESTS_MAX, Caller
from rowfs.control.server import Server
from tests.operations.conftest import Log
from tests.operations.helpers import DEADLINE_S, Fs, until
from tests.store.helpers import B


class Connection:
    """A client's end of the socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, *lines: bytes) -> None:
        """Send lines."""
        await self.stream.send_all(b"".join(line + b"\n" for line in lines))

    async def receive(self) -> Any:
        """The next message; None: the server has closed the connection."""
        with trio.fail_after(DEADLINE_S / 2):
            while b"\n" not in self._received:
                try:
                    chunk = await self.stream.receive_some()
                except trio.BrokenResourceError:  # closed with something of ours unread
                    return None
                if not chunk:
                    return None
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    async def ask(self, method: str, number: Any = 1, **params: Any) -> Any:
        """The answer to one request."""
        await self.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())
        return await self.receive()

    async def error(self, line: bytes) -> tuple[Any, int]:
        """The id and the code of the error that answers a line."""
        await self.send(line)
        answer = await self.receive()
        assert answer["jsonrpc"] == "2.0" and "result" not in answer
        assert "\n" not in answer["error"]["message"]
        return answer["id"], answer["error"]["code"]


@asynccontextmanager
async def served(fs: Fs, **more: Any) -> AsyncIterator[Connection]:
    """A connection to a server of the file system's verbs, and `more`."""
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(fs.pool.path, fs.methods.table() | more).run)
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as stream:
            yield Connection(stream)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def served_again(fs: Fs) -> AsyncIterator[Connection]:
    """One more connection to that server."""
    async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as stream:
        yield Connection(stream)


async def test_a_request_is_answered_under_its_id(fs: Fs) -> None:
    async with served(fs) as connection:
        for number in (1, "two", 3.5, None):
            answer = await connection.ask("info", number)
            assert (answer["jsonrpc"], answer["id"], answer["result"]["disks"]) == ("2.0", number, 0)


async def test_what_is_no_json_is_a_parse_error_and_the_connection_goes_on(fs: Fs) -> None:
    async with served(fs) as connection:
        for line in (b"nonsense", b"{", b'{"id": 1', b"\xff\xfe\x00", b'"\xff"', b"[1,", b"NaNa"):
            assert await connection.error(line) == (None, -32700)
        assert (await connection.ask("info"))["result"]["disks"] == 0


async def test_what_is_no_request_is_refused(fs: Fs) -> None:
    async with served(fs) as connection:
        for line in (b"[]", b"1", b'"info"', b"null", b"{}", b'{"method": 5}', b'{"params": {}}'):
            assert (await connection.error(line))[1] == -32600
        assert await connection.error(b'{"id": 7, "method": null}') == (7, -32600)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
async def test_deeply_nested_json_is_a_parse_error_too(fs: Fs, opening: bytes) -> None:
    async with served(fs) as connection:
        assert await connection.error(opening * 100_000) == (None, -32700)
        assert (await connection.ask("info"))["result"]["disks"] == 0


async def test_an_unknown_method_and_bad_params_are_told_apart(fs: Fs) -> None:
    async with served(fs) as connection:
        answer = await connection.ask("explode", 5)
        assert (answer["id"], answer["error"]["code"], answer["error"]["data"]) == (5, -32601, {"errno": "ENOSYS"})
        assert await connection.error(b'{"id": 6, "method": "info", "params": [1]}') == (6, -32602)
        assert await connection.error(b'{"id": 6, "method": "info", "params": {"x": 1}}') == (6, -32602)
        assert (await connection.ask("create", disk="vm"))["error"]["code"] == -32602


async def test_an_error_of_rowfs_names_its_errno(fs: Fs) -> None:
    async with served(fs) as connection:
        answer = await connection.ask("snapshot", disk="vm")
        message = "there is no disk vm: rowfs list shows those there are"
        assert answer["error"] == {"code": -32000, "message": message, "data": {"errno": "ENOENT"}}
        answer = await connection.ask("create", disk="a@b", size_bytes=1)
        assert (answer["error"]["code"], answer["error"]["data"]["errno"]) == (-32602, "EINVAL")


async def test_a_fault_is_one_line_in_the_log_and_the_daemon_stays_up(fs: Fs, log: Log) -> None:
    async def explode(caller: Caller, params: dict[str, Any]) -> None:
        raise RuntimeError("a fault")

    async with served(fs, explode=explode) as connection:
        answer = await connection.ask("explode")
        assert (answer["error"]["code"], answer["error"]["data"]) == (-32603, {"errno": "EIO"})
        assert "explode" in log.take()
        assert (await connection.ask("info"))["result"]["disks"] == 0


async def test_an_error_of_the_system_keeps_its_errno(fs: Fs) -> None:
    async def refuse(caller: Caller, params: dict[str, Any]) -> None:
        raise PermissionError(1, "Operation not permitted")

    async with served(fs, refuse=refuse) as connection:
        answer = await connection.ask("refuse")
        assert (answer["error"]["code"], answer["error"]["data"]) == (-32000, {"errno": "EPERM"})


async def test_an_error_that_comes_out_of_a_nursery_is_answered_as_any_other(fs: Fs) -> None:
    async def several(caller: Caller, params: dict[str, Any]) -> None:
        async def refuse() -> None:
            raise NotFoundError("there is no such thing")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)

    async with served(fs, several=several) as connection:
        answer = await connection.ask("several")
        assert answer["error"] == {"code": -32000, "message": "there is no such thing", "data": {"errno": "ENOENT"}}


async def test_a_slow_request_holds_up_no_other_on_its_connection(fs: Fs) -> None:
    gate = trio.Event()

    async def slow(caller: Caller, params: dict[str, Any]) -> str:
        await caller.progress(1, None, "steps", "waiting")
        await gate.wait()
        return "done"

    async with served(fs, slow=slow) as connection:
        await connection.send(b'{"id": 1, "method": "slow"}', b'{"id": 2, "method": "info"}')
        messages = [await connection.receive() for _ in range(2)]
        progress = next(message for message in messages if "method" in message)
        assert (progress["method"], progress["params"]) == (
            "progress",
            {"id": 1, "done": 1, "total": None, "unit": "steps", "what": "waiting"},
        )
        assert [message["id"] for message in messages if "result" in message] == [2]
        gate.set()
        assert await connection.receive() == {"jsonrpc": "2.0", "id": 1, "result": "done"}


async def test_many_connections_are_served_at_once(fs: Fs) -> None:
    async with served(fs) as first:
        streams = [await trio.open_unix_socket(str(fs.home.path / "control.sock")) for _ in range(20)]
        for number, stream in enumerate(streams):
            made = await Connection(stream).ask("create", disk=f"vm{number}", size_bytes=B)
            assert made["result"]["name"] == f"vm{number}"
        for stream in streams:
            await stream.aclose()
        assert len((await first.ask("list"))["result"]) == 20


async def test_requests_in_pieces_and_several_in_one_piece_are_understood(fs: Fs) -> None:
    async with served(fs) as connection:
        await connection.stream.send_all(b'{"id": 1, "met')
        await trio.sleep(0.01)
        await connection.stream.send_all(b'hod": "info"}\n\n  \n{"id": 2, "method": "list"}\n{"id": 3')
        assert {(await connection.receive())["id"] for _ in range(2)} == {1, 2}
        await connection.stream.send_all(b', "method": "list"}\n')
        assert (await connection.receive())["id"] == 3


async def test_a_notification_is_done_and_not_answered(fs: Fs) -> None:
    async with served(fs) as connection:
        await connection.send(b'{"method": "create", "params": {"disk": "vm", "size_bytes": 4096}}')
        await until(lambda: "vm" in fs.pool.catalog.disks, "the disk")
        assert (await connection.ask("info", 9))["id"] == 9


async def test_a_client_that_hangs_up_breaks_nothing_and_nobody_works_on_for_it(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    gate, ended = trio.Event(), trio.Event()

    async def slow(caller: Caller, params: dict[str, Any]) -> None:
        await gate.wait()
        try:
            while True:
                await caller.part(list(range(1000)))
        finally:
            ended.set()

    async with served(fs, slow=slow) as connection:
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
            await Connection(other).send(b'{"id": 1, "method": "slow"}', b'{"id": 2, "method"')
        gate.set()
        with trio.fail_after(DEADLINE_S / 2):
            await ended.wait()
        assert (await connection.ask("info"))["result"]["disks"] == 1


async def test_clients_that_hang_up_with_an_answer_unread_break_nothing(fs: Fs) -> None:
    async with served(fs) as connection:
        for _ in range(20):
            async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
                await Connection(other).send(*[b'{"id": 1, "method": "list"}'] * 3)
                await trio.lowlevel.wait_readable(other.socket)
            assert (await connection.ask("info"))["result"]["disks"] == 0


async def test_of_what_was_sent_by_who_hung_up_nothing_more_is_begun(fs: Fs) -> None:
    begun = 0

    async def large(caller: Caller, params: dict[str, Any]) -> str:
        nonlocal begun
        begun += 1
        return "x" * 1_000_000

    server = Server(fs.pool.path, {"large": large})
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as stream:
            await Connection(stream).send(*[b'{"id": 1, "method": "large"}'] * 1000)
            await until(lambda: begun, "the first")
        await until(lambda: not server._connections, "the end of the connection")
        assert begun <= 2 * REQUESTS_MAX
        nursery.cancel_scope.cancel()


async def test_what_is_done_after_a_connection_may_fail(fs: Fs, log: Log) -> None:
    async def leave_a_fault(caller: Caller, params: dict[str, Any]) -> None:
        async def explode() -> None:
            raise RuntimeError("a fault")

        caller.afterwards.push_async_callback(explode)

    async with served(fs, leave=leave_a_fault) as connection:
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
            await Connection(other).ask("leave")
        await until(lambda: log.lines, "the line")
        assert log.take() == "a connection failed unexpectedly"
        assert (await connection.ask("info"))["result"]["disks"] == 0


async def test_an_answer_that_is_no_json_is_a_fault_of_that_request_alone(fs: Fs, log: Log) -> None:
    async def absurd(caller: Caller, params: dict[str, Any]) -> object:
        return {"nan": float("nan")} if params else object()

    async with served(fs, absurd=absurd) as connection:
        for number, params in ((1, {}), (2, {"x": 1})):
            answer = await connection.ask("absurd", number, **params)
            assert (answer["id"], answer["error"]["code"]) == (number, -32603)
            assert log.take() == "an answer failed unexpectedly"


async def test_who_does_not_read_is_not_read_from(fs: Fs) -> None:
    begun = 0

    async def large(caller: Caller, params: dict[str, Any]) -> str:
        nonlocal begun
        begun += 1
        return "x" * 100_000

    async with served(fs, large=large) as connection, served_again(fs) as other:
        for _ in range(100):  # of 280 kB, until one of them does not get through
            with trio.move_on_after(0.3) as sending:
                await other.stream.send_all(b'{"id": 1, "method": "large"}\n' * 10_000)
            if sending.cancelled_caught:
                break
        assert sending.cancelled_caught
        assert begun <= 2 * REQUESTS_MAX  # some answers fit into the socket
        assert (await connection.ask("info"))["result"]["disks"] == 0
        for _ in range(begun + 5):  # it goes on where it stopped
            assert len((await other.receive())["result"]) == 100_000


async def test_who_does_not_read_holds_up_no_end(fs: Fs) -> None:
    waiting, gate = trio.Event(), trio.Event()

    async def large(caller: Caller, params: dict[str, Any]) -> str:
        return "x" * 1_000_000

    async def slow(caller: Caller, params: dict[str, Any]) -> str:
        waiting.set()
        await gate.wait()
        return "done"

    server = Server(fs.pool.path, {"large": large, "slow": slow})
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        path = str(fs.home.path / "control.sock")
        async with await trio.open_unix_socket(path) as stuck, await trio.open_unix_socket(path) as other:
            await Connection(stuck).send(b'{"id": 1, "method": "large"}')
            await Connection(other).send(b'{"id": 1, "method": "slow"}')
            await waiting.wait()
            with trio.move_on_after(0.5) as scope:
                await server.quiet()
            assert scope.cancelled_caught  # somebody reads, and waits
            gate.set()
            with trio.fail_after(DEADLINE_S / 2):
                await server.quiet()
            assert (await Connection(other).receive())["result"] == "done"
        nursery.cancel_scope.cancel()


async def test_there_are_so_many_connections_and_the_next_is_told(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CONNECTIONS_MAX", 3)
    path = str(fs.home.path / "control.sock")
    async with served(fs) as connection:
        await connection.ask("info")
        others = [await trio.open_unix_socket(path) for _ in range(4)]
        for other in others[2:]:
            refused = await Connection(other).receive()
            assert (refused["error"]["code"], refused["error"]["data"]["errno"]) == (-32000, "EAGAIN")
            assert await Connection(other).receive() is None
        assert log.take().startswith("clients are refused: there are 3 connections")
        for other in others:
            await other.aclose()
        served_again = False
        with trio.fail_after(DEADLINE_S / 2):
            while not served_again:
                async with await trio.open_unix_socket(path) as later:
                    served_again = "result" in (await Connection(later).ask("info") or {})


async def test_a_client_for_whom_there_is_no_descriptor_is_told(fs: Fs, log: Log) -> None:
    path = str(fs.home.path / "control.sock")
    async with served(fs) as connection:
        await connection.ask("info")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 + max(map(int, os.listdir("/proc/self/fd"))), hard))
        fill = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    fill.append(os.open("/dev/null", os.O_RDONLY))
            for client in clients:
                client.connect(path)
                answer = await Connection(trio.SocketStream(trio.socket.from_stdlib_socket(client))).receive()
                assert (answer["error"]["code"], answer["error"]["data"]["errno"]) == (-32000, "EMFILE")
        finally:
            for fd in fill:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "no file descriptors left" in log.take()
        assert (await connection.ask("info"))["result"]["disks"] == 0
        async with await trio.open_unix_socket(path) as later:
            assert (await Connection(later).ask("info"))["result"]["disks"] == 0
        for client in clients:
            client.close()


async def test_a_temporary_snapshot_goes_with_the_connection(fs: Fs) -> None:
    await fs.disk("vm", 2, "one", "two")
    chain = fs.pool.catalog.disk("vm").chain
    async with served(fs) as connection:
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
            client = Connection(other)
            for name in ("a", "b"):
                taken = await client.ask("snapshot", disk="vm", snapshot=name, temporary=True)
                assert taken["result"]["kind"] == "temporary"
            await client.ask("snapshot", disk="vm", snapshot="kept", temporary=False)
            await client.ask("delete", disk="vm", snapshots=["a"])
            await client.ask("snapshot", disk="vm", snapshot="a")
            await client.send(b'{"id": 1, "method": "snapshot", "params": {"disk": "vm", "temporary": true}}')
        await until(lambda: list(chain) == ["kept", "a"], "the temporary ones to go")
        assert (await connection.ask("info"))["result"]["snapshots"] == 2
    fs.after_a_crash()


async def test_a_temporary_snapshot_that_cannot_go_is_one_line_in_the_log(fs: Fs, log: Log) -> None:
    await fs.disk("vm", 1, "one")
    async with served(fs) as connection:
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
            await Connection(other).ask("snapshot", disk="vm", snapshot="s", temporary=True)
            fs.pool.versions.damaged("a test says so")
            assert "a test says so" in log.take()
        await until(lambda: log.lines, "the line")
        assert log.take().startswith("the temporary snapshot s of vm stays for now: the pool is read-only")
        assert (await connection.ask("info"))["result"]["snapshots"] == 1


async def test_a_line_that_is_too_long_is_refused_and_not_collected(fs: Fs) -> None:
    async with served(fs) as connection:
        for _ in range(2):
            for _ in range(100):
                await connection.stream.send_all(b"x" * 65536)
            assert await connection.error(b"") == (None, -32600)
            assert (await connection.ask("info"))["result"]["disks"] == 0


async def test_the_last_line_needs_no_end(fs: Fs) -> None:
    async with served(fs):
        for line, wanted in ((b'{"id": 1, "method": "info"}', None), (b'{"id": 1, "meth', -32700)):
            async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
                await other.send_all(line)
                await other.send_eof()
                answer = await Connection(other).receive()
                assert answer.get("error", {}).get("code") == wanted
                assert await Connection(other).receive() is None


async def test_a_name_that_is_not_utf_8_travels_escaped(fs: Fs) -> None:
    async with served(fs) as connection:
        name = os.fsdecode(b"\xff\xfe")
        made = await connection.ask("create", disk=name, size_bytes=B)
        assert made["result"]["name"] == name
        assert (await fs.stat(name)).st_size == B


async def test_another_user_is_refused_and_the_connection_closed(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = SimpleNamespace(size=12, unpack=lambda _: (1, 1234, 1234))
    async with served(fs) as before:
        await before.ask("info")
        monkeypatch.setattr(control, "_CREDENTIALS", pretended)
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as other:
            refused = Connection(other)
            answer = await refused.ask("create", disk="vm", size_bytes=B)
            assert (answer["error"]["code"], answer["error"]["data"]) == (-32001, {"errno": "EACCES"})
            assert await refused.receive() is None
    assert await fs.ask("list") == []


async def test_the_user_who_mounted_may_speak(fs: Fs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_CREDENTIALS", SimpleNamespace(size=12, unpack=lambda _: (1, 1234, 1234)))
    monkeypatch.setattr(control.os, "getuid", lambda: 1234)
    async with served(fs) as connection:
        made = await connection.ask("create", disk="vm", size_bytes=B)
        assert made["result"]["name"] == "vm"
    assert (await fs.stat("vm")).st_uid == 1234


async def test_the_socket_is_for_its_owner_alone_and_gone_with_the_server(fs: Fs) -> None:
    path = fs.home.path / "control.sock"
    async with served(fs):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_that_a_killed_daemon_left_is_no_obstacle(fs: Fs) -> None:
    async with served(fs):
        os.link(fs.home.path / "control.sock", fs.home.path / "left")
    os.rename(fs.home.path / "left", fs.home.path / "control.sock")
    async with served(fs) as connection:
        assert (await connection.ask("info"))["result"]["disks"] == 0


# The socket that has no file


FLOOD = """
import os, socket, sys
os.setgid(4242)
os.setuid(4242)
print(flush=True)
while True:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(sys.argv[1].replace("^", chr(0)))
        sys.stdout.buffer.write(client.recv(4096))
        sys.stdout.flush()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
async def test_who_may_not_speak_holds_nobody_up_at_the_door_that_is_open_to_all(fs: Fs) -> None:
    device = f"4095:{os.getpid()}"
    name = abstract_socket(device)
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(fs.pool.directory.place, fs.methods.table(), lambda: device).run)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
        async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as stream:
            command = [sys.executable, "-c", FLOOD, name.replace("\0", "^")]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
                try:
                    assert flood.stdout is not None and flood.stdout.readline() == b"\n"
                    said = await trio.to_thread.run_sync(flood.stdout.readline)
                    assert b"only root and the user who mounted may" in said
                    assert "result" in await Connection(stream).ask("info")
                    assert flood.poll() is None, "it was asked beside the flood"
                finally:
                    flood.kill()
        nursery.cancel_scope.cancel()


async def test_a_name_that_is_taken_leaves_the_socket_with_a_file(
    fs: Fs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ENDING_S", 0.0)
    device = f"4095:{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(abstract_socket(device))
        async with trio.open_nursery() as nursery:
            await nursery.start(Server(fs.pool.directory.place, fs.methods.table(), lambda: device).run)
            async with await trio.open_unix_socket(str(fs.home.path / "control.sock")) as stream:
                assert "result" in await Connection(stream).ask("info")
            await until(lambda: log.lines, "a line in the log")
            nursery.cancel_scope.cancel()
    assert "listens on control.sock alone" in log.take()


async def test_a_name_that_a_daemon_before_has_until_it_ends_is_taken_after_it(fs: Fs) -> None:
    device = f"4095:{os.getpid()}"
    async with trio.open_nursery() as nursery:
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(abstract_socket(device))
            server = Server(fs.pool.directory.place, fs.methods.table(), lambda: device)
            await nursery.start(server.run)
        await until(lambda: server._abstract is not None, "the name")
        with trio.socket.socket(trio.socket.AF_UNIX) as client:
            await client.connect(abstract_socket(device))
            assert "result" in await Connection(trio.SocketStream(client)).ask("info")
        nursery.cancel_scope.cancel()


async def test_a_directory_in_the_way_of_the_file_leaves_the_socket_without_one(fs: Fs, log: Log) -> None:
    device = f"4095:{os.getpid()}"
    (fs.home.path / "control.sock").mkdir()
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(fs.pool.directory.place, fs.methods.table(), lambda: device).run)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(abstract_socket(device))
            async with trio.SocketStream(trio.socket.from_stdlib_socket(client.dup())) as stream:
                assert "result" in await Connection(stream).ask("info")
        nursery.cancel_scope.cancel()
    assert "listens without control.sock" in log.take()
    assert (fs.home.path / "control.sock").is_dir()


ODD = ["datagram socket", "nobody's socket", "file", "directory", "pipe", "link to itself", "link to nowhere"]


def _put(path: Path, odd: str, stack: contextlib.ExitStack) -> None:
    match odd:
        case "datagram socket":
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(path))
        case "nobody's socket":
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        case "file":
            path.touch()
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to(path if odd == "link to itself" else path.with_name("nowhere"))


@pytest.mark.parametrize("odd", ODD)
async def test_a_client_finds_the_daemon_whatever_is_in_the_place_of_the_file(
    fs: Fs, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    device = f"4095:{os.getpid()}"
    monkeypatch.setattr(fs.service.own, "device", device)
    mount = Mount("/mnt", str(fs.home.path), device, os.geteuid())

    def asked() -> object:
        with client_of(mount) as client:
            return client.call("info")["disks"]

    with contextlib.ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            await nursery.start(Server(fs.pool.directory.place, fs.methods.table(), lambda: device).run)
            place = fs.home.path / "control.sock"
            place.unlink()
            _put(place, odd, stack)
            assert await trio.to_thread.run_sync(asked) == 0
            nursery.cancel_scope.cancel()
        place.rmdir() if odd == "directory" else place.unlink(missing_ok=True)
        _put(place, odd, stack)
        with pytest.raises(DaemonGoneError, match="is not running"):
            asked()
