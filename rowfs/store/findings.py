"""What the checker found, and what would mend it.

What can be mended without guessing is collected beside the findings; to put it into the map is for store.check.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from struct import Struct

from rowfs.persist.blockmap import MapUpdate

FINDINGS_MAX = 1000  # of one kind; a pool in pieces need not fill the terminal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which check found it, and a line for people."""

    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


class Findings:
    """All that is wrong, in the order in which it was found."""

    def __init__(self) -> None:
        self.mended = MapUpdate()
        self._kept: list[Finding] = []
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, check: str, text: str) -> None:
        """Something is wrong."""
        self._counts[check] += 1
        if self._counts[check] <= FINDINGS_MAX:
            self._kept.append(Finding(check, text))

    def mend(self, table: str, key: bytes, value: bytes | None) -> None:
        """What a record ought to be; None: there ought to be none."""
        self.mended.put(table, key, value)

    def is_key(self, check: str, table: str, kind: Struct, key: bytes) -> bool:
        """Whether a key has the length that all keys of its table have."""
        if len(key) == kind.size:
            return True
        self.add(check, f"there is a record of {table} under {key.hex()}, which is no key")
        return False

    def listed(self) -> list[Finding]:
        """The findings, and of which kinds there are more."""
        more = ((check, count - FINDINGS_MAX) for check, count in self._counts.items())
        return self._kept + [Finding(check, f"{count} more") for check, count in more if count > 0]
