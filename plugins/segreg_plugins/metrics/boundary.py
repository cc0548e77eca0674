"""Boundary IoU (arXiv:2103.16562), streamed: the IoU of the pixels of truth and prediction near their own contours.

Truth and prediction are each cut down to their pixels within some distance of their contour, and the IoU is that of
what is left. A large area's inside, which any network finds, does not hide that its contour is wrong.

As in the authors' code distance is counted in steps to any of eight neighbours, and an area that reaches the image's
edge has its contour there. Departing from it, which knows no ignored pixels: where the truth is not known, neither
truth nor prediction has a contour, and no pixel counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torchmetrics import Metric

from segreg.evaluation.counts import check_shapes
from segreg_plugins.metrics.common import by_class, kinds_of, refuse_unknown
from segreg_plugins.metrics.counted import SCORES, Counts, definitions_of_score, values, with_mean

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

_IOU = SCORES["iou"]


class BoundaryIoU(Metric):
    """IoU of what lies near contours: pooled over all images, and as the mean of the images' own values.

    Args:
        task: any task; of a multiclass one every class, the background too, has a contour.
        threshold: probability from which a pixel is foreground (binary and multilabel).
        dilation_ratio: how near, as a share of the image's diagonal.
        kept: for each class whether it takes part in means over classes.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    of_labels = True

    boundary_settings: Tensor
    near_contours: Tensor
    unknown: Tensor
    image_sum: Tensor
    image_number: Tensor

    def __init__(self, task: Task, threshold: float, *, dilation_ratio: float, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.threshold = threshold
        self.dilation_ratio = dilation_ratio
        self.kept = tuple(kept)
        # It keeps metrics of other settings apart in a collection, which merges those that agree on the first batch.
        settings = torch.tensor([threshold, dilation_ratio, *kept], dtype=torch.float64)
        self.add_state("boundary_settings", settings, dist_reduce_fx="max")
        self.add_state("near_contours", torch.zeros(task.channels, 4, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("image_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("image_number", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch, without waiting for the device."""
        check_shapes(self.task, logits, target)
        counted, unknown = self._counted(logits, target)
        self.near_contours = self.near_contours + counted.sum(0)
        self.unknown = self.unknown + unknown
        each = self.scores_of_sums(counted)["boundary_iou.pooled"]
        there = ~each.isnan()
        self.image_sum = self.image_sum + each.where(there, 0.0).sum()
        self.image_number = self.image_number + there.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return `boundary_iou.pooled`, `.per_image_mean` and, where there are several classes, `.class.CLASS`.

        Float64 scalars. NaN: no pixel counted, or the class is left out.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_unknown(self.task, int(self.unknown))
        found = self.scores_of_sums(self.near_contours)
        return with_mean("boundary_iou", found, self.image_sum / self.image_number)

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each image's counts of pixels near contours, which `scores_of_sums` makes scores of.

        Shape: logits `[B, K, H, W]` and a target as described in `Task` to int64 `[B, K, 4]`.
        """
        return self._counted(logits, target)[0]

    def scores_of_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the values of `compute` that are pooled, from sums over images.

        Shape: `[..., K, 4]` to float64 `[...]`.
        """
        pooled, each = values(_IOU, Counts.of(self.task, sums), self._kept())
        return by_class(self.task, "boundary_iou", pooled, each)

    @property
    def definitions(self) -> dict[str, str]:
        """Return a sentence for each value of `compute`."""
        near = (
            "boundary IoU (arXiv:2103.16562), the IoU of the pixels that lie within d of the contour of their own area "
            f"(d is {self.dilation_ratio:g} of the diagonal of what is scored, rounded to pixels and at least 1, in "
            "steps to any of eight neighbours; the image's edge is a contour, ignored pixels are none),"
        )
        score = dataclasses.replace(_IOU, title=near)
        return definitions_of_score(self.task, self.threshold, self.kept, name="boundary_iou", score=score)

    def _kept(self) -> Tensor:
        return self.boundary_settings[2:] > 0

    def _counted(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's counts of pixels near contours, int64 `[B, K, 4]`, and how many labels are unknown."""
        # Image by image, for their maps take much memory.
        each = [self._counted_one(one, truth) for one, truth in zip(logits[:, None], target[:, None], strict=True)]
        if not each:
            return self.near_contours.new_zeros(0, self.task.channels, 4), self.unknown.new_zeros(())
        return torch.cat([counted for counted, _ in each]), torch.stack([unknown for _, unknown in each]).sum()

    def _counted_one(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        kinds, unknown = kinds_of(self.task, logits, target)
        labels = self.task.labels(logits, threshold=self.threshold)
        if self.task.mode == "multiclass":
            classes = torch.arange(self.task.channels, device=labels.device).view(1, -1, 1, 1)
            predicted = labels.unsqueeze(1) == classes
        else:
            predicted = (labels == 1).view_as(kinds)
        known = kinds < 2
        reach = contour_reach(logits.shape[-2], logits.shape[-1], self.dilation_ratio)
        truth = near_contour(kinds == 1, known, reach)
        found = near_contour(predicted, known, reach)
        kinds_of_pixel = (truth & found, ~truth & found, truth & ~found, known & ~truth & ~found)
        return torch.stack([each.sum((-2, -1)) for each in kinds_of_pixel], -1), unknown


def contour_reach(height: int, width: int, ratio: float) -> int:
    """Return the distance in pixels, at least 1, that is `ratio` of the diagonal."""
    return max(1, round(ratio * math.hypot(height, width)))


def near_contour(area: Tensor, known: Tensor, reach: int) -> Tensor:
    """Return the area's pixels that are known and have something outside it within `reach` rows and columns.

    What lies beyond the image is outside, what is not known is not.

    Shape: bool `[..., H, W]` to the same.
    """
    outside = known & ~area
    for dimension in (-1, -2):
        outside = _spread(outside, dimension, reach)
    return area & known & outside


def _spread(there: Tensor, dimension: int, reach: int) -> Tensor:
    """Return where something is there within `reach` places along one of the last two dimensions, or an end is."""
    there = F.pad(there, (reach, reach) if dimension == -1 else (0, 0, reach, reach), value=True)
    covered, window = 1, 2 * reach + 1
    while covered < window:  # each turn doubles what a place knows of, for in large images the reach is 100 pixels
        step = min(covered, window - covered)
        length = there.shape[dimension] - step
        there = there.narrow(dimension, 0, length) | there.narrow(dimension, step, length)
        covered += step
    return there
