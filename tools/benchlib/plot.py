"""The ratios of `make bench-peers` as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchlib.ratios import BTRFS, LABELS, PYTHON, QCOW2, RAW, ROWFS, ROWS, XFS, Samples, value

COLORS = {ROWFS: "#1f6f8b", PYTHON: "#7fb7be", RAW: "#444444", XFS: "#d98e04", BTRFS: "#9b5094"}
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot(samples: Samples, systems: Sequence[str], title: str, file: Path) -> None:
    """Draw each system's figures to those of qcow2, a group of bars for each row, and its target as a mark."""
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if row.to == QCOW2 and not row.without and row.at_least and QCOW2 in samples[row.key]]
    compared = [system for system in systems if system != QCOW2]
    figure = Figure(figsize=(10, 1.8 + 0.14 * len(rows) * (len(compared) + 2)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(len(compared), 1)
    for at, system in enumerate(compared):
        bars = [(number, _share(samples, row.key, system)) for number, row in enumerate(rows)]
        places = [number + (at - (len(compared) - 1) / 2) * height for number, share in bars if share]
        shares = [share for _, share in bars if share]
        axes.barh(places, shares, height, label=LABELS[system], color=COLORS[system])
    for number, row in enumerate(rows):
        ends, label = [number - 0.45, number + 0.45], "" if number else "target for rowfs"
        axes.plot([row.at_least or 1.0] * 2, ends, color="crimson", linewidth=2, label=label)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [row.work for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"to {LABELS[QCOW2]} (1), more is better, logarithmic")
    figure.suptitle(title, fontsize="small")
    figure.legend(loc="outside lower center", ncols=len(compared) + 1, fontsize="small")
    figure.savefig(file, dpi=100)


def _share(samples: Samples, key: str, system: str) -> float:
    """To qcow2; 0: not measured."""
    return (value(samples, key, system) or 0.0) / (value(samples, key, QCOW2) or 1.0)
