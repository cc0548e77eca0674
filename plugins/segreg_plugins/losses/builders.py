"""How recipes ask for a single loss: names, settings and what each computes.

Every loss takes logits `[B, K, H, W]` of any float type, computes in float32, leaves out ignored pixels, and is a mean
over what counts. p is a pixel's probability, t its truth (0 or 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import Fraction, NonNegativeFloat, PositiveFloat
from segreg_plugins.losses.classes import kept_classes, one_each, refuse

if TYPE_CHECKING:
    from torch import nn

    from segreg.task import Task


def bce(
    task: Task,
    *,
    positive_weight: PositiveFloat | tuple[PositiveFloat, ...] = 1.0,
    label_smoothing: Fraction = 0.0,
) -> nn.Module:
    """Binary cross-entropy, for binary and multilabel tasks.

    `-mean(w t log p + (1 - t) log(1 - p))` over pixels, and over labels if multilabel.

    Args:
        positive_weight: w, the factor of foreground pixels; above 1 it favours recall. One number, or a list with one
            for each label.
        label_smoothing: share of the truth that is spread evenly over foreground and background: with 0.1, t is 0.95
            or 0.05.

    Raises:
        SegregError: the task is multiclass, or the list has not one number for each label.
    """
    refuse(task, ["multiclass"], "bce", 'its classes exclude each other; use "cross_entropy"')
    if isinstance(positive_weight, int | float):
        weights: tuple[float, ...] = (positive_weight,)
    else:
        weights = one_each(task, "positive_weight", positive_weight)

    from segreg_plugins.losses.pixelwise import BinaryCrossEntropy

    return BinaryCrossEntropy(task, weights, label_smoothing)


def cross_entropy(
    task: Task,
    *,
    class_weights: tuple[NonNegativeFloat, ...] | None = None,
    label_smoothing: Fraction = 0.0,
) -> nn.Module:
    """Softmax cross-entropy, for multiclass tasks.

    `-sum(w_t log p_t) / sum(w_t)` over pixels, t being the pixel's true class: as `torch.nn.CrossEntropyLoss`.

    Args:
        class_weights: w, one number for each class in index order; all 1 if null.
        label_smoothing: share of the truth that is spread evenly over all classes.

    Raises:
        SegregError: the task is not multiclass, or there is not one weight for each class.
    """
    refuse(task, ["binary", "multilabel"], "cross_entropy", 'its logits are sigmoids; use "bce"')
    weights = one_each(task, "class_weights", class_weights)

    from segreg_plugins.losses.pixelwise import CrossEntropy

    return CrossEntropy(task, weights, label_smoothing)


def focal(
    task: Task,
    *,
    gamma: NonNegativeFloat = 2.0,
    alpha: Fraction | None = None,
    class_weights: tuple[NonNegativeFloat, ...] | None = None,
) -> nn.Module:
    """Focal loss: cross-entropy in which well-classified pixels count little.

    `-mean(a_t (1 - p_t)^gamma log p_t)`, p_t being the probability of what is true of the pixel. a_t is `alpha` for
    foreground and `1 - alpha` for background. Multiclass: a_t is the weight of the true class, and the mean is the
    weighted one.

    Args:
        gamma: the larger, the less well-classified pixels count; 0 gives cross-entropy.
        alpha: weight of foreground pixels, 1 - alpha being the background's (binary and multilabel; the paper's
            detector has 0.25); null weights neither.
        class_weights: one number for each class in index order (multiclass); all 1 if null.

    Raises:
        SegregError: `alpha` for a multiclass task, `class_weights` for another, or not one weight for each class.
    """
    if alpha is not None:
        refuse(task, ["multiclass"], "focal's alpha", "give class_weights instead")
    if class_weights is not None:
        refuse(task, ["binary", "multilabel"], "focal's class_weights", "give alpha instead")
    weights = one_each(task, "class_weights", class_weights)

    from segreg_plugins.losses.pixelwise import SigmoidFocal, SoftmaxFocal

    return SoftmaxFocal(task, gamma, weights) if task.mode == "multiclass" else SigmoidFocal(task, gamma, alpha)


def dice(
    task: Task,
    *,
    smooth: PositiveFloat = 1.0,
    over: Literal["batch", "image"] = "batch",
    absent: Literal["count", "skip"] = "count",
    exclude: tuple[str, ...] = (),
) -> nn.Module:
    """Dice loss: one minus twice the overlap over the sum of both areas.

    `1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)` for each class, then the mean over classes.

    Args:
        smooth: pixels added above and below, so that an empty mask has a gradient.
        over: whether sums go over the whole `batch` or over each `image`, whose losses are then averaged.
        absent: whether a class with no true pixel in the batch (or image) does `count`, or is to `skip`.
        exclude: names of classes that don't take part, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = kept_classes(task, exclude)

    from segreg_plugins.losses.region import Tversky

    return Tversky(task, alpha=0.5, beta=0.5, smooth=smooth / 2, over=over, absent=absent, kept=kept)


