"""A prediction drawn over its image; large images are drawn in strips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.visualize.colours import outline, paint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.task import Task

_TINT = 96
"""Share of a class's colour in its area, of 256."""
_ROWS = 1 << 20
"""Pixels that are drawn at once."""


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a image `[H, W, C]` as it is shown, `[H, W, 3]`: its first three channels, or its first one as grey."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]], task: Task
) -> NDArray[np.uint8]:
    """Return the image with each class's area tinted and outlined in its colour.

    What is labelled 0 in binary and multiclass tasks stays as it is, unless its colour is other than black. Outlines
    grow with the image, so that they are seen when it is shown small.

    Shape: uint8 `[H, W, C]` and labels `[H, W]`, or 0/1 `[K, H, W]` if multilabel, to uint8 `[H, W, 3]`.
    """
    height, width = image.shape[:2]
    drawn = np.empty((height, width, 3), np.uint8)
    reach = max(1, round(min(height, width) / 400))
    rows = max(1, _ROWS // width)
    for top in range(0, height, rows):
        # The rows beside are looked at too, for outlines that reach in from there.
        above, below = max(0, top - reach), min(height, top + rows + reach)
        part = labels[..., above:below, :]
        inner = slice(top - above, top - above + min(rows, height - top))
        whole = as_rgb(image[above:below])
        if task.mode == "multilabel":
            layers = [(layer, [(0, 0, 0), colour]) for layer, colour in zip(part, colours, strict=True)]
        else:
            layers = [(part, list(colours))]
        for layer, own in layers:
            whole = _tinted(whole, layer, own, reach)
        drawn[top : top + rows] = whole[inner]
    return drawn


def _tinted(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]], reach: int
) -> NDArray[np.uint8]:
    area = np.array([any(colours[label]) if label < len(colours) else False for label in range(256)])[labels]
    painted = paint(labels, colours)
    mixed = image.astype(np.uint16) * np.uint16(256 - _TINT) + painted.astype(np.uint16) * np.uint16(_TINT)
    drawn = np.where(area[..., None], (mixed >> 8).astype(np.uint8), image)
    edge = _widened(outline(_without_ground(labels, area)), reach - 1) & area
    drawn[edge] = painted[edge]
    return drawn


def _without_ground(labels: NDArray[np.uint8], area: NDArray[Any]) -> NDArray[Any]:
    """Return labels counted from 1 with 0 where nothing is drawn, for outlines are drawn of all but 0."""
    return np.where(area, labels.astype(np.int16) + 1, 0)


def _widened(edge: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    for _ in range(pixels):
        wide = edge.copy()
        wide[1:] |= edge[:-1]
        wide[:-1] |= edge[1:]
        wide[:, 1:] |= edge[:, :-1]
        wide[:, :-1] |= edge[:, 1:]
        edge = wide
    return edge
