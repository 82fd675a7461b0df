"""The parameters of a request: which a method has, and of what kind each is."""

from __future__ import annotations

from typing import Any

from rowfs.control.connection import BadParams

Params = dict[str, Any]

_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "size": (int,),
    "seconds": (int, float),
    "flag": (bool,),
    "names": (list,),
}


def parameters(params: Params, required: dict[str, str], optional: dict[str, str]) -> list[Any]:
    """The values of `params` in the order of `required` and `optional` (name to kind); None for those left out.

    Raises BadParams for one that is missing, unknown or of another kind.
    """
    kinds = required | optional
    for name in params.keys() - kinds.keys():
        raise BadParams(f"there is no parameter {name}")
    for name, kind in kinds.items():
        value = params.get(name)
        if value is None and name in required:
            raise BadParams(f"the parameter {name} is missing")
        if value is not None and not _fits(value, kind):
            raise BadParams(f"the parameter {name} has to be a {kind}")
    return [params.get(name) for name in kinds]


def _fits(value: Any, kind: str) -> bool:
    if kind in ("size", "seconds") and isinstance(value, bool):
        return False
    if kind == "names":
        return isinstance(value, list) and all(_stands_for_bytes(item) for item in value)
    return isinstance(value, _KINDS[kind]) and (kind != "name" or _stands_for_bytes(value))


def _stands_for_bytes(text: Any) -> bool:
    """JSON can write halves of characters, which stand for nothing, except for those that stand for a byte."""
    if not isinstance(text, str):
        return False
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
