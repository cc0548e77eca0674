"""Intervals, tests and ranks of scores, by resampling images and seeds (with SciPy).

Images and seeds are sampled, the same ones for every model, so that what one image or one seed does to all of them
cancels in their differences. Images, not pixels, because the pixels of one image resemble each other.

Images of one group, such as a patient or a video, resemble each other too, and are sampled together (Davison and
Hinkley 1997, section 3.8).

* Intervals and ranks: the percentile bootstrap (Efron 1979); images and seeds are sampled with replacement.
* Tests: the paired permutation test (Fisher 1935, Pitman 1937). If two models were alike, it would not matter which of
  them is called which in any image. So they are swapped in random images, and p is the share of such swaps whose
  difference is at least as large as the measured one.
* Several tests: Holm's correction (Holm 1979).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.errors import plural

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2000
"""Of comparisons."""
RUN_RESAMPLES = 1000
"""Of the intervals of a single run."""
SEED = 0
"""Of the resamples and swaps of comparisons, so that the same runs always give the same table."""
SWAPS = 10_000
"""At most; up to 13 images, which have 2 ** 13, all swaps are enumerated."""
LEVEL = 0.95
METHOD = (
    f"95% percentile bootstrap over {{over}}, {RUN_RESAMPLES} resamples: how far a score may be off because these "
    "images were scored and not others of their kind; it says nothing about the weights of another training"
)
"""What is said of a run's intervals; `over` is what `resampled_words` returns."""
_AT_ONCE = 1_000_000
"""Sampled images that are in memory at once."""


@dataclass(frozen=True)
class Measure:
    """Scores of one model that follow from sums over images.

    Attributes:
        names: of the V scores.
        parts: what each image of each seed adds to the sums, `[S, N, ...]`.
        score: returns the scores, `[..., V]`, of sums over images, `[..., *parts.shape[2:]]`; NaN where undefined.
    """

    names: tuple[str, ...]
    parts: Floats
    score: Callable[[Floats], Floats]

    @classmethod
    def means(cls, names: Sequence[str], values: Floats) -> Measure:
        """Return the means over images of `[S, N, V]`, each without the images where it is NaN."""
        defined = ~np.isnan(values)
        parts = np.stack([np.where(defined, values, 0.0), defined.astype(np.float64)], axis=-1)
        return cls(tuple(names), parts, _mean)

    @classmethod
    def pooled(
        cls, parts: NDArray[Any], scorers: Iterable[Callable[[Any], Mapping[str, Any]]], names: Iterable[str]
    ) -> Measure:
        """Return the scores that metrics compute from sums of `parts` `[S, N, ...]`.

        Args:
            parts: counts or other numbers of each image.
            scorers: the metrics' `scores_of_counts` or `scores_of_sums`.
            names: the scores that are wanted, where a metric has them.
        """
        import torch

        scorers = list(scorers)
        whole = np.issubdtype(parts.dtype, np.integer)

        def by_name(sums: Floats) -> dict[str, Floats]:
            # Sums of pixels in float64 are exact up to 2 ** 53.
            tensor = torch.from_numpy(np.rint(sums).astype(np.int64) if whole else sums)
            return {name: found.numpy() for scorer in scorers for name, found in scorer(tensor).items()}

        known = by_name(parts[0].sum(0))
        chosen = tuple(name for name in known if name in set(names))

        def score(sums: Floats) -> Floats:
            found = by_name(sums)
            shape = sums.shape[: sums.ndim - parts.ndim + 2]
            return np.stack([found[name] for name in chosen], axis=-1) if chosen else np.empty((*shape, 0))

        return cls(chosen, parts.astype(np.float64), score)

    def by_group(self, groups: Sequence[Hashable] | None) -> Measure:
        """Return the same scores of groups of images, which are then resampled in place of images.

        Args:
            groups: that of each of the N images; None: each is one by itself.
        """
        if groups is None:
            return self
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        parts = np.zeros((len(self.parts), len(numbers), *self.parts.shape[2:]))
        for image, group in enumerate(groups):
            parts[:, numbers[group]] += self.parts[:, image]
        return Measure(self.names, parts, self.score)

    def of(self, *names: str) -> Measure:
        """Return the measure of some of the scores, in that order."""
        columns = [self.names.index(name) for name in names]
        return Measure(names, self.parts, lambda sums: self.score(sums)[..., columns])


