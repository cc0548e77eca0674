"""The mean squared error of probabilities, streamed: its sum and a number of pixels for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from segreg_plugins.metrics.counts import kinds_of
from segreg_plugins.metrics.wording import by_class, definitions_of, refuse_strays

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class SquaredError(Metric):
    """The mean of (p - y)^2 over the pixels of all images, y being 1 where a pixel is of the class and 0 elsewhere.

    Args:
        task: any task; of a multiclass one the mean over classes is the Brier score of 1950 over the number of classes.
        kept: for each class whether it takes part in `mse.pooled`.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    squared_errors: Tensor
    pixels: Tensor
    strays: Tensor

    def __init__(self, task: Task, *, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.kept = tuple(kept)
        self.add_state("squared_errors", torch.zeros(task.channels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros(task.channels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("strays", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it. H and W may differ between batches.

        Raises:
            SegregError: the shapes do not belong together.
        """
        kinds, strays = kinds_of(self.task, logits, target)
        counts = kinds < 2
        # Not multiplied by 0, for ignored pixels may be NaN.
        errors = (self.task.probabilities(logits) - kinds).square().where(counts, 0.0)
        self.squared_errors = self.squared_errors + errors.sum((0, 2, 3), dtype=torch.float64)
        self.pixels = self.pixels + counts.sum((0, 2, 3))
        self.strays = self.strays + strays

    def compute(self) -> dict[str, Tensor]:
        """Gives `mse.pooled` and, where there are several classes, `mse.class.CLASS`.

        Float64 scalars. NaN: no pixel counted, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_strays(self.task, int(self.strays))
        each = self.squared_errors / self.pixels  # 0 / 0 is NaN
        kept = torch.tensor(self.kept, device=each.device)
        there = kept & (self.pixels > 0)
        pooled = each.where(there, 0.0).sum() / there.sum()
        return by_class(self.task, "mse", pooled, each)

    @property
    def definitions(self) -> dict[str, str]:
        """Gives one sentence for each value that `compute` gives."""
        title = "mean squared error (Brier score) of the probability"
        return definitions_of(self.task, "mse", self.kept, title=title, undefined="without pixels")
