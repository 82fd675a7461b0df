"""The parameters of a request, as its verb declares them."""

from __future__ import annotations

from typing import Any

from rowfs.control.connection import BadParams
from rowfs.verbs.declare import Kind, Verb

Params = dict[str, Any]

_TYPES: dict[Kind, tuple[type, ...]] = {
    Kind.NAME: (str,),
    Kind.TEXT: (str,),
    Kind.SIZE: (int,),
    Kind.NUMBER: (int,),
    Kind.SECONDS: (int, float),
    Kind.FLAG: (bool,),
    Kind.NAMES: (list,),
}

_SAID = {
    Kind.NAME: "a name",
    Kind.TEXT: "text",
    Kind.SIZE: "a whole number of bytes",
    Kind.NUMBER: "a whole number",
    Kind.SECONDS: "a number of seconds",
    Kind.FLAG: "true or false",
    Kind.NAMES: "an array of names",
}
assert _SAID.keys() == _TYPES.keys()


def parameters(params: Params, verb: Verb) -> list[Any]:
    """The values of `params` in the order in which `verb` declares them; None for those left out.

    Raises BadParams for one that is missing, unknown or of another kind.
    """
    declared = {param.name: param for param in verb.params}
    for name in params.keys() - declared.keys():
        raise BadParams(f"there is no parameter {name}")
    for name, param in declared.items():
        value = params.get(name)
        if value is None and param.required:
            raise BadParams(f"the parameter {name} is missing")
        if value is not None and not _fits(value, param.kind):
            raise BadParams(f"the parameter {name} has to be {_SAID[param.kind]}")
    return [params.get(name) for name in declared]


def _fits(value: Any, kind: Kind) -> bool:
    if isinstance(value, bool):
        return kind is Kind.FLAG
    if kind is Kind.NAMES:
        return isinstance(value, list) and all(map(_stands_for_bytes, value))
    return isinstance(value, _TYPES[kind]) and (not isinstance(value, str) or _stands_for_bytes(value))


def _stands_for_bytes(text: Any) -> bool:
    """JSON can write halves of characters, which stand for nothing, except for those that stand for a byte."""
    if not isinstance(text, str):
        return False
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
