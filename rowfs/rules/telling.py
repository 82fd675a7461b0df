"""An event in words."""

from __future__ import annotations

from rowfs.base.units import format_size


def told(
    verb: str,
    failed: bool,
    disk: str | None,
    snapshot: str | None,
    group: str | None,
    size_bytes: int | None,
    text: str,
) -> str:
    """What happened: `snapshot vm1@before (20G)`, `snapshot failed vm1@before: why`."""
    what = f"group {group}" if group else disk or ""
    if snapshot and not group:
        what += f"@{snapshot}"
    size = f" ({format_size(size_bytes)})" if size_bytes is not None else ""
    more = (f": {text}" if failed else f" {text}") if text else ""
    return f"{verb}{' failed' if failed else ''} {what}".rstrip() + size + more
