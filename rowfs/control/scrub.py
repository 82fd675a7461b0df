"""The socket's verbs on the scrub."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.units import BLOCK_BYTES
from rowfs.control.connection import Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.service.scrub import RUNNING
from rowfs.service.service import Service
from rowfs.store.sightings import Sighting
from rowfs.verbs.scrub import REPAIR, SCRUB

WAIT_S = 0.5  # between two notes of how far it is
PART_ITEMS = 256
SEEN_MAX = 1000  # of one block that are told


class ScrubMethods:
    """What clients may ask of the scrub of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._scrub = service.committer.scrub

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"scrub": self.scrub, "repair": self.repair}

    async def scrub(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Begin, pause, resume or stop one, and tell how far it is and what is damaged."""
        rate, action, wait = parameters(params, SCRUB)
        if rate is not None and rate <= 0:
            raise UsageError("the rate of a scrub has to be more than nothing")
        match action or "start":
            case "start":
                self._scrub.start(rate)
            case "pause":
                self._scrub.pause()
            case "resume":
                self._scrub.resume(rate)
            case "stop":
                self._scrub.stop()
            case "status":
                pass
            case other:
                raise UsageError(f"a scrub cannot {other}: start, pause, resume, stop or status")
        while wait and self._scrub.state == RUNNING:
            status = self._scrub.status()
            await caller.progress(status["scrubbed_bytes"], status["total_bytes"], "bytes", "scrubbing")
            await self._scrub.changed(WAIT_S)
        await self._tell(caller)
        return self._scrub.status()

    async def _tell(self, caller: Caller) -> None:
        damage = self._service.pool.damage
        if self._scrub.state != RUNNING and any(number not in self._scrub.sightings for number in damage.addresses):
            await self._scrub.locate()  # somebody read it since
        items = [_damage(number, self._scrub.sightings.get(number, [])) for number in damage.addresses]
        for start in range(0, len(items), PART_ITEMS):
            await caller.part(items[start : start + PART_ITEMS])

    async def repair(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Write a damaged block anew."""
        address, data = parameters(params, REPAIR)
        try:
            block = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("the data of a block is not in base64") from None
        if len(block) != BLOCK_BYTES:
            raise UsageError(f"a block has {BLOCK_BYTES} bytes, not {len(block)}")
        repaired = self._scrub.repair(address, block)
        if repaired:
            await self._service.committer.commit()
        return {"repaired": repaired}


def _damage(number: int, seen: list[Sighting]) -> dict[str, Any]:
    """A damaged block as docs/CONTROL.md has it."""
    return {
        "address": number,
        "length_bytes": BLOCK_BYTES,
        "seen_by": [
            {"disk": item.disk, "snapshot": item.snapshot, "in_trash": item.in_trash, "offset_bytes": item.offset_bytes}
            for item in seen[:SEEN_MAX]
        ],
    }
