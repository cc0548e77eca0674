"""How recipes ask for losses that look at what is rare: hard pixels, and classes that few images show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from segreg.errors import SegregError
from segreg.settings import Fraction, NonNegativeFloat, PositiveInt
from segreg_plugins.losses.classes import one_each, refuse

if TYPE_CHECKING:
    from torch import nn

    from segreg.task import Task

# At 1 no class would have a weight, and a pixel of probability 0 is no easier than others.
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Probability = Annotated[float, Interval(gt=0, le=1)]


def ohem(task: Task, *, threshold: Probability = 0.7, min_kept: Fraction = 0.2) -> nn.Module:
    """Cross-entropy of hard pixels alone (online hard example mining).

    `-mean(log p_t)` over the pixels, and labels if multilabel, with p_t, the probability of what is true, below
    `threshold`, and over the hardest ones where these are less than `min_kept` of all.

    Args:
        threshold: probability of the truth from which a pixel is easy.
        min_kept: share of the batch's pixels that is kept at least. MMSegmentation's 100,000 pixels of a crop of
            512 by 1024 are 0.19.
    """
    from segreg_plugins.losses.mining import HardCrossEntropy

    return HardCrossEntropy(task, threshold, min_kept)


def class_balanced_focal(
    task: Task, *, class_counts: tuple[PositiveInt, ...], beta: BelowOne = 0.99, gamma: NonNegativeFloat = 2.0
) -> nn.Module:
    """Focal loss in which a class weighs by the effective number of its examples, for multiclass tasks.

    `focal` with `class_weights` of `(1 - beta) / (1 - beta^n)`, scaled to a mean of 1.

    Args:
        class_counts: n, how many examples of each class there are, in index order: training images that show it, which
            `segreg data check` counts, rather than pixels, of which neighbours are hardly another example.
        beta: 0 weights all classes alike, near 1 they weigh by 1 / n. The paper has 0.9 to 0.9999 for data sets of
            thousands of images.
        gamma: the larger, the less well-classified pixels count; 0 gives cross-entropy.

    Raises:
        SegregError: the task is not multiclass, there is not one count for each class, or all weights are alike though
            the counts are not.
    """
    refuse(task, ["binary", "multilabel"], "class_balanced_focal", 'use "focal" with alpha')
    counts = one_each(task, "class_counts", class_counts)
    weights = [(1 - beta) / (1 - beta**count) for count in counts]
    if min(weights) > 0.99 * max(weights) and min(counts) < 0.99 * max(counts):
        raise SegregError(
            f"beta {beta:g} weights all classes alike: of {min(counts):g} examples and more each counts as "
            f"{1 / min(weights):.0f}",
            hint="give a beta nearer to 1, such as 1 - 1/N for N images; or count images, not pixels",
        )
    scale = len(weights) / sum(weights)

    from segreg_plugins.losses.pixelwise import SoftmaxFocal

    return SoftmaxFocal(task, gamma, [weight * scale for weight in weights])
