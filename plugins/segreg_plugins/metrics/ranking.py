"""What a histogram of positives and negatives over levels of a logit is worth: areas under curves.

Everywhere the histogram is one class's, int64 `[2, N]`, negatives before positives, levels ascending. Results are
float64 scalars. Sums are made in float64, which is exact up to 2^53 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def from_the_top(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Return false and true positives if everything from a level upwards is taken: float64 `[N]` each."""
    # What lies below, taken from all. In place, for there may be millions of levels.
    taken = histogram.cumsum(-1).sub_(histogram).neg_().add_(histogram.sum(-1, keepdim=True))
    return taken[0].double(), taken[1].double()


def both_kinds(histogram: Tensor) -> Tensor:
    """Whether there are positives and negatives."""
    return (histogram.sum(-1) > 0).all(0)


def roc_auc(histogram: Tensor) -> Tensor:
    """Return the area under the ROC curve by trapezoids: of one level half are taken to be in order.

    That is right for equal logits, and what is to be expected of others.
    """
    negatives, positives = histogram
    twice_below = negatives.cumsum(-1).mul_(2).sub_(negatives).double()
    pairs = positives.sum(-1).double() * negatives.sum(-1)
    area = twice_below.mul_(positives).sum(-1) / (2 * pairs).clamp(min=1)
    return area.where(both_kinds(histogram), torch.nan)


def average_precision(histogram: Tensor, differing: Tensor | None) -> Tensor:
    """Return the average precision: precision at each level, weighted by the recall that the level adds.

    A level adds otherwise if its logits are equal than if they differ. `differing`, float64 `[N]`, says which, or the
    share of either: 0 for equal ones, as all are where it is None.
    """
    fp, tp = from_the_top(histogram)
    negatives, positives = histogram
    number = tp + fp
    added = positives * tp / number.clamp(min=1)
    if differing is not None:
        added = torch.lerp(added, _if_differing(negatives.double(), positives.double(), tp, number), differing)
    area = added.sum(-1) / positives.sum(-1).clamp(min=1)
    return area.where(both_kinds(histogram), torch.nan)


def _if_differing(negatives: Tensor, positives: Tensor, tp: Tensor, number: Tensor) -> Tensor:
    """Return the sum of precisions at a level's positives that is to be expected if its logits lie in any order.

    With T true ones among C above the level, and p positives among m in it, the t-th of the level is a positive with
    probability p / m, and there are then T + 1 + (t - 1) (p - 1) / (m - 1) true ones among C + t; the sum of the
    quotients over t is one of harmonic numbers.
    """
    level, true = negatives + positives, tp - positives
    above = number - level
    among = (positives - 1).clamp(min=0) / (level - 1).clamp(min=1)
    harmonic = torch.digamma(number + 1) - torch.digamma(above + 1)
    return positives / level.clamp(min=1) * (among * level + (true + 1 - among * (above + 1)) * harmonic)


def share_differing(histogram: Tensor) -> Tensor:
    """Return for each level whether its logits differ and were rounded to it, from 0 to 1: float64 `[N]`.

    Rounding puts as many into the levels beside it. Those of 16-bit numbers are empty.
    """
    level = histogram.sum(0).double()
    beside = torch.zeros_like(level)
    beside[1:] += level[:-1]
    beside[:-1] += level[1:]
    return (beside / level.clamp(min=1)).clamp(max=1)
