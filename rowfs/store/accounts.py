"""The accounts of a pool: what each disk, and each policy's snapshots, held for how long (rules.usage).

They are kept packed, all of them together in 1 MiB at most, on disk as in memory. What is provisioned is sampled in the
commit that changes it, so it is right to the second; the rest when somebody has counted it (`record`). Of what is gone
the account stays, with the last name. Where there are too many, what is gone longest is added to an account of others,
and so is what comes when `OWN_MAX` have one of their own. An older rowfs leaves all of them alone: what it deleted ends
with the next sample.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from rowfs.base.errors import CorruptionError
from rowfs.base.format import ACCOUNTS, ID_KEY
from rowfs.base.times import now_ns
from rowfs.persist.blockmap import MapUpdate
from rowfs.persist.mapread import Reader
from rowfs.rules.usage import (
    ENDED_BYTES_MAX,
    NOTHING,
    OWN_BYTES_MAX,
    OWN_MAX,
    Account,
    Amounts,
    Kind,
    merged,
    plus,
    sampled,
    share_bytes,
    thinned,
)
from rowfs.rules.usagecode import is_ended, is_holding, pack, unpack
from rowfs.store.model import Disk

ENDED_EACH_MAX = 1024  # bytes, of one that is gone
LABELS_BYTES_MAX = 512  # that are kept with it
OTHERS = {Kind.DISK: 1 << 32, Kind.POLICY: (1 << 32) + 1}  # beyond all ids

log = logging.getLogger(__name__)


class Held(NamedTuple):
    """What a disk or a policy holds now. `there`: not only what is left of it, in the trash say."""

    kind: Kind
    amounts: Amounts | None  # bytes; None: that cannot be told
    there: bool = True
    name: str = ""


class Accounts:
    """The accounts of one pool, by the ids of disks and policies, or OTHERS."""

    def __init__(self, reader: Reader) -> None:
        self.now_ns: Callable[[], int] = now_ns  # as rules.clock trusts it, where there is a clock that is looked at
        self._stored: dict[int, bytes] = {}
        self._changed: set[int] = set()
        self._provisioned: dict[int, int] = {}  # bytes, of those that were looked at
        for key, value in reader.items(ACCOUNTS):
            if len(key) == ID_KEY.size:
                self._stored[int(ID_KEY.unpack(key)[0])] = bytes(value)
        self._ended = {number for number, stored in self._stored.items() if is_ended(stored)}
        self._ended_bytes = sum(len(self._stored[number]) for number in self._ended)
        self._own_bytes = sum(map(len, self._stored.values())) - self._ended_bytes

    def __iter__(self) -> Iterator[tuple[int, Account]]:
        """All that can be read."""
        for number in list(self._stored):
            account = self.get(number)
            if account is not None:
                yield number, account

    def get(self, number: int) -> Account | None:
        """The account with this id; None: there is none. One that cannot be read is none, and begins anew."""
        stored = self._stored.get(number)
        if stored is None:
            return None
        try:
            return unpack(stored)
        except CorruptionError as error:
            log.warning("the account with the id %d begins anew: %s", number, error)
            self._drop(number)
            return None

    # Changing

    def _put(self, number: int, account: Account) -> None:
        self._forget_size(number)
        self._stored[number] = stored = pack(account)
        self._provisioned[number] = account.holds[0]
        self._changed.add(number)
        if account.ended:
            self._ended.add(number)
            self._ended_bytes += len(stored)
        else:
            self._own_bytes += len(stored)

    def _drop(self, number: int) -> None:
        self._forget_size(number)
        del self._stored[number]
        self._provisioned.pop(number, None)
        self._changed.add(number)

    def _forget_size(self, number: int) -> None:
        size_bytes = len(self._stored.get(number, b""))
        if number in self._ended:
            self._ended.discard(number)
            self._ended_bytes -= size_bytes
        else:
            self._own_bytes -= size_bytes

    @property
    def _own(self) -> int:
        """How many are of what is there."""
        return len(self._stored) - len(self._ended)

    def _thinned(self, account: Account, budget_bytes: int) -> Account:
        return thinned(account, self.now_ns(), lambda tried: len(pack(tried)), budget_bytes)

    def _share_bytes(self) -> int:
        return share_bytes(self._own)

    def see(self, disk: Disk) -> None:
        """A disk's record is about to be stored: sample it, if another size is provisioned than before."""
        size_bytes = 0 if disk.head is None else disk.size_bytes
        if self._provisioned.get(disk.id) == size_bytes:
            return
        account = self.get(disk.id)
        if account is None:
            if self._own >= OWN_MAX:
                return
            account = Account()
        elif account.holds[0] == size_bytes:
            self._provisioned[disk.id] = size_bytes
            return
        mapped_bytes = 0 if disk.head is None else disk.mapped_bytes
        account = sampled(account, self.now_ns(), (size_bytes, mapped_bytes, *account.holds[2:]))
        account = self._thinned(account, self._share_bytes())
        if self._own_bytes - len(self._stored.get(disk.id, b"")) + len(pack(account)) <= OWN_BYTES_MAX:
            self._put(disk.id, account)  # else it waits until `record` has made room

    def end(self, number: int, name: str = "", labels: Mapping[str, str] | None = None) -> None:
        """What an account is of is gone; it was called so. What of it is in the trash comes with the next sample."""
        account = self.get(number)
        if account is None or account.ended:
            return
        kept = labels if labels and len(json.dumps(labels)) <= LABELS_BYTES_MAX else {}
        account = sampled(account, self.now_ns(), NOTHING)
        account = replace(account, ended=True, name=name or account.name, labels=dict(kept or {}))
        self._put(number, self._thinned(account, ENDED_EACH_MAX))
        self._fold()

    def _fold(self) -> None:
        """Add together what is gone longest, where that takes too much."""
        while self._ended_bytes > ENDED_BYTES_MAX:
            number = min(self._ended)
            account = self.get(number)
            if account is not None:
                self._add_to_others(account)
                self._drop(number)

    def _add_to_others(self, account: Account) -> None:
        now, number = self.now_ns(), OTHERS[account.kind]
        others = self.get(number) or Account(kind=account.kind)
        account = sampled(account, now, account.holds)
        both = merged(sampled(others, now, plus(others.holds, account.holds)), account)
        self._put(number, self._thinned(both, self._share_bytes()))

    def record(self, held: Mapping[int, Held]) -> Iterator[None]:
        """Sample everything, as it was counted. Pauses now and then; may be left at any pause."""
        others = dict.fromkeys(Kind, NOTHING)
        new = sum(item.there and number not in self._stored for number, item in held.items())
        share = share_bytes(min(self._own + new, OWN_MAX) + len(OTHERS))
        for number in [number for number, stored in self._stored.items() if len(stored) > share]:
            account = self.get(number)
            if account is not None and not account.ended:
                self._put(number, self._thinned(account, share))
            yield
        for number, now in held.items():
            if not self._sample(number, now) and now.amounts is not None:
                others[now.kind] = plus(others[now.kind], now.amounts)
            yield
        for kind, number in OTHERS.items():
            if number in self._stored or others[kind] != NOTHING:
                self._sample(number, Held(kind, others[kind]))
        for number in [number for number in self._stored if number not in held and number not in OTHERS.values()]:
            if number not in self._ended:  # a rowfs that knows no accounts has deleted it; or it was a policy
                self.end(number)
            elif is_holding(self._stored.get(number, b"")):
                self._sample(number, Held(Kind.DISK, NOTHING))
            yield

    def _sample(self, number: int, held: Held) -> bool:
        """Sample one; False: it has no account of its own."""
        account = self.get(number)
        if account is None:
            if not held.there or (self._own >= OWN_MAX and number not in OTHERS.values()):
                return False
            account = Account(kind=held.kind)
        elif held.amounts in (None, account.holds):
            return True  # it rests: its last sample holds on
        amounts = account.holds if held.amounts is None else held.amounts
        if account.ended:  # of what went meanwhile, nothing but what the trash has is left
            amounts = (*NOTHING[:-1], amounts[-1])
        account = replace(sampled(account, self.now_ns(), amounts), name=held.name or account.name)
        self._put(number, self._thinned(account, ENDED_EACH_MAX if account.ended else self._share_bytes()))
        self._fold()
        return True

    # Storing

    @property
    def unsaved(self) -> bool:
        """Whether a commit would change anything here."""
        return bool(self._changed)

    def freeze(self, update: MapUpdate) -> None:
        """Put what changed since the last freeze into `update`."""
        for number in self._changed:
            update.put(ACCOUNTS, ID_KEY.pack(number), self._stored.get(number))
        self._changed = set()
