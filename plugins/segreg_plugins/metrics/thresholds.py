"""The best threshold, streamed: true and false positives at 65,537 thresholds, and which of them scores best.

A pixel is foreground where its probability is at least the threshold. So pixels are counted by probability, float32 as
`Task` gives it, and not by logit: no threshold separates logits of one probability. The thresholds are the
multiples of 1/65536, which float32 holds exactly; the score of one is what scoring with it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torchmetrics import Metric

from segreg.evaluation.counts import add_ones
from segreg_plugins.metrics.common import by_class, chunks, definitions_of, kinds_of, refuse_unknown
from segreg_plugins.metrics.counted import SCORES, Counts, values
from segreg_plugins.metrics.ranking import from_the_top

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

STEPS = 1 << 16
_BROKEN, _UNCOUNTED = STEPS + 1, STEPS + 2
_OF = {"f1": "dice", "iou": "iou"}
"""The scores that can be asked for, as keys of `SCORES`."""
_ABSENT = SCORES["dice"].absent


class BestThreshold(Metric):
    """The threshold with the largest score over the pixels of all images together, and that score.

    Args:
        task: binary or multilabel.
        score: what is to be large.
        kept: for each class whether it takes part in the pooled value.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    counted: Tensor
    unknown: Tensor

    def __init__(self, task: Task, *, score: Literal["f1", "iou"], kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.score = score
        self.kept = tuple(kept)
        size = (task.channels, 2, STEPS + 3)
        self.add_state("counted", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch, without waiting for the device."""
        for part, truth in chunks(self.task, logits, target):
            kinds, unknown = kinds_of(self.task, part, truth)
            probability = self.task.probabilities(part)
            # Times a power of two, without rounding.
            steps = probability.nan_to_num(0.0).mul_(STEPS).to(torch.int32)
            steps.masked_fill_(probability.isnan(), _BROKEN).masked_fill_(kinds == 2, _UNCOUNTED)
            steps += kinds.clamp(max=1) * (STEPS + 3)
            for k in range(self.task.channels):
                add_ones(self.counted[k].view(-1), steps[:, k])
            self.unknown = self.unknown + unknown

    def compute(self) -> dict[str, Tensor]:
        """Return `best_threshold.pooled` and, where there are several classes, `best_threshold.class.CLASS`.

        Each comes with its score: `best_threshold.f1.pooled` and so on, or `.iou.`. Float64 scalars.
        NaN: undefined, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_unknown(self.task, int(self.unknown))
        device = self.counted.device
        kept = torch.tensor(self.kept, device=device)
        one_class = torch.eye(self.task.channels, dtype=torch.bool, device=device)
        found = [self._best(kept), *(self._best(alone) for alone in one_class)]
        thresholds, scores = torch.tensor(found, dtype=torch.float64, device=device).unbind(1)
        return {
            **by_class(self.task, "best_threshold", thresholds[0], thresholds[1:]),
            **by_class(self.task, f"best_threshold.{self.score}", scores[0], scores[1:]),
        }

    @property
    def definitions(self) -> dict[str, str]:
        """Return a sentence for each value of `compute`."""
        title, common = SCORES[_OF[self.score]].title, "one threshold for all by the largest mean of these"
        best = (
            "threshold in steps of 1/65536, or a number of fewer digits that parts the same pixels, from which on "
            f"foreground has the largest {title}, chosen on the very pixels that are scored,"
        )
        reached = f"{title} with best_threshold, chosen on the very pixels that are scored,"
        undefined = "without pixels of the class, or without others"
        return {
            **definitions_of(
                self.task, "best_threshold", self.kept, title=best, undefined=undefined, common=common, absent=_ABSENT
            ),
            **definitions_of(
                self.task, f"best_threshold.{self.score}", self.kept,
                title=reached, undefined=undefined, common="with the one threshold for all, then the mean",
                absent=_ABSENT,
            ),
        }  # fmt: skip

    def _best(self, kept: Tensor) -> tuple[float, float]:
        """Return the threshold with the largest mean score of some classes, and that score."""
        histogram = self.counted[kept, :, : STEPS + 1].movedim(1, 0)
        both = (histogram.sum(-1) > 0).all(0)
        if not both.any() or self.counted[kept, :, _BROKEN].any():
            return torch.nan, torch.nan
        fp, tp = from_the_top(histogram)
        fn, tn = tp[:, :1] - tp, fp[:, :1] - fp
        everything = torch.ones(len(histogram[0]), dtype=torch.bool, device=histogram.device)
        score, _ = values(
            SCORES[_OF[self.score]], Counts.of(self.task, torch.stack((tp.mT, fp.mT, fn.mT, tn.mT), -1)), everything
        )
        occupied = histogram.sum((0, 1)) > 0
        best = int(score.where(occupied, -1.0).argmax())
        below = occupied[:best].nonzero()
        threshold = _shortest((int(below[-1]) + 1) / STEPS, best / STEPS) if len(below) else 0.0
        return threshold, float(score[best])


def _shortest(low: float, high: float) -> float:
    """Return the number of the fewest digits near the middle of what no pixel's probability lies in."""
    middle = (low + high) / 2
    near = (float(f"{middle:.{digits}g}") for digits in range(1, 17))
    return next((number for number in near if low <= number <= high), high)
