"""How recipes ask for the usual pairs of losses by one name; any other sum is a list in the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.settings import Fraction, NonNegativeFloat, PositiveFloat
from segreg_plugins.losses import builders
from segreg_plugins.losses.classes import refuse

if TYPE_CHECKING:
    from torch import nn

    from segreg.task import Task


def dice_bce(
    task: Task,
    *,
    dice_weight: PositiveFloat = 1.0,
    bce_weight: PositiveFloat = 1.0,
    smooth: PositiveFloat = 1.0,
    over: Literal["batch", "image"] = "batch",
    positive_weight: PositiveFloat | tuple[PositiveFloat, ...] = 1.0,
    label_smoothing: Fraction = 0.0,
) -> nn.Module:
    """Dice plus binary cross-entropy, for binary and multilabel tasks.

    `dice_weight * dice + bce_weight * bce`, each as its own entry computes it.

    Args:
        dice_weight: factor of the Dice loss.
        bce_weight: factor of the cross-entropy.
        smooth: Dice's pixels added above and below.
        over: whether Dice's sums go over the whole `batch` or over each `image`.
        positive_weight: the cross-entropy's factor of foreground pixels, one number or one for each label.
        label_smoothing: share of the cross-entropy's truth that is spread over foreground and background.

    Raises:
        SegregError: the task is multiclass, or `positive_weight` has not one number for each label.
    """
    refuse(task, ["multiclass"], "dice_bce", 'its classes exclude each other; use "dice_ce"')

    from segreg_plugins.losses.weighted_sum import WeightedSum

    region = builders.dice(task, smooth=smooth, over=over)
    pixels = builders.bce(task, positive_weight=positive_weight, label_smoothing=label_smoothing)
    return WeightedSum([(dice_weight, region), (bce_weight, pixels)])


def dice_ce(
    task: Task,
    *,
    dice_weight: PositiveFloat = 1.0,
    ce_weight: PositiveFloat = 1.0,
    smooth: PositiveFloat = 1.0,
    over: Literal["batch", "image"] = "batch",
    class_weights: tuple[NonNegativeFloat, ...] | None = None,
    label_smoothing: Fraction = 0.0,
) -> nn.Module:
    """Dice plus softmax cross-entropy, for multiclass tasks.

    `dice_weight * dice + ce_weight * cross_entropy`, each as its own entry computes it.

    Args:
        dice_weight: factor of the Dice loss.
        ce_weight: factor of the cross-entropy.
        smooth: Dice's pixels added above and below.
        over: whether Dice's sums go over the whole `batch` or over each `image`.
        class_weights: the cross-entropy's weights, one for each class in index order; all 1 if null.
        label_smoothing: share of the cross-entropy's truth that is spread evenly over all classes.

    Raises:
        SegregError: the task is not multiclass, or there is not one weight for each class.
    """
    refuse(task, ["binary", "multilabel"], "dice_ce", 'its logits are sigmoids; use "dice_bce"')

    from segreg_plugins.losses.weighted_sum import WeightedSum

    region = builders.dice(task, smooth=smooth, over=over)
    pixels = builders.cross_entropy(task, class_weights=class_weights, label_smoothing=label_smoothing)
    return WeightedSum([(dice_weight, region), (ce_weight, pixels)])


def dice_focal(
    task: Task,
    *,
    dice_weight: PositiveFloat = 1.0,
    focal_weight: PositiveFloat = 1.0,
    smooth: PositiveFloat = 1.0,
    over: Literal["batch", "image"] = "batch",
    gamma: NonNegativeFloat = 2.0,
    alpha: Fraction | None = None,
) -> nn.Module:
    """Dice plus focal loss.

    `dice_weight * dice + focal_weight * focal`, each as its own entry computes it.

    Args:
        dice_weight: factor of the Dice loss.
        focal_weight: factor of the focal loss.
        smooth: Dice's pixels added above and below.
        over: whether Dice's sums go over the whole `batch` or over each `image`.
        gamma: the focal loss's exponent; the larger, the less well-classified pixels count.
        alpha: the focal loss's weight of foreground pixels (binary and multilabel); null weights neither.

    Raises:
        SegregError: `alpha` for a multiclass task.
    """
    from segreg_plugins.losses.weighted_sum import WeightedSum

    region = builders.dice(task, smooth=smooth, over=over)
    return WeightedSum([(dice_weight, region), (focal_weight, builders.focal(task, gamma=gamma, alpha=alpha))])
