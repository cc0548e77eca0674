"""The one torchmetrics.Metric behind every built-in metric: it streams counts and scores them at the end.

Memory is constant: a confusion matrix pooled over all images, and for every score the sum of its values over images.
All scores are summed, not just the one asked for, so that metrics of the same settings have the same state and a
`torchmetrics.MetricCollection` counts pixels once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from segreg.errors import listed
from segreg.registry.plot_data import Matrix
from segreg_plugins.metrics.counts import Counts, confusion, counts_of, layout
from segreg_plugins.metrics.scores import SCORES, values
from segreg_plugins.metrics.wording import refuse_strays

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task


class StreamedScore(Metric):
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
    strays: Tensor
    image_sums: Tensor
    image_numbers: Tensor

    def __init__(self, task: Task, threshold: float, *, name: str, score: str, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.threshold = threshold
        self.name = name
        self.score = score
        self.kept = tuple(kept)
        groups, labels = layout(task)
        # A collection merges metrics whose states are equal after the first batch. This one keeps metrics with other
        # settings apart, though they may agree on that batch.
        self.add_state("settings", torch.tensor([threshold, *kept], dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("confusion", torch.zeros(groups, labels, labels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("strays", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("image_sums", torch.zeros(len(SCORES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("image_numbers", torch.zeros(len(SCORES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Counts one batch, without waiting for the device.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it. H and W may differ between batches.
        """
        matrices, strays = confusion(self.task, logits, target, self.threshold)
        self.confusion = self.confusion + matrices.sum(0)
        self.strays = self.strays + strays
        counts = counts_of(self.task, matrices)
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
        refuse_strays(self.task, int(self.strays))
        pooled, each = values(SCORES[self.score], counts_of(self.task, self.confusion), self._kept())
        row = list(SCORES).index(self.score)
        number_of_images = self.image_numbers[row]
        per_image = (self.image_sums[row] / number_of_images).where(number_of_images > 0, torch.nan)
        return {
            f"{self.name}.pooled": pooled,
            f"{self.name}.per_image_mean": per_image,
            **{f"{self.name}.class.{name}": each[i] for i, name in self._listed_classes()},
        }

    def per_image(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return every image's own values: `NAME` and, where there are several classes, `NAME.class.CLASS`.

        They leave what was counted so far as it is. The mean of `NAME` over images, NaN left out, is
        `NAME.per_image_mean`.

        Shape: logits `[B, K, H, W]` and a target as `Task` has it to float64 `[B]`.
        """
        matrices, _ = confusion(self.task, logits, target, self.threshold)
        mean, each = values(SCORES[self.score], counts_of(self.task, matrices), self._kept())
        return {self.name: mean, **{f"{self.name}.class.{name}": each[:, i] for i, name in self._listed_classes()}}

    def scores_of_counts(self, counts: Tensor) -> dict[str, Tensor]:
        """Return the values of `compute` that are pooled, for pixels counted elsewhere by the same threshold.

        Shape: int64 `[..., K, 4]`, true positives, false positives, false negatives and true negatives of each class,
        to float64 `[...]`.
        """
        tp, fp, fn, tn = counts.unbind(-1)
        pixels = counts.sum(-1)
        if self.task.mode == "multiclass":  # where each class counts every pixel
            right, all_pixels = tp.sum(-1, keepdim=True), pixels[..., :1]
        else:
            right, all_pixels = (tp + tn).sum(-1, keepdim=True), pixels.sum(-1, keepdim=True)
        pooled, each = values(SCORES[self.score], Counts(tp, fp, fn, tn, right, all_pixels), self._kept())
        return {
            f"{self.name}.pooled": pooled,
            **{f"{self.name}.class.{name}": each[..., i] for i, name in self._listed_classes()},
        }

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
        """Return one sentence for each value that `compute` gives."""
        score, task = SCORES[self.score], self.task
        several = len(task.classes) > 1
        if self.score == "accuracy":
            what = score.title + (", a pixel counting once for each label" if task.mode == "multilabel" else "")
        elif self.score == "mean_accuracy" and not several:
            what = f'mean of the shares of "{task.classes[0]}" pixels and of background pixels that were found'
        else:
            what = f"{score.title} of " + ("each class" if several else f'"{task.classes[0]}"')
        mean = ""
        if several and score.by_class:
            out = [name for name, kept in zip(task.classes, self.kept, strict=True) if not kept]
            which = f"all classes but {listed(out)}" if out else "all classes"
            mean = f", then the mean over {which}; a class {score.absent} is left out"
        empty = "; nothing there and nothing predicted counts as 1" if score.empty == 1 else ""
        rule = (
            "the class with the largest logit is predicted"
            if task.mode == "multiclass"
            else f"foreground from probability {self.threshold:g}"
        )
        end = f"{empty}; {rule}; ignored pixels left out"
        pixels = "counted over the pixels of all images together"
        found = {
            f"{self.name}.pooled": f"{what}, {pixels}{mean}{end}.",
            f"{self.name}.per_image_mean": f"{what}, counted in each image{mean}{end}; then the mean over images, "
            "without those where it is undefined.",
        }
        for _, name in self._listed_classes():
            found[f"{self.name}.class.{name}"] = (
                f'{score.title} of "{name}", {pixels}; undefined for a class {score.absent}; {rule}; '
                "ignored pixels left out."
            )
        return found

    def _kept(self) -> Tensor:
        return self.settings[1:] > 0

    def _listed_classes(self) -> list[tuple[int, str]]:
        """Return the classes that have a value of their own, with their index."""
        several = SCORES[self.score].by_class and len(self.task.classes) > 1
        return list(enumerate(self.task.classes)) if several else []
