"""A histogram of logits as what is drawn of it: ROC and precision-recall curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segreg.registry.plot_data import Curve
from segreg_plugins.metrics import ranking

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 2000
"""Points of a curve; more can't be seen."""


def roc_curve(name: str, histogram: Tensor, area: float) -> Curve:
    """Return a class's ROC curve from its histogram `[2, N]`, which has both kinds of pixels."""
    fp, tp = _occupied(histogram)
    zero = fp.new_zeros(1)
    x, y = _thinned(torch.cat([zero, fp / fp[-1]]), torch.cat([zero, tp / tp[-1]]))
    axes = "false positive rate = FP / (FP + TN)", "recall = TP / (TP + FN)"
    return Curve(name, x.numpy(), y.numpy(), *axes, f"AUC {area:.4f}", (0.0, 1.0))


def precision_recall_curve(name: str, histogram: Tensor, area: float) -> Curve:
    """Return a class's precision over its recall from its histogram `[2, N]`, which has both kinds of pixels."""
    fp, tp = _occupied(histogram)
    precision = tp / (tp + fp)
    x, y = _thinned(torch.cat([tp.new_zeros(1), tp / tp[-1]]), torch.cat([precision[:1], precision]))
    foreground = float(tp[-1] / (tp[-1] + fp[-1]))
    axes = "recall = TP / (TP + FN)", "precision = TP / (TP + FP)"
    return Curve(name, x.numpy(), y.numpy(), *axes, f"average precision {area:.4f}", (foreground, foreground))


def _occupied(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Return false and true positives at the levels that were met, from the highest."""
    histogram = histogram.cpu()
    fp, tp = ranking.from_the_top(histogram)
    met = histogram.sum(0) > 0
    return fp[met].flip(0), tp[met].flip(0)


def _thinned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return at most `_MOST` of a curve's points, evenly spaced along it, its ends among them."""
    if len(x) <= _MOST:
        return x, y
    way = torch.cat([x.new_zeros(1), (x.diff().abs() + y.diff().abs()).cumsum(0)])
    places = torch.searchsorted(way, torch.linspace(0, float(way[-1]), _MOST, dtype=way.dtype)).clamp(max=len(x) - 1)
    places[-1] = len(x) - 1
    places = torch.unique_consecutive(places)
    return x[places], y[places]
