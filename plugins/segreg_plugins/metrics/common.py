"""What metrics share: pixels in chunks and by kind, the names of values, and the sentences that define them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from segreg.errors import SegregError, listed
from segreg.evaluation.counts import check_shapes, matrix_layout
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

_CHUNK = 1 << 20
"""Logits that are computed with at once."""
_END = "ignored pixels left out."


def refuse_unknown(task: Task, number: int) -> None:
    """Refuse masks with pixels whose labels the task does not have.

    Raises:
        SegregError: there are such pixels.
    """
    if number:
        raise SegregError(
            f"{number} pixels of the masks carry labels that the task does not have",
            hint=f"a {task.mode} task of {listed(task.classes)} has 0 to {matrix_layout(task)[1] - 1} "
            "and 255, which is ignored",
        )


def by_class(task: Task, metric: str, pooled: Tensor, each: Tensor) -> dict[str, Tensor]:
    """Return `METRIC.pooled` `[...]` and, of several classes, `METRIC.class.CLASS`, from `each` `[..., K]`."""
    classes = task.classes if len(task.classes) > 1 else ()
    return {f"{metric}.pooled": pooled, **{f"{metric}.class.{name}": each[..., k] for k, name in enumerate(classes)}}


def which_classes(task: Task, kept: Sequence[bool]) -> str:
    """Return "all classes", or "all classes but ...", for a sentence about a mean over classes."""
    out = [name for name, keep in zip(task.classes, kept, strict=True) if not keep]
    return f"all classes but {listed(out)}" if out else "all classes"


def rule_of(task: Task, threshold: float) -> str:
    """Return how labels are predicted, for a sentence that defines a value."""
    if task.mode == "multiclass":
        return "the class with the largest logit is predicted"
    return f"foreground from probability {threshold:.12g}"


def definitions_of(
    task: Task, metric: str, kept: Sequence[bool], *, title: str, undefined: str, common: str = "", absent: str = ""
) -> dict[str, str]:
    """Return a sentence for each name of `by_class`.

    Args:
        task: the metric's.
        metric: its name.
        kept: for each class whether it takes part in the pooled value.
        title: what is measured, up to " of CLASS".
        undefined: when a class has no value.
        common: how the pooled value is found, if it is not the mean over classes.
        absent: when a class takes no part in the pooled value, if that is not when it has none of its own.
    """
    pixels = "counted over the pixels of all images together"
    rest = " against the rest" if task.mode == "multiclass" else ""
    if len(task.classes) == 1:
        return {f"{metric}.pooled": f'{title} of "{task.classes[0]}", {pixels}; undefined {undefined}; {_END}'}
    which = which_classes(task, kept)
    mean = common or "then the mean"
    found = {
        f"{metric}.pooled": f"{title} of each class{rest}, {pixels}, {mean} over {which}; "
        f"a class {absent or undefined} is left out; {_END}"
    }
    for name in task.classes:
        found[f"{metric}.class.{name}"] = f'{title} of "{name}"{rest}, {pixels}; undefined {undefined}; {_END}'
    return found


def chunks(task: Task, logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a batch in chunks of pixels, so that what is computed of one does not take much memory.

    Shape: logits `[B, K, H, W]` and a target as described in `Task`, to `[B, K, N]` and `[B, N]`, or `[B, K, N]` if
    multilabel.

    Raises:
        SegregError: the shapes do not match.
    """
    check_shapes(task, logits, target)
    size = max(1, _CHUNK // max(1, logits.shape[0] * logits.shape[1]))
    flat, truth = logits.flatten(2), target.flatten(-2)
    for begin in range(0, flat.shape[-1], size):
        yield flat[..., begin : begin + size], truth[..., begin : begin + size]


def kinds_of(task: Task, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return each pixel's kind for each class, and how many pixels carry labels that the task does not have.

    Shape: logits `[B, K, ...]` and a target as described in `Task`, to int32 `[B, K, ...]` (0 = not of it, 1 = of
    it, 2 = counts for nothing) and an int64 scalar.
    """
    labels = target.view(logits.shape) if task.mode != "multiclass" else target.unsqueeze(1)
    known = (labels >= 0) & (labels < (task.channels if task.mode == "multiclass" else 2))
    unknown = (~known & (labels != IGNORE_INDEX)).sum()
    if task.mode == "multiclass":
        shape = (1, -1, *[1] * (logits.dim() - 2))
        classes = torch.arange(task.channels, dtype=labels.dtype, device=labels.device).view(shape)
        return (labels == classes).to(torch.int32).masked_fill_(~known, 2), unknown
    return labels.to(torch.int32).masked_fill(~known, 2), unknown
