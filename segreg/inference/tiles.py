"""Where the tiles of an image lie, and how maps of overlapping tiles become one map, some rows at a time.

A tile counts most in its middle and least at its border, where the network has seen the least of what is around: its
weight is a raised cosine in both directions. The weights of all tiles at a pixel are scaled to sum to one, so that no
seam is left and a map that all tiles agree on is kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segreg.errors import SegregError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]
Corner = tuple[int, int]
"""A tile's upper left corner: row and column."""

MOST_OVERLAP = 0.9
"""More would predict every pixel a hundred times."""


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin along one side: evenly spread, as few as cover it and overlap at least so much.

    Args:
        length: pixels of the side.
        tile: pixels of a tile, `length` at most.
        overlap: share of a tile that the next one covers too, 0 to 0.9.

    Raises:
        SegregError: the overlap is out of range, or the tile is longer than the side.
    """
    if not 0 <= overlap <= MOST_OVERLAP:
        raise SegregError(f"the overlap of tiles must be from 0 to {MOST_OVERLAP}, not {overlap:g}")
    if not 1 <= tile <= length:
        raise SegregError(f"a tile of {tile} pixels does not go into {length}")
    step = max(1, math.floor(tile * (1 - overlap) + 1e-9))  # a tenth of 100 is 10, whatever its rounding
    gaps = -(-(length - tile) // step)
    return [round(number * (length - tile) / gaps) for number in range(gaps + 1)] if gaps else [0]


def tile_weights(length: int, tile: int, starts: Sequence[int]) -> NDArray[np.float64]:
    """Return each tile's weights along one side; at every pixel those of all tiles sum to one.

    Shape: float64 `[len(starts), tile]` in (0, 1].
    """
    window = np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2  # above 0 also in the outermost pixels
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += window
    return np.stack([window / total[start : start + tile] for start in starts])


def blend(
    size: Size,
    tile: Size,
    overlap: float,
    predict: Callable[[Sequence[Corner]], NDArray[np.float32]],
    *,
    channels: int,
    at_once: int = 1,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Return an image's map from the maps of its tiles, from the top, as soon as rows are complete.

    Only one row of tiles is held, whatever the image's height: `channels * tile height * width` values.

    Args:
        size: height and width of the image.
        tile: height and width of a tile; no larger than the image.
        overlap: share of a tile that the next one covers too.
        predict: returns the maps float32 `[n, channels, *tile]` of the tiles with these corners.
        channels: of a map.
        at_once: tiles that `predict` gets at once.

    Yields:
        The number of the first row, and a map float32 `[channels, rows, width]` that is the caller's to keep.

    Raises:
        SegregError: the overlap is out of range, or the tile is larger than the image.
    """
    (height, width), (tile_height, tile_width) = size, tile
    tops, lefts = tile_starts(height, tile_height, overlap), tile_starts(width, tile_width, overlap)
    down = tile_weights(height, tile_height, tops).astype(np.float32)
    across = tile_weights(width, tile_width, lefts).astype(np.float32)
    pending = np.zeros((channels, tile_height, width), np.float32)
    for row, top in enumerate(tops):
        for first in range(0, len(lefts), at_once):
            columns = range(first, min(first + at_once, len(lefts)))
            maps = predict([(top, lefts[column]) for column in columns])
            for number, column in enumerate(columns):
                weights = down[row][:, None] * across[column]
                left = lefts[column]
                pending[:, :, left : left + tile_width] += maps[number] * weights
        done = (tops[row + 1] if row + 1 < len(tops) else height) - top
        yield top, pending[:, :done].copy()
        rest = pending[:, done:].copy()
        pending[:, : tile_height - done] = rest
        pending[:, tile_height - done :] = 0
