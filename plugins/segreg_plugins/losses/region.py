"""Losses that compare regions by their soft counts: Dice, soft Jaccard and Tversky are one formula.

Salehi et al., Tversky loss function for image segmentation, arXiv:1706.05721. Dice: Milletari et al., V-Net,
arXiv:1606.04797, without the squares in its denominator. Jaccard: Rahman and Wang, Optimizing Intersection-Over-Union
in Deep Neural Networks for Image Segmentation, doi:10.1007/978-3-319-50835-1_22. All three are smoothed, which the
papers are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from segreg_plugins.losses.pixels import counting, float32_inside, mean_of_images

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class Tversky(nn.Module):
    """`1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)`, mean over classes (and images).

    With probabilities p, truth t and sums over the pixels that count, TP = sum p t, FP = sum p (1 - t) and
    FN = sum (1 - p) t.

    Args:
        task: any task.
        alpha: weight of false positives.
        beta: weight of false negatives.
        smooth: added above and below.
        over: whether the sums go over the whole batch or over each image.
        absent: whether a class with no true pixel among those summed over counts or is skipped.
        kept: for each class whether it takes part.
    """

    kept: Tensor

    def __init__(
        self,
        task: Task,
        *,
        alpha: float,
        beta: float,
        smooth: float,
        over: Literal["batch", "image"],
        absent: Literal["count", "skip"],
        kept: Sequence[bool],
    ) -> None:
        super().__init__()
        self.task = task
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth
        self.dims = (0, 2, 3) if over == "batch" else (2, 3)
        self.absent = absent
        self.register_buffer("kept", torch.tensor(kept), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        logits, truth, counts = counting(self.task, logits, target)
        # Not Task.probabilities, which would make float32 of float64.
        probability = (logits.softmax(dim=1) if self.task.mode == "multiclass" else logits.sigmoid()) * counts
        both = (probability * truth).sum(self.dims)
        true = truth.sum(self.dims)
        false_positive = probability.sum(self.dims) - both
        false_negative = true - both
        overlap = (both + self.smooth) / (both + self.alpha * false_positive + self.beta * false_negative + self.smooth)
        seen = true > 0 if self.absent == "skip" else counts.sum(self.dims) > 0
        return mean_of_images(1 - overlap, (seen & self.kept.to(seen.device)).to(overlap.dtype))
