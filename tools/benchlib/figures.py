"""What a measurement is: figures with their targets, where they are made, and times on a machine that is noisy.

Times are medians. Where two things are compared, they take turns in one run, and the ratio of their medians is the
figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec

ROOT = Path(__file__).resolve().parents[2]
SEED = 7
P = ParamSpec("P")


@dataclass(slots=True)
class Figure:
    """One line of the table. `met` None: there is no target, the line is there to read the others by."""

    name: str
    target: str
    measured: str
    met: bool | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    """One run: where its pools are, how much it may do, and what it has found."""

    directory: Path
    quick: bool
    group: str = ""
    figures: dict[str, list[Figure]] = field(default_factory=dict)

    def some(self, full: int, quick: int) -> int:
        """How much to do of something."""
        return quick if self.quick else full

    def below(self, name: str, limit: float, value: float, unit: str, **values: Any) -> None:
        """A figure that has to be less than its limit."""
        self._add(Figure(name, f"< {shown(limit, unit)}", shown(value, unit), value < limit, values))

    def above(self, name: str, limit: float, value: float, unit: str, **values: Any) -> None:
        """A figure that has to be more than its limit."""
        self._add(Figure(name, f"> {shown(limit, unit)}", shown(value, unit), value > limit, values))

    def note(self, name: str, measured: str, **values: Any) -> None:
        """A figure without a target."""
        self._add(Figure(name, "", measured, None, values))

    def _add(self, figure: Figure) -> None:
        self.figures.setdefault(self.group, []).append(figure)
        print(f"  {figure.name}: {figure.measured}", file=sys.stderr, flush=True)


def shown(value: float, unit: str) -> str:
    """A value with its unit, three digits of it."""
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{unit}" if unit in ("x", "") else f"{digits} {unit}"


def markdown(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table, its heading first, with columns as wide as their widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def say(text: str) -> None:
    """A step, for who waits."""
    print(f"  ... {text}", file=sys.stderr, flush=True)


@contextmanager
def timing(into: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    start = time.perf_counter()
    yield
    into.append(time.perf_counter() - start)


def timed(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """The seconds that `work` takes."""
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start


def ms(times_s: list[float]) -> float:
    """The median in milliseconds."""
    return median(times_s) * 1e3


def environment() -> dict[str, str]:
    """For processes of ours: the rowfs of this checkout, and these modules."""
    others = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": ":".join([str(ROOT), str(ROOT / "tools"), *([others] if others else [])])}


def child(function: str, **arguments: Any) -> dict[str, Any]:
    """What `function` of benchlib.child returns in a process of its own."""
    command = [sys.executable, "-m", "benchlib.child", function, json.dumps(arguments)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{function} in a child process ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
