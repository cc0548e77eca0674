"""Which pixels of an image lie inside a polygon.

A pixel belongs to a polygon that its centre lies in: pixel (column c, row r) covers the square from (c, r) to (c + 1,
r + 1), and its centre is (c + 0.5, r + 0.5), which is COCO's convention. A centre that lies on an edge belongs to
the polygon to the right of or below the edge, so that polygons which share an edge neither overlap nor leave a gap.
Where a polygon crosses itself, what it encloses an even number of times is outside. Pillow and OpenCV draw every pixel
that an edge touches instead, which makes small objects larger by half a pixel all round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from segreg.errors import SegregError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


Fate = Literal["drawn", "cut off", "outside the image", "no pixel's centre in them"]
_MOST_LOOKED_AT = 4096
MOST_CROSSINGS = 50_000_000
"""How often a polygon's edges may cross a row of pixels, all of them together: some gigabytes of memory."""


class Window(NamedTuple):
    """Pixels in a part of an image."""

    rows: slice
    columns: slice
    inside: NDArray[np.bool_]


def polygon_window(points: NDArray[np.float64], size: tuple[int, int]) -> Window | None:
    """Return the pixels inside a polygon, cut at the image's border, or None where no centre lies in it.

    Raises:
        SegregError: the polygon has so many long edges that memory would not do.

    Args:
        points: corners, float64 `[N, 2]`, as x (to the right) and y (down) in pixels; the last joins the first.
        size: height and width of the image in pixels.
    """
    import numpy as np

    height, width = size
    ends = np.roll(points, -1, axis=0)
    # From top to bottom, whichever way the polygon runs: neighbours then compute the same crossings.
    downward = points[:, 1] <= ends[:, 1]
    x0, y0 = np.where(downward[:, None], points, ends).T
    x1, y1 = np.where(downward[:, None], ends, points).T
    first = np.clip(np.ceil(y0 - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(y1 - 0.5), 0, height).astype(np.int64)
    crossed = last - first  # rows whose centre line an edge crosses; none where it is level
    if (crossings := int(crossed.sum())) > MOST_CROSSINGS:
        raise SegregError(
            f"a polygon of {len(points)} points crosses rows of pixels {crossings:,} times; at most "
            f"{MOST_CROSSINGS:,} are drawn"
        )
    edge = np.repeat(np.arange(len(points)), crossed)
    if not len(edge):
        return None
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed - first, crossed)
    x = x0[edge] + (row + 0.5 - y0[edge]) / (y1[edge] - y0[edge]) * (x1[edge] - x0[edge])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    top, bottom, left, right = row.min(), row.max() + 1, column.min(), column.max()
    if left == right:
        return None
    # Each crossing turns inside into outside for all that lies to its right.
    span = right - left + 1
    turns = np.bincount((row - top) * span + column - left, minlength=(bottom - top) * span).reshape(-1, span)
    inside = np.cumsum(turns, axis=1)[:, :-1] % 2 == 1
    return Window(slice(top, bottom), slice(left, right), inside)


def polygon_area(points: NDArray[np.float64]) -> float:
    """Return the area that a polygon `[N, 2]` encloses, in pixels."""
    import numpy as np

    x, y = (points - points.mean(axis=0)).T
    return float(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2)


def extends(polygon: array[float]) -> bool:
    """Whether an outline, x and y in turns, can enclose anything: three points, not all in one row or column."""
    if len(polygon) < 6:
        return False
    return min(polygon[::2]) < max(polygon[::2]) and min(polygon[1::2]) < max(polygon[1::2])


def fate_of(outlines: Sequence[array[float]], size: tuple[int, int]) -> Fate:
    """Return what becomes of an object in an image, without drawing it where it is plain.

    Args:
        outlines: polygons that are united, x and y in turns, in pixels; each extends.
        size: height and width of the image in pixels.
    """
    height, width = size
    left, right = min(min(each[::2]) for each in outlines), max(max(each[::2]) for each in outlines)
    top, bottom = min(min(each[1::2]) for each in outlines), max(max(each[1::2]) for each in outlines)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "outside the image"
    # Programs round outwards, or count from the last pixel's far edge.
    beyond = left < -1 or top < -1 or right > width + 1 or bottom > height + 1
    small = min(right, width) - max(left, 0) < 2 or min(bottom, height) - max(top, 0) < 2
    numbers = sum(map(len, outlines))
    if numbers <= _MOST_LOOKED_AT and (beyond or small or sum(map(_area, outlines)) < 4) and not _hit(outlines, size):
        return "outside the image" if beyond else "no pixel's centre in them"
    return "cut off" if beyond else "drawn"


def _area(polygon: array[float]) -> float:
    x, y = polygon[::2], polygon[1::2]
    twice = sum(a * d - b * c for a, b, c, d in zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=True))
    return abs(twice) / 2


def _hit(outlines: Sequence[array[float]], size: tuple[int, int]) -> bool:
    import numpy as np

    windows = (polygon_window(np.frombuffer(each).reshape(-1, 2), size) for each in outlines)
    return any(window is not None and bool(window.inside.any()) for window in windows)
