"""A trained network before the images it is scored on: scores with intervals, a row for each image, overlays."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.config.resolve import Resolved
from segreg.data import BatchLoader, PreprocessedDataset, restore
from segreg.data.split import drawn
from segreg.evaluation.counts import image_counts
from segreg.evaluation.counts_file import write_counts
from segreg.evaluation.intervals import bootstrap
from segreg.evaluation.scores import Scores, evaluate
from segreg.models import build
from segreg.runtime.distributed import count, rank
from segreg.runtime.files import replacing
from segreg.runtime.progress import Progress
from segreg.visualize.strips import side_by_side

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torchmetrics import MetricCollection

    from segreg.data import Batch
    from segreg.inference.predictor import Predictor
    from segreg.registry.protocols import Dataset
    from segreg.task import Task

_MOST_READ = 1 << 24
"""Bytes of images that are left in memory after they were scored."""
Ranked = Sequence[tuple[int, Mapping[str, Any]]]
"""Images from the worst to the best: a sample's index and its row."""
Shown = Literal["worst", "best", "random"]
"""Why a image is shown."""


@dataclass(frozen=True)
class Evaluator:
    """A trained network and the images that it is scored on.

    Attributes:
        recipe: names the metrics, their order, the threshold, the resolution and the seed of intervals.
        predictor: the network.
        dataset: where the images are.
        prepared: the images as arrays.
        metrics: the recipe's; after `scores` they hold what was counted last.
    """

    recipe: Resolved
    predictor: Predictor
    dataset: Dataset
    prepared: PreprocessedDataset
    metrics: MetricCollection

    @classmethod
    def of(cls, recipe: Resolved, predictor: Predictor, dataset: Dataset, prepared: PreprocessedDataset) -> Evaluator:
        """Build the metrics that belong to the others."""
        return cls(recipe, predictor, dataset, prepared, build.build_metrics(recipe, dataset.task))

    def scores(self, indices: Sequence[int], title: str, progress: Progress) -> Scores:
        """Scores some samples, in their order, streamed; several processes share them, and all get all scores.

        Args:
            indices: which, as indices into `Dataset.samples`.
            title: is shown with the progress.
            progress: is told what happens.

        Raises:
            SegregError: a mask holds labels that the task does not have.
        """
        batches = self._in_order(indices, part=rank(), parts=count())
        task, threshold = self.dataset.task, self.recipe.evaluate.threshold
        with progress.watch(title, sum(map(len, batches.plan(0))), "images") as advance:
            scores = evaluate(
                self.predictor.model, self.predictor.normalize, _told(batches, advance), self.metrics,
                device=self.predictor.device, precision=self.predictor.precision,
                original=self._at_its_own_size if self.recipe.evaluate.resolution == "original" else None,
                count=partial(image_counts, task, threshold=threshold),
            )  # fmt: skip
        scores = dataclasses.replace(scores, intervals=_intervals(scores, self.metrics, self.recipe.seed))
        return _in_recipe_order(scores, self.recipe)

    def ranked(self, indices: Sequence[int], scores: Scores) -> Ranked:
        """Return samples and their rows from the worst to the best by the recipe's first metric that images have.

        A image whose score is undefined stands before all others.
        """
        pairs = list(zip(indices, scores.per_image, strict=True))
        column = ranking_column(scores)
        if column is None:
            return pairs
        metric = self.metrics[column] if column in self.metrics else None  # noqa: SIM401 (it has no get)
        sign = -1.0 if getattr(metric, "higher_is_better", True) is False else 1.0
        undefined = float("-inf")
        return sorted(pairs, key=lambda pair: undefined if _is_nan(pair[1][column]) else sign * pair[1][column])

    def draw(self, chosen: Ranked, folder: Path) -> None:
        """Draw image, truth and prediction of samples into a folder, numbered in their order."""
        import torch

        folder.mkdir(parents=True, exist_ok=True)
        task = self.dataset.task
        for number, (index, row) in enumerate(chosen, start=1):
            batch = next(iter(self._in_order([index]).epoch(0)))
            logits = self.predictor.logits(batch.images)
            with torch.inference_mode():
                labels = task.labels(logits, threshold=self.recipe.evaluate.threshold)[0].cpu().numpy()
            told = "  ".join(f"{n} {v:.3f}" for n, v in row.items() if n != "id" and ".class." not in n)
            image = side_by_side(
                batch.images[0].permute(1, 2, 0).numpy(), batch.targets[0].numpy(), labels, task,
                title=f"{row['id']}  {told}", notice=self.dataset.notice,
            )  # fmt: skip
            name = re.sub(r"[^\w.-]+", "_", str(row["id"]))[:80]
            image.save(folder / f"{number:02}_{name}.png")

    def _in_order(self, indices: Sequence[int], *, part: int = 0, parts: int = 1) -> BatchLoader:
        size = self.recipe.evaluate.batch_size or self.recipe.train.batch
        return BatchLoader(self.prepared, indices, batch_size=size, order="in_order", part=part, parts=parts)

    def _at_its_own_size(self, index: int, logits: Tensor) -> tuple[Tensor, NDArray[np.uint8]]:
        size = self.prepared.original_size(index)
        return restore(logits, size, self.recipe.input), self.dataset.read_mask(self.dataset.samples[index])


