"""Ranks of models and their differences, each with how sure it is, and how that was found, in sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segreg.benchmark.comparison.record import Difference, Model, Rank
from segreg.evaluation import statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.evaluation.statistics import Measure

APART_BELOW = 0.05
_INTERVALS = (
    f"Intervals are 95% percentile bootstrap intervals with {statistics.RESAMPLES} resamples. Each draws as many test "
    "images as there are and as many seeds as were trained, with replacement, the same for every model. Few seeds "
    "tell little of what other seeds would bring: an interval over two or three of them is too narrow rather than too "
    "wide."
)
_TESTS = (
    "p is that of a two-sided paired permutation test: two models' results are swapped in images drawn at random, "
    f"{statistics.SWAPS} times (in all ways where there are few images), and p is the share of swaps with a "
    "difference at least as large as the measured one. Holm's correction accounts for the number of models tested."
)
_APART = (
    f"Two models are significantly different where the corrected p is below {APART_BELOW} and the paired interval of their "
    "difference leaves out 0. The test takes the trained networks as they are; the interval also asks whether another "
    "draw of the seeds would agree."
)
_RANKS = "A rank is the place among all models; its interval and the share of being the best are over the resamples."
METHOD = (_INTERVALS, _TESTS, _APART, _RANKS)


def with_ranks(
    models: Sequence[Model], metric: str, draws: NDArray[np.float64], *, higher_is_better: bool
) -> list[Model]:
    """Return the models with their ranks, of scores that were drawn `[M, R]`."""
    measured = np.array([model.values[metric].mean for model in models])
    places = statistics.ranks(measured, higher_is_better=higher_is_better)
    drawn = statistics.ranks(draws, higher_is_better=higher_is_better)
    # Of several that are the best together, each was it in part.
    ahead = (drawn == drawn.min(0)) / (drawn == drawn.min(0)).sum(0)
    found = []
    for number, model in enumerate(models):
        low, high = np.quantile(drawn[number], [0.025, 0.975])
        rank = Rank(float(places[number]), float(low), float(high), float(ahead[number].mean()))
        found.append(dataclasses.replace(model, rank=rank))
    return found


def with_differences(
    models: Sequence[Model], baseline: int, only: Sequence[Measure], draws: NDArray[np.float64]
) -> list[Model]:
    """Return the models with their differences to that at `baseline`; `only` and `draws` `[M, R]` are their scores."""
    others = [number for number in range(len(models)) if number != baseline]
    found = differences(only, draws, baseline, others)
    return [
        dataclasses.replace(model, difference=found[others.index(number)]) if number in others else model
        for number, model in enumerate(models)
    ]


def differences(
    only: Sequence[Measure], draws: NDArray[np.float64], against: int, others: Sequence[int]
) -> list[Difference | None]:
    """Return how each of `others` differs from the model `against`; None where one of the scores is undefined.

    Args:
        only: each model's score.
        draws: the same in each resample, `[M, R]`.
        against: number of the model that the others are told against.
        others: their numbers.
    """
    ps = [statistics.permutation_p(only[number], only[against], seed=statistics.SEED) for number in others]
    base = float(statistics.of_seeds(only[against]).mean())
    found: list[Difference | None] = []
    for number, p, corrected in zip(others, ps, statistics.holm(ps), strict=True):
        mean = float(statistics.of_seeds(only[number]).mean()) - base
        ends = statistics.interval(draws[number] - draws[against])
        if ends is None or np.isnan(mean) or np.isnan(p):
            found.append(None)
            continue
        apart = corrected < APART_BELOW and not ends[0] <= 0 <= ends[1]
        found.append(Difference(mean, *ends, p, corrected, apart))
    return found
