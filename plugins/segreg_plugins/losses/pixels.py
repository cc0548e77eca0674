"""What every loss begins with: float32 logits, the truth as zeros and ones, and which pixels count."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from segreg.errors import SegregError

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

M = TypeVar("M")


def float32_inside(forward: Callable[[M, Tensor, Tensor], Tensor]) -> Callable[[M, Tensor, Tensor], Tensor]:
    """Return a module's `forward(logits, target)` that computes in float32, also where autocast is on.

    float64 logits stay float64.
    """

    @functools.wraps(forward)
    def in_float32(self: M, logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return forward(self, logits if logits.dtype == torch.float64 else logits.float(), target)

    return in_float32


def counting(task: Task, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits with ignored pixels set to 0, the truth as zeros and ones, and which pixels count.

    Shape: logits `[B, K, H, W]`, target as `Task` has it, to three tensors `[B, K, H, W]` of the logits' dtype. No
    gradient reaches the logits of ignored pixels, whatever they hold.

    Raises:
        SegregError: the shapes do not belong together.
    """
    truth, counts = task.one_hot(target)
    if truth.shape != logits.shape:
        raise SegregError(
            f"logits {list(logits.shape)} and target {list(target.shape)} do not belong together: a {task.mode} task "
            f"of {len(task.classes)} classes has logits {list(truth.shape)} for such a target"
        )
    return logits.where(counts > 0, 0.0), truth.to(logits.dtype), counts.to(logits.dtype)


def masks_of(task: Task, logits: Tensor, target: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities, the truth as zeros and ones, and which pixels count, for some classes.

    Shape: logits `[B, K, H, W]`, target as `Task` has it and int64 `[N]`, the classes' indices, to three tensors
    `[B, N, H, W]` of the logits' dtype.

    Raises:
        SegregError: the shapes do not belong together.
    """
    logits, truth, counts = counting(task, logits, target)
    probability = logits.softmax(dim=1) if task.mode == "multiclass" else logits.sigmoid()
    classes = classes.to(logits.device)
    return probability.index_select(1, classes), truth.index_select(1, classes), counts.index_select(1, classes)


def mean_where(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of `values` weighted with `weights`, and 0 where all weights are 0."""
    # The bound is far below any weight that counts, and its reciprocal is far from overflowing.
    return (values * weights).sum() / weights.sum().clamp(min=1e-12)


def mean_of_images(values: Tensor, seen: Tensor) -> Tensor:
    """Return the mean over images of the mean over classes, of those that are seen: `[B, K]`, or `[K]` of a batch."""
    number = seen.sum(dim=-1, keepdim=True)
    return mean_where(values, seen * number.amax() / number.clamp(min=1))
