"""Several snapshots behind one @: `a..c` (by place in the chain, either end may be left out) and `a,b,c`.

A name may itself contain dots and commas, so a snapshot of exactly that name always comes first.
"""

from __future__ import annotations

from collections.abc import Collection

from rowfs.base.names import check_name

RANGE = ".."


def may_be_several(text: str) -> bool:
    """Whether `text` is a range or a list, unless a snapshot is called so."""
    return RANGE in text or "," in text


def split_specs(text: str, names: Collection[str]) -> list[str]:
    """The names and ranges that `text` lists, as the daemon takes them; `names` are the snapshots there are.

    Raises UsageError when a part of it cannot be a snapshot's name.
    """
    if text in names:
        return [text]
    return [_checked(part) for part in text.split(",")]


def split_range(text: str, names: Collection[str]) -> tuple[str | None, str | None]:
    """The two ends of the range `text`, None where one is left out. A single name is a range that is open behind.

    Raises UsageError when an end cannot be a snapshot's name.
    """
    if text in names or RANGE not in text:
        return check_name(text, "snapshot name"), None
    first, _, last = text.partition(RANGE)
    return _checked(first) if first else None, _checked(last) if last else None


def _checked(spec: str) -> str:
    """`spec`, if its parts may be names. Raises UsageError otherwise."""
    first, dots, last = spec.partition(RANGE)
    for name in (first, last) if dots else (spec,):
        if name or not dots:
            check_name(name, "snapshot name")
    return spec
