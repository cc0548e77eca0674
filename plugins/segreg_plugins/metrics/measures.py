"""The metrics that look at every threshold: what each makes of a histogram, and the words that define it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segreg_plugins.metrics import curves, ranking

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.registry.plot_data import Curve


@dataclass(frozen=True)
class Measure:
    """One way to judge how a class's logits rank its pixels.

    Attributes:
        title: what it is, in words.
        area: gives the value, from a histogram and the share of its levels' logits that differ, None where none do.
        curve: gives what is drawn of a class, which has both kinds of pixels: from its name, its histogram and its
            value.
    """

    title: str
    area: Callable[[Tensor, Tensor | None], Tensor]
    curve: Callable[[str, Tensor, float], Curve]


UNDEFINED = "without pixels of the class, or without others"

MEASURES = {
    "roc_auc": Measure(
        "area under the ROC curve, recall over false positive rate at every threshold,",
        lambda histogram, _: ranking.roc_auc(histogram),
        curves.roc_curve,
    ),
    "pr_auc": Measure(
        "average precision, the sum over thresholds of precision times the recall gained,",
        ranking.average_precision,
        curves.precision_recall_curve,
    ),
}
