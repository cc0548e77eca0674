"""A loss of probabilities."""

from __future__ import annotations

from torch import Tensor, nn

import segreg


class DistancePower(nn.Module):
    """A power of the distance between probability and truth, averaged over the pixels that count."""

    def __init__(self, task: segreg.Task, power: float) -> None:
        super().__init__()
        self.task = task
        self.power = power

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the average."""
        truth, counts = self.task.one_hot(target)
        distance = (self.task.probabilities(logits) - truth).abs() ** self.power
        return (distance * counts).sum() / counts.sum().clamp(min=1)
