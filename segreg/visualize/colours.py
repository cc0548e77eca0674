"""What images are made of: the colours of labels, outlines, and the curves of a history."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task

# Okabe and Ito's colours, which colour-blind readers tell apart; each further one is as far from all before as can be.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
TRUTH_COLOUR = (0, 220, 90)
PREDICTION_COLOUR = (255, 60, 200)
IGNORED_COLOUR = (128, 128, 128)


def class_colours(task: Task) -> list[tuple[int, int, int]]:
    """Return a colour, 0 to 255, for each label; label 0 of binary and multiclass tasks is black."""
    count = len(task.classes) + (task.mode == "binary")
    colours: list[tuple[int, int, int]] = [] if task.mode == "multilabel" else [(0, 0, 0)]
    wanted = count - len(colours)
    return [*colours, *_OKABE_ITO[:wanted], *_further_colours(max(0, wanted - len(_OKABE_ITO)))]


@cache
def _further_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return colours that keep away from each other, from the first ones, and from those that mean something else."""
    shades = ((1.0, 1.0), (1.0, 0.6), (0.5, 1.0), (0.5, 0.6), (1.0, 0.8), (0.75, 1.0), (0.25, 0.9), (0.75, 0.45))
    circle = [colorsys.hsv_to_rgb(step / 36, saturation, value) for saturation, value in shades for step in range(36)]
    candidates = list(dict.fromkeys((int(255 * r), int(255 * g), int(255 * b)) for r, g, b in circle))
    taken = [(0, 0, 0), (255, 255, 255), IGNORED_COLOUR, TRUTH_COLOUR, PREDICTION_COLOUR, *_OKABE_ITO]
    nearest = {colour: min(_distance(colour, other) for other in taken) for colour in candidates}
    found: list[tuple[int, int, int]] = []
    for _ in range(count):
        found.append(max(nearest, key=lambda colour: nearest[colour]))
        nearest = {c: min(d, _distance(c, found[-1])) for c, d in nearest.items() if c != found[-1]}
    return tuple(found)


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Return how far two colours seem apart, by the formula for sRGB that weighs red and blue by how red they are."""
    red = (one[0] + other[0]) / 2
    squares = [(a - b) ** 2 for a, b in zip(one, other, strict=True)]
    return math.sqrt((2 + red / 256) * squares[0] + 4 * squares[1] + (2 + (255 - red) / 256) * squares[2])


def paint(labels: NDArray[Any], colours: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Return labels `[H, W]` (or 0/1 `[K, H, W]`) as colours `[H, W, 3]`; ignored pixels are grey."""
    import numpy as np

    if labels.ndim == 3:
        painted = np.zeros((*labels.shape[1:], 3), np.uint8)
        for layer, colour in zip(labels, colours, strict=True):
            painted[layer == 1] = colour
        return painted
    table = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table[labels.astype(np.uint8)]


def outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels `[H, W]` of an area that touch another label; areas, not the ground, are outlined."""
    import numpy as np

    layers = labels if labels.ndim == 3 else labels[None]
    edge = np.zeros(layers.shape[1:], np.bool_)
    for layer in layers:
        padded = np.pad(layer, 1, mode="edge")
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        edge |= np.logical_or.reduce([side != layer for side in around]) & (layer != 0) & (layer != 255)
    return edge


def draw_curves(rows: Sequence[Mapping[str, Any]], file: Path, *, monitor: str, best_epoch: int | None) -> None:
    """Draw losses, the monitored value's family and learning rates over the epochs into a PNG file."""
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
