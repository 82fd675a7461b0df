"""The table of policies: what is stored of each, be it readable or not."""

from __future__ import annotations

import logging
from functools import partial

from rowfs.base.errors import CorruptionError
from rowfs.base.format import ID_KEY, POLICIES, PolicyRecord
from rowfs.persist.mapread import Reader
from rowfs.store.records import Records, told

log = logging.getLogger(__name__)


class PolicyTable(Records[PolicyRecord]):
    """The policies of one pool, by id."""

    def __init__(self) -> None:
        super().__init__(POLICIES, partial(told, PolicyRecord))

    def load(self, reader: Reader, next_id: int) -> None:
        """Read all records. One that is none keeps no pool from being opened: it is a policy that does nothing."""
        for key, value in reader.items(POLICIES):
            number = int(ID_KEY.unpack(key)[0]) if len(key) == ID_KEY.size else 0
            if not 0 < number < next_id:
                log.warning("a policy is stored under the key %s, which nothing can have: it is left alone", key.hex())
                continue
            try:
                record = self._unpack(value)
                if record.id != number:
                    raise CorruptionError(f"it says that its id is {record.id}")
            except CorruptionError as error:
                log.warning("the policy with the id %d takes and deletes nothing: %s", number, error)
                record = PolicyRecord(id=number, rule=None)  # of which the rule cannot be read either
            self._held[number] = record
