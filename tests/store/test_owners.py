"""Who owns the blocks, counted many at a time: the same as one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base import bitmap, sharecode
from rowfs.base.bitmap import CHUNK_BLOCKS
from rowfs.store import owners as owners_module
from rowfs.store.owners import AREA_BLOCKS, Owners

EDGES = [1, 5, 8, 9, CHUNK_BLOCKS, CHUNK_BLOCKS + 1, AREA_BLOCKS - 1, AREA_BLOCKS, 7 * AREA_BLOCKS + 3]
places = st.sampled_from(EDGES)


@settings(deadline=None)
@given(claims=st.lists(st.lists(places, max_size=12), max_size=8), batch=st.sampled_from([1, 7, 1000]))
def test_each_block_has_as_many_owners_as_claims(claims: list[list[int]], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owners_module, "BATCH_BLOCKS", batch)
        owners = Owners()
        for addresses in claims:
            owners.claim(np.array(addresses, np.int64))
        owners.settle()
    right = Counter(address for addresses in claims for address in addresses) + Counter([0])
    assert owners.chunks() == {address // CHUNK_BLOCKS for address in right}
    assert owners.last() == max(right)
    for chunk in owners.chunks():
        found = np.flatnonzero(bitmap.unpack(owners.bits(chunk))) + chunk * CHUNK_BLOCKS
        assert found.tolist() == sorted(address for address in right if address // CHUNK_BLOCKS == chunk)
    records = owners.further.records()
    for address, count in right.items():
        stored = records.get(address >> sharecode.REGION_BITS)
        key = owners_module.REGION_KEY.pack(address >> sharecode.REGION_BITS)
        further = 0 if stored is None else sharecode.decode(key, stored)[address & sharecode.REGION_MASK]
        assert further == count - 1


def test_a_chunk_that_nobody_has_is_empty() -> None:
    assert Owners().bits(4711) == bytearray(bitmap.CHUNK_BYTES)
