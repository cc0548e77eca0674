"""The metrics that look at every threshold: what each makes of a histogram, and the words that define it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segreg_plugins.metrics import curves, ranking

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.tables import Curve, Reliability


@dataclass(frozen=True)
class Measure:
    """One way to judge a histogram of positives and negatives.

    Attributes:
        title: what it is, in words.
        undefined: when a class has no value, in words.
        higher_is_better: None where it can't be said.
        each: gives each class's value.
        together: gives one value for the kept classes, where that is not the mean of theirs.
        common: how that one value is found, in words.
        table: gives what is drawn of a class, which has both kinds of pixels.
    """

    title: str
    undefined: str
    higher_is_better: bool | None
    each: Callable[[Tensor], Tensor]
    together: Callable[[Tensor, Tensor], Tensor] | None = None
    common: str = ""
    table: Callable[[str, Tensor], Curve | Reliability] | None = None


_ONE_KIND = "without pixels of the class, or without others"

MEASURES = {
    "roc_auc": Measure(
        "area under the ROC curve, recall over false positive rate at every threshold,",
        _ONE_KIND,
        True,
        ranking.roc_auc,
        table=curves.roc_curve,
    ),
    "pr_auc": Measure(
        "average precision, the sum over thresholds of precision times the recall gained,",
        _ONE_KIND,
        True,
        ranking.average_precision,
        table=curves.precision_recall_curve,
    ),
    "ece": Measure(
        f"expected calibration error, the distance between mean probability and share of pixels that are of the class "
        f"in {ranking.BINS} equal bins of probability, averaged over pixels,",
        "without pixels",
        False,
        ranking.calibration_error,
        table=curves.reliability_of,
    ),
    "best_threshold": Measure(
        "probability from which pixels as foreground give the largest Dice, chosen on the very pixels that are scored,",
        _ONE_KIND,
        None,
        ranking.best_thresholds,
        together=ranking.best_common_threshold,
        common="one threshold for all by the largest mean of Dice",
    ),
}
