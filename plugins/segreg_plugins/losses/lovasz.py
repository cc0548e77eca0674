"""The Lovasz extension of the Jaccard index: hinge errors for sigmoids, softmax errors for classes.

Berman et al., The Lovasz-Softmax loss, arXiv:1705.08790. Departures: the weights of the sorted errors are computed in
closed form, because differences of neighbouring Jaccard losses cancel in float32 beyond about a million pixels;
ignored pixels are sorted to the end with weight 0 instead of being cut out, which would wait for the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from segreg_plugins.losses.pixels import counting, float32_inside, mean_of_images

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class Lovasz(nn.Module):
    """Lovasz hinge (binary, multilabel) or Lovasz-Softmax (multiclass).

    Args:
        task: any task.
        over: whether errors are sorted over the whole batch or within each image.
    """

    def __init__(self, task: Task, over: Literal["batch", "image"]) -> None:
        super().__init__()
        self.task = task
        self.over = over

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        logits, truth, counts = counting(self.task, logits, target)
        if self.task.mode == "multiclass":
            errors = (truth - logits.softmax(dim=1)).abs()
        else:
            errors = (1 - logits * (2 * truth - 1)).relu()
        errors, truth, counts = (self._rows(x) for x in (errors, truth, counts))
        # The paper averages Lovasz-Softmax over the classes that are there; an empty mask still has a hinge loss.
        seen = (truth if self.task.mode == "multiclass" else counts).amax(dim=1)
        values = (errors * jaccard_weights(errors.detach(), truth, counts)).sum(dim=1)
        return mean_of_images(values.view(-1, logits.shape[1]), seen.view(-1, logits.shape[1]))

    def _rows(self, x: Tensor) -> Tensor:
        """Return one row for each class, or for each image and class: `[K, B H W]` or `[B K, H W]`."""
        return x.transpose(0, 1).flatten(1) if self.over == "batch" else x.flatten(0, 1).flatten(1)


@torch.no_grad()
def jaccard_weights(errors: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Return the weight of each pixel's error in the Lovasz extension of the Jaccard loss.

    Going through the errors from the largest, a pixel weighs as much as the Jaccard loss grows when it joins the
    mispredicted: 1 / U for a true pixel, I / (U (U - 1)) for another, where I of the true pixels are still right and U
    is the union so far, this pixel included.

    Shape: three tensors `[R, N]`, errors at least 0, truth and counts 0 or 1, to weights `[R, N]`. Rows are separate.
    """
    order = errors.masked_fill(counts == 0, -1.0).argsort(dim=1, descending=True, stable=True)
    truth_sorted = truth.gather(1, order)
    counts_sorted = counts.gather(1, order)
    # Whole numbers, because float32 stops counting at 2^24.
    true = truth_sorted.sum(dim=1, keepdim=True, dtype=torch.int64)
    intersection = (true - truth_sorted.cumsum(dim=1, dtype=torch.int64)).to(errors.dtype)
    union = (true + (counts_sorted - truth_sorted).cumsum(dim=1, dtype=torch.int64)).to(errors.dtype)
    after_true = truth_sorted / union.clamp(min=1)
    after_other = (counts_sorted - truth_sorted) * intersection / (union * (union - 1)).clamp(min=1)
    # Nothing true: the first false pixel makes the loss 1, and all others add nothing.
    first = torch.zeros_like(errors)
    first[:, :1] = 1.0
    weights = after_true + after_other + first * counts_sorted * (true == 0)
    return torch.zeros_like(errors).scatter(1, order, weights)
