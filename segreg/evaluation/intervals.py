"""How far a score may be off because it was measured on these images and not on others: 95% bootstrap intervals.

The percentile bootstrap (Efron 1979): as many images are drawn from those scored, with replacement, as there are; the
score is computed of what was drawn; and so 1000 times. The interval holds the middle 95% of these scores. Images are
what is drawn, not pixels, because the pixels of one image resemble each other. All scores are computed of the same
draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
METHOD = (
    f"95% percentile bootstrap over images, {RESAMPLES} resamples: how far a score may be off because these images "
    "were scored and not others of their kind; it tells nothing of another training's weights"
)
_MOST_DRAWN = 1_000_000
"""Drawn images that are in memory at once; a block of resamples holds no more."""

Interval = tuple[float, float]


def bootstrap(
    columns: Mapping[str, Sequence[float]],
    counts: NDArray[np.int64] | None,
    scorers: Sequence[Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.float64]]]],
    sums: Sequence[tuple[NDArray[Any], Callable[[NDArray[Any]], Mapping[str, NDArray[np.float64]]]]] = (),
    *,
    seed: int,
    resamples: int = RESAMPLES,
    block: int | None = None,
) -> dict[str, Interval]:
    """Return the lower and upper end of each score's interval.

    Without two images nothing is known of how they differ, and no score has an interval. A resample in which a score is
    undefined is left out; a score that is defined in fewer than half of them has no interval.

    Args:
        columns: for each name its value in each image, NaN where it is undefined; the score is their mean without NaN.
        counts: what pooled scores are made of, `[N, ...]`, for each image; None if there are no pooled scores.
        scorers: each gives scores by name, `[R]`, for R resamples' summed counts `[R, ...]`.
        sums: other things than counts that pooled scores are made of, `[N, ...]`, each with what gives scores by name,
            `[R]`, for R resamples' sums `[R, ...]`.
        seed: decides the draws, with the number of images.
        resamples: how often.
        block: resamples that are computed at once, which changes nothing but memory and time; None fits both.
    """
    made_of = [(counts, scorer) for scorer in scorers] if counts is not None else []
    made_of += sums
    images = len(made_of[0][0]) if made_of else max(map(len, columns.values()), default=0)
    if images < 2:
        return {}
    names = list(columns)
    values = np.array([columns[name] for name in names], np.float64).reshape(len(names), images).T
    there = ~np.isnan(values)
    values = np.where(there, values, 0.0)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for times in _drawn(images, resamples, block or max(1, _MOST_DRAWN // images), seed):
        totals, numbers = times @ values, times @ there.astype(np.float64)
        means = np.where(numbers > 0, totals / np.maximum(numbers, 1.0), np.nan)
        for name, column in zip(names, means.T, strict=True):
            found.setdefault(name, []).append(column)
        pooled: dict[int, NDArray[Any]] = {}
        for each, scorer in made_of:
            if id(each) not in pooled:
                pooled[id(each)] = _summed(times, each)
            for name, scores in scorer(pooled[id(each)]).items():
                found.setdefault(name, []).append(np.asarray(scores, np.float64))
    ends = {name: _ends(np.concatenate(blocks)) for name, blocks in found.items()}
    return {name: interval for name, interval in ends.items() if interval is not None}


def _drawn(images: int, resamples: int, block: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Return blocks `[R, N]` of how often each image was drawn in each resample."""
    generator = np.random.default_rng(seed)
    for begin in range(0, resamples, block):
        count = min(block, resamples - begin)
        chosen = generator.integers(0, images, (count, images)) + np.arange(count)[:, None] * images
        yield np.bincount(chosen.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def _summed(times: NDArray[np.float64], each: NDArray[Any]) -> NDArray[Any]:
    """Return the sums `[R, ...]` of what was drawn of `[N, ...]`."""
    # In float64, because only that is multiplied fast; sums of pixels are exact up to 2 ** 53.
    found: NDArray[Any] = times @ each.reshape(len(each), -1).astype(np.float64)
    if np.issubdtype(each.dtype, np.integer):
        found = np.rint(found).astype(np.int64)
    return found.reshape(len(times), *each.shape[1:])


def _ends(scores: NDArray[np.float64]) -> Interval | None:
    defined = scores[~np.isnan(scores)]
    if 2 * len(defined) < len(scores):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
