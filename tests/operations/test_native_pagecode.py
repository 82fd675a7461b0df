"""The C extension codes page versions to the byte as Python does."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings

from rowfs.base import pagecode
from rowfs.base.format import page_key
from rowfs.base.pagecode import CODEC_PLAIN, RUNS_MAX, encode_here
from rowfs.base.units import PAGE_BLOCKS
from rowfs.native import _native  # type: ignore[attr-defined]
from tests.pure.test_pagecode import page_of, stretches

KEY = page_key(1, 2, 3)


@settings(deadline=None)
@given(parts=stretches)
def test_the_extension_codes_runs_as_python_does(parts: list[tuple[int, str, int, bool]]) -> None:
    page = page_of(parts)
    assert _native.encode_page(KEY, *page) == encode_here(KEY, *page)


@pytest.mark.parametrize("runs", [1, 2, RUNS_MAX - 1, RUNS_MAX, RUNS_MAX + 1, PAGE_BLOCKS])
def test_the_extension_goes_over_to_plain_where_python_does(runs: int) -> None:
    addresses = array("q", [2 * min(slot, runs - 1) + slot + 1 for slot in range(PAGE_BLOCKS)])
    owned = bytearray([0, 1, 2, 3] * (PAGE_BLOCKS // 4)) if runs == PAGE_BLOCKS else bytearray([1]) * PAGE_BLOCKS
    value = _native.encode_page(KEY, addresses, owned)
    assert value == encode_here(KEY, addresses, owned)
    assert (value[0] == CODEC_PLAIN) == (runs > RUNS_MAX)


def test_the_extension_takes_nothing_but_pages() -> None:
    with pytest.raises(ValueError, match="512 addresses"):
        _native.encode_page(KEY, array("q", [1, 2]), bytearray(PAGE_BLOCKS))


def test_what_codes_pages_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagecode, "_encode", pagecode._encode)  # as it was, afterwards
    page = array("q", bytes(8 * PAGE_BLOCKS)), bytearray(PAGE_BLOCKS)
    pagecode.encode_with(lambda key, addresses, owned: b"other")
    assert pagecode.encode(KEY, *page) == b"other"
    pagecode.encode_with(None)
    assert pagecode.encode(KEY, *page) == encode_here(KEY, *page)
