"""The mean squared error of probabilities, streamed: its sum and a number of pixels for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from segreg_plugins.metrics.counts import kinds_of, pieces
from segreg_plugins.metrics.wording import definitions_of, refuse_strays

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
    squared_settings: Tensor
    image_sum: Tensor
    image_number: Tensor

    def __init__(self, task: Task, *, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.kept = tuple(kept)
        self.add_state("squared_errors", torch.zeros(task.channels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros(task.channels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("strays", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        # It keeps metrics of other settings apart in a collection, which merges those that agree on the first batch.
        self.add_state("squared_settings", torch.tensor(self.kept, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("image_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("image_number", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it. H and W may differ between batches.

        Raises:
            SegregError: the shapes do not belong together.
        """
        sums, strays = self._summed(logits, target)
        self.squared_errors = self.squared_errors + sums[:, 0].sum(0)
        self.pixels = self.pixels + sums[:, 1].sum(0).long()
        self.strays = self.strays + strays
        each = self._pooled(sums)[0]
        there = (sums[:, 1] > 0).logical_and(self.squared_settings > 0).any(-1)
        self.image_sum = self.image_sum + each.where(there, 0.0).sum()
        self.image_number = self.image_number + there.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return `mse.pooled`, `mse.per_image_mean` and, where there are several classes, `mse.class.CLASS`.

        Float64 scalars. NaN: no pixel counted, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_strays(self.task, int(self.strays))
        found = self.scores_of_sums(torch.stack([self.squared_errors, self.pixels.double()]))
        first = found.pop("mse.pooled")
        return {"mse.pooled": first, "mse.per_image_mean": self.image_sum / self.image_number, **found}

    def per_image(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return every image's own values: `mse` and, where there are several classes, one for each.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it to float64 `[B]`.
        """
        mean, each = self._pooled(self.sums(logits, target))
        classes = self.task.classes if len(self.task.classes) > 1 else ()
        return {"mse": mean, **{f"mse.class.{name}": each[:, k] for k, name in enumerate(classes)}}

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each image's squared errors and numbers of pixels, which `scores_of_sums` makes scores of.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it to float64 `[B, 2, K]`.
        """
        return self._summed(logits, target)[0]

    def scores_of_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the values of `compute` that are pooled, from sums over images.

        Shape: `[..., 2, K]` to float64 `[...]`.
        """
        pooled, each = self._pooled(sums)
        classes = self.task.classes if len(self.task.classes) > 1 else ()
        return {"mse.pooled": pooled, **{f"mse.class.{name}": each[..., k] for k, name in enumerate(classes)}}

    @property
    def definitions(self) -> dict[str, str]:
        """Return one sentence for each value that `compute` gives."""
        title = "mean squared error (Brier score) of the probability"
        found = definitions_of(self.task, "mse", self.kept, title=title, undefined="without pixels")
        pooled = found.pop("mse.pooled")
        per_image = pooled.replace("counted over the pixels of all images together", "counted in each image")
        mean = "; then the mean over images, without those where it is undefined."
        return {"mse.pooled": pooled, "mse.per_image_mean": per_image.removesuffix(".") + mean, **found}

    def _summed(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return `sums`, and how many pixels carry labels that the task does not have."""
        sums = torch.zeros(len(logits), 2, self.task.channels, dtype=torch.float64, device=logits.device)
        strays = torch.zeros((), dtype=torch.int64, device=logits.device)
        for part, truth in pieces(self.task, logits, target):
            kinds, strange = kinds_of(self.task, part, truth)
            counts = kinds < 2
            # Not multiplied by 0, for ignored pixels may be NaN.
            errors = (self.task.probabilities(part) - kinds).square_().where(counts, 0.0)
            sums[:, 0] += errors.sum(-1, dtype=torch.float64)
            sums[:, 1] += counts.sum(-1)
            strays = strays + strange
        return sums, strays

    def _pooled(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over classes `[...]` and each class's value `[..., K]` of sums `[..., 2, K]`."""
        each = sums[..., 0, :] / sums[..., 1, :]  # 0 / 0 is NaN
        there = (self.squared_settings > 0).to(sums.device) & (sums[..., 1, :] > 0)
        return each.where(there, 0.0).sum(-1) / there.sum(-1), each
