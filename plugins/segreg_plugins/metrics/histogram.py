"""The torchmetrics.Metric behind the metrics of every threshold: it streams one histogram and judges it at the end.

The histogram counts positives and negatives of each class over `keys`: 1 MB a class, however many pixels there are. It
depends on no setting, so that a `torchmetrics.MetricCollection` counts once for all of these metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from segreg_plugins.metrics.counts import kinds_of
from segreg_plugins.metrics.keys import FIRST, KEYS, LAST, keys_of, own_logits
from segreg_plugins.metrics.measures import MEASURES
from segreg_plugins.metrics.ranking import both_kinds
from segreg_plugins.metrics.wording import by_class, definitions_of, refuse_strays

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.tables import Curve, Reliability
    from segreg.task import Task


class HistogramScore(Metric):
    """One judgement of probabilities, over the pixels of all images together.

    Args:
        task: any task; a multiclass one is judged class by class, each against the rest.
        name: a key of `MEASURES`, and what the values are called.
        kept: for each class whether it takes part in `NAME.pooled`.
    """

    full_state_update = False
    is_differentiable = False

    histogram: Tensor
    strays: Tensor

    def __init__(self, task: Task, *, name: str, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.name = name
        self.kept = tuple(kept)
        size = (2, task.channels, KEYS)
        self.add_state("histogram", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("strays", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool | None:
        """Says whether a larger value is better; None where it can't be said."""
        return MEASURES[self.name].higher_is_better

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Counts one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it. H and W may differ between batches.

        Raises:
            SegregError: the shapes do not belong together.
        """
        rows, strays = kinds_of(self.task, logits, target)
        classes = torch.arange(self.task.channels, dtype=torch.int32, device=logits.device).view(1, -1, 1, 1)
        key = ((rows * self.task.channels + classes) * KEYS + keys_of(own_logits(self.task, logits))).flatten()
        # Not torch.bincount, which waits for the device to learn the largest key.
        found = torch.zeros(3 * self.task.channels * KEYS, dtype=torch.int64, device=logits.device)
        found = found.index_add_(0, key, found.new_ones(()).expand(key.numel())).view(3, self.task.channels, KEYS)
        self.histogram = self.histogram + found[:2]
        self.strays = self.strays + strays

    def compute(self) -> dict[str, Tensor]:
        """Gives `NAME.pooled` and, where there are several classes, `NAME.class.CLASS`.

        Float64 scalars. NaN: undefined, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_strays(self.task, int(self.strays))
        measure = MEASURES[self.name]
        kept = torch.tensor(self.kept, device=self.histogram.device)
        broken = (self.histogram[..., :FIRST].sum((0, 2)) + self.histogram[..., LAST + 1 :].sum((0, 2))) > 0
        each = measure.each(self.histogram).masked_fill(broken, torch.nan)
        pooled = each.where(kept, torch.nan).nanmean()
        if measure.together is not None:
            pooled = measure.together(self.histogram, kept)
        return by_class(self.task, self.name, pooled.masked_fill((broken & kept).any(), torch.nan), each)

    def tables(self) -> dict[str, Curve | Reliability]:
        """Gives a curve, or the reliability, of each class that has pixels and is not everywhere; by its name."""
        table = MEASURES[self.name].table
        if table is None:
            return {}
        there = both_kinds(self.histogram).tolist()
        return {
            f"{self.name}.{name}": table(name, self.histogram[:, k])
            for k, name in enumerate(self.task.classes)
            if there[k]
        }

    @property
    def definitions(self) -> dict[str, str]:
        """Gives one sentence for each value that `compute` gives."""
        measure = MEASURES[self.name]
        return definitions_of(
            self.task, self.name, self.kept,
            title=measure.title, undefined=measure.undefined, common=measure.common,
        )  # fmt: skip
