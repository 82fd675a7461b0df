"""The host's clock, and whether it can be believed when it says that things are old: one for all that goes by age.

Its reading is noted in the pool every five minutes while anything goes by it, so a leap is seen across mounts, too.
"""

from __future__ import annotations

from collections.abc import Callable

from rowfs.base.times import now_ns
from rowfs.rules.clock import Clock, confirmed, read, trusted_ns
from rowfs.rules.times import MINUTE_NS
from rowfs.store.pool import Pool

NOTED_NS = 5 * MINUTE_NS


class HostClock:
    """The clock of one mounted pool. `now_ns` is what it shows; tests bring any."""

    def __init__(self, pool: Pool) -> None:
        self._book = pool.policies
        self.now_ns: Callable[[], int] = now_ns
        self._last: Clock | None = None

    def look(self) -> Clock:
        """Whether it can be believed, after a reading, which is noted now and then."""
        now, noted = self.now_ns(), self._book.clock
        self._last = read(self._last or noted, now)
        leaps = (self._last.leapt_from_ns, self._last.leapt_to_ns) != (noted.leapt_from_ns, noted.leapt_to_ns)
        if leaps or noted.seen_ns is None or not 0 <= now - noted.seen_ns < NOTED_NS:
            self._book.set_clock(self._last)
        return self._last

    def confirm(self) -> None:
        """Somebody says that it is right: ages count by it from now on."""
        self._last = confirmed(self.believed())
        self._book.set_clock(self._last)

    def believed(self) -> Clock:
        """As it was when it was last read; nothing is noted."""
        return read(self._last or self._book.clock, self.now_ns())

    def believed_ns(self) -> int:
        """The same as `trusted_ns`, but nothing is noted."""
        return trusted_ns(self.believed(), self.now_ns())

    def trusted_ns(self) -> int:
        """The time that ages count to, after a reading."""
        return trusted_ns(self.look(), self.now_ns())
