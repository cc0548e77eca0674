"""Labels as pixels: painted, outlined, and laid over their image; large images are computed some rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.visualize.colours import IGNORED_COLOUR, Colour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.task import Task

_TINT = 96
"""Share of a class's colour in its area, of 256."""
_ROWS = 1 << 20
"""Pixels that are computed at once."""


def paint(labels: NDArray[Any], colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """Return labels `[H, W]` (or 0/1 `[K, H, W]`) as colours `[H, W, 3]`; ignored pixels are grey."""
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
    layers = labels if labels.ndim == 3 else labels[None]
    edge = np.zeros(layers.shape[1:], np.bool_)
    for layer in layers:
        padded = np.pad(layer, 1, mode="edge")
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        edge |= np.logical_or.reduce([side != layer for side in around]) & (layer != 0) & (layer != 255)
    return edge


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image `[H, W, C]` as it is shown, `[H, W, 3]`: its first three channels, or its first one as grey."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Sequence[Colour], task: Task
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
        # Neighbouring rows are included, for outlines that reach in from there.
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
    image: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Sequence[Colour], reach: int
) -> NDArray[np.uint8]:
    area = np.array([any(colours[label]) if label < len(colours) else False for label in range(256)])[labels]
    painted = paint(labels, colours)
    mixed = image.astype(np.uint16) * np.uint16(256 - _TINT) + painted.astype(np.uint16) * np.uint16(_TINT)
    drawn = np.where(area[..., None], (mixed >> 8).astype(np.uint8), image)
    # Outlines are of all labels but 0 and 255: labels count from 256, with 0 where nothing is painted.
    edge = _widened(outline(np.where(area, labels.astype(np.int16) + 256, 0)), reach - 1) & area
    drawn[edge] = painted[edge]
    return drawn


def _widened(edge: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.dilate(edge.astype(np.uint8), cross, iterations=pixels).astype(np.bool_)
