"""The rows of `make bench-peers`: what is compared with what, the targets, and the tables. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchlib.figures import shown

ROWFS, PYTHON, QCOW2, RAW, XFS, BTRFS = "rowfs", "python", "qcow2", "raw", "xfs", "btrfs"
LABELS = {
    ROWFS: "rowfs",
    PYTHON: "rowfs (Python only)",
    QCOW2: "qcow2, FUSE export",
    RAW: "raw on loop",
    XFS: "XFS reflink",
    BTRFS: "btrfs reflink",
}
PYTHON_AT_LEAST = 0.5  # of the figures with the C extension, on every row
IOPS, MIB_S, TIMES, MS, INSERTS, FILES = "IOPS", "MiB/s", "x", "ms", "inserts/s", "files/s"

Samples = Mapping[str, Mapping[str, Sequence[float]]]  # of a row, of a system: a value for each round


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `at_least`: what its ratio has to reach: to the same row of the system `to`, or to its row `without`.

    `at_most`: what the value itself may not exceed.
    """

    key: str
    work: str
    unit: str = IOPS
    at_least: float | None = None
    to: str = QCOW2
    without: str = ""
    at_most: float | None = None
    worst: bool = False  # the largest of all rounds counts, not the median

    @property
    def better_if_less(self) -> bool:
        return self.at_most is not None


ROWS = (
    Row("read-4k", "4 KiB random read, direct, queue depth 16", at_least=1.1),
    Row("overwrite-4k", "4 KiB random overwrite, direct, queue depth 16", at_least=1.2),
    Row("redirect-4k", "4 KiB random overwrite, the first after a snapshot", at_least=1.5),
    Row("redirect-bytes", "  its host bytes to the payload", TIMES, at_most=1.1),
    Row("buffered-4k", "4 KiB random write, buffered, fsync at the end", at_least=6),
    Row("synced-4k", "4 KiB write + fdatasync each", at_least=1.1),
    Row("write-1m-buffered", "1 MiB sequential write, buffered, fsync at the end", MIB_S, at_least=1.4),
    Row("write-1m-direct", "1 MiB sequential write, direct", MIB_S, at_least=1.0),
    Row("read-1m-direct", "1 MiB sequential read, direct", MIB_S, at_least=2),
    Row("read-1m-cold", "1 MiB sequential read, buffered, cold", MIB_S, at_least=1.2),
    Row("fragments-direct", "1 MiB sequential read after that overwrite, direct", MIB_S, at_least=1.0),
    Row("fragments-cold", "1 MiB sequential read after that overwrite, buffered, cold", MIB_S, at_least=1.0),
    Row("snapshots", "4 KiB random overwrite, a snapshot taken every second", at_least=0.9, without="no-snapshots"),
    Row("no-snapshots", "  the same without snapshots"),
    Row("chain-1000", "4 KiB random overwrite after a snapshot, 1,000 in the chain", at_least=0.9, without="chain-1"),
    Row("chain-1", "  the same with one to a few in the chain"),
    Row(
        "deleting", "4 KiB random overwrite, a snapshot with 1 GiB of its own going", at_least=0.8, without="before-it"
    ),
    Row("before-it", "  the same before that"),
    Row("deleting-slowest", "  slowest write of all rounds", MS, at_most=100, worst=True),
    Row("sqlite", "ext4 on the loop device: SQLite inserts, synchronous=FULL", INSERTS, at_least=0.8, to=RAW),
    Row("tree", "ext4 on the loop device: source tree unpacked and deleted", FILES, at_least=0.8, to=RAW),
)


def value(samples: Samples, key: str, system: str, worst: bool = False) -> float | None:
    """The median of all rounds, or the largest; None: not measured."""
    found = samples.get(key, {}).get(system)
    if not found:
        return None
    return max(found) if worst else median(found)


def ratio(row: Row, samples: Samples, system: str = ROWFS) -> float | None:
    """What the target of a row is about; None: it is about no ratio, or one of the two was not measured."""
    if row.at_least is None:
        return None
    above = value(samples, row.key, system)
    below = value(samples, row.without or row.key, system if row.without else row.to)
    return above / below if above is not None and below else None


def met(row: Row, samples: Samples, system: str = ROWFS) -> bool | None:
    """Whether the target is met; None where there is none, or nothing to judge by."""
    if row.at_most is not None:
        measured = value(samples, row.key, system, row.worst)
        return None if measured is None else measured <= row.at_most
    found = ratio(row, samples, system)
    return None if found is None or row.at_least is None else found >= row.at_least


def python_share(row: Row, samples: Samples) -> float | None:
    """How much of the figure with the C extension is left without it; more is better."""
    with_it, without = value(samples, row.key, ROWFS, row.worst), value(samples, row.key, PYTHON, row.worst)
    if not with_it or not without:
        return None
    return with_it / without if row.better_if_less else without / with_it


def main_table(samples: Samples, systems: Sequence[str]) -> list[tuple[str, ...]]:
    """Heading and rows: each system's value, then rowfs' ratio, the target and whether it is met."""
    rows: list[tuple[str, ...]] = [("work", "in", *(LABELS[system] for system in systems), "ratio", "target", "met")]
    for row in ROWS:
        values = [value(samples, row.key, system, row.worst) for system in systems]
        if all(each is None for each in values):
            continue
        found = ratio(row, samples)
        verdict = {True: "yes", False: "NO", None: ""}[met(row, samples)]
        cells = ["" if each is None else shown(each, "") for each in values]
        rows.append((row.work, row.unit, *cells, "" if found is None else f"{found:.2f}x", _target(row), verdict))
    return rows


def python_table(samples: Samples) -> list[tuple[str, ...]]:
    """Heading and rows: what is left of each figure without the C extension."""
    rows: list[tuple[str, ...]] = [("work", "in", LABELS[ROWFS], LABELS[PYTHON], "share", "target", "met")]
    for row in ROWS:
        share = python_share(row, samples)
        if share is None:
            continue
        values = [value(samples, row.key, system, row.worst) or 0.0 for system in (ROWFS, PYTHON)]
        cells = [shown(each, "") for each in values]
        verdict = "yes" if share >= PYTHON_AT_LEAST else "NO"
        rows.append((row.work, row.unit, *cells, f"{share:.2f}x", f">= {PYTHON_AT_LEAST}x", verdict))
    return rows


def bytes_table(written: Samples, systems: Sequence[str]) -> list[tuple[str, ...]]:
    """Heading and rows: bytes that each system wrote to the host, to the bytes that were written to it."""
    rows: list[tuple[str, ...]] = [
        ("bytes written to the host for each byte of payload", *(LABELS[system] for system in systems))
    ]
    for row in ROWS:
        values = [value(written, row.key, system) for system in systems]
        if any(each is not None for each in values):
            rows.append((row.work.strip(), *("" if each is None else f"{each:.2f}x" for each in values)))
    return rows


def _target(row: Row) -> str:
    if row.at_most is not None:
        return f"<= {shown(row.at_most, row.unit)}"
    if row.at_least is None:
        return ""
    return f">= {row.at_least}x of {'that without' if row.without else LABELS[row.to].partition(',')[0]}"
