"""Scores of the same predictions as other libraries print them: their formulas, which differ where classes are absent.

`segmentation-models-pytorch` 0.6, `mmsegmentation` 1.2, `torchmetrics` 1.9 and `scikit-learn` 1.9, each as it is called
by default or in its own examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from segreg.errors import SegregError
from segreg.evaluation.counts import FN, FP, TN, TP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task

    Counts = NDArray[np.int64]
    Values = NDArray[np.float64]

Library = Literal["smp", "mmseg", "torchmetrics", "sklearn"]
LIBRARIES: tuple[Library, ...] = get_args(Library)


@dataclass(frozen=True)
class Printed:
    """What a library prints.

    Attributes:
        values: each number by the call that returns it; NaN where the library returns NaN.
        how: what the library does otherwise than segreg, a sentence or two.
        digits: how many it prints behind the point.
    """

    values: dict[str, float]
    how: str
    digits: int = 4


def scores_of_library(library: Library, task: Task, counts: Counts) -> Printed:
    """Return what a library prints for predictions that were counted.

    Shape: int64 `[N, K, 4]`, as `segreg.evaluation.counts` has them for each of N images.

    Raises:
        SegregError: the library does not know such tasks.
    """
    return _LIBRARIES[library](task, counts)


def _smp(task: Task, counts: Counts) -> Printed:
    """`smp.metrics.iou_score` and `f1_score` on `get_stats`, with the default zero_division=1.0."""
    values: dict[str, float] = {}
    for name, score in (("iou_score", _iou), ("f1_score", _dice)):
        values |= {
            f"{name} micro": float(score(counts.sum((0, 1)))),
            f"{name} macro": float(_filled(score(counts.sum(0)), 1.0).mean()),
            f"{name} micro-imagewise": float(_filled(score(counts.sum(1)), 1.0).mean()),
            f"{name} macro-imagewise": float(_filled(score(counts), 1.0).mean()),
        }
    if task.mode == "binary":
        how = (
            "Of the foreground, so that macro is micro; micro counts the pixels of all images together. In the "
            "imagewise ones an image where nothing is there and nothing predicted counts as 1 (zero_division=1.0), as "
            "in segreg's mean over images."
        )
    else:
        how = (
            "micro adds up the pixels of all classes, a background class too, before it divides; segreg never does. "
            "macro counts a class that is neither there nor predicted as 1 (zero_division=1.0), which segreg leaves "
            "out, and so macro-imagewise does in each image."
        )
    return Printed(values, how)


def _mmseg(task: Task, counts: Counts) -> Printed:
    """`IoUMetric` with mIoU and mDice, in percent with two decimals."""
    import numpy as np

    if task.mode == "multilabel":
        raise SegregError(
            "mmsegmentation has no metric for classes that may overlap", hint="smp, torchmetrics and sklearn have"
        )
    pooled = counts.sum(0)
    if task.mode == "binary":  # the ground is its first class; what is right of one is wrong of the other
        pooled = np.stack([pooled[0, [TN, FN, FP, TP]], pooled[0]])
    tp, true = pooled[:, TP], pooled[:, TP] + pooled[:, FN]
    means = {"mIoU": _iou(pooled), "mAcc": _over(tp, true), "mDice": _dice(pooled)}
    accuracy = float(_over(tp.sum(), true.sum()))
    values = {"aAcc": accuracy} | {name: _mean_of_defined(each) for name, each in means.items()}
    ground = (
        "It has the background as a class of its own, which takes part in the means. " if len(task.classes) < 2 else ""
    )
    return Printed(
        {name: round(100 * value, 2) for name, value in values.items()},
        f"{ground}Percent, rounded to two decimals; pixels of all images together, then the mean over classes, those "
        "that are NaN left out.",
        digits=2,
    )


def _torchmetrics(task: Task, counts: Counts) -> Printed:
    """`JaccardIndex` and `F1Score` with average="macro" and ignore_index=255."""
    pooled = counts.sum(0)
    scores = {"JaccardIndex": _filled(_iou(pooled), 0.0), "F1Score": _filled(_dice(pooled), 0.0)}
    if task.mode == "binary":
        values = {f"Binary{name}": float(each[0]) for name, each in scores.items()}
        return Printed(values, "Of the foreground, pixels of all images together; 0 where nothing is there and nothing "
                    "predicted, which segreg counts as 1. Its Dice is its F1.")  # fmt: skip
    if task.mode == "multilabel":
        values = {f"Multilabel{name} macro": float(each.mean()) for name, each in scores.items()}
        return Printed(values, "Pixels of all images together, then the mean over all classes; a class that is neither "
                    "there nor predicted counts as 0, which segreg leaves out. Its Dice is its F1.")  # fmt: skip
    here = pooled[:, TP] + pooled[:, FP] + pooled[:, FN] > 0
    nan = float("nan")
    values = {
        f"Multiclass{name} macro": float(each[here].mean()) if here.any() else nan for name, each in scores.items()
    }
    if not here.any():
        values["MulticlassF1Score macro"] = 0.0  # it divides by zero to 0 here and to NaN there
    return Printed(values, "Pixels of all images together, then the mean over classes, those neither there nor "
                "predicted left out, as in segreg's pooled values. Its Dice is its F1.")  # fmt: skip


def _sklearn(task: Task, counts: Counts) -> Printed:
    """`jaccard_score` and `f1_score` of all pixels, with zero_division=0."""
    pooled = counts.sum(0)
    average = "binary" if task.mode == "binary" else "macro"
    if task.mode == "multiclass":  # it knows only labels that it sees
        pooled = pooled[pooled[:, TP] + pooled[:, FP] + pooled[:, FN] > 0]
    scores = {"jaccard_score": _filled(_iou(pooled), 0.0), "f1_score": _filled(_dice(pooled), 0.0)}
    values = {f"{name} {average}": float(each.mean()) if len(each) else float("nan") for name, each in scores.items()}
    how = {
        "binary": "0 where nothing is there and nothing predicted (zero_division=0), which segreg counts as 1",
        "multiclass": "it averages over the labels that it sees in truth or prediction, as segreg's pooled values do",
        "multilabel": "a class that is neither there nor predicted counts as 0 (zero_division=0), which segreg leaves "
        "out of the mean",
    }
    return Printed(values, f"All pixels in one list, those that are ignored taken out before; {how[task.mode]}.")


_LIBRARIES: dict[Library, Callable[[Task, Counts], Printed]] = {
    "smp": _smp, "mmseg": _mmseg, "torchmetrics": _torchmetrics, "sklearn": _sklearn,
}  # fmt: skip


def _iou(counts: Counts) -> Values:
    return _over(counts[..., TP], counts[..., TP] + counts[..., FP] + counts[..., FN])


def _dice(counts: Counts) -> Values:
    return _over(2 * counts[..., TP], 2 * counts[..., TP] + counts[..., FP] + counts[..., FN])


def _over(numerator: Counts, denominator: Counts) -> Values:
    """Return NaN where there is nothing to divide by."""
    import numpy as np

    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def _filled(values: Values, instead: float) -> Values:
    import numpy as np

    return np.where(np.isnan(values), instead, values)


def _mean_of_defined(values: Values) -> float:
    defined = values[values == values]  # noqa: PLR0124
    return float(defined.mean()) if len(defined) else float("nan")
