"""How many pixels of each class were found, invented, missed and rightly left out in each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

TP, FP, FN, TN = range(4)
"""Where each number stands in the last dimension of counts."""


def image_counts(task: Task, logits: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Return each image's own counts; those of several images together are their sum.

    Shape: logits `[B, K, H, W]` and a target as `Task` has it to int64 `[B, K, 4]`: true positives, false positives,
    false negatives and true negatives of each class. Ignored pixels are in none of them. A multiclass pixel is counted
    once for each class.
    """
    import torch

    predicted, truth = task.labels(logits, threshold=threshold).flatten(-2), target.flatten(-2)
    if task.mode != "multiclass":
        truth, predicted = (labels.view(len(labels), task.channels, -1) for labels in (truth, predicted))
        there, found, counted = truth == 1, predicted == 1, truth != IGNORE_INDEX
        each = (there & found, ~there & found & counted, there & ~found, ~there & ~found & counted)
        return torch.stack([pixels.sum(-1) for pixels in each], dim=-1)
    counted = truth < task.channels
    true = _histogram(truth, counted, task.channels)
    said = _histogram(predicted, counted, task.channels)
    tp = _histogram(truth, counted & (truth == predicted), task.channels)
    return torch.stack([tp, said - tp, true - tp, counted.sum(-1, keepdim=True) - said - true + tp], dim=-1)


def _histogram(labels: Tensor, where: Tensor, classes: int) -> Tensor:
    """Return how often each class stands in each image, int64 `[B, K]`, from labels and a mask `[B, N]`."""
    import torch

    # What does not count has a place of its own behind the classes.
    first = torch.arange(len(labels), device=labels.device).view(-1, 1) * (classes + 1)
    places = (labels.where(where, classes) + first).flatten()
    # Not torch.bincount, which waits for the device to learn the largest key.
    found = places.new_zeros(len(labels) * (classes + 1))
    found.index_add_(0, places, found.new_ones(()).expand(places.numel()))
    return found.view(len(labels), classes + 1)[:, :classes]
