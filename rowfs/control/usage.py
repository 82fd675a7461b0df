"""The socket's verb on accounts: what disks, labels and policies hold, and held for how long."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from typing import Any

from rowfs.base.format import POLICY as POLICY_KIND
from rowfs.base.times import rfc3339
from rowfs.base.units import BLOCK_BYTES
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.rules.selectors import parse_selector
from rowfs.rules.times import parse_instant
from rowfs.rules.usage import KEPT_NS, KINDS, NOTHING, Account, Amounts, Kind, byte_seconds
from rowfs.rules.usagerows import Row, Used, by_label, by_name, total, worth_telling
from rowfs.service.counting import counted
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.store.accounts import OTHERS, Held
from rowfs.store.model import Disk
from rowfs.verbs.usage import DISK, LABEL, POLICY, USAGE

PART_ROWS = 500
OTHERS_NAME = "(others)"  # no disk or policy that rowfs makes an account of its own for


class UsageMethods:
    """What clients may ask of the accounts of one mounted pool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {"usage": self.usage}

    async def usage(self, caller: Caller, params: Params) -> dict[str, Any]:
        """What is held, and was held since a time, in rows."""
        by, key, selector, since = parameters(params, USAGE)
        by = by or DISK
        if by not in (DISK, LABEL, POLICY):
            raise BadParams(f"the parameter by has to be {DISK}, {LABEL} or {POLICY}")
        if key is not None and by != LABEL:
            raise BadParams(f"a key chooses among labels: it needs by {LABEL}")
        if selector is not None and by == POLICY:
            raise BadParams("policies have no labels: a selector chooses disks")
        now_ns = self._pool.catalog.accounts.now_ns()
        since_ns = max(now_ns - KEPT_NS, 0)
        if since is not None:
            since_ns = max(since_ns, parse_instant(since, self._service.clock.now_ns(), UTC, ahead=False))
        held = await counted(self._pool.holdings.count())
        chosen = None if selector is None else parse_selector(selector)
        disks = {disk.id: disk for disk in self._pool.catalog.disks.values()}
        found = await self._used(held, disks, Kind.POLICY if by == POLICY else Kind.DISK, since_ns, now_ns)
        all_used = list(worth_telling(used for used in found if chosen is None or chosen.matches(used.labels)))
        rows = by_label(all_used, key) if by == LABEL else by_name(all_used)
        for at in range(0, len(rows), PART_ROWS):
            await caller.part([_object(row) for row in rows[at : at + PART_ROWS]])
        return {
            "by": by,
            "since": rfc3339(since_ns),
            "until": rfc3339(now_ns),
            "total": _object(total(all_used)),
            "used_bytes": self._pool.space.allocated_blocks * BLOCK_BYTES,
            "uncounted": sorted(_name(number, disks, item) for number, item in held.items() if item.amounts is None),
        }

    async def _used(
        self, held: dict[int, Held], disks: dict[int, Disk], kind: Kind, since_ns: int, now_ns: int
    ) -> list[Used]:
        """What each disk or policy holds, and held, those that are gone too."""
        accounts: dict[int, Account] = {}
        seconds: dict[int, Amounts] = {}
        slices = Slices()
        for number, account in self._pool.catalog.accounts:
            if account.kind is kind:
                accounts[number], seconds[number] = account, byte_seconds(account, since_ns, now_ns)
            await slices.rest()
        taken = Counter(item.policy for item in self._pool.catalog.snapshots.values() if item.kind == POLICY_KIND)
        found = []
        for number in {number: None for number, item in held.items() if item.kind is kind} | dict.fromkeys(accounts):
            item, disk, own = held.get(number), disks.get(number), accounts.get(number)
            amounts = NOTHING if item is None or item.amounts is None else item.amounts
            found.append(
                Used(
                    name=_name(number, disks, item, own),
                    labels=disk.labels if disk is not None else own.labels if own is not None else {},
                    ended=item is None or not item.there,
                    snapshots=len(disk.chain) if disk is not None else taken.get(number, 0),
                    holds=amounts,
                    byte_seconds=seconds.get(number, NOTHING),
                )
            )
        return found


def _name(number: int, disks: dict[int, Disk], item: Held | None, account: Account | None = None) -> str:
    """What a disk or policy is called, or was last."""
    if number in OTHERS.values():
        return OTHERS_NAME
    if number in disks:
        return disks[number].name
    names = [item.name if item is not None else "", account.name if account is not None else ""]
    return next(filter(None, names), f"#{number}")


def _object(row: Row) -> dict[str, Any]:
    """A row as docs/CONTROL.md has it."""
    return {
        "name": row.name,
        "count": row.count,
        "snapshots": row.snapshots,
        **{f"{kind}_bytes": n for kind, n in zip(KINDS, row.holds, strict=True)},
        "byte_seconds": dict(zip(KINDS, row.byte_seconds, strict=True)),
    }
