"""Metrics of counted pixels: Dice (F1), IoU, precision, recall, specificity, accuracy and mean accuracy.

Each is a formula in `SCORES`; `CountedScore` is the torchmetrics.Metric of them all. It streams: memory is constant, a
confusion matrix over all images, and for every score the sum of its values over images. All scores are summed, not just
the one asked for, so that metrics of the same settings have the same state and a `torchmetrics.MetricCollection`
counts pixels once for all of them. The pixels are counted by `segreg.evaluation.counts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torchmetrics import Metric

from segreg.evaluation.counts import PixelCounts, class_counts, count_pixels, matrix_layout
from segreg.registry.protocols import Matrix
from segreg_plugins.metrics.common import by_class, refuse_unknown, rule_of, which_classes

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class Counts(NamedTuple):
    """Numbers of pixels: of each class `[..., K]`, of all `[..., 1]`; of several labels each counts."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor
    right: Tensor
    pixels: Tensor

    @classmethod
    def of(cls, task: Task, counts: Tensor) -> Counts:
        """Return them for `[..., K, 4]`, as `segreg.evaluation.counts.class_counts` returns them."""
        tp, fp, fn, tn = counts.unbind(-1)
        if task.mode == "multiclass":  # each class counts every pixel
            return cls(tp, fp, fn, tn, tp.sum(-1, keepdim=True), counts[..., :1, :].sum(-1))
        return cls(tp, fp, fn, tn, (tp + tn).sum(-1, keepdim=True), counts.sum((-2, -1)).unsqueeze(-1))


class Fraction(NamedTuple):
    """A score as fractions `[..., J]`, one for each class, and which of them are defined."""

    numerator: Tensor
    denominator: Tensor
    defined: Tensor


@dataclass(frozen=True)
class Score:
    """A way to score counts.

    Attributes:
        title: the formula, for people.
        fraction: returns the fractions that are averaged.
        absent: which classes are left out, for people.
        empty: the value where there are pixels but every class is left out.
        by_class: whether there is one fraction for each class.
    """

    title: str
    fraction: Callable[[Counts], Fraction]
    absent: str
    empty: float = math.nan
    by_class: bool = True


