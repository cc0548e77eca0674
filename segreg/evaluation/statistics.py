"""Intervals, tests and ranks of scores that several models have in the same images, trained with several seeds.

What is drawn anew is images and seeds, the same ones for every model, so that what one image or one seed does to
all of them cancels in their differences.

* Intervals and ranks: the percentile bootstrap (Efron 1979), images and seeds drawn with replacement.
* Tests: the paired permutation test (Fisher 1935, Pitman 1937). If two models were alike, it would not matter which of
  them is called which in any image; so they are swapped in images drawn at random, and p is the share of such swaps
  that give a difference at least as large as the one that was measured.
* Several tests: Holm's correction (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2000
SEED = 0
"""Of the resamples and swaps of comparisons, so that the same runs always give the same table."""
SWAPS = 10_000
"""Swaps that are drawn where there are too many to try all; all are tried up to 13 images, which have 2 ** 13."""
LEVEL = 0.95
_MOST_TRIED = 13
_BLOCK = 250
"""Resample at once, which changes nothing but memory."""


@dataclass(frozen=True)
class Measure:
    """Scores of one model as something that images add up to.

    Attributes:
        names: of the V scores.
        parts: what each image of each seed brings, `[S, N, ...]`.
        score: gives the scores, `[..., V]`, of sums over images, `[..., *parts.shape[2:]]`; NaN where undefined.
    """

    names: tuple[str, ...]
    parts: Floats
    score: Callable[[Floats], Floats]

    @classmethod
    def means(cls, names: Sequence[str], values: Floats) -> Measure:
        """Return the means over images of `[S, N, V]`, each without the images where it is NaN."""
        there = ~np.isnan(values)
        return cls(tuple(names), np.stack([np.where(there, values, 0.0), there.astype(np.float64)], axis=-1), _mean)

    def of(self, *names: str) -> Measure:
        """Return the measure of some of the scores, in that order."""
        columns = [self.names.index(name) for name in names]
        return Measure(names, self.parts, lambda sums: self.score(sums)[..., columns])


def _mean(sums: Floats) -> Floats:
    total, number = sums[..., 0], sums[..., 1]
    return np.where(number > 0, total / np.maximum(number, 1.0), np.nan)


def of_seeds(measure: Measure) -> Floats:
    """Return each seed's scores over all images, `[S, V]`."""
    return measure.score(measure.parts.sum(1))


def resampled(measures: Sequence[Measure], *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return each model's scores, means over seeds, in each resample: `[M, R, V]`.

    In each resample as many images are drawn as there are, with replacement, the same for all models. So are seeds,
    where all models have the same number of them; where they have not, each model's are drawn on their own.

    Args:
        measures: of M models, of the same N images and the same scores.
        seed: decides the draws.
        resamples: how often.
    """
    images = measures[0].parts.shape[1]
    draw = np.random.default_rng(seed)
    paired = len({len(measure.parts) for measure in measures}) == 1
    found = np.empty((len(measures), resamples, len(measures[0].names)))
    for begin in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - begin)
        times = _times(draw, count, images)
        shared = _times(draw, count, len(measures[0].parts)) if paired else None
        for number, measure in enumerate(measures):
            seeds = _times(draw, count, len(measure.parts)) if shared is None else shared
            scores = measure.score(_sums(times, measure.parts))
            found[number, begin : begin + count] = _over_seeds(scores, seeds)
    return found


def _over_seeds(scores: Floats, seeds: Floats) -> Floats:
    """Return the mean, `[R, V]`, of `[R, S, V]` over the seeds that were drawn as often as `[R, S]` says."""
    drawn = seeds[..., None] > 0
    return np.asarray((np.where(drawn, scores, 0.0) * seeds[..., None]).sum(1) / seeds.sum(1)[:, None], np.float64)


def _sums(times: Floats, parts: Floats) -> Floats:
    """Return sums over images, `[R, S, ...]`, of `[S, N, ...]` where image n counts as often as `[R, N]` says."""
    flat = parts.reshape(*parts.shape[:2], -1)
    sums = np.tensordot(times, flat, axes=(1, 1))
    return np.asarray(sums, np.float64).reshape(len(times), len(parts), *parts.shape[2:])


def _times(draw: np.random.Generator, resamples: int, things: int) -> Floats:
    """Return how often each thing was drawn in each resample, `[R, N]`."""
    chosen = draw.integers(0, things, (resamples, things)) + np.arange(resamples)[:, None] * things
    return np.bincount(chosen.ravel(), minlength=resamples * things).reshape(resamples, things).astype(np.float64)


def interval(draws: Floats) -> tuple[float, float] | None:
    """Return the middle 95% of `[R]`; None where fewer than half of them are defined."""
    defined = draws[~np.isnan(draws)]
    if 2 * len(defined) < len(draws):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def permutation_p(one: Measure, other: Measure, *, seed: int, swaps: int = SWAPS) -> float:
    """Return the two-sided p of the paired permutation test between two models' score, the mean over seeds.

    A image is swapped in all seeds at once, because what it does to a network it does to each of them. Where the
    swaps are drawn at random, the order that was measured is counted as one of them, so that p is never 0 (Phipson and
    Smyth 2010).

    Args:
        one: a model's score, `V` = 1.
        other: another one's, of the same images. With another number of seeds, what a image brings is its mean over
            seeds.
        seed: decides which swaps are drawn.
        swaps: how many, where not all of them are tried.
    """
    if len(one.parts) != len(other.parts):
        one, other = (Measure(each.names, each.parts.mean(0, keepdims=True), each.score) for each in (one, other))
    images = one.parts.shape[1]
    measured = float(np.abs(of_seeds(one).mean() - of_seeds(other).mean()))
    if math.isnan(measured):
        return math.nan
    # The last digit of a sum depends on the order of its terms, and a swap of all images is as large as none.
    least = measured - 1e-12 * max(1.0, measured)
    if images <= _MOST_TRIED:
        every = (np.arange(2**images)[:, None] >> np.arange(images)) & 1
        return float(np.mean(~(_swapped(one, other, every.astype(np.float64)) < least)))
    draw = np.random.default_rng(seed)
    as_large = 0
    for begin in range(0, swaps, _BLOCK):
        which = draw.integers(0, 2, (min(_BLOCK, swaps - begin), images)).astype(np.float64)
        as_large += int(np.sum(~(_swapped(one, other, which) < least)))
    return (as_large + 1) / (swaps + 1)


def _swapped(one: Measure, other: Measure, which: Floats) -> Floats:
    """Return the size of the difference, `[R]`, where the images that are 1 in `[R, N]` are swapped."""
    moved = _sums(which, other.parts - one.parts)
    scores = one.score(one.parts.sum(1) + moved) - other.score(other.parts.sum(1) - moved)
    return np.abs(scores[..., 0].mean(1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number; NaN stays NaN and is none of them."""
    tested = sorted((p, number) for number, p in enumerate(ps) if not math.isnan(p))
    found = [math.nan] * len(ps)
    largest = 0.0
    for place, (p, number) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - place)))
        found[number] = largest
    return found


def ranks(scores: Floats, *, higher_is_better: bool) -> Floats:
    """Return places along the first axis of `[M, ...]`, 1 the best; equal ones share the mean of their places.

    A score that is NaN stands behind all others.
    """
    keys = np.where(np.isnan(scores), np.inf, -scores if higher_is_better else scores)
    better = (keys[None] < keys[:, None]).sum(1)
    equal = (keys[None] == keys[:, None]).sum(1)
    return np.asarray(better + (equal + 1) / 2, np.float64)