def resampled_words(groups: Collection[Hashable] | None) -> str:
    """Return what is resampled, images or their groups, as in "12 groups of images"."""
    if groups is None:
        return "images"
    return f"{plural(len(set(groups)), 'group')} of images"


def _mean(sums: Floats) -> Floats:
    total, number = sums[..., 0], sums[..., 1]
    return np.where(number > 0, total / np.maximum(number, 1.0), np.nan)


def of_seeds(measure: Measure) -> Floats:
    """Return each seed's scores over all images, `[S, V]`."""
    return measure.score(measure.parts.sum(1))


def resampled(measures: Sequence[Measure], *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return each model's scores, means over seeds, in each resample: `[M, R, V]`.

    In each resample as many images are sampled as there are, with replacement, the same for all models. So are seeds,
    where all models have the same number of them; otherwise each model's are sampled separately.

    Args:
        measures: of M models, of the same N images and the same scores.
        seed: of the generator.
        resamples: R.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    images, seeds = measures[0].parts.shape[1], [len(measure.parts) for measure in measures]
    sizes = [images, *(seeds[:1] if len(set(seeds)) == 1 else seeds)]
    varying = [place for place, size in enumerate(sizes) if size > 1]  # SciPy refuses samples of one
    if not varying:
        fixed = np.stack([of_seeds(measure).mean(0) for measure in measures])
        return np.repeat(fixed[:, None], resamples, axis=1)

    def scores(*chosen: NDArray[np.int64], axis: int) -> Floats:  # noqa: ARG001 - always the last
        times = [np.ones((len(chosen[0]), 1)) for _ in sizes]
        for place, indices in zip(varying, chosen, strict=True):
            times[place] = _times(indices, sizes[place])
        of_models = times[1:] if len(times) > 2 else times[1:] * len(measures)
        found = [
            _over_seeds(measure.score(_sums(times[0], measure.parts)), weights).T
            for measure, weights in zip(measures, of_models, strict=True)
        ]
        return np.stack(found)

    with warnings.catch_warnings():  # of undefined scores, which `interval` leaves out
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            [np.arange(sizes[place]) for place in varying], scores, vectorized=True, method="percentile",
            n_resamples=resamples, batch=max(1, _AT_ONCE // images), rng=np.random.default_rng(seed),
        )  # fmt: skip
    return np.asarray(found.bootstrap_distribution, np.float64).swapaxes(1, 2)


def _times(chosen: NDArray[np.int64], size: int) -> Floats:
    """Return how often each of `size` things is among each row of `[R, size]`, in the same shape."""
    places = chosen.astype(np.int64) + np.arange(len(chosen))[:, None] * size
    return np.bincount(places.ravel(), minlength=len(chosen) * size).reshape(-1, size).astype(np.float64)


def _over_seeds(scores: Floats, times: Floats) -> Floats:
    """Return the mean, `[R, V]`, of `[R, S, V]` over the seeds, each counted as often as `[R, S]` says."""
    sampled = times[..., None] > 0
    return np.asarray((np.where(sampled, scores, 0.0) * times[..., None]).sum(1) / times.sum(1)[:, None], np.float64)


def _sums(times: Floats, parts: Floats) -> Floats:
    """Return sums over images, `[R, S, ...]`, of `[S, N, ...]` where image n counts as often as `[R, N]` says."""
    with np.errstate(invalid="ignore"):  # 0 times infinity
        sums = np.tensordot(times, parts.reshape(*parts.shape[:2], -1), axes=(1, 1))
    return np.asarray(sums, np.float64).reshape(len(times), len(parts), *parts.shape[2:])


def interval(samples: Floats) -> tuple[float, float] | None:
    """Return the middle 95% of `[R]`; None where fewer than half of them are defined, or one is infinite."""
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples) or np.isinf(defined).any():
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(
    measures: Iterable[Measure], *, seed: int, resamples: int = RUN_RESAMPLES
) -> dict[str, tuple[float, float]]:
    """Return the interval of each score of one model's measures, all over the same resamples of its images.

    Without two images, or groups of them, nothing is known about how they differ, and no score has an interval. A
    resample in which a score is undefined is left out; a score that is defined in fewer than half of them has no
    interval.
    """
    found = {}
    for measure in measures:
        if measure.parts.shape[1] > 1 and measure.names:
            samples = resampled([measure], seed=seed, resamples=resamples)[0]
            found.update({name: interval(column) for name, column in zip(measure.names, samples.T, strict=True)})
    return {name: ends for name, ends in found.items() if ends is not None}


