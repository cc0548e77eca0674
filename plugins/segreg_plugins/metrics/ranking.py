"""What a histogram of positives and negatives over keys is worth: areas under curves, calibration, best threshold.

Everywhere the histogram is int64 `[2, K, N]`, negatives before positives, and `[K]` results are float64 with NaN where
a class is undefined. Sums are made in float64, which is exact up to 2^53 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segreg_plugins.metrics.keys import logits_of_keys

if TYPE_CHECKING:
    from torch import Tensor

BINS = 15


def from_the_top(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Gives false and true positives if everything from a key upwards is taken: float64 `[K, N]` each."""
    taken = histogram.double().flip(-1).cumsum(-1).flip(-1)
    return taken[0], taken[1]


def both_kinds(histogram: Tensor) -> Tensor:
    """Says for each class whether it has positives and negatives."""
    return (histogram.sum(-1) > 0).all(0)


def roc_auc(histogram: Tensor) -> Tensor:
    """Gives the area under the ROC curve by trapezoids: of equal keys half are taken to be in order."""
    negatives, positives = histogram.double()
    below = negatives.cumsum(-1) - negatives / 2
    area = (positives * below).sum(-1) / (positives.sum(-1) * negatives.sum(-1)).clamp(min=1)
    return area.where(both_kinds(histogram), torch.nan)


def average_precision(histogram: Tensor) -> Tensor:
    """Gives the average precision: precision at each key, weighted by the recall that the key adds."""
    fp, tp = from_the_top(histogram)
    positives = histogram[1].double()
    area = (positives * tp / (tp + fp).clamp(min=1)).sum(-1) / positives.sum(-1).clamp(min=1)
    return area.where(both_kinds(histogram), torch.nan)


def reliability(histogram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gives pixels, the sum of their probabilities and how many are positive, for each bin: float64 `[K, BINS]`."""
    probability = logits_of_keys(histogram.device).sigmoid()
    bins = (probability * BINS).long().clamp(max=BINS - 1)
    positives = histogram[1].double()
    pixels = histogram.sum(0).double()
    empty = pixels.new_zeros(pixels.shape[0], BINS)
    found = [empty.index_add(1, bins, each) for each in (pixels, pixels * probability, positives)]
    return found[0], found[1], found[2]


def calibration_error(histogram: Tensor) -> Tensor:
    """Gives the mean over pixels of their bin's distance between mean probability and share of positives."""
    pixels, probability, positives = reliability(histogram)
    number = pixels.sum(-1)
    error = (probability - positives).abs().sum(-1) / number.clamp(min=1)
    return error.where(number > 0, torch.nan)


def best_thresholds(histogram: Tensor) -> Tensor:
    """Gives for each class the probability from which taking pixels as foreground gives the largest Dice."""
    return _best(_dice(histogram), histogram.sum(0) > 0).where(both_kinds(histogram), torch.nan)


def best_common_threshold(histogram: Tensor, kept: Tensor) -> Tensor:
    """Gives the one threshold, a scalar, with the largest mean of the kept classes' Dice."""
    taking_part = both_kinds(histogram) & kept
    number = taking_part.sum()
    mean = (_dice(histogram) * taking_part.unsqueeze(-1)).sum(0) / number.clamp(min=1)
    occupied = ((histogram.sum(0) > 0) & taking_part.unsqueeze(-1)).any(0)
    return _best(mean, occupied).where(number > 0, torch.nan)


def _dice(histogram: Tensor) -> Tensor:
    fp, tp = from_the_top(histogram)
    return 2 * tp / (histogram[1].sum(-1, keepdim=True) + tp + fp).clamp(min=1)


def _best(dice: Tensor, occupied: Tensor) -> Tensor:
    """Gives the threshold between the best key and the occupied one below it; 0 if there is none below."""
    logits = logits_of_keys(dice.device)
    keys = torch.arange(dice.shape[-1], device=dice.device)
    best = dice.masked_fill(~occupied, -1.0).argmax(-1, keepdim=True)
    below = keys.where(occupied & (keys < best), -1).amax(-1, keepdim=True)
    middle = ((logits[best] + logits[below.clamp(min=0)]) / 2).sigmoid()
    return middle.where(below >= 0, 0.0).squeeze(-1)
