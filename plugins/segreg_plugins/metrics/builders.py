"""How recipes ask for a metric: names, settings and what each measures.

Those of predicted labels have a value pooled over all pixels, the mean of the images' own values, and one for each
class where there are several. Those of probabilities, the last five, have all but the mean over images, which only
`mse` has. `definitions` has a sentence for each value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from segreg.settings import Fraction
from segreg_plugins.losses.classes import kept_classes, refuse

if TYPE_CHECKING:
    from segreg.task import Task
    from segreg_plugins.metrics.boundary import BoundaryIoU
    from segreg_plugins.metrics.counted import CountedScore
    from segreg_plugins.metrics.curves import AreaUnderCurve
    from segreg_plugins.metrics.probabilities import CalibrationError, SquaredError
    from segreg_plugins.metrics.thresholds import BestThreshold


_EXCLUDE = """

Args:
    exclude: names of classes that don't take part in the mean over classes, such as the background.

Raises:
    SegregError: `exclude` names no class of the task, or all of them.
"""


def _score(task: Task, threshold: float, name: str, score: str, exclude: tuple[str, ...]) -> CountedScore:
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.counted import CountedScore

    return CountedScore(task, threshold, name=name, score=score, kept=kept)


def _counted(name: str, score: str, about: str) -> Callable[..., CountedScore]:
    """Return the builder of a score by class, with its documentation."""

    def build(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
        return _score(task, threshold, name, score, exclude)

    build.__doc__ = about + _EXCLUDE
    build.__qualname__ = build.__name__ = name
    return build


def _area(name: str, about: str) -> Callable[..., AreaUnderCurve]:
    """Return the builder of an area under a curve, with its documentation."""

    def build(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> AreaUnderCurve:  # noqa: ARG001
        kept = kept_classes(task, exclude)

        from segreg_plugins.metrics.curves import AreaUnderCurve

        return AreaUnderCurve(task, name=name, kept=kept)

    build.__doc__ = about + _EXCLUDE
    build.__qualname__ = build.__name__ = name
    return build


dice = _counted("dice", "dice", "Dice score: twice the overlap over the sum of both areas.")
f1 = _counted("f1", "dice", "F1 score of pixels: the Dice score by its other name.")
iou = _counted("iou", "iou", "Intersection over union (Jaccard index); of several classes the mean, known as mIoU.")
precision = _counted("precision", "precision", "Precision: the share of a class's predicted pixels that are right.")
recall = _counted("recall", "recall", "Recall (sensitivity): the share of a class's true pixels that are found.")
specificity = _counted(
    "specificity", "specificity", "Specificity: the share of pixels not of a class that are not predicted as it."
)
roc_auc = _area("roc_auc", "Area under the ROC curve; of several classes the mean, each against the rest.")
pr_auc = _area(
    "pr_auc", "Average precision (area under the precision-recall curve in steps); of several classes the mean."
)


def accuracy(task: Task, threshold: float) -> CountedScore:
    """Pixel accuracy: the share of pixels that are right, background included."""
    return _score(task, threshold, "accuracy", "accuracy", ())


def mean_accuracy(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """Mean class accuracy (balanced accuracy): the mean share of each true class's pixels that are found.

    Unlike `recall` it leaves out a class that is predicted but not there, and of a binary task it is the mean over
    foreground and background.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: the task is multilabel, or `exclude` names no class of the task, or all of them.
    """
    refuse(task, ["multilabel"], "mean_accuracy", 'its classes don\'t exclude each other; use "recall"')
    return _score(task, threshold, "mean_accuracy", "mean_accuracy", exclude)


def boundary_iou(
    task: Task, threshold: float, *, dilation_ratio: Fraction = 0.02, exclude: tuple[str, ...] = ()
) -> BoundaryIoU:
    """Boundary IoU: the IoU of the pixels near the contours of truth and prediction.

    Args:
        dilation_ratio: how near, as a share of the image's diagonal, rounded to pixels and at least 1; the paper
            has 0.02.
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.boundary import BoundaryIoU

    return BoundaryIoU(task, threshold, dilation_ratio=dilation_ratio, kept=kept)


def mse(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> SquaredError:  # noqa: ARG001
    """Mean squared error of probabilities (Brier score); of several classes the mean.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.probabilities import SquaredError

    return SquaredError(task, kept=kept)


def ece(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CalibrationError:  # noqa: ARG001
    """Expected calibration error, in 15 equal bins: of the predicted class, and of each class's probability.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.probabilities import CalibrationError

    return CalibrationError(task, kept=kept)


def best_threshold(
    task: Task,
    threshold: float,  # noqa: ARG001
    *,
    score: Literal["f1", "iou"] = "f1",
    exclude: tuple[str, ...] = (),
) -> BestThreshold:
    """Threshold with the largest pooled F1 (Dice) or IoU on the pixels that are scored; binary and multilabel.

    Args:
        score: what is to be large. One class has its largest F1 and IoU at one threshold; means over classes may not.
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: the task is multiclass, or `exclude` names no class of the task, or all of them.
    """
    refuse(task, ["multiclass"], "best_threshold", "the class with the largest logit is predicted, without a threshold")
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.thresholds import BestThreshold

    return BestThreshold(task, score=score, kept=kept)
