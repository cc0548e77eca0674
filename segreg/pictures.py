"""The pictures of a run: curves of its history, and image, truth and prediction side by side."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task

# Okabe and Ito's colours, which colour-blind readers tell apart; further classes turn round the colour circle.
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
_MARGIN, _LINE, _LETTER = 8, 18, 7
_LEAST_SIDE = 224
"""Smaller pictures are enlarged by a whole factor, so that they and the words above them can be read."""


def class_colours(task: Task) -> list[tuple[int, int, int]]:
    """Gives a colour, 0 to 255, for each label; label 0 of binary and multiclass tasks is black."""
    count = len(task.classes) + (task.mode == "binary")
    colours: list[tuple[int, int, int]] = [] if task.mode == "multilabel" else [(0, 0, 0)]
    for number in range(count - len(colours)):
        if number < len(_OKABE_ITO):
            colours.append(_OKABE_ITO[number])
        else:
            red, green, blue = colorsys.hsv_to_rgb((number * 0.618034) % 1, 0.65, 0.95)
            colours.append((int(255 * red), int(255 * green), int(255 * blue)))
    return colours


def paint(labels: NDArray[Any], colours: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Gives labels `[H, W]` (or 0/1 `[K, H, W]`) as colours `[H, W, 3]`; ignored pixels are grey."""
    import numpy as np

    if labels.ndim == 3:
        painted = np.zeros((*labels.shape[1:], 3), np.uint8)
        for layer, colour in zip(labels, colours, strict=True):
            painted[layer == 1] = colour
        return painted
    table = np.full((256, 3), 128, np.uint8)
    table[: len(colours)] = colours
    return table[labels.astype(np.uint8)]


def outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Gives the pixels `[H, W]` of an area that touch another label; areas, not the ground, are outlined."""
    import numpy as np

    layers = labels if labels.ndim == 3 else labels[None]
    edge = np.zeros(layers.shape[1:], np.bool_)
    for layer in layers:
        padded = np.pad(layer, 1, mode="edge")
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        edge |= np.logical_or.reduce([side != layer for side in around]) & (layer != 0) & (layer != 255)
    return edge


def side_by_side(
    image: NDArray[np.uint8],
    truth: NDArray[Any] | None,
    prediction: NDArray[Any],
    task: Task,
    *,
    title: str = "",
    notice: str = "",
) -> Any:
    """Gives a PIL picture of image, truth, prediction, and the image with both outlines.

    Shape: image uint8 `[H, W, C]`; truth and prediction labels `[H, W]` or, if multilabel, `[K, H, W]`.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    shown = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    colours = class_colours(task)
    if task.mode == "binary":
        colours[1] = (255, 255, 255)
    panels = [("image", shown)]
    overlay = shown.copy()
    if truth is not None:
        panels.append(("truth", paint(truth, colours)))
        overlay[outline(truth)] = TRUTH_COLOUR
    overlay[outline(prediction)] = PREDICTION_COLOUR
    panels += [("prediction", paint(prediction, colours)), ("outlines: truth green, prediction pink", overlay)]
    factor = max(1, -(-_LEAST_SIDE // min(shown.shape[:2])))
    panels = [(name, np.kron(panel, np.ones((factor, factor, 1), np.uint8))) for name, panel in panels]
    height, width = (side * factor for side in shown.shape[:2])
    sheet_width = len(panels) * (width + _MARGIN) + _MARGIN
    warning = textwrap.wrap(notice, sheet_width // _LETTER)
    header = _LINE * (2 + len(warning))
    sheet = Image.new("RGB", (sheet_width, height + header + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    if warning:
        draw.rectangle((0, 0, sheet_width, _LINE * len(warning) - 1), fill=(200, 0, 0))
    for number, line in enumerate(warning):
        draw.text((_MARGIN, number * _LINE + 3), line, fill="white")
    draw.text((_MARGIN, header - 2 * _LINE + 3), title, fill="black")
    for number, (name, panel) in enumerate(panels):
        left = _MARGIN + number * (width + _MARGIN)
        draw.text((left, header - _LINE + 2), name, fill=(90, 90, 90))
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel)), (left, header))
    return sheet


def draw_curves(rows: Sequence[Mapping[str, Any]], file: Path, *, monitor: str, best_epoch: int | None) -> None:
    """Draws losses, the monitored value's family and learning rates over the epochs into a PNG file."""
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
    figure = Figure(figsize=(5.2 * max(1, len(panels)), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
            label = name + (" (monitored)" if name == monitor else "")
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        if best_epoch is not None and title != "learning rate":
            axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best: epoch {best_epoch}")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if title == "learning rate" and any(row.get(name, 0) > 0 for row in rows for name in names):
            axes.set_yscale("log")
        axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


def _scores(known: Sequence[str], monitor: str) -> list[str]:
    """Gives the headline scores: of each metric its pooled value, not its value for every class; and the monitored."""
    names = [name for name in known if name.startswith("val.") and not name.startswith("val.loss")]
    pooled = [name for name in names if name.endswith(".pooled")]
    headlines = (pooled or [name for name in names if ".class." not in name])[:8]
    return headlines + [name for name in names if name == monitor and name not in headlines]
