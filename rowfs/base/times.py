"""Points in time: nanoseconds since 1970 in UTC, as far as 64 bits reach, which is from 1677-09-21 to 2262-04-11.

A file can be given any time at all (touch -d). One that is out of reach becomes the nearest that is not, as in ext4 and
XFS, whose ranges are others.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

_CLOCK_REALTIME_COARSE = 5  # linux/time.h
TIME_NS_MIN, TIME_NS_MAX = -(1 << 63), (1 << 63) - 1


def clamped(time_ns: int) -> int:
    """The time nearest to `time_ns` that can be kept."""
    return min(max(time_ns, TIME_NS_MIN), TIME_NS_MAX)


def now_ns() -> int:
    """The present, whatever the clock is set to."""
    return clamped(time.time_ns())


def stamp_ns() -> int:
    """The present as Linux stamps files: never ahead of the stamp that it makes next."""
    return clamped(time.clock_gettime_ns(_CLOCK_REALTIME_COARSE))


def rfc3339(time_ns: int) -> str:
    """A point in time, in UTC with microseconds."""
    seconds, ns = divmod(clamped(time_ns), 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns // 1000:06d}Z"