def shown_of(ranked: Ranked, count: int, seed: int) -> dict[Shown, Ranked]:
    """Return at most `count` images: a third the worst, a third the best, the rest drawn at random from the others.

    Args:
        ranked: all images from the worst to the best.
        count: how many are to be shown. One is the worst, of two the other is the best.
        seed: decides with the ids alone which ones are drawn, in the order in which they are given.
    """
    count = min(count, len(ranked))
    at_random = count // 3
    best = (count - at_random) // 2
    worst = count - at_random - best
    between = {str(row["id"]): (index, row) for index, row in ranked[worst : len(ranked) - best]}
    return {
        "worst": ranked[:worst],
        "best": ranked[len(ranked) - best :][::-1],
        "random": [between[name] for name in drawn(between, seed, "shown")[:at_random]],
    }


def ranking_column(scores: Scores) -> str | None:
    """Return the first metric that single images have, by which they are ranked."""
    return next((name for name in (scores.per_image[0] if scores.per_image else {}) if name != "id"), None)


def write_images(scores: Scores, task: Task, folder: Path) -> None:
    """Write what each image reached, `per_image.csv`, and where they were counted its pixels, `counts.csv`."""
    write_rows(folder / "per_image.csv", scores)
    if scores.counts is not None:
        ids = [str(row["id"]) for row in scores.per_image]
        write_counts(folder / "counts.csv", ids, task.classes, scores.counts)


def write_rows(file: Path, scores: Scores) -> None:
    """Write each image's id and scores as CSV, and beside it `NAME_mean.csv` with one row, the columns' means.

    A image whose score is undefined is left out of that score's mean.
    """
    columns = list(scores.per_image[0]) if scores.per_image else ["id"]
    means: dict[str, Any] = {"id": "mean"}
    for name in columns[1:]:
        defined = [row[name] for row in scores.per_image if not _is_nan(row[name])]
        means[name] = math.fsum(defined) / len(defined) if defined else math.nan
    for own, rows in ((file, scores.per_image), (file.with_stem(f"{file.stem}_mean"), [means])):
        with replacing(own) as aside, aside.open("w", encoding="utf-8", newline="") as text:
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def number_in_words(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Return "0.1234", with its interval if it has one, or "undefined"."""
    if value is None or _is_nan(value):
        return "undefined"
    return f"{value:.4f}" + (f"  [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def values_in_words(values: Mapping[str, Any], intervals: Mapping[str, Sequence[float]]) -> list[str]:
    """Return a line for each value, with its interval behind it."""
    width = max(map(len, values), default=0)
    return [f"  {name:<{width}}  {number_in_words(value, intervals.get(name))}" for name, value in values.items()]


def _intervals(scores: Scores, metrics: MetricCollection, seed: int) -> dict[str, tuple[float, float]]:
    """Return the intervals of per-image means, and of pooled values that are made of counts or sums."""
    import torch

    names = [name for name in (scores.per_image[0] if scores.per_image else {}) if name != "id"]
    columns = {
        mean: [row[name] for row in scores.per_image]
        for name in names
        if (mean := f"{name}.per_image_mean") in scores.values
    }

    def scorer(score: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[NDArray[Any]], dict[str, NDArray[Any]]]:
        return lambda given: {name: values.numpy() for name, values in score(torch.from_numpy(given)).items()}

    own = dict(metrics.items(copy_state=False))  # a copy of each would have a histogram of its own
    for metric in own.values():
        metric.to("cpu")
    of_counts = [scorer(metric.scores_of_counts) for metric in own.values() if hasattr(metric, "scores_of_counts")]
    of_sums = [(each, scorer(own[name].scores_of_sums)) for name, each in scores.sums.items()]
    found = bootstrap(columns, scores.counts, of_counts, of_sums, seed=seed)
    return {name: found[name] for name, value in scores.values.items() if name in found and not _is_nan(value)}


def _in_recipe_order(scores: Scores, recipe: Resolved) -> Scores:
    """Return scores in the order in which the recipe names the metrics; a collection sorts them by name."""
    order = ["id", *(choice.part.name for choice in recipe.metrics)]

    def ordered(values: Mapping[str, Any]) -> dict[str, Any]:
        names = {name: name.split(".")[0] for name in values}
        return {n: values[n] for n in sorted(names, key=lambda n: order.index(names[n]) if names[n] in order else 99)}

    return dataclasses.replace(
        scores, values=ordered(scores.values), definitions=ordered(scores.definitions),
        per_image=[ordered(row) for row in scores.per_image], intervals=ordered(scores.intervals),
    )  # fmt: skip


def _told(batches: BatchLoader, advance: Callable[[int], None]) -> Iterator[Batch]:
    read = 0
    for batch in batches.epoch(0):
        yield batch
        advance(len(batch.ids))
        read += batch.images.numel()
        if read > _MOST_READ:  # each image is read once
            batches.prepared.release()
            read = 0
    batches.prepared.release()


def _is_nan(value: float) -> bool:
    return value != value  # noqa: PLR0124
