"""A histogram of keys as what is drawn of it: ROC and precision-recall curves, and reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segreg.tables import Curve, Reliability
from segreg_plugins.metrics import ranking

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 2000
"""Points of a curve; more can't be seen."""


def roc_curve(name: str, histogram: Tensor) -> Curve:
    """Gives a class's ROC curve from its histogram `[2, N]`, which has both kinds of pixels."""
    fp, tp = _occupied(histogram)
    zero = fp.new_zeros(1)
    x, y = _thinned(torch.cat([zero, fp / fp[-1]]), torch.cat([zero, tp / tp[-1]]))
    area = float(ranking.roc_auc(histogram.unsqueeze(1)))
    axes = "false positive rate = FP / (FP + TN)", "recall = TP / (TP + FN)"
    return Curve(name, x.numpy(), y.numpy(), *axes, f"AUC {area:.4f}", (0.0, 1.0))


def precision_recall_curve(name: str, histogram: Tensor) -> Curve:
    """Gives a class's precision over its recall from its histogram `[2, N]`, which has both kinds of pixels."""
    fp, tp = _occupied(histogram)
    precision = tp / (tp + fp)
    x, y = _thinned(torch.cat([tp.new_zeros(1), tp / tp[-1]]), torch.cat([precision[:1], precision]))
    area = float(ranking.average_precision(histogram.unsqueeze(1)))
    foreground = float(tp[-1] / (tp[-1] + fp[-1]))
    axes = "recall = TP / (TP + FN)", "precision = TP / (TP + FP)"
    return Curve(name, x.numpy(), y.numpy(), *axes, f"average precision {area:.4f}", (foreground, foreground))


def reliability_of(name: str, histogram: Tensor) -> Reliability:
    """Gives a class's reliability from its histogram `[2, N]`, which has a pixel."""
    alone = histogram.cpu().unsqueeze(1)
    pixels, probability, positives = (each[0] for each in ranking.reliability(alone))
    error = float(ranking.calibration_error(alone))
    shares = ((probability / pixels).numpy(), (positives / pixels).numpy(), (pixels / pixels.sum()).numpy())
    return Reliability(name, *shares, f"ECE {error:.4f}")


def _occupied(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Gives false and true positives at the keys that were met, from the highest."""
    histogram = histogram.cpu()
    fp, tp = ranking.from_the_top(histogram.unsqueeze(1))
    met = histogram.sum(0) > 0
    return fp[0, met].flip(0), tp[0, met].flip(0)


def _thinned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gives at most `_MOST` of a curve's points, evenly spaced along it, its ends among them."""
    if len(x) <= _MOST:
        return x, y
    way = torch.cat([x.new_zeros(1), (x.diff().abs() + y.diff().abs()).cumsum(0)])
    places = torch.searchsorted(way, torch.linspace(0, float(way[-1]), _MOST, dtype=way.dtype)).clamp(max=len(x) - 1)
    places[-1] = len(x) - 1
    places = torch.unique_consecutive(places)
    return x[places], y[places]
