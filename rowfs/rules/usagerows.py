"""What is told of accounts: rows by disk, by label or by policy. Amounts of a row are sums of those of its disks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rowfs.rules.usage import NOTHING, Amounts, plus

NO_LABEL = ""  # the row of what has no label, or not the one that is asked for


@dataclass(frozen=True, kw_only=True)
class Used:
    """What one disk holds, or held before it went (`ended`); or a policy's snapshots."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False
    snapshots: int = 0  # how many
    holds: Amounts = NOTHING  # bytes
    byte_seconds: Amounts = NOTHING


@dataclass(frozen=True, kw_only=True)
class Row:
    """Some of them together."""

    name: str
    count: int = 0  # of disks, or policies, that are there
    snapshots: int = 0
    holds: Amounts = NOTHING
    byte_seconds: Amounts = NOTHING

    def adding(self, used: Used) -> Row:
        """And another one."""
        return replace(
            self,
            count=self.count + (not used.ended),
            snapshots=self.snapshots + used.snapshots,
            holds=plus(self.holds, used.holds),
            byte_seconds=plus(self.byte_seconds, used.byte_seconds),
        )


def total(all_used: Iterable[Used]) -> Row:
    """All of them, each once."""
    row = Row(name="")
    for used in all_used:
        row = row.adding(used)
    return row


def by_name(all_used: Iterable[Used]) -> list[Row]:
    """A row for each name, sorted: those that had one name one after the other are in one."""
    return _rows((used.name, used) for used in all_used)


def by_label(all_used: Iterable[Used], key: str | None) -> list[Row]:
    """A row for each label `key=value`, sorted, and one of what has none. Without `key` a disk is in several rows."""
    return _rows((name, used) for used in all_used for name in _labels_of(used.labels, key))


def _labels_of(labels: Mapping[str, str], key: str | None) -> Collection[str]:
    found = [f"{name}={value}" for name, value in labels.items() if key in (None, name)]
    return found or [NO_LABEL]


def _rows(named: Iterable[tuple[str, Used]]) -> list[Row]:
    found: dict[str, Row] = {}
    for name, used in named:
        found[name] = found.get(name, Row(name=name)).adding(used)
    return [row for _, row in sorted(found.items())]


def worth_telling(all_used: Iterable[Used]) -> Iterator[Used]:
    """Without what is gone and held nothing in that time."""
    return (used for used in all_used if not used.ended or used.holds != NOTHING or used.byte_seconds != NOTHING)
