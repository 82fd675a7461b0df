"""Labels, and what chooses things by their labels and disks by their names.

    env=prod   env!=test   env in (a, b)   env notin (a, b)   env   !env

Joined by commas, all of them have to hold. `!=` and `notin` hold for what has no such label at all. Something that asks
for nothing chooses nothing: a policy whose selector was left out must not take hold of every disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from rowfs.base.errors import UsageError
from rowfs.base.names import check_name

Labels = Mapping[str, str]

KEY_CHARACTERS_MAX = 63
VALUE_CHARACTERS_MAX = 255
LABELS_MAX = 64  # of one disk or snapshot
SELECTOR_CHARACTERS_MAX = 4096

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_KEY_ALONE = re.compile(_KEY)
_COMPARED = re.compile(rf"({_KEY})\s*(!=|==?)\s*(.*)")
_LISTED = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_BARE = re.compile(rf"(!?)\s*({_KEY})")
_COMMA = re.compile(r",(?![^()]*\))")  # not those of a list in brackets


# Labels


def check_key(key: str) -> str:
    """`key`, if a label may be called so. Raises UsageError otherwise."""
    shown = key[:KEY_CHARACTERS_MAX]
    if len(key) > KEY_CHARACTERS_MAX:
        raise UsageError(f"the label {shown!r}... is too long: {KEY_CHARACTERS_MAX} characters are the most")
    if not _KEY_ALONE.fullmatch(key):
        raise UsageError(
            f"{shown!r} cannot be a label: write letters, digits, and - _ . / between them, as in env or team/owner"
        )
    return key


def check_value(key: str, value: str) -> str:
    """`value`, if the label `key` may have it. Raises UsageError otherwise."""
    if len(value) > VALUE_CHARACTERS_MAX:
        raise UsageError(f"the value of {key} is too long: {VALUE_CHARACTERS_MAX} characters are the most")
    if not value.isprintable() or value != value.strip() or any(char in value for char in ",()"):
        raise UsageError(
            f"{value!r} cannot be the value of {key}: no commas, brackets, control characters, or spaces at its ends"
        )
    return value


def parse_changes(words: Iterable[str]) -> dict[str, str | None]:
    """What `env=prod` (set) and `env-` (take away: None) ask for. Raises UsageError for other words."""
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and not word.endswith("-"):
            raise UsageError(f"{word[:80]!r} changes no label: write KEY=VALUE, or KEY- to take it away")
        key = check_key(key if equals else word[:-1])
        if key in changes:
            raise UsageError(f"the label {key} is named twice: say once what it shall be")
        changes[key] = check_value(key, value) if equals else None
    return changes


def changed(labels: Labels, changes: Mapping[str, str | None]) -> dict[str, str]:
    """`labels` after `changes`, by key. Raises UsageError when these are more than one thing may have."""
    wanted = {**labels, **changes}
    found = {key: value for key, value in sorted(wanted.items()) if value is not None}
    if len(found) > LABELS_MAX:
        raise UsageError(f"{len(found)} labels are too many: {LABELS_MAX} are the most, take some away with KEY-")
    return found


def check_labels(labels: Labels) -> dict[str, str]:
    """`labels` as stored, by key. Raises UsageError when one of them could not have been set."""
    return changed({}, {check_key(key): check_value(key, value) for key, value in labels.items()})


# Selectors


class Op(StrEnum):
    """What is asked of a label."""

    IS = "in"  # one of the values
    IS_NOT = "notin"
    HAS = "has"
    HAS_NOT = "lacks"


@dataclass(frozen=True)
class Term:
    """One thing that is asked for."""

    key: str
    op: Op
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether `labels` have it so."""
        match self.op:
            case Op.HAS:
                return self.key in labels
            case Op.HAS_NOT:
                return self.key not in labels
            case Op.IS:
                return labels.get(self.key) in self.values
        return labels.get(self.key) not in self.values

    def __str__(self) -> str:
        if self.op in (Op.HAS, Op.HAS_NOT):
            return self.key if self.op is Op.HAS else f"!{self.key}"
        if len(self.values) == 1 and not self.values[0].startswith("="):
            return f"{self.key}{'=' if self.op is Op.IS else '!='}{self.values[0]}"
        return f"{self.key} {self.op} ({','.join(self.values)})"


@dataclass(frozen=True)
class Selector:
    """What is asked of the labels of one thing. Without terms it chooses nothing."""

    terms: tuple[Term, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether something with these labels is chosen."""
        return bool(self.terms) and all(term.matches(labels) for term in self.terms)

    def __str__(self) -> str:
        """As `parse_selector` reads it."""
        return ",".join(map(str, self.terms))


def parse_selector(text: str) -> Selector:
    """The selector that `text` is; an empty one chooses nothing. Raises UsageError when a part of it is none."""
    if len(text) > SELECTOR_CHARACTERS_MAX:
        raise UsageError(f"a selector has at most {SELECTOR_CHARACTERS_MAX} characters, this one has {len(text)}")
    if not text.strip():
        return Selector()
    return Selector(tuple(_parse_term(part.strip()) for part in _COMMA.split(text)))


def _parse_term(text: str) -> Term:
    if match := _LISTED.fullmatch(text):
        key, op, listed = match.groups()
        values = [value.strip() for value in listed.split(",")]
    elif match := _COMPARED.fullmatch(text):
        key, sign, value = match.groups()
        op, values = Op.IS_NOT if sign == "!=" else Op.IS, [value]
    elif match := _BARE.fullmatch(text):
        return Term(check_key(match[2]), Op.HAS_NOT if match[1] else Op.HAS)
    else:
        raise UsageError(
            f"{text[:80]!r} asks nothing of a label: write env=prod, env!=prod, env in (a,b), env or !env, with commas"
        )
    return Term(check_key(key), Op(op), tuple(check_value(key, value) for value in values))


# Disks


def check_pattern(pattern: str) -> str:
    """`pattern`, if names of disks may be chosen by it, with * and ? for what may vary. Raises UsageError otherwise."""
    return check_name(pattern, "pattern of disks")


@dataclass(frozen=True)
class Choice:
    """Which disks: those that match one of the patterns, if there are any, and the selector, if there is one."""

    patterns: tuple[str, ...] = ()
    selector: Selector = Selector()

    def chooses(self, name: str, labels: Labels) -> bool:
        """Whether the disk `name` with these labels is chosen. No patterns and no selector: none is."""
        if self.patterns and not any(fnmatchcase(name, pattern) for pattern in self.patterns):
            return False
        return self.selector.matches(labels) if self.selector.terms else bool(self.patterns)

    def __str__(self) -> str:
        wanted = [" or ".join(self.patterns)] if self.patterns else []
        return " with ".join([*wanted, str(self.selector)] if self.selector.terms else wanted) or "no disk"


def parse_choice(patterns: Sequence[str], selector: str) -> Choice:
    """The disks that --disks and --label choose. Raises UsageError when one of them is none."""
    return Choice(tuple(map(check_pattern, patterns)), parse_selector(selector))
