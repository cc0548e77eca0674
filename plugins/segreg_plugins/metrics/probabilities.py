"""Metrics of predicted probabilities, streamed: mean squared error (Brier score) and expected calibration error.

Expected calibration error: Guo et al. 2017, arXiv:1706.04599, by sums over equal bins of probability. The paper's is of
the predicted class alone: how far the probability of the class that was chosen is from the share of pixels where it was
right. Its other reading takes each class's probability at every pixel (class-wise, Kull et al. 2019, arXiv:1910.12656).
Of several classes that exclude each other both are given, under names of their own; where a class has a sigmoid of its
own only the second has a meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from segreg.errors import listed
from segreg.evaluation.counts import add_ones
from segreg.registry.protocols import Reliability
from segreg_plugins.metrics.common import by_class, chunks, definitions_of, kinds_of, refuse_unknown
from segreg_plugins.metrics.counted import with_mean

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

BINS = 15
_TITLE = (
    "expected calibration error, the distance between mean probability and share of pixels that are of the class in "
    f"{BINS} equal bins of probability, averaged over pixels,"
)


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
    unknown: Tensor
    squared_settings: Tensor
    image_sum: Tensor
    image_number: Tensor

    def __init__(self, task: Task, *, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.kept = tuple(kept)
        self.add_state("squared_errors", torch.zeros(task.channels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros(task.channels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        # It keeps metrics of other settings apart in a collection, which merges those that agree on the first batch.
        self.add_state("squared_settings", torch.tensor(self.kept, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("image_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("image_number", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch, without waiting for the device."""
        sums, unknown = self._summed(logits, target)
        self.squared_errors = self.squared_errors + sums[:, 0].sum(0)
        self.pixels = self.pixels + sums[:, 1].sum(0).long()
        self.unknown = self.unknown + unknown
        each = self.scores_of_sums(sums)["mse.pooled"]
        there = (sums[:, 1] > 0).logical_and(self.squared_settings > 0).any(-1)
        self.image_sum = self.image_sum + each.where(there, 0.0).sum()
        self.image_number = self.image_number + there.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return `mse.pooled`, `mse.per_image_mean` and, where there are several classes, `mse.class.CLASS`.

        Float64 scalars. NaN: no pixel counted, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_unknown(self.task, int(self.unknown))
        found = self.scores_of_sums(torch.stack([self.squared_errors, self.pixels.double()]))
        return with_mean("mse", found, self.image_sum / self.image_number)

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each image's squared errors and numbers of pixels, which `scores_of_sums` makes scores of.

        Shape: logits `[B, K, H, W]` and a target as described in `Task` to float64 `[B, 2, K]`.
        """
        return self._summed(logits, target)[0]

    def scores_of_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the values of `compute` that are pooled, from sums over images.

        Shape: `[..., 2, K]` to float64 `[...]`.
        """
        each = sums[..., 0, :] / sums[..., 1, :]  # 0 / 0 is NaN
        there = (self.squared_settings > 0).to(sums.device) & (sums[..., 1, :] > 0)
        return by_class(self.task, "mse", each.where(there, 0.0).sum(-1) / there.sum(-1), each)

    @property
    def definitions(self) -> dict[str, str]:
        """Return a sentence for each value of `compute`."""
        title = "mean squared error (Brier score) of the probability"
        found = definitions_of(self.task, "mse", self.kept, title=title, undefined="without pixels")
        pooled = found["mse.pooled"]
        per_image = pooled.replace("counted over the pixels of all images together", "counted in each image")
        mean = "; then the mean over images, without those where it is undefined."
        return {"mse.pooled": pooled, "mse.per_image_mean": per_image.removesuffix(".") + mean, **found}

    def _summed(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return `sums`, and how many pixels carry labels that the task does not have."""
        sums = torch.zeros(len(logits), 2, self.task.channels, dtype=torch.float64, device=logits.device)
        unknown = torch.zeros((), dtype=torch.int64, device=logits.device)
        for part, truth in chunks(self.task, logits, target):
            kinds, strange = kinds_of(self.task, part, truth)
            counts = kinds < 2
            # Not multiplied by 0, for ignored pixels may be NaN.
            errors = (self.task.probabilities(part) - kinds).square_().where(counts, 0.0)
            sums[:, 0] += errors.sum(-1, dtype=torch.float64)
            sums[:, 1] += counts.sum(-1)
            unknown = unknown + strange
        return sums, unknown


class CalibrationError(Metric):
    """The mean over pixels of their bin's distance between what was predicted and what came true.

    Args:
        task: any task.
        kept: for each class whether it takes part in the mean over classes.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    numbers: Tensor
    probabilities: Tensor
    unknown: Tensor

    def __init__(self, task: Task, *, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.kept = tuple(kept)
        # A row for each class; of a multiclass task one more for the class that is predicted.
        rows = task.channels + (task.mode == "multiclass")
        # How many did not come true, came true, and count for nothing; the probabilities of all that count.
        self.add_state("numbers", torch.zeros(3, rows, BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(rows, BINS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch, without waiting for the device."""
        rows = torch.arange(self.numbers.shape[1], dtype=torch.int32, device=logits.device).view(1, -1, 1)
        for part, truth in chunks(self.task, logits, target):
            kinds, unknown = kinds_of(self.task, part, truth)
            probability = self.task.probabilities(part)
            if self.task.mode == "multiclass":
                # By logits, as labels are: two probabilities may round to one value.
                chosen = part.max(1, keepdim=True).indices
                kinds = torch.cat([kinds, kinds.gather(1, chosen)], 1)
                probability = torch.cat([probability, probability.gather(1, chosen)], 1)
            probability = probability.where(kinds < 2, 0.0)
            places = (probability * BINS).to(torch.int32).clamp_(0, BINS - 1) + rows * BINS
            add_ones(self.numbers.view(-1), places + kinds * (rows.numel() * BINS))
            self.probabilities.view(-1).index_add_(0, places.flatten(), probability.flatten().double())
            self.unknown = self.unknown + unknown

    def compute(self) -> dict[str, Tensor]:
        """Return `ece.pooled` and, where there are several classes, `ece.class.CLASS`.

        For a multiclass task it returns `ece.top_label.pooled` and `ece.classwise.pooled` instead of the first.
        Float64 scalars. NaN: no pixel counted, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_unknown(self.task, int(self.unknown))
        wrong, right = self.numbers[:2]
        pixels = (wrong + right).sum(-1)
        error = (self.probabilities - right).abs().sum(-1) / pixels.clamp(min=1)
        each = error.where(pixels > 0, torch.nan)
        kept = torch.tensor(self.kept, device=each.device)
        there = kept & (pixels[: len(kept)] > 0)
        mean = each[: len(kept)].where(there, 0.0).sum() / there.sum()
        found = by_class(self.task, "ece", mean, each)
        if self.task.mode != "multiclass":
            return found
        classwise = found.pop("ece.pooled")
        return {"ece.top_label.pooled": each[-1], "ece.classwise.pooled": classwise, **found}

    def tables(self) -> dict[str, Reliability]:
        """Return the reliability of the predicted class, where there is one, and of each class; by their names.

        A class that no pixel has, or all of them, has none, nor has one that a logit of NaN belongs to.
        """
        wrong, right, _ = self.numbers.cpu().double()
        pixels, sums = wrong + right, self.probabilities.cpu()
        names = [*self.task.classes, *(["predicted class"] if self.task.mode == "multiclass" else [])]
        order = [*range(len(self.task.classes), len(names)), *range(len(self.task.classes))]
        found = {}
        for k in order:
            of_class = k < len(self.task.classes)
            error = float((sums[k] - right[k]).abs().sum() / pixels[k].sum())
            if math.isnan(error) or (of_class and not (wrong[k].sum() and right[k].sum())):
                continue
            confidence, accuracy = ((each / pixels[k]).numpy() for each in (sums[k], right[k]))
            share = (pixels[k] / pixels[k].sum()).numpy()
            key = f"ece.{names[k]}" if of_class else "ece.top_label"
            note = f"ECE {error:.4f}" if of_class else f"top-label ECE {error:.4f}"
            found[key] = Reliability(names[k], confidence, accuracy, share, note)
        return found

    @property
    def definitions(self) -> dict[str, str]:
        """Return a sentence for each value of `compute`."""
        found = definitions_of(self.task, "ece", self.kept, title=_TITLE, undefined="without pixels")
        if self.task.mode != "multiclass":
            return found
        classwise = found.pop("ece.pooled")
        top = (
            "expected calibration error of the predicted class (arXiv:1706.04599), the distance between the mean "
            f"probability of the class with the largest logit and the share of pixels that truly are of it in {BINS} "
            f"equal bins of that probability, averaged over pixels, of {listed(self.task.classes)} together, counted "
            "over the pixels of all images together; undefined without pixels; ignored pixels left out."
        )
        return {"ece.top_label.pooled": top, "ece.classwise.pooled": f"class-wise {classwise}", **found}
