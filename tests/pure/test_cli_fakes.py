"""A stand-in for the daemon, and a mountinfo that knows its mount, for the tests of the command line."""

from __future__ import annotations

import errno
import json
import os
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from rowfs.base.errors import NotFoundError, RowfsError
from rowfs.cli.client import Client
from rowfs.cli.main import run

Notify = Callable[..., None]
Answer = Callable[[dict[str, Any], Notify], Any]


class HangUp(Exception):
    """Raised by an answer to close the connection, after sending these bytes."""

    def __init__(self, last_words: bytes = b"") -> None:
        super().__init__()
        self.last_words = last_words


class FakeDaemon:
    """Answers on POOL/control.sock with what `answers` says for each method, and keeps what it was asked in `asked`.

    An answer gets the params and a function to send progress or part with. What it raises becomes the error.
    """

    def __init__(self, pool: Path, answers: Mapping[str, Answer] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        daemon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    try:
                        daemon._serve(json.loads(line), self.wfile.write)
                    except HangUp as end:
                        self.wfile.write(end.last_words)
                        return

        directory_fd = os.open(pool, os.O_PATH)
        try:
            self._server = _Server(f"/proc/self/fd/{directory_fd}/control.sock", Handler)
        finally:
            os.close(directory_fd)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, request: dict[str, Any], write: Callable[[bytes], object]) -> None:
        def send(**message: Any) -> None:
            write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")

        def notify(method: str, **params: Any) -> None:
            send(method=method, params={"id": request["id"]} | params)

        if request["method"] != "hello":  # which comes before each question
            self.asked.append((request["method"], request["params"]))
        try:
            send(id=request["id"], result=self.answers[request["method"]](request["params"], notify))
        except RowfsError as error:
            data = {"errno": errno.errorcode[error.errno]}
            send(id=request["id"], error={"code": -32000, "message": str(error), "data": data})


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False


def disk(name: str, *snapshots: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A disk object of docs/CONTROL.md."""
    time = "2026-11-20T14:25:01.000000Z"
    made = {"name": name, "size_bytes": 20 << 30, "mapped_bytes": 3 << 20, "created": time, "modified": time}
    made |= {
        "deleted": False,
        "trimmed_held_bytes": None,
        "attached": [],
        "open": 0,
        "labels": {},
        "inode": 12,
        "snapshots": list(snapshots),
    }
    return made | fields


def snapshot(name: str, **fields: Any) -> dict[str, Any]:
    """A snapshot object of docs/CONTROL.md."""
    made = {"name": name, "inode": 6, "created": "2026-11-20T14:30:00.000000Z", "size_bytes": 20 << 30}
    made |= {"referenced_bytes": 2 << 20, "written_bytes": 1 << 20, "freed_if_deleted_bytes": 4096}
    return (
        made
        | {"consistency": "crash", "kind": "user", "description": "", "attached": [], "labels": {}, "lock": None}
        | fields
    )


def attached(*devices: str) -> list[dict[str, Any]]:
    """The field `attached` of either."""
    return [{"device": device, "mounts": []} for device in devices]


def always(value: Any) -> Answer:
    """The answer that is `value` whatever was asked."""
    return lambda params, notify: value


class World:
    """A pool that looks mounted, and the command line to use on it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.pool, self.mount = tmp_path / "pool", tmp_path / "mnt"
        self.pool.mkdir()
        self.mount.mkdir()
        self._capfd = capfd
        mountinfo = tmp_path / "mountinfo"  # of a device number that Linux gives to none: no real daemon answers for it
        mountinfo.write_text(f"50 27 0:9000040 / {self.mount} rw - fuse.rowfs {self.pool} rw,user_id={os.geteuid()}\n")
        monkeypatch.setattr("rowfs.cli.mounts.MOUNTINFO", str(mountinfo))
        self.daemon = FakeDaemon(self.pool)
        self.answer(info={"warnings": []}, hello={"pid": os.getpid(), "device": "0:9000040", "pool": str(self.pool)})

    def answer(self, **answers: Any) -> None:
        """Sets what the daemon answers: a value, or a function of params and notify."""
        for method, value in answers.items():
            self.daemon.answers[method] = value if callable(value) else always(value)

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Runs `rowfs` with `arguments`: exit code, stdout, stderr."""
        self._capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return code, *self._capfd.readouterr()

    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """What the daemon was asked since the last look."""
        asked, self.daemon.asked = self.daemon.asked, []
        return asked


def test_the_fake_speaks_as_the_contract_says(tmp_path: Path) -> None:
    def gone(params: dict[str, Any], notify: Notify) -> None:
        raise NotFoundError("there is none")

    expected = pytest.raises(RowfsError, match="there is none")
    with FakeDaemon(tmp_path, {"gone": gone}) as daemon, Client(str(tmp_path)) as client, expected as caught:
        client.call("gone", {"disk": "vm1"})
    assert caught.value.errno == errno.ENOENT
    assert daemon.asked == [("gone", {"disk": "vm1"})]
