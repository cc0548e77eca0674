"""How much of the images each class takes, and the weights in a loss that would even it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segreg.data.inspection.scan import Scanned, labels_of
from segreg.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMULAS = {
    "median_frequency": "median of all f / f of the class, where f is the class's share of the pixels of those "
    "images that show it (arXiv:1411.4734)",
    "inverse_frequency": "pixels / (classes with pixels x pixels of the class), scikit-learn's `balanced`",
    "positive_weight": "pixels without the class / pixels with it",
}
"""What the suggested weights are; all are those of the training split alone."""


@dataclass(frozen=True)
class ClassShare:
    """What one class has of some images.

    Attributes:
        name: the class.
        pixels: its pixels.
        share: its share of all pixels that are not ignored; 0 where there are none.
        images: images that show it.
        image_share: its share of the images.
    """

    name: str
    pixels: int
    share: float
    images: int
    image_share: float


def class_shares(scanned: Sequence[Scanned], task: Task) -> list[ClassShare]:
    """Return every label's share of the images whose masks could be read."""
    names = labels_of(task)
    pixels, counted = _sums(scanned, len(names))
    images = sum(((s.pixels > 0).astype(np.int64) for s in scanned if s.pixels is not None), np.zeros(len(names), int))
    readable = sum(s.pixels is not None for s in scanned)
    return [
        ClassShare(
            name, int(pixels[k]), float(pixels[k] / counted[k]) if counted[k] else 0.0,
            int(images[k]), float(images[k] / readable) if readable else 0.0,
        )
        for k, name in enumerate(names)
    ]  # fmt: skip


def suggested_weights(scanned: Sequence[Scanned], task: Task) -> dict[str, list[float | None]]:
    """Return weights by formula, see `FORMULAS`; None for a class that has no pixel.

    Multiclass tasks get one weight a class by two formulas, the others each class's `positive_weight`.
    """
    count = len(labels_of(task))
    pixels, counted = _sums(scanned, count)
    if task.mode != "multiclass":
        chosen = range(1, 2) if task.mode == "binary" else range(count)
        return {"positive_weight": [_ratio(counted[k] - pixels[k], pixels[k]) for k in chosen]}
    around = np.zeros(count)
    for one in scanned:
        if one.pixels is not None and one.counted is not None:
            around += np.where(one.pixels > 0, one.counted, 0)
    frequency = np.divide(pixels, around, out=np.full(count, np.nan), where=around > 0)
    middle = float(np.nanmedian(frequency)) if (around > 0).any() else 0.0
    there = int((pixels > 0).sum())
    return {
        "median_frequency": [_ratio(middle, frequency[k]) for k in range(count)],
        "inverse_frequency": [_ratio(counted[k], there * pixels[k]) for k in range(count)],
    }


def _sums(scanned: Sequence[Scanned], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pixels, counted = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for one in scanned:
        if one.pixels is not None and one.counted is not None:
            pixels += one.pixels
            counted += one.counted
    return pixels, counted


def _ratio(above: float, below: float) -> float | None:
    return float(f"{above / below:.4g}") if np.isfinite(below) and below > 0 else None
