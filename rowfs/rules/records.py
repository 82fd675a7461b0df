"""Values of rules to plain objects, as JSON has them, and back.

Readers ignore keys that they do not know and give missing ones their default, as the pool's records do (base.format).
What is there has to be of its type: a record that is not is unreadable as a whole, and who asked for it does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rowfs.base.errors import CorruptionError

T = TypeVar("T")
INT64 = range(-(1 << 63), 1 << 63)
_hints = cache(get_type_hints)


def to_plain(value: Any) -> dict[str, Any]:
    """`value`, a dataclass, as a dict of what JSON has."""
    return asdict(value)


def from_plain(kind: type[T], plain: object, known_only: frozenset[str] = frozenset()) -> T:
    """The dataclass that `plain` is. Raises CorruptionError when it is none.

    In fields named in `known_only` a key that is not known makes it unreadable: a rule of a newer rowfs that was
    ignored might be the one that keeps something.
    """
    if not isinstance(plain, Mapping):
        raise CorruptionError(f"{_called(kind)} cannot be read: {plain!r:.40} is no object")
    assert is_dataclass(kind)
    found = {}
    for field in fields(kind):
        if field.name in plain:
            try:
                found[field.name] = _read(_hints(kind)[field.name], plain[field.name], field.name in known_only)
            except ValueError as error:
                raise CorruptionError(f"{_called(kind)} cannot be read: {field.name} is {error}") from None
        elif field.default is MISSING and field.default_factory is MISSING:
            raise CorruptionError(f"{_called(kind)} cannot be read: it has no {field.name}")
    return kind(**found)


def _called(kind: type) -> str:
    return f"the record of a {kind.__name__.lower()}"


def _read(hint: Any, item: object, known_only: bool) -> Any:
    """`item`, if it is what `hint` says. Raises ValueError with what it is otherwise."""
    if isinstance(hint, UnionType):
        if item is None and type(None) in get_args(hint):
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(item, list | tuple):
            raise ValueError(f"{item!r:.40}")
        return tuple(_read(get_args(hint)[0], part, known_only) for part in item)
    if is_dataclass(hint):
        if known_only and isinstance(item, Mapping) and (strange := set(item) - {part.name for part in fields(hint)}):
            raise ValueError(f"of a newer rowfs: it has {', '.join(sorted(map(str, strange)))}")
        try:
            return from_plain(hint, item)  # type: ignore[arg-type]
        except CorruptionError as error:
            raise ValueError(str(error)) from None
    return _read_one(hint, item)


def _read_one(hint: Any, item: object) -> Any:
    if issubclass(hint, str):  # an enum too
        if not isinstance(item, str):
            raise ValueError(f"{item!r:.40}")
        return hint(item)
    if type(item) is not hint or (hint is int and item not in INT64):
        raise ValueError(f"{item!r:.40}")
    return item
