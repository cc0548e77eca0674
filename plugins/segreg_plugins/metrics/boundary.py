"""Boundary IoU (arXiv:2103.16562), streamed: the IoU of the pixels of truth and prediction near their own contours.

Truth and prediction are each cut down to their pixels within some distance of their contour, and the IoU is that of
what is left. A large area's inside, which any network finds, does not hide that its contour is wrong.

As in the authors' code distance is counted in steps to any of eight neighbours, and an area that reaches the image's
edge has its contour there. Departing from it, which knows no ignored pixels: where the truth is not known, neither
truth nor prediction has a contour, and no pixel counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torchmetrics import Metric

from segreg.evaluation.counts import check_shapes
from segreg_plugins.metrics.common import by_class, kinds_of, refuse_unknown, rule_of, which_classes
from segreg_plugins.metrics.counted import SCORES, Counts, values

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
        """Count one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as described in `Task`. H and W may differ between batches.

        Raises:
            SegregError: the shapes do not match.
        """
        check_shapes(self.task, logits, target)
        counted, unknown = self._counted(logits, target)
        self.near_contours = self.near_contours + counted.sum(0)
        self.unknown = self.unknown + unknown
        each, _ = values(_IOU, Counts.of(self.task, counted), self._kept())
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
        pooled, each = values(_IOU, Counts.of(self.task, self.near_contours), self._kept())
        per_image = (self.image_sum / self.image_number).where(self.image_number > 0, torch.nan)
        found = by_class(self.task, "boundary_iou", pooled, each)
        first = found.pop("boundary_iou.pooled")
        return {"boundary_iou.pooled": first, "boundary_iou.per_image_mean": per_image, **found}

    def per_image(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return every image's own values: `boundary_iou` and, where there are several classes, one for each.

        Shape: logits `[B, K, H, W]` and a target as described in `Task` to float64 `[B]`.
        """
        mean, each = values(_IOU, Counts.of(self.task, self._counted(logits, target)[0]), self._kept())
        found = by_class(self.task, "boundary_iou", mean, each)
        return {name.removesuffix(".pooled"): image_values for name, image_values in found.items()}

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
        task = self.task
        several = len(task.classes) > 1
        near = (
            "boundary IoU (arXiv:2103.16562), the IoU of the pixels that lie within d of the contour of their own area "
            f"(d is {self.dilation_ratio:g} of the diagonal of what is scored, rounded to pixels and at least 1, in "
            "steps to any of eight neighbours; the image's edge is a contour, ignored pixels are none),"
        )
        rule = rule_of(task, self.threshold)
        mean = (
            f", then the mean over {which_classes(task, self.kept)}; a class {_IOU.absent} is left out"
            if several
            else ""
        )
        of = "each class" if several else f'"{task.classes[0]}"'
        end = f"nothing there and nothing predicted counts as 1; {rule}; ignored pixels left out"
        pixels = "counted over the pixels of all images together"
        found = {
            "boundary_iou.pooled": f"{near} of {of}, {pixels}{mean}; {end}.",
            "boundary_iou.per_image_mean": f"{near} of {of}, counted in each image{mean}; {end}; then the mean over "
            "images, without those where it is undefined.",
        }
        for name in task.classes if several else ():
            found[f"boundary_iou.class.{name}"] = (
                f'{near} of "{name}", {pixels}; undefined for a class {_IOU.absent}; {rule}; ignored pixels left out.'
            )
        return found

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
        outside = _spread(outside.transpose(dimension, -1), reach).transpose(dimension, -1)
    return area & known & outside


def _spread(there: Tensor, reach: int) -> Tensor:
    """Return where something is there within `reach` places along the last dimension; beyond its ends it is."""
    # As differences of running sums, whose cost does not grow with the reach: in large images that is 100 pixels.
    sums = F.pad(F.pad(there, (reach, reach), value=True).cumsum(-1, dtype=torch.int32), (1, 0))
    window = 2 * reach + 1
    return sums[..., window:] > sums[..., :-window]
