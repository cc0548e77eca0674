"""What each metric makes of counts: its fraction, which classes take part, and the words that define it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from segreg_plugins.metrics.counts import Counts

if TYPE_CHECKING:
    from torch import Tensor


class Fraction(NamedTuple):
    """A score as fractions `[..., J]`, one for each class, and which of them are defined."""

    numerator: Tensor
    denominator: Tensor
    defined: Tensor


@dataclass(frozen=True)
class Score:
    """One way to score counts.

    Attributes:
        title: the formula in words.
        fraction: gives the fractions that are averaged.
        absent: when a class is left out, in words.
        empty: what counts are worth that hold pixels but leave every class out.
        by_class: whether there is one fraction for each class.
    """

    title: str
    fraction: Callable[[Counts], Fraction]
    absent: str
    empty: float = math.nan
    by_class: bool = True


def values(score: Score, counts: Counts, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over classes and each class's own value, NaN where there is none.

    Shape: counts `[..., K]` and bool `kept` `[K]`, the classes that take part in the mean, to float64 `[...]` and
    `[..., J]`, J being 1 or 2 where the score is not by class.
    """
    numerator, denominator, defined = score.fraction(counts)
    # 0 / 0 is 0 for a class that takes part: predicted and not there, or there and not predicted.
    each = numerator.double() / denominator.clamp(min=1)
    taking_part = defined & kept if score.by_class else defined
    number = taking_part.sum(-1)
    mean = (each * taking_part).sum(-1) / number.clamp(min=1)
    seen = ((counts.tp + counts.fp + counts.fn + counts.tn > 0) & kept).any(-1)
    mean = mean.where(number > 0, torch.where(seen, score.empty, math.nan))
    return mean, each.where(defined, math.nan)


def _dice(c: Counts) -> Fraction:
    return Fraction(2 * c.tp, 2 * c.tp + c.fp + c.fn, c.tp + c.fp + c.fn > 0)


def _iou(c: Counts) -> Fraction:
    return Fraction(c.tp, c.tp + c.fp + c.fn, c.tp + c.fp + c.fn > 0)


def _precision(c: Counts) -> Fraction:
    return Fraction(c.tp, c.tp + c.fp, c.tp + c.fp + c.fn > 0)


def _recall(c: Counts) -> Fraction:
    return Fraction(c.tp, c.tp + c.fn, c.tp + c.fp + c.fn > 0)


def _specificity(c: Counts) -> Fraction:
    return Fraction(c.tn, c.tn + c.fp, c.tn + c.fp > 0)


def _accuracy(c: Counts) -> Fraction:
    return Fraction(c.right, c.pixels, c.pixels > 0)


def _mean_accuracy(c: Counts) -> Fraction:
    right, true = c.tp, c.tp + c.fn
    if c.tp.shape[-1] == 1:  # binary: the background is the other class
        right, true = torch.cat([c.tn, c.tp], -1), torch.cat([c.tn + c.fp, c.tp + c.fn], -1)
    return Fraction(right, true, true > 0)


_ABSENT = "absent from both truth and prediction"

SCORES = {
    "dice": Score("Dice = F1 = 2 TP / (2 TP + FP + FN)", _dice, _ABSENT, empty=1.0),
    "iou": Score("IoU = Jaccard = TP / (TP + FP + FN)", _iou, _ABSENT, empty=1.0),
    "precision": Score("precision = TP / (TP + FP)", _precision, _ABSENT, empty=1.0),
    "recall": Score("recall = sensitivity = TP / (TP + FN)", _recall, _ABSENT, empty=1.0),
    "specificity": Score("specificity = TN / (TN + FP)", _specificity, "that all pixels truly are"),
    "accuracy": Score("accuracy = right pixels / pixels", _accuracy, "", by_class=False),
    "mean_accuracy": Score("TP / (TP + FN)", _mean_accuracy, "absent from the truth"),
}
