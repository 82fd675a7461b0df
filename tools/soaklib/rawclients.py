"""Clients on the socket that do what no client should: random verbs, garbage, halves, and answers that nobody reads."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rowfs.verbs.declare import Kind, Param, Verb
from rowfs.verbs.table import METHODS
from soaklib.records import B, Lost

VICTIMS, SNAPSHOTS, GROUPS = ("t0", "t1", "t2", "t3"), ("s0", "s1", "s2"), ("g0", "g1")
TARGETS = ("disk", "disks", "group")
ANSWER_S = 60.0  # no answer by then: something hangs
INTERNAL = -32603
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, 10**400, 1.5, -0.0, [], {}, [[]], {"a": 1}, ["t0", 1],
    "", "x" * 300, "\0", "\ud800", "\udcff", "a/b", "..", "@", "🐘", "t0\n", "${x}",
)  # fmt: skip
GARBAGE = (
    b"", b"\n", b"\0", b"\xff\xfe\n", b"{", b"[" * 5000 + b"\n", b"null\n", b'"info"\n', b"{}\n", b"[]\n", b"NaN\n",
    b'{"id":1\n', b'{"method":"info"}\n', b"GET / HTTP/1.1\r\n\r\n", b"x" * (1 << 20) + b"yz\n",
    *(b'{"id":%s,"method":"info"}\n' % number for number in
      (b"Infinity", b"1e999", b'1,"id":2', b"[" * 985 + b"]" * 985, b"9" * 4000, b"{}")),
    b'[{"id":1,"method":"info"}]\n',
)  # fmt: skip


class RawClients:
    """Rounds on the socket of a pool. `known` are disks that may be looked at and not changed."""

    def __init__(self, pool: Path, known: list[str]) -> None:
        self._pool = pool
        self._known = known

    def round(self, rng: random.Random) -> str:
        """One client, from connecting to hanging up; what it did. Raises Lost."""
        ways: list[tuple[int, Callable[[random.Random], None]]] = [
            (40, self.asks), (10, self.pipelines), (10, self.sends_garbage), (8, self.sends_a_half),
            (8, self.reads_nothing), (8, self.resets), (6, self.reads_a_part), (4, self.floods),
            (3, self.says_no_more), (3, self.drips),
        ]  # fmt: skip
        (way,) = rng.choices([way for _, way in ways], [weight for weight, _ in ways])
        way(rng)
        return way.__name__

    # What is asked for

    def _request(self, rng: random.Random, number: object) -> bytes:
        if rng.random() < 0.05:
            verb, method = None, rng.choice(["explode", "", "__init__", "info ", "\ud800"])
        else:
            method = rng.choice(list(METHODS))
            verb = METHODS[method]
        params = {} if verb is None else self._params(rng, verb)
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"

    def _params(self, rng: random.Random, verb: Verb) -> dict[str, Any]:
        if verb.changes and not any(param.name in TARGETS for param in verb.params):
            return {}  # it is about the whole pool: the others would feel what it changes, and by force it is unmounted
        given = {}
        for param in verb.params:
            if param.required or param.name in ("disk", "snapshot") or rng.random() < 0.3:
                given[param.name] = self._value(rng, verb, param)
        return given

    def _value(self, rng: random.Random, verb: Verb, param: Param) -> Any:
        if rng.random() < 0.05 and (param.required or param.name != "disk"):  # without one it is about the whole pool
            return rng.choice(ODD)
        disks = VICTIMS if verb.changes else (*VICTIMS, *self._known)
        names = GROUPS if param.name == "group" else SNAPSHOTS if "snapshot" in param.name else disks
        match param.kind:
            case Kind.NAME:
                return rng.choice(names)
            case Kind.NAMES:
                return rng.choices(names, k=rng.randint(0, 3))
            case Kind.SIZE:
                return B * rng.choice([0, 1, 100, 1000])
            case Kind.FLAG:
                return rng.random() < 0.5
            case Kind.SECONDS:
                return rng.choice([0.01, 1, 5])
            case Kind.NUMBER:
                return rng.randrange(1000)
        return rng.choice(["", "some text", "k=v", "1d", "2020-01-01T00:00:00Z"])

    # Ways to misbehave, and some to behave

    def asks(self, rng: random.Random) -> None:
        """One request after the other, and reads the answers."""
        with self._connected() as client:
            for number in range(rng.randint(1, 4)):
                client.sendall(self._request(rng, number))
                _read_answers(client, {number})

    def pipelines(self, rng: random.Random) -> None:
        """Many requests at once; all are answered, in any order."""
        with self._connected() as client:
            count = rng.randint(2, 40)
            client.sendall(b"".join(self._request(rng, number) for number in range(count)))
            _read_answers(client, set(range(count)))

    def sends_garbage(self, rng: random.Random) -> None:
        """Lines that are no requests, and then one: that is answered."""
        with self._connected() as client:
            for _ in range(rng.randint(1, 3)):
                client.sendall(rng.choice(GARBAGE))
            client.sendall(rng.randbytes(rng.randint(0, 100)) + b"\n")
            client.sendall(b'{"id":"last","method":"info"}\n')
            _read_answers(client, {"last"}, others=True)

    def sends_a_half(self, rng: random.Random) -> None:
        """Hangs up within a request."""
        with self._connected() as client:
            request = self._request(rng, 1)
            client.sendall(request[: rng.randrange(len(request))])

    def reads_nothing(self, rng: random.Random) -> None:
        """Hangs up without having read anything."""
        with self._connected() as client:
            client.sendall(b"".join(self._request(rng, number) for number in range(rng.randint(1, 20))))

    def resets(self, rng: random.Random) -> None:
        """Hangs up at once, with answers under way."""
        with self._connected() as client:
            client.sendall(self._request(rng, 1) * rng.randint(1, 5))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def reads_a_part(self, rng: random.Random) -> None:
        """Hangs up within an answer."""
        with self._connected() as client:
            disk = rng.choice(self._known)
            for number, method in enumerate(("extents", "diff", "list", "list")):
                params = {"disk": disk} if method != "list" else {}
                client.sendall(json.dumps({"id": number, "method": method, "params": params}).encode() + b"\n")
            client.recv(rng.randint(1, 5000))

    def floods(self, rng: random.Random) -> None:
        """Sends for as long as that is taken, and reads nothing."""
        with self._connected() as client:
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                for _ in range(200):
                    client.sendall(b'{"id":1,"method":"list"}\n' * 500)

    def says_no_more(self, rng: random.Random) -> None:
        """Says that it has no more requests, the last one without an end, and reads all answers."""
        with self._connected() as client:
            count = rng.randint(1, 5)
            client.sendall(b"".join(self._request(rng, number) for number in range(count))[:-1])
            client.shutdown(socket.SHUT_WR)
            _read_answers(client, set(range(count)))
            if client.recv(1):
                raise Lost("something comes after the last answer")

    def drips(self, rng: random.Random) -> None:
        """Sends byte by byte, and with pauses."""
        with self._connected() as client:
            for byte in b'{"id":1,"method":"info"}\n':
                client.sendall(bytes([byte]))
            _read_answers(client, {1})

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        directory = os.open(self._pool, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(ANSWER_S)
                client.connect(f"/proc/self/fd/{directory}/control.sock")
                yield client
        except TimeoutError:
            raise Lost(f"no answer for {ANSWER_S:.0f} s: something hangs") from None
        finally:
            os.close(directory)


def _read_answers(client: socket.socket, numbers: set[Any], others: bool = False) -> None:
    """Read until each of these has its answer. `others`: errors without an id may come as well."""
    received = b""
    while numbers:
        chunk = client.recv(1 << 16)
        if not chunk:
            raise Lost(f"the daemon hung up before it had answered {numbers}")
        *lines, received = (received + chunk).split(b"\n")
        for answer in map(json.loads, lines):
            if answer.get("error", {}).get("code") == INTERNAL:
                raise Lost(f"a fault of the daemon: {answer['error']['message']}")
            if "method" in answer or (others and answer["id"] is None) or (others and answer["id"] not in numbers):
                continue
            if answer["id"] not in numbers:
                raise Lost(f"an answer to nothing: {answer}")
            numbers.discard(answer["id"])
