"""How pixels are counted: for each image, how often each true label was given each predicted one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


_PIECE = 1 << 20
"""Logits that are computed with at once."""


class Counts(NamedTuple):
    """Numbers of pixels, int64.

    Attributes:
        tp: `[..., K]`, pixels of each class that are predicted as it.
        fp: `[..., K]`, pixels of other classes that are predicted as it.
        fn: `[..., K]`, pixels of the class that are predicted otherwise.
        tn: `[..., K]`, the others that count.
        right: `[..., 1]`, pixels that are predicted right; of several labels each counts.
        pixels: `[..., 1]`, pixels that count; of several labels each counts.
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor
    right: Tensor
    pixels: Tensor


def check_shapes(task: Task, logits: Tensor, target: Tensor) -> None:
    """Refuse logits and a target that are not of the same pixels, or not of the task.

    Raises:
        SegregError: the shapes do not belong together.
    """
    expected = logits.shape if task.mode == "multilabel" else (logits.shape[0], *logits.shape[2:])
    if logits.shape[1] != task.channels or tuple(target.shape) != tuple(expected):
        raise SegregError(
            f"logits {list(logits.shape)} and target {list(target.shape)} do not belong together in a {task.mode} task "
            f"of {len(task.classes)} classes"
        )


def layout(task: Task) -> tuple[int, int]:
    """Return how many confusion matrices a task has, and of how many labels: multilabel has one 2 x 2 for each class."""
    return (1, task.channels) if task.mode == "multiclass" else (task.channels, 2)


def confusion(task: Task, logits: Tensor, target: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return each image's confusion matrices, and how many pixels carry labels that the task does not have.

    Nothing here waits for the device.

    Shape: logits `[B, K, H, W]` and a target as `Task` has it to int64 `[B, G, L, L]`, true labels in rows and
    predicted ones in columns, G and L being `layout(task)`, and an int64 scalar.

    Raises:
        SegregError: the shapes do not belong together.
    """
    check_shapes(task, logits, target)
    predicted = task.labels(logits, threshold=threshold)
    images, pixels = target.shape[0], target.shape[-2] * target.shape[-1]
    groups, labels = layout(task)
    # A row for every label from -1 to 256, so that ignored and impossible ones need no mask. Int32 keys are fastest.
    rows = IGNORE_INDEX + 3
    truth = target.to(torch.int32).clamp(-1, IGNORE_INDEX + 1).reshape(images, groups, pixels)
    matrix = torch.arange(images * groups, dtype=torch.int32, device=target.device).view(images, groups, 1)
    key = (matrix * rows + 1 + truth) * labels + predicted.reshape(images, groups, pixels).to(torch.int32)
    found = torch.zeros(images * groups * rows * labels, dtype=torch.int64, device=target.device)
    found = add_ones(found, key).view(images, groups, rows, labels)
    known = found[:, :, 1 : labels + 1]
    strays = found.sum() - known.sum() - found[:, :, IGNORE_INDEX + 1].sum()
    return known, strays


def counts_of(task: Task, matrices: Tensor) -> Counts:
    """Return each class's counts from confusion matrices `[..., G, L, L]`."""
    if task.mode != "multiclass":
        tn, fp, fn, tp = matrices.flatten(-2).unbind(-1)
        right = (tp + tn).sum(-1, keepdim=True)
        return Counts(tp, fp, fn, tn, right, right + (fp + fn).sum(-1, keepdim=True))
    matrix = matrices[..., 0, :, :]
    tp = matrix.diagonal(dim1=-2, dim2=-1)
    fp = matrix.sum(-2) - tp
    fn = matrix.sum(-1) - tp
    pixels = matrix.sum((-2, -1)).unsqueeze(-1)
    return Counts(tp, fp, fn, pixels - tp - fp - fn, tp.sum(-1, keepdim=True), pixels)


def add_ones(numbers: Tensor, places: Tensor) -> Tensor:
    """Add 1 to `numbers` `[N]` at every place, as often as it is named, and return them."""
    # Not torch.bincount, which waits for the device to learn the largest place.
    return numbers.index_add_(0, places.flatten(), numbers.new_ones(()).expand(places.numel()))


def pieces(task: Task, logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return a batch in pieces of pixels, so that what is computed of one does not take much memory.

    Shape: logits `[B, K, H, W]` and a target as `Task` has it to the like of `[B, K, N]` and `[B, N]`, or `[B, K, N]`
    of a multilabel task.

    Raises:
        SegregError: the shapes do not belong together.
    """
    check_shapes(task, logits, target)
    size = max(1, _PIECE // max(1, logits.shape[0] * logits.shape[1]))
    flat, truth = logits.flatten(2), target.flatten(-2)
    for begin in range(0, flat.shape[-1], size):
        yield flat[..., begin : begin + size], truth[..., begin : begin + size]


def kinds_of(task: Task, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return each pixel's kind for each class, and how many pixels carry labels that the task does not have.

    Shape: logits `[B, K, ...]` and a target as `Task` has it to int32 `[B, K, ...]`, 0 = not of the class, 1 = of it,
    2 = counts for nothing, and an int64 scalar.
    """
    labels = target.view(logits.shape) if task.mode != "multiclass" else target.unsqueeze(1)
    known = (labels >= 0) & (labels < (task.channels if task.mode == "multiclass" else 2))
    strays = (~known & (labels != IGNORE_INDEX)).sum()
    if task.mode == "multiclass":
        shape = (1, -1, *[1] * (logits.dim() - 2))
        classes = torch.arange(task.channels, dtype=labels.dtype, device=labels.device).view(shape)
        return (labels == classes).to(torch.int32).masked_fill_(~known, 2), strays
    return labels.to(torch.int32).masked_fill(~known, 2), strays
