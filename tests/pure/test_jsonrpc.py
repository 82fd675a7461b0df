"""What a client may send is a request that can be answered, or told what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowfs.base.jsonrpc import MESSAGE_CHARS_MAX, RefusedError, encode, failure, parse, result

REFUSED = {
    "a half line": (b'{"id": 1, "method": "in', -32700, "nterminated string"),
    "no UTF-8": (b'{"id": 1, "method": "\xff"}', -32700, "byte 21 is no UTF-8"),
    "a NUL byte": (b'{"id": 1, "method": "info"}\0', -32700, "extra data"),
    "UTF-16": ('{"id": 1, "method": "info"}'.encode("utf-16-le"), -32700, ""),
    "NaN": (b'{"id": NaN, "method": "info"}', -32700, "NaN is no number"),
    "Infinity": (b'{"id": 1, "method": "info", "params": {"x": -Infinity}}', -32700, "-Infinity is no number"),
    "a number past all floats": (b'{"id": 1e999, "method": "info"}', -32700, "1e999 is too large"),
    "a number of 5000 digits": (b'{"id": %s, "method": "info"}' % (b"9" * 5000), -32700, "limit"),
    "a name twice": (b'{"id": 1, "method": "info", "method": "umount"}', -32700, "'method' is there twice"),
    "nested without end": (b"[" * 100_000, -32700, "nested too deep"),
    "a batch": (b'[{"id": 1, "method": "info"}]', -32600, "a batch is not taken"),
    "no object": (b'"info"', -32600, "a request is a JSON object"),
    "no method": (b'{"id": 1}', -32600, "name of a method"),
    "params in order": (b'{"id": 1, "method": "info", "params": [1]}', -32602, "object of names"),
    "an id that is nested": (b'{"id": %s%s, "method": "info"}' % (b"[" * 900, b"]" * 900), -32600, "an id is"),
    "an id that is an object": (b'{"id": {"a": 1}, "method": "info"}', -32600, "an id is"),
    "an id that is true": (b'{"id": true, "method": "info"}', -32600, "an id is"),
    "an id of 300 characters": (b'{"id": "%s", "method": "info"}' % (b"x" * 300), -32600, "an id is"),
    "an id of 4000 digits": (b'{"id": %s, "method": "info"}' % (b"9" * 4000), -32600, "64 bits"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_is_told_so(what: str) -> None:
    line, code, why = REFUSED[what]
    with pytest.raises(RefusedError) as refused:
        parse(line)
    assert refused.value.code == code and why in str(refused.value)
    encode(failure(refused.value.request, code, str(refused.value)))


def test_a_request_keeps_its_id_and_without_one_it_is_a_notification() -> None:
    for number in (1, -5, "two", "\ud800", 3.5, None):
        request = parse(json.dumps({"id": number, "method": "info"}).encode())
        assert (request.id, request.answered, request.params) == (number, True, {})
    assert not parse(b'{"method": "info"}').answered


def test_a_message_is_one_line_whatever_is_quoted_in_it() -> None:
    answer = failure(1, -32601, "there is no method a\nb\x1b[2J\ud800" + "x" * 10_000, None)
    message = answer["error"]["message"]
    assert message.startswith("there is no method a\\nb\\x1b[2J\\ud800xxx") and len(message) == MESSAGE_CHARS_MAX + 1
    assert answer["error"]["data"] == {"errno": "ENOSYS"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values, json_values)
def test_whatever_is_taken_can_be_answered(number: Any, method: Any, params: Any) -> None:
    line = json.dumps({"id": number, "method": method, "params": params}).encode()
    try:
        request = parse(line)
    except RefusedError as refused:
        encode(failure(refused.request, refused.code, str(refused)))
    else:
        assert json.loads(encode(result(request.id, True)))["id"] == request.id


@given(st.binary(max_size=60))
def test_garbage_is_refused(line: bytes) -> None:
    with pytest.raises(RefusedError):
        parse(line)
