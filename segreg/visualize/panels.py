"""Image, truth, prediction and an overlay, side by side in one image."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.task import IGNORE_INDEX
from segreg.visualize.colours import IGNORED_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR, Colour, class_colours
from segreg.visualize.fonts import font_for
from segreg.visualize.overlay import as_rgb, outline, overlay, paint

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from segreg.task import Task

Legend = Mapping[str, Colour]
"""The colours of an image by their meaning."""
_WHITE = (255, 255, 255)
_LONGEST, _SHORTEST = 1024, 224
"""Pixels of a panel's sides: larger images are shrunk by a whole factor, smaller ones enlarged by one."""
_MOST_NAMED = 40
"""Classes in a legend."""
_MARGIN, _LINE, _LETTER, _SWATCH = 8, 18, 7, 10


def side_by_side(
    image: NDArray[np.uint8],
    truth: NDArray[Any] | None,
    prediction: NDArray[Any],
    task: Task,
    *,
    colours: Sequence[Colour] | None = None,
    title: str = "",
    notice: str = "",
) -> Image:
    """Return `image | truth | prediction | outlines`, or without a truth `image | prediction | overlay`.

    A legend below names the colours of the classes that occur. Large images are shrunk.

    Shape: image uint8 `[H, W, C]`; truth and prediction labels `[H, W]` or, if multilabel, `[K, H, W]`.

    Args:
        image: the input.
        truth: what is there; 255 is ignored. None where nobody knows.
        prediction: the network's labels.
        task: the classes.
        colours: of each label; None: those of `class_colours`, and white for the foreground of a binary task.
        title: is printed above it.
        notice: is printed above it in white on red.
    """
    if colours is None:
        colours = class_colours(task) if task.mode != "binary" else [(0, 0, 0), (255, 255, 255)]
    step = max(1, -(-max(image.shape[:2]) // _LONGEST))
    shown = _shrunk(as_rgb(image), step)
    predicted, true = _thinned(prediction, step), None if truth is None else _thinned(truth, step)
    panels = {"image": shown}
    if true is not None:
        panels["truth"] = paint(true, colours)
    panels["prediction"] = paint(predicted, colours)
    if true is None:
        panels["overlay"] = overlay(shown, predicted, colours, task)
    else:
        drawn = shown.copy()
        drawn[outline(true)] = TRUTH_COLOUR
        drawn[outline(predicted)] = PREDICTION_COLOUR
        panels["outlines"] = drawn
    return _sheet(panels, _legend(true, predicted, task, colours), title=title, notice=notice)


def _sheet(panels: Mapping[str, NDArray[np.uint8]], legend: Legend, *, title: str, notice: str) -> Image:
    from PIL import Image, ImageDraw

    height, width = next(iter(panels.values())).shape[:2]
    factor = max(1, min(-(-_SHORTEST // min(height, width)), _LONGEST // max(height, width)))
    height, width = height * factor, width * factor
    sheet_width = len(panels) * (width + _MARGIN) + _MARGIN
    letters = max(1, (sheet_width - 2 * _MARGIN) // _LETTER)
    warning, titles = textwrap.wrap(notice, letters), textwrap.wrap(title, letters)
    header = _LINE * (len(warning) + len(titles) + 1)
    places = list(_placed(legend, sheet_width))
    below = _LINE * (1 + places[-1][1]) if places else 0
    sheet = Image.new("RGB", (sheet_width, header + height + _MARGIN + below), "white")
    draw = ImageDraw.Draw(sheet)
    if warning:
        draw.rectangle((0, 0, sheet_width, _LINE * len(warning) - 1), fill=(200, 0, 0))
    for number, line in enumerate([*warning, *titles]):
        colour = "white" if number < len(warning) else "black"
        draw.text((_MARGIN, number * _LINE + 3), line, fill=colour, font=font_for(line))
    for number, (name, panel) in enumerate(panels.items()):
        left = _MARGIN + number * (width + _MARGIN)
        draw.text((left, header - _LINE + 2), name, fill=(90, 90, 90))
        enlarged = Image.fromarray(np.ascontiguousarray(panel)).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, header))
    for left, row, name in places:
        top = header + height + _MARGIN + row * _LINE
        draw.rectangle((left, top + 3, left + _SWATCH, top + 3 + _SWATCH), fill=legend[name], outline=(90, 90, 90))
        draw.text((left + _SWATCH + 4, top + 2), name, fill="black", font=font_for(name))
    return sheet


def _legend(truth: NDArray[Any] | None, prediction: NDArray[Any], task: Task, colours: Sequence[Colour]) -> Legend:
    """Return the colours that are there: of several classes the largest ones, of ignored pixels, and of outlines."""
    found: dict[str, Colour] = {}
    both = [prediction] if truth is None else [truth, prediction]
    if task.mode != "binary":
        sizes = np.zeros(len(task.classes), np.int64)
        for labels in both:
            if task.mode == "multilabel":
                sizes += (labels == 1).sum((-2, -1))
            else:
                sizes += np.bincount(labels.ravel(), minlength=len(sizes))[: len(sizes)]
        there = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
        found = {task.classes[label]: colours[label] for label in sorted(there[:_MOST_NAMED])}
        if len(there) > _MOST_NAMED:
            found[f"(and {len(there) - _MOST_NAMED} smaller classes)"] = _WHITE
    if truth is not None:
        if (truth == IGNORE_INDEX).any() and task.mode != "multilabel":
            found["(ignored)"] = IGNORED_COLOUR
        found |= {"outline of the truth": TRUTH_COLOUR, "outline of the prediction": PREDICTION_COLOUR}
    return found


def _placed(legend: Legend, width: int) -> Iterator[tuple[int, int, str]]:
    """Yield the left end, the line and the name of each entry of a legend."""
    left, line = _MARGIN, 0
    for name in legend:
        takes = _SWATCH + 4 + int(font_for(name).getlength(name)) + 2 * _MARGIN
        if left > _MARGIN and left + takes > width:
            left, line = _MARGIN, line + 1
        yield left, line, name
        left += takes


def _shrunk(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Return an image reduced by a whole factor: a pixel is the mean of its block."""
    if step == 1:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(step))


def _thinned(labels: NDArray[Any], step: int) -> NDArray[Any]:
    """Return labels reduced by a whole factor: a label is the one in the middle of its block."""
    for axis in (-2, -1):
        count = labels.shape[axis]
        labels = labels.take(np.minimum(np.arange(-(-count // step)) * step + step // 2, count - 1), axis=axis)
    return labels
