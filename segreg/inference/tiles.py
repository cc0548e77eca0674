"""Where the tiles of an image lie, and how maps of overlapping tiles become one map, some rows at a time.

Where tiles overlap, the one whose border is farther away counts, because the network has seen more of what is around.
One fades into the other over the middle quarter of the overlap, by a raised cosine, so that no seam is left. What lies
nearer to a tile's border than three eighths of the overlap counts for nothing: for a network that sees no farther than
that, the map is the one of the whole image. The weights of all tiles at a pixel sum to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]
Corner = tuple[int, int]
"""A tile's upper left corner: row and column."""


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin along one side: evenly spread, as few as cover it and overlap at least so much.

    Args:
        length: pixels of the side.
        tile: pixels of a tile, `length` at most.
        overlap: share of a tile that the next one covers too, below 1.
    """
    step = max(1, math.floor(tile * (1 - overlap) + 1e-9))  # a tenth of 100 is 10, whatever its rounding
    gaps = -(-(length - tile) // step)
    return [round(number * (length - tile) / gaps) for number in range(gaps + 1)] if gaps else [0]


def tile_weights(length: int, tile: int, starts: Sequence[int]) -> NDArray[np.float64]:
    """Return each tile's weights along one side; at every pixel those of all tiles sum to one.

    Shape: float64 `[len(starts), tile]` in [0, 1].
    """
    weights = np.ones((len(starts), tile))
    for number in range(1, len(starts)):
        shared = starts[number - 1] + tile - starts[number]
        if shared > 0:
            way = np.clip((np.arange(shared) + 0.5 - 3 / 8 * shared) / (shared / 4), 0, 1)  # 0 to 1 as one fades
            rising = np.sin(np.pi / 2 * way) ** 2
            weights[number, :shared] *= rising
            weights[number - 1, tile - shared :] *= rising[::-1]
    total = np.zeros(length)
    for start, own in zip(starts, weights, strict=True):
        total[start : start + tile] += own
    return np.stack([own / total[start : start + tile] for start, own in zip(starts, weights, strict=True)])


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
