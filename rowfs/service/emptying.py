"""Deletes for good what was in the trash for as long as it keeps things."""

from __future__ import annotations

import logging

import trio

from rowfs.base.errors import RowfsError
from rowfs.service.service import Service

LOOK_S = 60.0

log = logging.getLogger(__name__)


async def empty_on_time(service: Service) -> None:
    """Look now and then; never ends."""
    while True:
        if empty_overdue(service):
            try:
                await service.committer.commit()
            except RowfsError as error:
                log.warning("what left the trash is not gone for good yet: %s", error)
        await trio.sleep(LOOK_S)


def empty_overdue(service: Service) -> bool:
    """Delete for good what is overdue; whether there was anything. What cannot be keeps nothing else from going."""
    trash, gone = service.pool.trash, False
    if service.pool.read_only or service.pool.read_only_reason or trash.keep_ns is None:
        return False
    for entry in trash.overdue(service.clock.trusted_ns()):
        try:
            trash.purge(entry)
            gone = True
        except RowfsError as error:
            log.warning("%s stays in the trash for now: %s", entry.name, error)
    return gone
