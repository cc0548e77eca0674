"""Training curves as a PNG: losses, validation scores and learning rates over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_history(rows: Sequence[Mapping[str, Any]], file: Path, *, monitor: str, best_epoch: int | None) -> None:
    """Plot losses, validation scores and learning rates over the epochs into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    known = list(dict.fromkeys(name for row in rows for name in row))
    losses = dict.fromkeys(("train.loss", "val.loss", monitor))
    panels: dict[str, list[str]] = {
        "loss": [name for name in losses if name in known and ".loss" in name],
        "validation": _scores(known, monitor),
        "learning rate": [name for name in known if name.startswith("lr.")],
    }
    panels = {title: names for title, names in panels.items() if names}
    lines = {title: _lines(rows, names, monitor) for title, names in panels.items()}
    most = max((len(found) for found in lines.values()), default=0)
    figure = Figure(figsize=(5.2 * max(1, len(panels)), 3.8 + 0.22 * most), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for points, label in lines[title].items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        if best_epoch is not None and title != "learning rate":
            axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best: epoch {best_epoch}")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if title == "learning rate" and any(row.get(name, 0) > 0 for row in rows for name in names):
            axes.set_yscale("log")
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16))  # below, where no line runs
    figure.savefig(file, dpi=110)


def _lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str], monitor: str) -> dict[Any, str]:
    """Return the points of each line and what it is called; values that are always the same are one line."""
    lines: dict[Any, str] = {}
    for name in names:
        points = tuple((row["epoch"], row[name]) for row in rows if row.get(name) is not None)
        label = name + (" (monitored)" if name == monitor else "")
        lines[points] = f"{lines[points]}, {label}" if points in lines else label
    return lines


def _scores(known: Sequence[str], monitor: str) -> list[str]:
    """Return the headline scores: of each metric its pooled value, not its value for every class; and the monitored."""
    names = [name for name in known if name.startswith("val.") and not name.startswith("val.loss")]
    pooled = [name for name in names if name.endswith(".pooled")]
    headlines = (pooled or [name for name in names if ".class." not in name])[:8]
    return headlines + [name for name in names if name == monitor and name not in headlines]
