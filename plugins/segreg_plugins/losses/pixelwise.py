"""Losses that are a mean over pixels: cross-entropies and their focal forms.

Focal loss: Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002. Departures: the mean is over the pixels
that count, where the paper divides by the number of anchors assigned to an object; the softmax form extends it to
classes that exclude each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from segreg.task import IGNORE_INDEX
from segreg_plugins.losses.pixels import counting, float32_inside, mean_where

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class BinaryCrossEntropy(nn.Module):
    """Cross-entropy of a sigmoid, mean over pixels (and labels).

    Args:
        task: a binary or multilabel task.
        positive_weight: factor of the foreground's term, one for all labels or one for each.
        label_smoothing: share of the truth that is spread evenly over foreground and background.
    """

    positive_weight: Tensor

    def __init__(self, task: Task, positive_weight: Sequence[float], label_smoothing: float) -> None:
        super().__init__()
        self.task = task
        self.label_smoothing = label_smoothing
        weight = torch.tensor(positive_weight, dtype=torch.float32)
        self.register_buffer("positive_weight", weight.view(-1, 1, 1), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        logits, truth, counts = counting(self.task, logits, target)
        weight = self.positive_weight.to(logits)
        if self.label_smoothing:
            truth = truth * (1 - self.label_smoothing) + self.label_smoothing / 2
        entropy = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none")
        return mean_where(entropy, counts)


class CrossEntropy(nn.Module):
    """Cross-entropy of a softmax, mean over pixels, as `torch.nn.CrossEntropyLoss` weights it.

    Args:
        task: a multiclass task.
        class_weights: one for each class.
        label_smoothing: share of the truth that is spread evenly over all classes.
    """

    class_weights: Tensor

    def __init__(self, task: Task, class_weights: Sequence[float], label_smoothing: float) -> None:
        super().__init__()
        self.task = task
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        target = target.long()
        weights = self.class_weights.to(logits)
        counts = target != IGNORE_INDEX
        # Summed apart: torch's own sum is not deterministic on GPUs, and its mean is 0/0 where every pixel is ignored.
        entropy = F.cross_entropy(
            logits.where(counts.unsqueeze(1), 0.0),
            target,
            weight=weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        weight = (weights[target.where(counts, 0)] * counts).sum()
        # Smoothing gives pixels a loss even where their own class weighs nothing.
        return entropy.sum() * (weight > 0) / weight.clamp(min=1e-12)


class SigmoidFocal(nn.Module):
    """Focal loss of a sigmoid, mean over pixels (and labels).

    Args:
        task: a binary or multilabel task.
        gamma: how much less well-classified pixels count.
        alpha: weight of the foreground, `1 - alpha` being the background's; None weights neither.
    """

    def __init__(self, task: Task, gamma: float, alpha: float | None) -> None:
        super().__init__()
        self.task = task
        self.gamma = gamma
        self.alpha = alpha

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        logits, truth, counts = counting(self.task, logits, target)
        margin = logits * (2 * truth - 1)
        # (1 - p)^gamma as exp(gamma log(1 - p)): a power's gradient is infinite at 0 for gamma below 1.
        focus = (self.gamma * F.logsigmoid(-margin)).exp()
        values = -focus * F.logsigmoid(margin)
        if self.alpha is not None:
            values = values * (self.alpha * truth + (1 - self.alpha) * (1 - truth))
        return mean_where(values, counts)


class SoftmaxFocal(nn.Module):
    """Focal loss of a softmax, mean over pixels, each weighted as its class.

    Args:
        task: a multiclass task.
        gamma: how much less well-classified pixels count.
        class_weights: one for each class.
    """

    class_weights: Tensor

    def __init__(self, task: Task, gamma: float, class_weights: Sequence[float]) -> None:
        super().__init__()
        self.task = task
        self.gamma = gamma
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32), persistent=False)

    @float32_inside
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `[B, K, H, W]`."""
        logits, truth, counts = counting(self.task, logits, target)
        log_probability = logits.log_softmax(dim=1)
        entropy = -(log_probability * truth).sum(dim=1)
        # log(1 - p) of the true class, from the others: exact where p is close to 1.
        focus = (self.gamma * log_probability.masked_fill(truth > 0, -torch.inf).logsumexp(dim=1)).exp()
        weights = (truth * self.class_weights.to(logits).view(-1, 1, 1)).sum(dim=1)
        return mean_where(focus * entropy, weights * counts[:, 0])
