"""What verbs declare of themselves is so: which change anything and which do not."""

from __future__ import annotations

import base64
from errno import EROFS
from typing import Any

import pytest

from rowfs.base.errors import RowfsError
from rowfs.verbs.declare import Verb
from rowfs.verbs.table import METHODS
from tests.operations.helpers import Fs, Writes
from tests.store.helpers import B

GIVEN: dict[str, Any] = {
    "disk": "vm",
    "disks": ["vm"],
    "snapshot": "a",
    "snapshots": ["a"],
    "group": "g",
    "targets": ["new"],
    "addresses": ["vm@a"],
    "to": "new",
    "name": "{}-new",
    "size_bytes": B,
    "changes": ["env=prod"],
    "policy": "nightly",
    "description": "why",
    "address": 1,
    "data": base64.b64encode(bytes(B)).decode(),
}
# Without these the verb only shows.
BESIDES: dict[str, dict[str, Any]] = {"trash": {"keep": "7d"}, "limit": {"disk": "vm", "snapshots": 9}}
CHANGING = [verb for verb in METHODS.values() if verb.changes and verb.method != "umount"]
LOOKING = [verb for verb in METHODS.values() if not verb.changes]


async def filled(fs: Fs) -> None:
    await fs.disk("vm", 2)
    await fs.write("vm", 0, "block")
    await fs.snapshot("vm", "a")
    await fs.ask("group_snapshot", group="g", disks=["vm"])
    await fs.ask("policy_create", policy="nightly", every="1d", disks=["vm"])


def params_of(verb: Verb) -> dict[str, Any]:
    """What the verb needs to be carried out on a pool that is `filled`. A new kind of parameter needs a value here."""
    return {param.name: GIVEN[param.name] for param in verb.params if param.required}


@pytest.mark.parametrize("verb", LOOKING, ids=lambda verb: verb.method)
async def test_a_verb_that_declares_no_change_makes_none(fs: Fs, verb: Verb) -> None:
    await filled(fs)
    before, writes = await fs.ask("list"), Writes(fs)
    async with fs.caller.afterwards:
        await fs.ask(verb.method, **params_of(verb))
    await fs.service.committer.commit()
    assert (writes.count, writes.records) == (0, 0)
    assert await fs.ask("list") == before


@pytest.mark.parametrize("verb", CHANGING, ids=lambda verb: verb.method)
async def test_a_verb_that_declares_a_change_needs_a_pool_that_can_be_written(fs: Fs, verb: Verb) -> None:
    await filled(fs)
    before = await fs.ask("list")
    fs.pool.commits.fail("the host failed")
    with pytest.raises(RowfsError) as caught:
        await fs.ask(verb.method, **params_of(verb), **BESIDES.get(verb.method, {}))
    assert caught.value.errno == EROFS, caught.value
    assert await fs.ask("list") == before
