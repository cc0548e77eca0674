"""Evaluate a trained network on a split: scores with intervals, a row for each image, overlays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from segreg.data import BatchLoader, PreprocessedDataset, restore
from segreg.data.cache import original_mask
from segreg.data.loader import places_by_size
from segreg.data.split import drawn, group_numbers
from segreg.data.values import as_shown
from segreg.evaluation.counts import write_counts, write_sums
from segreg.evaluation.scores import Scores, directions_of, evaluate, with_way
from segreg.evaluation.statistics import Measure, intervals
from segreg.inference.predictor import described, logits_of, prepare_image, scored_logits
from segreg.models import build
from segreg.runtime.distributed import count, rank
from segreg.runtime.files import replacing, write_text
from segreg.runtime.layout import Column, Table
from segreg.runtime.output import as_file_name, csv_text
from segreg.runtime.progress import Progress
from segreg.visualize.overlay import as_rgb
from segreg.visualize.panels import side_by_side

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torchmetrics import MetricCollection

    from segreg.config.resolve import Resolved
    from segreg.data import Batch
    from segreg.evaluation.scores import Predicted
    from segreg.inference.predictor import Predictor
    from segreg.registry.protocols import Dataset
    from segreg.task import Task

_MOST_READ = 1 << 24
"""Bytes of images that are left in memory after they were scored."""
Ranked = Sequence[tuple[int, Mapping[str, Any]]]
"""Images from the worst to the best: a sample's index and its row."""
Reason = Literal["worst", "best", "random"]
"""For showing an image."""


@dataclass(frozen=True)
class Overlay:
    """What an overlay shows.

    Shape: image uint8 `[H, W, 3]`; masks labels `[H, W]` or, if multilabel, `[K, H, W]`; 255 is ignored.

    Attributes:
        file: where it was written.
        image: the input, as a person sees it.
        masks: "truth", and "prediction" of the network.
        task: the classes.
    """

    file: Path
    image: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.uint8]]
    task: Task


