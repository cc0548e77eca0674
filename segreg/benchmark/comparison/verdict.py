"""What a comparison comes to, in sentences: what can be significantly different, and what can't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segreg.benchmark.comparison.record import Difference, Model
from segreg.benchmark.comparison.tests import differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.evaluation.statistics import Measure


def verdict(
    models: Sequence[Model],
    only: Sequence[Measure],
    draws: NDArray[np.float64],
    *,
    metric: str,
    baseline: str,
    images: int,
    higher_is_better: bool,
) -> list[str]:
    """Return the sentences.

    Args:
        models: with their differences to the baseline.
        only: each model's score, in the same order.
        draws: the same in each resample, `[M, R]`.
        metric: full name of the score.
        baseline: name of the model that differences are told against.
        images: how many were scored.
        higher_is_better: whether larger scores are.
    """
    defined = [number for number, model in enumerate(models) if not np.isnan(model.values[metric].mean)]
    if len(models) < 2 or not defined:
        return []
    sign = 1 if higher_is_better else -1
    best = max(defined, key=lambda number: sign * models[number].values[metric].mean)
    others = [number for number in range(len(models)) if number != best]
    found = differences(only, draws, best, others)
    alike = [models[number].name for number, one in zip(others, found, strict=True) if not (one and one.apart)]
    value = models[best].values[metric]
    told = f"{models[best].name} has the best {metric}, {value.mean:.4f}"
    told += f" (95% interval {value.low:.4f} to {value.high:.4f})." if value.low is not None else "."
    sentences = [told]
    what = _evidence(models, images)
    if alike:
        sentences.append(f"{what} can't tell it apart from {_together(alike)}.")
    if len(alike) < len(others):
        rest = "the others" if alike else "all others"
        sentences.append(f"It is significantly different from {rest}.")
    if models[best].name != baseline or alike:
        sentences += _against(models, baseline, sign)
    if max(len(model.seeds) for model in models) == 1:
        sentences.append(
            "There is one seed of each: nothing is known of how much another training of the same model would differ."
        )
    return sentences


def _evidence(models: Sequence[Model], images: int) -> str:
    seeds = sorted({len(model.seeds) for model in models})
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{images} images and {number} seed{'' if seeds == [1] else 's'} of each model"


def _against(models: Sequence[Model], baseline: str, sign: int) -> list[str]:
    """Return what is better and worse than the baseline."""

    def named(which: Sequence[Model]) -> str:
        return _together([f"{model.name} ({model.difference.mean:+.4f})" for model in which if model.difference])

    def side(one: Difference | None) -> int:
        return 0 if one is None or not one.apart else (1 if sign * one.mean > 0 else -1)

    others = [model for model in models if model.name != baseline]
    groups = {way: [model for model in others if side(model.difference) == way] for way in (1, -1, 0)}
    sentences = []
    if groups[1]:
        sentences.append(f"Better than the baseline {baseline}: {named(groups[1])}.")
    if groups[-1]:
        sentences.append(f"Worse than the baseline {baseline}: {named(groups[-1])}.")
    if groups[0]:
        sentences.append(f"Not significantly different from the baseline {baseline}: {named(groups[0])}.")
    return sentences


def _together(names: Sequence[str]) -> str:
    """Return names in a row; semicolons part those that hold commas themselves."""
    mark = "; " if any("," in name for name in names) else ", "
    return mark.join(names)