def iou(
    task: Task,
    *,
    smooth: PositiveFloat = 1.0,
    over: Literal["batch", "image"] = "batch",
    absent: Literal["count", "skip"] = "count",
    exclude: tuple[str, ...] = (),
) -> nn.Module:
    """Soft Jaccard loss: one minus intersection over union.

    `1 - (sum(p t) + smooth) / (sum(p) + sum(t) - sum(p t) + smooth)` for each class, then the mean over classes.

    Args:
        smooth: pixels added above and below, so that an empty mask has a gradient.
        over: whether sums go over the whole `batch` or over each `image`, whose losses are then averaged.
        absent: whether a class with no true pixel in the batch (or image) does `count`, or is to `skip`.
        exclude: names of classes that don't take part, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = kept_classes(task, exclude)

    from segreg_plugins.losses.region import Tversky

    return Tversky(task, alpha=1.0, beta=1.0, smooth=smooth, over=over, absent=absent, kept=kept)


def tversky(
    task: Task,
    *,
    alpha: NonNegativeFloat = 0.3,
    beta: NonNegativeFloat = 0.7,
    smooth: PositiveFloat = 1.0,
    over: Literal["batch", "image"] = "batch",
    absent: Literal["count", "skip"] = "count",
    exclude: tuple[str, ...] = (),
) -> nn.Module:
    """Tversky loss: Dice that weighs false positives and false negatives apart.

    `1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)` for each class, then the mean over classes, where
    TP = sum(p t), FP = sum(p (1 - t)) and FN = sum((1 - p) t). Both 0.5 is Dice, both 1 is Jaccard.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; larger than alpha it favours recall.
        smooth: pixels added above and below, so that an empty mask has a gradient.
        over: whether sums go over the whole `batch` or over each `image`, whose losses are then averaged.
        absent: whether a class with no true pixel in the batch (or image) does `count`, or is to `skip`.
        exclude: names of classes that don't take part, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them; or `alpha` and `beta` are both 0.
    """
    kept = kept_classes(task, exclude)
    if alpha == beta == 0:
        raise SegregError("tversky with alpha and beta 0 is always 0", hint="give at least one of them a weight")

    from segreg_plugins.losses.region import Tversky

    return Tversky(task, alpha=alpha, beta=beta, smooth=smooth, over=over, absent=absent, kept=kept)


def lovasz(task: Task, *, over: Literal["batch", "image"] = "batch") -> nn.Module:
    """Lovasz loss: a convex surrogate of the Jaccard index.

    The Lovasz extension of the Jaccard loss at each pixel's error: `max(0, 1 - s z)` for logit z and truth s = +1 or -1
    (binary and multilabel; every label counts), `|t - p|` (multiclass; mean over the classes that the truth has).

    Args:
        over: whether errors are ranked over the whole `batch` or within each `image`, whose losses are then averaged.
    """
    from segreg_plugins.losses.lovasz import Lovasz

    return Lovasz(task, over)