@dataclass(frozen=True)
class Evaluator:
    """A trained network and the images that it is scored on.

    Attributes:
        recipe: names the metrics, their order, the threshold, the resolution and the seed of intervals.
        predictor: the network.
        dataset: the samples and their masks.
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
        """Return an evaluator with the metrics of the recipe."""
        return cls(recipe, predictor, dataset, prepared, build.build_metrics(recipe, dataset.task))

    def scores(
        self,
        indices: Sequence[int],
        title: str,
        progress: Progress,
        *,
        known: Mapping[tuple[Any, ...], Tensor] = MappingProxyType({}),
    ) -> Scores:
        """Score samples in their order; several processes share them, and all of them return all scores.

        Args:
            indices: of the samples in `Dataset.samples`.
            title: is shown with the progress.
            progress: shows it.
            known: logits of batches that the network has predicted already, by the ids and the shape of their images.

        Raises:
            SegregError: a mask holds labels that the task does not have.
        """
        order = places_by_size(self.prepared, indices)
        batches = self._in_order([indices[place] for place in order], rank=rank(), ranks=count())
        predictor = self.predictor
        predictor.model.eval()
        with progress.watch(title, sum(map(len, batches.plan(0))), "images") as advance:
            scores = evaluate(
                partial(self._predicted, known), _with_progress(batches, advance), self.metrics,
                task=self.dataset.task, threshold=self.recipe.evaluate.threshold, device=predictor.device,
            )  # fmt: skip
        way = described(predictor)
        definitions = {name: with_way(text, way) for name, text in scores.definitions.items()}
        groups = group_numbers(self.dataset.samples[index] for index in indices)
        scores = dataclasses.replace(_reordered(scores, order), definitions=definitions, groups=groups)
        intervals = _intervals(scores, self.metrics, self.recipe.seed)
        return _in_recipe_order(dataclasses.replace(scores, intervals=intervals), self.recipe)

    def directions(self, scores: Scores) -> dict[str, bool]:
        """Return whether larger is better, by the names of the scores and of single images' ones, where it is known."""
        names = {*scores.values, *scores.columns}
        found = directions_of(self.metrics).items()
        return {name: bool(larger) for name, larger in found if name in names and larger is not None}

    def ranked(self, indices: Sequence[int], scores: Scores) -> Ranked:
        """Return samples and their rows from the worst to the best by the recipe's first metric that images have.

        Images whose score is undefined come first.
        """
        pairs = list(zip(indices, scores.per_image, strict=True))
        if not scores.columns:
            return pairs
        column = scores.columns[0]
        sign = -1.0 if directions_of(self.metrics).get(column) is False else 1.0
        return sorted(pairs, key=lambda pair: -math.inf if math.isnan(pair[1][column]) else sign * pair[1][column])

    def save_overlays(
        self,
        chosen: Ranked,
        folder: Path,
        guard: Callable[[str], AbstractContextManager[object]],
        observe: Callable[[Overlay], None] | None = None,
    ) -> None:
        """Write an image with truth and prediction for each sample into a folder, numbered in their order.

        Those of an evaluation before are removed.

        Args:
            chosen: the samples.
            folder: of the images; it is made if there is something to write.
            guard: returns, for what is drawn, a context that may keep an error to itself, so that the others are drawn.
            observe: is given each that was written.
        """
        import torch

        for old in folder.glob("[0-9][0-9]*_*.png"):
            old.unlink()
        task = self.dataset.task
        for number, (index, row) in enumerate(chosen, start=1):
            file = folder / f"{number:02}_{as_file_name(str(row['id']))}.png"
            with guard(f"{folder.name}/{file.name}"):
                folder.mkdir(parents=True, exist_ok=True)
                batch = next(iter(self._in_order([index]).epoch(0)))
                logits = logits_of(self.predictor, batch.images)
                with torch.inference_mode():
                    labels = task.labels(logits, threshold=self.recipe.evaluate.threshold)[0].cpu().numpy()
                values = "  ".join(f"{n} {v:.3f}" for n, v in row.items() if n != "id" and ".class." not in n)
                pixels, truth = as_shown(batch.images[0].permute(1, 2, 0).numpy()), batch.targets[0].numpy()
                sheet = side_by_side(
                    pixels, truth, labels, task, title=f"{row['id']}  {values}", notice=self.dataset.notice
                )
                with replacing(file) as aside:
                    sheet.save(aside, format="PNG")
                if observe:
                    observe(Overlay(file, as_rgb(pixels), {"truth": truth, "prediction": labels}, task))

    def _in_order(self, indices: Sequence[int], *, rank: int = 0, ranks: int = 1) -> BatchLoader:
        size = self.recipe.evaluate.batch_size or self.recipe.train.batch
        return BatchLoader(self.prepared, indices, batch_size=size, order="in_order", rank=rank, world_size=ranks)

    def _predicted(self, known: Mapping[tuple[Any, ...], Tensor], batch: Batch) -> Iterator[Predicted]:
        """Return a batch's predictions; at the original resolution each image's alone, as `segreg predict` has them."""
        import torch

        predictor, section = self.predictor, self.recipe.input
        at_input = self.recipe.evaluate.resolution == "input" or section.resize == "crop"
        averages = predictor.config.averages
        logits = known.get((batch.ids, batch.images.shape))
        if logits is None and (at_input or not averages):
            logits = logits_of(predictor, batch.images)
        if at_input:
            assert logits is not None
            yield batch.ids, logits, batch.targets
            return
        for number, index in enumerate(batch.indices):
            sample = self.dataset.samples[index]
            if averages or logits is None:
                image = prepare_image([predictor], self.dataset.read_image(sample), sample.image, predictor.config)
                own = scored_logits(predictor, [image])[0].to(predictor.device)
            else:
                own = restore(logits[number], self.prepared.original_size(index), section)
            mask = original_mask(self.dataset, sample, self.prepared.input)
            yield batch.ids[number : number + 1], own[None], torch.from_numpy(mask)[None]


