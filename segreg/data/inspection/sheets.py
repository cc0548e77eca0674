"""Images to look at before training: samples as the augmentations make them, and images that look like copies."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segreg.config.sections import Input
from segreg.data import Augmentation, Crops, SplitName
from segreg.data.augment import generators
from segreg.data.cache import fitted_sample
from segreg.data.inspection.leaks import ORIENTATIONS, AlikePair, split_by_index, turned
from segreg.data.native import OneImage
from segreg.data.resize import format_size
from segreg.data.split import drawn
from segreg.data.values import as_shown
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset
from segreg.task import IGNORE_INDEX, Task, label_names
from segreg.visualize.colours import Colour, label_colours
from segreg.visualize.fonts import text_style
from segreg.visualize.overlay import outline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 240
"""Longest side of an image in a panel, in pixels; larger ones are shrunk before they are outlined."""
_INCHES, _DPI = 2.4, 120
_MOST_PAIRS = 24
_LETTERS = 34
"""What fits above a panel in one line."""


Sample = tuple[NDArray[Any], NDArray[np.uint8]]
"""An image and its mask."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a sheet: uint8 `[H, W, 3]`, and the words above it."""

    image: NDArray[np.uint8]
    words: str


def contact_sheet(
    dataset: Dataset,
    indices: Sequence[int],
    input: Input,
    augment: Sequence[Any],
    *,
    seed: int,
    samples: int,
    draws: int,
    crops: Crops | None = None,
    mix: Callable[[Sequence[Sample], int, Sequence[str]], Sequence[Sample]] | None = None,
) -> Figure:
    """Return a figure of samples as training sees them: each as it is prepared, then as its first epochs have it.

    Masks are outlined in their classes' colours; ignored areas are dimmed.

    Args:
        dataset: the data set.
        indices: the samples of the training split.
        input: how they are prepared.
        augment: Albumentations transforms.
        seed: the recipe's, from which both the samples and the augmentations are drawn.
        samples: how many, at most; those whose files can't be read are passed over.
        draws: epochs shown of each.
        crops: which crops training sees, where `input.resize` is `crop`.
        mix: mixes the samples of a batch, of an epoch and with these ids, where the recipe has `batch_augment`; each
            epoch's panels are one.

    Raises:
        SegregError: no sample can be read, or an augmentation does not do.
    """
    augmentation = Augmentation(augment, dataset.task)
    number_of = {dataset.samples[index].id: index for index in indices}
    rows: list[list[Panel]] = []
    of_epoch: dict[int, list[Sample]] = {epoch: [] for epoch in range(1, draws + 1)}
    names: list[str] = []
    for name in drawn(number_of, seed, "contact sheet"):
        if len(rows) == samples:
            break
        try:
            image, mask, *_ = fitted_sample(dataset, dataset.samples[number_of[name]], input)
        except SegregError:
            continue  # reported among the findings
        rows.append([Panel(_outlined(image, mask, dataset.task), name)])
        names.append(name)
        for epoch, seen_then in of_epoch.items():
            seen = image.copy(), mask.copy()
            if crops is not None:
                chance, _ = generators(seed, epoch, name, "crop", 0)
                seen = crops.draw(OneImage(image, mask, dataset.task, name), 0, chance)
            seen_then.append(augmentation(*seen, seed, epoch, name))
    if not rows:
        raise SegregError("no image of the training split can be read, so there is none to show")
    for epoch, batch in of_epoch.items():
        for row, sample in zip(rows, mix(batch, epoch, names) if mix else batch, strict=True):
            row.append(Panel(_outlined(*sample, dataset.task), f"epoch {epoch}"))
    title = f"training images at {format_size(input.size)}: as prepared, then as augmented"
    if crops is not None:
        title = f"training images as they are, then crops of {format_size(input.size)}, as augmented"
    title += "" if augment or mix else " (the recipe has no augmentation)"
    title += "; each epoch's are mixed as a batch" if mix else ""
    return _sheet(rows, f"{title}\n{dataset.notice}".strip(), dataset.task)


