"""Sums of sealed blocks come back as they were stored, and no damage goes unseen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base import sumcode
from rowfs.base.errors import CorruptionError
from rowfs.base.format import STRETCH_KEY
from rowfs.base.sumcode import STRETCH_BLOCKS

KEY = STRETCH_KEY.pack(5)
relaxed = settings(deadline=None)
some = st.dictionaries(st.integers(0, STRETCH_BLOCKS - 1), st.integers(1, 0xFFFFFFFF), max_size=80)


def sums_of(blocks: dict[int, int]) -> np.ndarray:
    """The sums of these blocks; all others have none."""
    sums = np.zeros(STRETCH_BLOCKS, np.uint32)
    for block, value in blocks.items():
        sums[block] = value
    return sums


@relaxed
@given(blocks=some)
def test_what_is_decoded_is_what_was_encoded(blocks: dict[int, int]) -> None:
    value = sumcode.encode(KEY, sums_of(blocks))
    if value is None:
        assert not blocks
    else:
        assert (sumcode.decode(KEY, value) == sums_of(blocks)).all()


def test_a_stretch_takes_a_thousandth_of_its_data_and_one_overflow_page() -> None:
    full = sumcode.encode(KEY, np.arange(1, STRETCH_BLOCKS + 1).astype(np.uint32))
    assert full is not None and full[0] == sumcode.CODEC_MANY
    assert len(full) == 3965 <= 4096 - 16
    assert (sumcode.decode(KEY, full) == np.arange(1, STRETCH_BLOCKS + 1)).all()


def test_the_bytes_are_these() -> None:
    few = sumcode.encode(STRETCH_KEY.pack(0), sums_of({4: 0x98F94189, 513: 5}))
    assert few is not None
    assert few.hex(" ") == "01 68 02 05 86 04 00 89 41 f9 98 01 02 05 00 00 00"
    many = sumcode.encode(STRETCH_KEY.pack(0), sums_of(dict.fromkeys(range(64), 7)))
    assert many is not None
    assert many[:1] + many[5:14] == b"\2" + b"\xff" * 8 + b"\0"
    assert many[125:] == b"\7\0\0\0" * 64


@relaxed
@given(blocks=some, place=st.integers(0, 4000), flipped=st.integers(1, 255))
def test_no_damage_goes_unseen(blocks: dict[int, int], place: int, flipped: int) -> None:
    value = sumcode.encode(KEY, sums_of(blocks | {3: 9}))
    assert value is not None
    place %= len(value)
    damaged = value[:place] + bytes([value[place] ^ flipped]) + value[place + 1 :]
    with pytest.raises(CorruptionError):
        sumcode.decode(KEY, damaged)
    with pytest.raises(CorruptionError):
        sumcode.decode(KEY, value[:place])
    with pytest.raises(CorruptionError, match="does not match its checksum"):
        sumcode.decode(STRETCH_KEY.pack(6), value)