def choose_overlays(ranked: Ranked, count: int, seed: int) -> dict[Reason, Ranked]:
    """Return at most `count` images: a third the worst, a third the best, the rest at random from the others.

    Args:
        ranked: all images from the worst to the best.
        count: how many are shown. One is the worst, of two the other is the best.
        seed: of the random ones; with it, their ids alone decide which they are and their order.
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


def write_images(scores: Scores, task: Task, folder: Path) -> None:
    """Write each image's scores, `per_image.csv`, its counted pixels, `counts.csv`, and other sums, `sums.npz`."""
    write_rows(folder / "per_image.csv", scores)
    ids = [str(row["id"]) for row in scores.per_image]
    write_sums(folder / "sums.npz", ids, scores.sums)
    if scores.counts is not None:
        write_counts(folder / "counts.csv", ids, task.classes, scores.counts)


def write_rows(file: Path, scores: Scores) -> None:
    """Write each image's id and scores as CSV, and beside it `NAME_mean.csv` with one row, the columns' means.

    An image whose score is undefined is left out of that score's mean.
    """
    columns = ["id", *scores.columns]
    means: dict[str, Any] = {"id": "mean"}
    for name in columns[1:]:
        defined = [row[name] for row in scores.per_image if not math.isnan(row[name])]
        means[name] = math.fsum(defined) / len(defined) if defined else math.nan
    for own, rows in ((file, scores.per_image), (file.with_stem(f"{file.stem}_mean"), [means])):
        write_text(own, csv_text(columns, rows))


def format_values(values: Mapping[str, Any], intervals: Mapping[str, Sequence[float]]) -> Table:
    """Return a row for each value: its name, "0.1234" or "undefined", and its interval if it has one."""
    rows = []
    for name, value in values.items():
        number = "undefined" if value is None or math.isnan(value) else f"{value:.4f}"
        ends = None if number == "undefined" else intervals.get(name)
        rows.append([name, number, f"[{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""])
    return Table([Column(), Column(), Column()], rows, indent=2)


def _intervals(scores: Scores, metrics: MetricCollection, seed: int) -> dict[str, tuple[float, float]]:
    """Return the intervals of per-image means, and of pooled values that follow from counts or sums."""
    import numpy as np

    means = {name: f"{name}.per_image_mean" for name in scores.columns}
    means = {name: mean for name, mean in means.items() if mean in scores.values}
    values = np.array([[row[name] for name in means] for row in scores.per_image], np.float64)
    measures = [Measure.means(tuple(means.values()), values.reshape(1, len(scores.per_image), len(means)))]
    own = dict(metrics.items(copy_state=False))  # a copy of each would have a histogram of its own
    for metric in own.values():
        metric.to("cpu")
    if scores.counts is not None:
        of_counts = [metric.scores_of_counts for metric in own.values() if hasattr(metric, "scores_of_counts")]
        measures.append(Measure.pooled(scores.counts[None], of_counts, scores.values))
    measures += [
        Measure.pooled(each[None], [own[name].scores_of_sums], scores.values) for name, each in scores.sums.items()
    ]
    found = intervals([measure.by_group(scores.groups) for measure in measures], seed=seed)
    return {name: found[name] for name, value in scores.values.items() if name in found and not math.isnan(value)}


def _reordered(scores: Scores, order: Sequence[int]) -> Scores:
    """Return scores of images that were taken in another order, in their own."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return dataclasses.replace(
        scores,
        per_image=[scores.per_image[place] for place in back],
        counts=None if scores.counts is None else scores.counts[back],
        sums={name: each[back] for name, each in scores.sums.items()},
        nan=None if scores.nan is None else scores.nan[back],
    )


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


def _with_progress(batches: BatchLoader, advance: Callable[[int], None]) -> Iterator[Batch]:
    read = 0
    for batch in batches.epoch(0):
        yield batch
        advance(len(batch.ids))
        read += batch.images.numel()
        if read > _MOST_READ:  # each image is read once
            batches.prepared.release()
            read = 0
    batches.prepared.release()