def pair_sheet(
    dataset: Dataset, pairs: Sequence[AlikePair], splits: Mapping[SplitName, Sequence[int]], input: Input
) -> Figure:
    """Return a figure of pairs that look like copies, side by side, the second turned to lie on the first.

    Raises:
        SegregError: none of their images can be read.
    """
    split_of = split_by_index(splits)
    rows: list[list[Panel]] = []
    for pair in pairs[:_MOST_PAIRS]:
        panels = []
        for index, way in ((pair.first, 0), (pair.second, pair.orientation)):
            sample = dataset.samples[index]
            try:
                image, mask, *_ = fitted_sample(dataset, sample, input)
            except SegregError:
                continue
            image = turned(image, way)
            mask = np.stack([turned(layer, way) for layer in mask]) if mask.ndim == 3 else turned(mask, way)
            split = f"{split_of[index]}: " if index in split_of else ""
            panels.append(Panel(_outlined(image, mask, dataset.task), split + sample.id))
        if panels:
            likeness = f"alike by {pair.likeness:.2f}" if pair.likeness < 1 else "the same values"
            below = (likeness, ORIENTATIONS[pair.orientation])
            rows.append([Panel(p.image, f"{p.words}\n{words}") for p, words in zip(panels, below, strict=False)])
    if not rows:
        raise SegregError("no image of a pair can be read, so there is none to show")
    # Two pairs beside each other, because pairs are narrow.
    rows = [[panel for row in rows[k : k + 2] for panel in row] for k in range(0, len(rows), 2)]
    shown = f"{_MOST_PAIRS} of {len(pairs)}" if len(pairs) > _MOST_PAIRS else str(len(pairs))
    title = f"pairs of images that look like copies, those in two splits first: {shown}"
    return _sheet(rows, title, dataset.task)


def _outlined(image: NDArray[Any], mask: NDArray[np.uint8], task: Task) -> NDArray[np.uint8]:
    """Return `[h, w, 3]` no larger than a panel: the image with each class's outline, ignored pixels dimmed."""
    shown = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    shown, layers = _shrunk(as_shown(shown), mask)
    ignored = (layers == IGNORE_INDEX).all(axis=0) if layers.ndim == 3 else layers == IGNORE_INDEX
    shown[ignored] //= 3
    for label, colour in _drawn_labels(task):
        area = layers[label] == 1 if layers.ndim == 3 else layers == label
        shown[outline(area.astype(np.uint8))] = colour
    return shown


def _shrunk(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return copies of both, no larger than a panel."""
    height, width = image.shape[:2]
    factor = min(1.0, PANEL / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    rows, columns = ((np.arange(n) + 0.5) * full // n for n, full in zip(size[::-1], (height, width), strict=True))
    small = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BOX)
    return np.array(small), mask[..., rows.astype(int)[:, np.newaxis], columns.astype(int)]


def _drawn_labels(task: Task) -> list[tuple[int, Colour]]:
    """Return the labels that are outlined with their colours: all but label 0 where labels exclude each other."""
    return list(enumerate(label_colours(task)))[0 if task.mode == "multilabel" else 1 :]


def _sheet(rows: Sequence[Sequence[Panel]], title: str, task: Task) -> Figure:
    """Return a grid of panels under a title, with the classes' colours below."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    legend = [(label_names(task)[label], colour) for label, colour in _drawn_labels(task)]
    rows = [[Panel(p.image, _wrapped(p.words, _LETTERS)) for p in row] for row in rows]
    shapes = [panel.image.shape for row in rows for panel in row]
    columns = max(len(row) for row in rows)
    width = _INCHES * max(2, columns)
    heading = _wrapped(title, int(width * 13))
    legend_columns = max(1, int(width / (0.6 + 0.08 * max((len(name) for name, _ in legend), default=0))))
    lines = sum(max(panel.words.count("\n") + 1 for panel in row) for row in rows) + heading.count("\n") + 2
    lines += math.ceil(len(legend) / legend_columns) + 1
    panel_height = _INCHES * max(height for height, _, _ in shapes) / max(width for _, width, _ in shapes)
    figure = Figure((width, len(rows) * panel_height + 0.17 * lines), dpi=_DPI, layout="compressed")
    FigureCanvasAgg(figure)
    patches = [
        Patch(facecolor=[value / 255 for value in colour], edgecolor="grey", label=name) for name, colour in legend
    ]
    with mpl.rc_context(text_style()):
        figure.suptitle(heading, fontsize=9)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, cells in zip(rows, grid, strict=True):
            for panel, axes in zip(row, cells, strict=False):
                axes.imshow(panel.image)
                axes.set_title(panel.words, fontsize=7, loc="left")
        figure.legend(handles=patches, loc="outside lower left", ncols=legend_columns, fontsize=8, frameon=False)
    return figure


def _wrapped(words: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, letters) for line in words.split("\n"))
