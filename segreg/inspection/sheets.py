"""Pictures to look at before training: samples as the augmentations make them, and pictures that look like copies."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.contracts import Dataset
from segreg.data import Augmentation, Side
from segreg.data.samples import fitted_sample
from segreg.data.split import drawn
from segreg.errors import SegregError
from segreg.inspection.leaks import AlikePair, sides_by_index
from segreg.inspection.likeness import ORIENTATIONS, turned
from segreg.inspection.scan import labels_of
from segreg.pictures import outline
from segreg.prediction.colours import Colour, label_colours
from segreg.sections import Input
from segreg.task import IGNORE_INDEX, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

PANEL = 240
"""Longest side of a panel in pixels."""
_MARGIN, _LINE, _LETTER = 8, 16, 6


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a sheet: uint8 `[H, W, 3]`, and the words above it."""

    picture: NDArray[np.uint8]
    words: str


def contact_sheet(
    dataset: Dataset,
    indices: Sequence[int],
    input: Input,  # noqa: A002
    augment: Sequence[Any],
    *,
    seed: int,
    samples: int = 6,
    draws: int = 5,
) -> Any:
    """Gives a PIL picture of samples as training sees them: each as it is prepared, then as its first epochs have it.

    Masks are outlined in their classes' colours; ignored areas are dimmed.

    Args:
        dataset: the data set.
        indices: the samples of the training side.
        input: how they are prepared.
        augment: Albumentations transforms.
        seed: the recipe's, from which both the samples and the augmentations are drawn.
        samples: how many, at most; those whose files can't be read are passed over.
        draws: epochs shown of each.

    Raises:
        SegregError: no sample can be read, or an augmentation does not do.
    """
    augmentation = Augmentation(augment, dataset.task)
    number_of = {dataset.samples[index].id: index for index in indices}
    rows: list[list[Panel]] = []
    for name in drawn(number_of, seed, "contact sheet"):
        if len(rows) == samples:
            break
        try:
            image, mask, _ = fitted_sample(dataset, dataset.samples[number_of[name]], input)
        except SegregError:
            continue  # told among the findings
        row = [Panel(_outlined(image, mask, dataset.task), name)]
        for epoch in range(1, draws + 1):
            after = augmentation(image.copy(), mask.copy(), seed, epoch, name)
            row.append(Panel(_outlined(*after, dataset.task), f"epoch {epoch}"))
        rows.append(row)
    if not rows:
        raise SegregError("no picture of the training side can be read, so there is none to show")
    title = f"training pictures at {input.size[0]}x{input.size[1]}: as prepared, then as augmented"
    title += "" if augment else " (the recipe has no augmentation)"
    return _sheet(rows, [title, *textwrap.wrap(dataset.notice, 100)], legend=_legend(dataset.task))


def pair_sheet(
    dataset: Dataset,
    pairs: Sequence[AlikePair],
    sides: Mapping[Side, Sequence[int]],
    input: Input,  # noqa: A002
    *,
    most: int = 24,
) -> Any:
    """Gives a PIL picture of pairs that look like copies, side by side, the second turned to lie on the first."""
    side_of = sides_by_index(sides)
    rows: list[list[Panel]] = []
    for pair in pairs[:most]:
        panels = []
        for index, way in ((pair.first, 0), (pair.second, pair.orientation)):
            sample = dataset.samples[index]
            try:
                image, mask, _ = fitted_sample(dataset, sample, input)
            except SegregError:
                continue
            image, mask = turned(image, way), _turned_mask(mask, way)
            side = f"{side_of[index]}: " if index in side_of else ""
            panels.append(Panel(_outlined(image, mask, dataset.task), side + sample.id))
        if panels:
            words = [f"alike by {pair.likeness:.2f}" if pair.likeness < 1 else "the same values"]
            words.append(ORIENTATIONS[pair.orientation])
            panels = [Panel(p.picture, f"{p.words}\n{w}") for p, w in zip(panels, words, strict=False)]
            rows.append(panels)
    # Two pairs beside each other, because pairs are narrow.
    rows = [[panel for row in rows[k : k + 2] for panel in row] for k in range(0, len(rows), 2)]
    shown = f"{min(most, len(pairs))} of {len(pairs)}" if len(pairs) > most else str(len(pairs))
    title = f"pairs of pictures that look like copies, those on two sides of the split first: {shown}"
    return _sheet(rows, [title], legend=_legend(dataset.task))


