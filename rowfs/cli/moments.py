"""Points in time as they are typed here, for the daemon, which may be in another time zone."""

from __future__ import annotations

from datetime import UTC, datetime

from rowfs.base.times import now_ns
from rowfs.rules.times import parse_instant, to_datetime


def instant(text: str, ahead: bool = False) -> str:
    """The point in time that `text` is here, a span being ago, or `ahead`. Raises UsageError."""
    here = datetime.now().astimezone().tzinfo
    assert here is not None
    return to_datetime(parse_instant(text, now_ns(), here, ahead=ahead), UTC).isoformat()