def values(score: Score, counts: Counts, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over classes and each class's own value, NaN where there is none.

    Shape: counts `[..., K]` and bool `kept` `[K]`, the classes that take part in the mean, to float64 `[...]` and
    `[..., J]`, J being 1 or 2 where the score is not by class.
    """
    numerator, denominator, defined = score.fraction(counts)
    # 0 / 0 is 0 for a class that takes part: predicted and not there, or there and not predicted.
    each = numerator.double() / denominator.clamp(min=1)
    taking_part = defined & kept if score.by_class else defined
    number = taking_part.sum(-1)
    mean = (each * taking_part).sum(-1) / number.clamp(min=1)
    seen = ((counts.tp + counts.fp + counts.fn + counts.tn > 0) & kept).any(-1)
    mean = mean.where(number > 0, torch.where(seen, score.empty, math.nan))
    return mean, each.where(defined, math.nan)


def _dice(c: Counts) -> Fraction:
    return Fraction(2 * c.tp, 2 * c.tp + c.fp + c.fn, c.tp + c.fp + c.fn > 0)


def _iou(c: Counts) -> Fraction:
    return Fraction(c.tp, c.tp + c.fp + c.fn, c.tp + c.fp + c.fn > 0)


def _precision(c: Counts) -> Fraction:
    return Fraction(c.tp, c.tp + c.fp, c.tp + c.fp + c.fn > 0)


def _recall(c: Counts) -> Fraction:
    return Fraction(c.tp, c.tp + c.fn, c.tp + c.fp + c.fn > 0)


def _specificity(c: Counts) -> Fraction:
    return Fraction(c.tn, c.tn + c.fp, c.tn + c.fp > 0)


def _accuracy(c: Counts) -> Fraction:
    return Fraction(c.right, c.pixels, c.pixels > 0)


def _mean_accuracy(c: Counts) -> Fraction:
    right, true = c.tp, c.tp + c.fn
    if c.tp.shape[-1] == 1:  # binary: the background is the other class
        right, true = torch.cat([c.tn, c.tp], -1), torch.cat([c.tn + c.fp, c.tp + c.fn], -1)
    return Fraction(right, true, true > 0)


_ABSENT = "absent from both truth and prediction"

SCORES = {
    "dice": Score("Dice = F1 = 2 TP / (2 TP + FP + FN)", _dice, _ABSENT, empty=1.0),
    "iou": Score("IoU = Jaccard = TP / (TP + FP + FN)", _iou, _ABSENT, empty=1.0),
    "precision": Score("precision = TP / (TP + FP)", _precision, _ABSENT, empty=1.0),
    "recall": Score("recall = sensitivity = TP / (TP + FN)", _recall, _ABSENT, empty=1.0),
    "specificity": Score("specificity = TN / (TN + FP)", _specificity, "that all pixels truly are"),
    "accuracy": Score("accuracy = right pixels / pixels", _accuracy, "", by_class=False),
    "mean_accuracy": Score("TP / (TP + FN)", _mean_accuracy, "absent from the truth"),
}


def with_mean(name: str, found: dict[str, Tensor], mean: Tensor) -> dict[str, Tensor]:
    """Return a metric's values with the mean over images behind the pooled value."""
    return {f"{name}.pooled": found[f"{name}.pooled"], f"{name}.per_image_mean": mean, **found}


def definitions_of_score(
    task: Task, threshold: float, kept: Sequence[bool], *, name: str, score: Score, what: str = ""
) -> dict[str, str]:
    """Return a sentence for each value of a metric of counted pixels.

    Args:
        task: the metric's.
        threshold: the metric's.
        kept: for each class whether it takes part in means over classes.
        name: the metric's.
        score: how the counts are scored.
        what: what is scored, if it is not the score of each class.
    """
    several = score.by_class and len(task.classes) > 1
    what = what or f"{score.title} of " + ("each class" if several else f'"{task.classes[0]}"')
    mean = f", then the mean over {which_classes(task, kept)}; a class {score.absent} is left out" if several else ""
    empty = "; nothing there and nothing predicted counts as 1" if score.empty == 1 else ""
    end = f"{rule_of(task, threshold)}; ignored pixels left out"
    pixels = "counted over the pixels of all images together"
    found = {
        f"{name}.pooled": f"{what}, {pixels}{mean}{empty}; {end}.",
        f"{name}.per_image_mean": f"{what}, counted in each image{mean}{empty}; {end}; then the mean over images, "
        "without those where it is undefined.",
    }
    for one in task.classes if several else ():
        found[f"{name}.class.{one}"] = (
            f'{score.title} of "{one}", {pixels}; undefined for a class {score.absent}; {end}.'
        )
    return found


class CountedScore(Metric):
    """One score of predictions: pooled over all images, and as the mean of the images' own values.

    Args:
        task: any task.
        threshold: probability from which a pixel is foreground (binary and multilabel).
        name: what the values are called.
        score: a key of `SCORES`.
        kept: for each class whether it takes part in means over classes.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    settings: Tensor
    confusion: Tensor
    unknown: Tensor
    image_sums: Tensor
    image_numbers: Tensor

    def __init__(self, task: Task, threshold: float, *, name: str, score: str, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.threshold = threshold
        self.name = name
        self.score = score
        self.kept = tuple(kept)
        groups, labels = matrix_layout(task)
        # A collection merges metrics whose states are equal after the first batch. This one keeps metrics with other
        # settings apart, though they may agree on that batch.
        self.add_state("settings", torch.tensor([threshold, *kept], dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("confusion", torch.zeros(groups, labels, labels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("image_sums", torch.zeros(len(SCORES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("image_numbers", torch.zeros(len(SCORES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, *, pixels: PixelCounts | None = None) -> None:
        """Add one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as described in `Task`. H and W may differ between batches.

        Args:
            logits: of the batch.
            target: of the batch.
            pixels: the batch as it was counted already, by the same threshold; None counts it.

        Raises:
            SegregError: the shapes do not match.
        """
        pixels = pixels or count_pixels(self.task, logits, target, self.threshold)
        self.confusion = self.confusion + pixels.confusion.sum(0)
        self.unknown = self.unknown + pixels.unknown
        counts = self._counts(pixels.confusion)
        each = torch.stack([values(score, counts, self._kept())[0] for score in SCORES.values()])
        there = ~each.isnan()
        self.image_sums = self.image_sums + each.where(there, 0.0).sum(1)
        self.image_numbers = self.image_numbers + there.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Return `NAME.pooled`, `NAME.per_image_mean` and, where there are several classes, `NAME.class.CLASS`.

        Float64 scalars. NaN: no pixel counted, or the class is left out.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        # The one place that waits for the device.
        refuse_unknown(self.task, int(self.unknown))
        found = self.scores_of_counts(class_counts(self.task, self.confusion))
        row = list(SCORES).index(self.score)
        return with_mean(self.name, found, self.image_sums[row] / self.image_numbers[row])

    def scores_of_counts(self, counts: Tensor) -> dict[str, Tensor]:
        """Return the pooled values of `compute`, for pixels counted elsewhere by the same threshold.

        Shape: int64 `[..., K, 4]`, true positives, false positives, false negatives and true negatives of each class,
        to float64 `[...]`.
        """
        score = SCORES[self.score]
        pooled, each = values(score, Counts.of(self.task, counts), self._kept().to(counts.device))
        return by_class(self.task, self.name, pooled, each) if score.by_class else {f"{self.name}.pooled": pooled}

    def tables(self) -> dict[str, Matrix]:
        """Return the confusion matrices, by their names; of accuracy alone, for other scores have the same."""
        if self.score != "accuracy":
            return {}
        task, counts = self.task, self.confusion.cpu().numpy()
        if task.mode == "multiclass":
            return {"confusion": Matrix("", task.classes, counts[0])}
        if task.mode == "binary":
            return {"confusion": Matrix("", ("background", task.classes[0]), counts[0])}
        return {
            f"confusion.{name}": Matrix(name, ("absent", "present"), counts[k]) for k, name in enumerate(task.classes)
        }

    @property
    def definitions(self) -> dict[str, str]:
        """Return a sentence for each value of `compute`."""
        task, what = self.task, ""
        if self.score == "accuracy":
            what = SCORES["accuracy"].title
            what += ", a pixel counting once for each label" if task.mode == "multilabel" else ""
        elif self.score == "mean_accuracy" and len(task.classes) == 1:
            what = f'mean of the shares of "{task.classes[0]}" pixels and of background pixels that were found'
        return definitions_of_score(
            task, self.threshold, self.kept, name=self.name, score=SCORES[self.score], what=what
        )

    def _counts(self, confusion: Tensor) -> Counts:
        return Counts.of(self.task, class_counts(self.task, confusion))

    def _kept(self) -> Tensor:
        return self.settings[1:] > 0