def permutation_p(one: Measure, other: Measure, *, seed: int, swaps: int = SWAPS) -> float:
    """Return the two-sided p of the paired permutation test between two models' score, the mean over seeds.

    An image is swapped in all seeds at once, because what it does to a network it does to each of them. Where swaps are
    random, the measured order counts as one of them, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        one: a model's score, `V` = 1.
        other: another one's, of the same images. With another number of seeds, each image counts with its mean over
            seeds.
        seed: of the generator.
        swaps: how many, where they are not all enumerated.
    """
    from scipy.stats import permutation_test

    if len(one.parts) != len(other.parts):
        one, other = (Measure(each.names, each.parts.mean(0, keepdims=True), each.score) for each in (one, other))
    images = one.parts.shape[1]
    if math.isnan((of_seeds(one) - of_seeds(other)).mean()):
        return math.nan
    if images == 1:  # both of its orders differ by as much; SciPy refuses samples of one
        return 1.0
    change = other.parts - one.parts

    def size(first: NDArray[np.int64], second: NDArray[np.int64], axis: int) -> Floats:  # noqa: ARG001 - swapped alike
        moved = _sums(np.atleast_2d(first >= images).astype(np.float64), change)
        scores = one.score(one.parts.sum(1) + moved) - other.score(other.parts.sum(1) - moved)
        # The last digits of a sum depend on the order of its terms, and a swap of all images is as large as none.
        sizes = np.abs(scores[..., 0].mean(1)).round(12)
        return np.where(np.isnan(sizes), np.inf, sizes).reshape(first.shape[:-1])

    found = permutation_test(
        (np.arange(images), np.arange(images, 2 * images)), size, permutation_type="samples", vectorized=True,
        n_resamples=swaps, batch=max(1, _AT_ONCE // images), alternative="greater", axis=-1,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number; NaN stays NaN and is none of them."""
    tested = sorted((p, number) for number, p in enumerate(ps) if not math.isnan(p))
    found = [math.nan] * len(ps)
    largest = 0.0
    for place, (p, number) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - place)))
        found[number] = largest
    return found


def shares_of_best(scores: Floats, *, higher_is_better: bool) -> Floats:
    """Return in which share of the resamples `[M, R]` each of M is the best, `[M]`; equal ones share the count."""
    places = ranks(scores, higher_is_better=higher_is_better)
    best = places == places.min(0)
    return np.asarray((best / best.sum(0)).mean(1), np.float64)


def ranks(scores: Floats, *, higher_is_better: bool) -> Floats:
    """Return ranks along the first axis of `[M, ...]`, 1 the best, NaN the last; equal scores share their mean rank."""
    from scipy.stats import rankdata

    keys = np.where(np.isnan(scores), np.inf, -scores if higher_is_better else scores)
    return np.asarray(rankdata(keys, axis=0), np.float64)
