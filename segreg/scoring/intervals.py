"""How far a score may be off because it was measured on these images and not on others: 95% bootstrap intervals.

The percentile bootstrap (Efron 1979): as many images are drawn from those scored, with replacement, as there are; the
score is computed of what was drawn; and so 1000 times. The interval holds the middle 95% of these scores. Images are
what is drawn, not pixels, because the pixels of one image resemble each other. All scores are computed of the same
draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

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
    *,
    seed: int,
    resamples: int = RESAMPLES,
    block: int | None = None,
) -> dict[str, Interval]:
    """Gives the lower and upper end of each score's interval.

    Without two images nothing is known of how they differ, and no score has an interval. A resample in which a score is
    undefined is left out; a score that is defined in fewer than half of them has no interval.

    Args:
        columns: for each name its value in each image, NaN where it is undefined; the score is their mean without NaN.
        counts: what pooled scores are made of, `[N, ...]`, for each image; None if there are no pooled scores.
        scorers: each gives scores by name, `[R]`, for R resamples' summed counts `[R, ...]`.
        seed: decides the draws, with the number of images.
        resamples: how often.
        block: resamples that are computed at once, which changes nothing but memory and time; None fits both.
    """
    images = len(counts) if counts is not None else max(map(len, columns.values()), default=0)
    if images < 2:
        return {}
    names = list(columns)
    values = np.array([columns[name] for name in names], np.float64).reshape(len(names), images).T
    there = ~np.isnan(values)
    values = np.where(there, values, 0.0)
    # In float64, because only that is multiplied fast; sums of pixels are exact up to 2 ** 53.
    flat = None if counts is None else counts.reshape(images, -1).astype(np.float64)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for times in _drawn(images, resamples, block or max(1, _MOST_DRAWN // images), seed):
        sums, numbers = times @ values, times @ there.astype(np.float64)
        means = np.where(numbers > 0, sums / np.maximum(numbers, 1.0), np.nan)
        for name, column in zip(names, means.T, strict=True):
            found.setdefault(name, []).append(column)
        if flat is None or counts is None:
            continue
        pooled = np.rint(times @ flat).astype(np.int64).reshape(len(times), *counts.shape[1:])
        for scorer in scorers:
            for name, scores in scorer(pooled).items():
                found.setdefault(name, []).append(np.asarray(scores, np.float64))
    ends = {name: _ends(np.concatenate(blocks)) for name, blocks in found.items()}
    return {name: interval for name, interval in ends.items() if interval is not None}


def _drawn(images: int, resamples: int, block: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Gives blocks `[R, N]` of how often each image was drawn in each resample."""
    generator = np.random.default_rng(seed)
    for begin in range(0, resamples, block):
        count = min(block, resamples - begin)
        chosen = generator.integers(0, images, (count, images)) + np.arange(count)[:, None] * images
        yield np.bincount(chosen.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def _ends(scores: NDArray[np.float64]) -> Interval | None:
    defined = scores[~np.isnan(scores)]
    if 2 * len(defined) < len(scores):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
