"""Ranks of models, and which of their differences are significant, also in sentences."""

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

SIGNIFICANT_BELOW = 0.05
_INTERVALS = (
    f"Intervals are 95% percentile bootstrap intervals with {statistics.RESAMPLES} resamples. Each samples as many "
    "images as there are and as many seeds as were trained, with replacement, the same for every model. Few seeds "
    "say little about other seeds: an interval over two or three of them is too narrow rather than too wide."
)
_TESTS = (
    "p is that of a two-sided paired permutation test: two models' results are swapped in randomly chosen "
    f"images, {statistics.SWAPS} times (in all ways where there are few images), and p is the share of swaps with a "
    "difference at least as large as the measured one. Holm's correction accounts for the number of models tested."
)
_SIGNIFICANT = (
    f"Two models are significantly different where the corrected p is below {SIGNIFICANT_BELOW} and the paired "
    "interval of their difference excludes 0. The test takes the trained networks as they are; the interval also "
    "covers the choice of the seeds."
)
_RANKS = "A rank is the place among all models; its interval and the share of being the best are over the resamples."
METHOD = (_INTERVALS, _TESTS, _SIGNIFICANT, _RANKS)
GROUPED = (
    "Images of one group, such as a patient or a video, are sampled and swapped together: where images are sampled or "
    "swapped above, whole groups are."
)
OUT_OF_FOLD = (
    "Out of fold: the images of all folds are put together, each with the scores of the network of its seed that was "
    "trained on the other folds. Images are sampled from all of them and the networks taken as they are, although any "
    "two of them share most of their training images. Metrics that single images don't add up to are means over folds."
)


def with_ranks(
    models: Sequence[Model], metric: str, resampled: NDArray[np.float64], *, higher_is_better: bool
) -> list[Model]:
    """Return the models with their ranks; `resampled` `[M, R]` are their scores in each resample."""
    measured = np.array([model.values[metric].mean for model in models])
    places = statistics.ranks(measured, higher_is_better=higher_is_better)
    places_of = statistics.ranks(resampled, higher_is_better=higher_is_better)
    best = statistics.shares_of_best(resampled, higher_is_better=higher_is_better)
    found = []
    for number, model in enumerate(models):
        low, high = np.quantile(places_of[number], [0.025, 0.975])
        rank = Rank(float(places[number]), float(low), float(high), float(best[number]))
        found.append(dataclasses.replace(model, rank=rank))
    return found


def differences(
    only: Sequence[Measure], resampled: NDArray[np.float64], against: int, others: Sequence[int]
) -> list[Difference | None]:
    """Return how each of `others` differs from the model `against`; None where one of the scores is undefined.

    Args:
        only: each model's score.
        resampled: the same in each resample, `[M, R]`.
        against: number of the model that the others are compared with.
        others: their numbers.
    """
    ps = [statistics.permutation_p(only[number], only[against], seed=statistics.SEED) for number in others]
    base = float(statistics.of_seeds(only[against]).mean())
    found: list[Difference | None] = []
    for number, p, corrected in zip(others, ps, statistics.holm(ps), strict=True):
        mean = float(statistics.of_seeds(only[number]).mean()) - base
        ends = statistics.interval(resampled[number] - resampled[against])
        if ends is None or np.isnan(mean) or np.isnan(p):
            found.append(None)
            continue
        significant = corrected < SIGNIFICANT_BELOW and not ends[0] <= 0 <= ends[1]
        found.append(Difference(mean, *ends, p, corrected, significant))
    return found


def verdict(
    models: Sequence[Model],
    only: Sequence[Measure],
    resampled: NDArray[np.float64],
    *,
    metric: str,
    baseline: str,
    images: str,
    higher_is_better: bool,
) -> tuple[list[str], str]:
    """Return the sentences, and the name of the model that is significantly better than every other, if there is one.

    Args:
        models: with their differences to the baseline.
        only: each model's score, in the same order.
        resampled: the same in each resample, `[M, R]`.
        metric: full name of the score.
        baseline: name of the model that differences are to.
        images: how many were scored, such as "40 images in 8 groups".
        higher_is_better: whether larger scores are.
    """
    defined = [number for number, model in enumerate(models) if not np.isnan(model.values[metric].mean)]
    if len(models) < 2 or not defined:
        return [], ""
    sign = 1 if higher_is_better else -1
    best = max(defined, key=lambda number: sign * models[number].values[metric].mean)
    others = [number for number in range(len(models)) if number != best]
    if models[best].name == baseline:
        found = [models[number].difference for number in others]
    else:
        found = differences(only, resampled, best, others)
    alike, unknown = [], []
    for number, one in zip(others, found, strict=True):
        if one is None:
            unknown.append(models[number].name)
        elif not one.significant:
            alike.append(models[number].name)
    value = models[best].values[metric]
    sentence = f"{models[best].name} has the best {metric}, {value.mean:.4f}"
    sentence += f" (95% interval {value.low:.4f} to {value.high:.4f})." if value.low is not None else "."
    sentences = [sentence]
    if alike:
        sentences.append(f"On {_evidence(models, images)}, it is not significantly different from {_join(alike)}.")
    if unknown:
        sentences.append(f"How it differs from {_join(unknown)} is unknown.")
    if len(alike) + len(unknown) < len(others):
        rest = "the others" if alike or unknown else "all others"
        sentences.append(f"It is significantly different from {rest}.")
    if models[best].name != baseline or alike:
        sentences += _against(models, baseline, sign)
    if max(len(model.seeds) for model in models) == 1:
        sentences.append(
            "There is one seed of each: how much another training of the same model would differ is unknown."
        )
    return sentences, "" if alike or unknown else models[best].name


def _evidence(models: Sequence[Model], images: str) -> str:
    seeds = sorted({len(model.seeds) for model in models})
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{images} and {number} seed{'' if seeds == [1] else 's'} of each model"


def _against(models: Sequence[Model], baseline: str, sign: int) -> list[str]:
    """Return which models are better and worse than the baseline."""
    groups: dict[str, list[str]] = {"Better than": [], "Worse than": [], "Not significantly different from": []}
    better, worse, alike = groups.values()
    for model in models:
        if one := model.difference:
            group = alike if not one.significant else better if sign * one.mean > 0 else worse
            group.append(f"{model.name} ({one.mean:+.4f})")
    return [f"{words} the baseline {baseline}: {_join(names)}." for words, names in groups.items() if names]


def _join(names: Sequence[str]) -> str:
    """Return names separated by commas, or by semicolons where a name contains a comma."""
    mark = "; " if any("," in name for name in names) else ", "
    return mark.join(names)
