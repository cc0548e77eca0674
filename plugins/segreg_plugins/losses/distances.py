"""Losses that weigh mistakes by their distance from a boundary.

Boundary loss: Kervadec et al., Boundary loss for highly unbalanced segmentation, arXiv:1812.07032. What the truth
itself gives, a constant, is subtracted, so that right answers cost 0.

Hausdorff loss: Karimi and Salcudean, Reducing the Hausdorff Distance in Medical Image Segmentation with Convolutional
Neural Networks, arXiv:1904.10030, its loss by distance transforms. A prediction without a boundary, empty or full, has
the truth's distances, and the other way round: with none at all, predicting nothing would cost less than half of it.

Distances are in pixels, and the image's border does not count as a boundary. Ignored pixels are on neither side of
one: a pixel's distance is that to the nearest pixel which is known to be on the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from segreg_plugins.losses.pixels import float32_inside, masks_of, mean_where

if TYPE_CHECKING:
    from segreg.task import Task


class Boundary(nn.Module):
    """Mean over pixels and classes of `d (p - t)`, d being the signed distance from the truth's boundary.

    Args:
        task: any task.
        classes: indices of the classes that take part.
    """

    classes: Tensor

    def __init__(self, task: Task, classes: Sequence[int]) -> None:
        super().__init__()
        self.task = task
        self.register_buffer("classes", torch.tensor(classes), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        probability, truth, counts = masks_of(self.task, logits, target, self.classes)
        distance = distance_across(truth > 0, counts > 0).to(probability)
        # The pixels that touch the boundary from inside are on it.
        signed = torch.where(truth > 0, 1 - distance, distance) * (distance > 0)
        return mean_where(signed * (probability - truth), counts)


class HausdorffDT(nn.Module):
    """Mean over pixels and classes of `(p - t)^2 (d_p^alpha + d_t^alpha)`, d being distances from the boundaries.

    Args:
        task: any task.
        alpha: how much more far mistakes count.
        classes: indices of the classes that take part.
    """

    classes: Tensor

    def __init__(self, task: Task, alpha: float, classes: Sequence[int]) -> None:
        super().__init__()
        self.task = task
        self.alpha = alpha
        self.register_buffer("classes", torch.tensor(classes), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        probability, truth, counts = masks_of(self.task, logits, target, self.classes)
        of_truth = distance_across(truth > 0, counts > 0).to(probability)
        of_predicted = distance_across(probability.detach() > 0.5, counts > 0).to(probability)
        weight = _where_there_is_one(of_predicted, of_truth) ** self.alpha
        weight = weight + _where_there_is_one(of_truth, of_predicted) ** self.alpha
        return mean_where((probability - truth) ** 2 * weight, counts)


def _where_there_is_one(distance: Tensor, other: Tensor) -> Tensor:
    """Return the distances of each image and class from its boundary, or the other ones where it has none."""
    return distance.where(distance.amax(dim=(-2, -1), keepdim=True) > 0, other)


def distance_across(inside: Tensor, counts: Tensor) -> Tensor:
    """Return each pixel's distance to the nearest one on the other side, among those that count. No gradient.

    Shape: two of bool `[B, K, H, W]` to float32 of that shape; 0 where there is no other side.
    """
    return torch.where(inside, distance_to(~inside & counts), distance_to(inside & counts))


@torch.library.custom_op("segreg::distance_to", mutates_args=())
def distance_to(pixels: Tensor) -> Tensor:
    """Return each pixel's Euclidean distance to the nearest one that is true; 0 in an image without any.

    Shape: bool `[B, K, H, W]` to float32. It is computed on the CPU: sync.
    """
    others = (~pixels).cpu().numpy().astype(np.uint8)
    distances = np.zeros(others.shape, np.float32)
    for image in np.ndindex(others.shape[:2]):
        if not others[image].all():
            distance = cv2.distanceTransform(others[image], cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            # The last bit of OpenCV's roots depends on where in memory the image is; squares are whole numbers.
            distances[image] = np.sqrt(np.rint(np.square(distance, dtype=np.float64)))
    return torch.from_numpy(distances).to(pixels.device)


@distance_to.register_fake
def _(pixels: Tensor) -> Tensor:
    # What is traced has shapes alone.
    return torch.empty(pixels.shape, device=pixels.device)
