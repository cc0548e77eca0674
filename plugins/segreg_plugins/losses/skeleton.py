"""Losses of thin structures by their centre lines: clDice.

Shit et al., clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation, arXiv:2003.07311.
Departures: each class has its own clDice, of which the mean is taken; ignored pixels are background in prediction and
truth alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from segreg_plugins.losses.pixels import float32_inside, masks_of, mean_where

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class ClDice(nn.Module):
    """One minus the harmonic mean of how much of either centre line lies within the other mask, mean over classes.

    Args:
        task: any task.
        iterations: how often masks are thinned: at least the largest radius of the structures in pixels.
        smooth: pixels added above and below in both ratios.
        classes: indices of the classes that take part.
    """

    classes: Tensor

    def __init__(self, task: Task, iterations: int, smooth: float, classes: Sequence[int]) -> None:
        super().__init__()
        self.task = task
        self.iterations = iterations
        self.smooth = smooth
        self.register_buffer("classes", torch.tensor(classes), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        probability, truth, counts = masks_of(self.task, logits, target, self.classes)
        probability = probability * counts
        precision = self._share_within(soft_skeleton(probability, self.iterations), truth)
        sensitivity = self._share_within(soft_skeleton(truth, self.iterations), probability)
        agreement = 2 * precision * sensitivity / (precision + sensitivity)
        return mean_where(1 - agreement, counts.amax(dim=(0, 2, 3)))

    def _share_within(self, line: Tensor, mask: Tensor) -> Tensor:
        """Return for each class how much of a centre line lies within a mask, `[K]` in (0, 1]."""
        dims = (0, 2, 3)
        return ((line * mask).sum(dims) + self.smooth) / (line.sum(dims) + self.smooth)


def soft_skeleton(mask: Tensor, iterations: int) -> Tensor:
    """Return the centre lines of soft masks: what opening takes away, the mask being thinned step by step.

    Shape: `[B, K, H, W]` in [0, 1] to the same.
    """
    skeleton = F.relu(mask - _dilated(_eroded(mask)))
    for _ in range(iterations):
        mask = _eroded(mask)
        thin = F.relu(mask - _dilated(_eroded(mask)))
        skeleton = skeleton + F.relu(thin - skeleton * thin)
    return skeleton


def _eroded(mask: Tensor) -> Tensor:
    """Return the least of each pixel and its four neighbours."""
    down, right = -F.max_pool2d(-mask, (3, 1), 1, (1, 0)), -F.max_pool2d(-mask, (1, 3), 1, (0, 1))
    return torch.minimum(down, right)


def _dilated(mask: Tensor) -> Tensor:
    """Return the largest of each pixel and its eight neighbours."""
    return F.max_pool2d(mask, 3, 1, 1)
