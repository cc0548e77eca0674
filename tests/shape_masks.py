"""Masks of shapes made pixel by pixel in plain Python: an independent way to what the readers of annotations draw."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segreg.errors import SegregError


def write_image(path, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
    return path


def within(polygon, size=(8, 10), *, holes=()):
    """Whether each pixel's centre is inside: a ray to the right crosses an odd number of edges; in no hole."""
    mask = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column + 0.5, row + 0.5
            mask[row, column] = _odd(polygon, x, y) and not any(_odd(hole, x, y) for hole in holes)
    return mask


def _odd(polygon, x, y):
    crossings = 0
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 <= y) != (y1 <= y):
            crossings += x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return crossings % 2 == 1


def near(x, y, radius_x, radius_y, size=(8, 10)):
    """Whether each pixel's centre is in an ellipse."""
    mask = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            mask[row, column] = ((column + 0.5 - x) / radius_x) ** 2 + ((row + 0.5 - y) / radius_y) ** 2 <= 1
    return mask


def layered(*layers, size=(8, 10)):
    """The mask of (where, label) pairs, later ones on top."""
    mask = np.zeros(size, np.uint8)
    for where, label in layers:
        mask[where] = label
    return mask


def masks(dataset):
    """The masks of a data set by the ids of its samples."""
    return {sample.id: dataset.read_mask(sample) for sample in dataset.samples}


def refusal(build, *words):
    """The message of an error that building a data set, or reading its masks, must raise, with these words."""
    with pytest.raises(SegregError) as caught:
        masks(build())
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)
