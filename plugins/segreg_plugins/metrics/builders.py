"""How recipes ask for a metric: names, settings and what each measures.

Those of predicted labels have a value pooled over all pixels, the mean of the images' own values, and one for each
class where there are several. Those of probabilities, the last five, have all but the mean over images, which only
`mse` has. `definitions` has a sentence for each value.
"""

from __future__ import annotations

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


def dice(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """Dice score: twice the overlap over the sum of both areas.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _counted(task, threshold, "dice", "dice", exclude)


def f1(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """F1 score of pixels: the Dice score by its other name.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _counted(task, threshold, "f1", "dice", exclude)


def iou(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """Intersection over union (Jaccard index); of several classes the mean, known as mIoU.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _counted(task, threshold, "iou", "iou", exclude)


def precision(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """Precision: the share of a class's predicted pixels that are right.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _counted(task, threshold, "precision", "precision", exclude)


def recall(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """Recall (sensitivity): the share of a class's true pixels that are found.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _counted(task, threshold, "recall", "recall", exclude)


def specificity(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> CountedScore:
    """Specificity: the share of pixels not of a class that are not predicted as it.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _counted(task, threshold, "specificity", "specificity", exclude)


def accuracy(task: Task, threshold: float) -> CountedScore:
    """Pixel accuracy: the share of pixels that are right, background included."""
    return _counted(task, threshold, "accuracy", "accuracy", ())


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
    return _counted(task, threshold, "mean_accuracy", "mean_accuracy", exclude)


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


def roc_auc(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> AreaUnderCurve:  # noqa: ARG001
    """Area under the ROC curve; of several classes the mean, each against the rest.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _area(task, "roc_auc", exclude)


def pr_auc(task: Task, threshold: float, *, exclude: tuple[str, ...] = ()) -> AreaUnderCurve:  # noqa: ARG001
    """Average precision (area under the precision-recall curve in steps); of several classes the mean.

    Args:
        exclude: names of classes that don't take part in the mean over classes, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    return _area(task, "pr_auc", exclude)


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


def _counted(task: Task, threshold: float, name: str, score: str, exclude: tuple[str, ...]) -> CountedScore:
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.counted import CountedScore

    return CountedScore(task, threshold, name=name, score=score, kept=kept)


def _area(task: Task, name: str, exclude: tuple[str, ...]) -> AreaUnderCurve:
    kept = kept_classes(task, exclude)

    from segreg_plugins.metrics.curves import AreaUnderCurve

    return AreaUnderCurve(task, name=name, kept=kept)
