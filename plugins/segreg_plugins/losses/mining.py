"""Online hard example mining: cross-entropy of the pixels that the network gets least right.

Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, arXiv:1604.03540; on pixels,
by a threshold and a least number, as in OCNet, arXiv:1809.00916. Departures: the least number is a share of the pixels
that count, so that it means the same at every batch and crop size; sigmoids are mined as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

from segreg_plugins.losses.pixels import counting, float32_inside, mean_where

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class HardCrossEntropy(nn.Module):
    """Mean cross-entropy of the hard pixels (and labels): those whose truth is less probable than a threshold.

    Args:
        task: any task.
        threshold: probability of the truth below which a pixel is hard.
        min_kept: share of the batch's pixels that is kept at least, the hardest ones.
    """

    def __init__(self, task: Task, threshold: float, min_kept: float) -> None:
        super().__init__()
        self.task = task
        self.easiest = -math.log(threshold)
        self.min_kept = min_kept

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        logits, truth, counts = counting(self.task, logits, target)
        if self.task.mode == "multiclass":
            entropy = -(logits.log_softmax(dim=1) * truth).sum(dim=1, keepdim=True)
            counts = counts[:, :1]
        else:
            entropy = -F.logsigmoid(logits * (2 * truth - 1))
        hardest = entropy.detach().where(counts > 0, -1.0).flatten().sort(descending=True).values
        rank = (counts.sum() * self.min_kept).ceil().long().clamp(min=1) - 1
        last_kept = hardest.gather(0, rank.view(1))  # read on the device: no sync
        kept = (entropy > self.easiest) | (entropy >= last_kept)
        return mean_where(entropy, kept * counts)
