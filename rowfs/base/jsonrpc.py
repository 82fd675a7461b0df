"""JSON-RPC 2.0 without the socket: a line as a request, and what is answered as a line (docs/CONTROL.md).

What comes from a client is untrusted: of each line that is no request it is said what is wrong. Whatever is taken can
be answered: an id that cannot be written, or takes more room than an answer, is none.
"""

from __future__ import annotations

import errno
import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from rowfs.base.names import printable

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, BAD_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
ROWFS_ERROR, NOT_ALLOWED = -32000, -32001
_ERRNOS = {
    PARSE_ERROR: errno.EINVAL,
    INVALID_REQUEST: errno.EINVAL,
    NO_METHOD: errno.ENOSYS,
    BAD_PARAMS: errno.EINVAL,
    NOT_ALLOWED: errno.EACCES,
}  # where an error has none of its own
ID_CHARS_MAX, ID_MAX = 256, 1 << 63
MESSAGE_CHARS_MAX = 2000  # names of 255 bytes come in it, some escaped


class RefusedError(Exception):
    """Raised when a line is no request. `code` and `request` (its id, or None) are for the answer."""

    def __init__(self, code: int, message: str, request: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.request = request


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    method: str
    params: dict[str, Any]
    id: str | int | float | None
    answered: bool  # else a notification: nobody waits for an answer


def parse(line: bytes) -> Request:
    """The request on a line. Raises RefusedError."""
    try:
        found = _DECODER.decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise RefusedError(PARSE_ERROR, f"a request is one JSON object on a line: {_why(error)}") from None
    if isinstance(found, list):
        raise RefusedError(INVALID_REQUEST, "a batch is not taken: send each request on a line of its own")
    if not isinstance(found, dict):
        raise RefusedError(INVALID_REQUEST, "a request is a JSON object with a method, params and an id")
    number = _checked_id(found.get("id"))
    if not isinstance(found.get("method"), str):
        raise RefusedError(INVALID_REQUEST, "a request has the name of a method, params and an id", number)
    params = found.get("params", {})
    if not isinstance(params, dict):
        raise RefusedError(BAD_PARAMS, "params are an object of names and values", number)
    return Request(found["method"], params, number, "id" in found)


def _why(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"byte {error.start} is no UTF-8"
        case json.JSONDecodeError():
            return f"{error.msg[:1].lower()}{error.msg[1:]}, at character {error.pos}"
        case RecursionError():
            return "it is nested too deep"
    return str(error)  # of the hooks below, or a number of thousands of digits


def _checked_id(number: Any) -> Any:
    known = number is None or (isinstance(number, str | int | float) and not isinstance(number, bool))
    if not known or (isinstance(number, str) and len(number) > ID_CHARS_MAX):
        raise RefusedError(INVALID_REQUEST, f"an id is a number or a string of at most {ID_CHARS_MAX} characters")
    if isinstance(number, int) and abs(number) >= ID_MAX:
        raise RefusedError(INVALID_REQUEST, "an id that is a whole number has 64 bits at most")
    return number


# JSON has neither of the first two, and what the third means nobody knows.


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)!r} is there twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_without_doubles)


def result(number: Any, value: Any) -> dict[str, Any]:
    """The answer to the request `number`."""
    return {"jsonrpc": "2.0", "id": number, "result": value}


def failure(number: Any, code: int, message: str, errno_: int | None = None) -> dict[str, Any]:
    """The answer that says in one line why there is none."""
    shown = printable(message)
    if len(shown) > MESSAGE_CHARS_MAX:
        shown = shown[:MESSAGE_CHARS_MAX] + "…"
    name = errno.errorcode.get(errno_ or _ERRNOS.get(code, errno.EIO), "EIO")
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": shown, "data": {"errno": name}}}


def notification(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """What is told while a request runs."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def encode(message: dict[str, Any]) -> bytes:
    """A message as its line. Raises ValueError or TypeError for what JSON has no word for."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