def _turned_mask(mask: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    return np.stack([turned(layer, way) for layer in mask]) if mask.ndim == 3 else turned(mask, way)


def _outlined(image: NDArray[np.uint8], mask: NDArray[np.uint8], task: Task) -> NDArray[np.uint8]:
    """Gives `[h, w, 3]` no larger than a panel: the image with each class's outline, ignored pixels dimmed."""
    shown = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    shown, layers = _shrunk(shown, mask)
    shown = shown.copy()
    ignored = (layers == IGNORE_INDEX).all(axis=0) if layers.ndim == 3 else layers == IGNORE_INDEX
    shown[ignored] //= 3
    for label, colour in _drawn_labels(task):
        area = layers[label] == 1 if layers.ndim == 3 else layers == label
        shown[outline(area.astype(np.uint8))] = colour
    return shown


def _shrunk(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Gives both so that a panel holds them; small ones are enlarged by a whole factor."""
    from PIL import Image

    height, width = image.shape[:2]
    factor = PANEL / max(height, width)
    factor = float(int(factor)) if factor >= 2 else min(1.0, factor)
    if factor == 1.0:
        return image, mask
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    way = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, way))
    layers = mask if mask.ndim == 3 else mask[np.newaxis]
    small = [
        np.asarray(Image.fromarray(np.ascontiguousarray(x)).resize(size, Image.Resampling.NEAREST)) for x in layers
    ]
    return resized, np.stack(small) if mask.ndim == 3 else small[0]


def _drawn_labels(task: Task) -> list[tuple[int, Colour]]:
    """Gives the labels that are outlined with their colours: all but label 0 where labels exclude each other."""
    return list(enumerate(label_colours(task)))[0 if task.mode == "multilabel" else 1 :]


def _legend(task: Task) -> list[tuple[str, Colour]]:
    return [(labels_of(task)[label], colour) for label, colour in _drawn_labels(task)]


def _sheet(rows: Sequence[Sequence[Panel]], title: Sequence[str], *, legend: Sequence[tuple[str, Colour]]) -> Any:
    from PIL import Image, ImageDraw

    width = max(panel.picture.shape[1] for row in rows for panel in row)
    columns = max(len(row) for row in rows)
    heights = [max(panel.picture.shape[0] for panel in row) for row in rows]
    captions = [max(panel.words.count("\n") + 1 for panel in row) * _LINE + 2 for row in rows]
    head = _MARGIN + _LINE * (len(title) + 1)
    total = (columns * (width + _MARGIN) + _MARGIN, head + sum(heights) + sum(captions) + _MARGIN * (len(rows) + 1))
    sheet = Image.new("RGB", (max(total[0], _LETTER * max(map(len, title)) + 2 * _MARGIN), total[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((_MARGIN, _MARGIN + number * _LINE), line, fill="black")
    left = _MARGIN
    for name, colour in legend:
        top = _MARGIN + _LINE * len(title)
        draw.rectangle((left, top + 2, left + 10, top + 12), fill=colour, outline=(120, 120, 120))
        draw.text((left + 15, top), name, fill=(60, 60, 60))
        left += 15 + _LETTER * len(name) + 2 * _MARGIN
    top = head + _MARGIN
    for row, height, caption in zip(rows, heights, captions, strict=True):
        for column, panel in enumerate(row):
            left = _MARGIN + column * (width + _MARGIN)
            draw.text((left, top), _cut(panel.words, width), fill=(60, 60, 60))
            sheet.paste(Image.fromarray(np.ascontiguousarray(panel.picture)), (left, top + caption))
        top += caption + height + _MARGIN
    return sheet


def _cut(words: str, width: int) -> str:
    """Gives words that fit above a panel, cut in the middle: the ends of file names tell them apart."""
    room = max(8, width // _LETTER)
    lines = [
        line if len(line) <= room else f"{line[: room // 2 - 1]}..{line[-(room - room // 2 - 1) :]}"
        for line in words.split("\n")
    ]
    return "\n".join(lines)
