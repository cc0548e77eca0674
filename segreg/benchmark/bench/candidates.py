"""Scores of a bench's models, and of pairs of them, on images that their networks were not trained on."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from segreg.benchmark.bench.models import BenchModel
from segreg.benchmark.comparison.compare import seed_of
from segreg.data.cache import original_mask
from segreg.data.split import group_numbers
from segreg.errors import SegregError, listed
from segreg.evaluation.scores import ImageScorer
from segreg.evaluation.statistics import Measure
from segreg.inference.cleaning import Cleaning, clean
from segreg.inference.predictor import Predictor, common_config, common_threshold, predict, prepare_image
from segreg.models import build
from segreg.runs.records import read_split
from segreg.runs.scored import Scored, measure_of
from segreg.runs.trained_run import Run
from segreg.runtime.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import MetricCollection

    from segreg.registry.protocols import Dataset, Sample

Models = tuple[str, ...]
"""The name of one model, or of the two of a pair."""
Scorers = Mapping[str, Mapping[int, Run]]
"""By the model's name and the seed, the run that has not been trained on an image."""


@dataclass(frozen=True)
class ValImages:
    """The images of a bench on which a choice can be made: those of val in each model's runs.

    Attributes:
        dataset: has them.
        samples: the images that every model has a run for, in each of its seeds.
        scorers: for each of them the runs that were not trained on it.
        left_out: models with the seeds of which not all folds have finished.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    scorers: Sequence[Scorers]
    left_out: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, models: Sequence[BenchModel]) -> ValImages:
        """Return those of some models.

        Raises:
            SegregError: the models' data sets differ, an image is gone, or the models have none in common.
        """
        first = models[0].runs[0]
        recipe = first.recipe
        for model in models[1:]:
            if model.runs[0].recipe.dataset.plain() != recipe.dataset.plain():
                raise SegregError(f"{models[0].name} and {model.name} were trained on different data sets")
        by_image: dict[str, dict[str, dict[int, Run]]] = {}
        seeds, left_out = {}, {}
        for model in models:
            kept = model.by_seed()
            seeds[model.name] = set(kept)
            if left := {seed_of(run) for run in model.runs} - set(kept):
                left_out[model.name] = sorted(left)
            for seed, runs in kept.items():
                for run in runs:
                    for image in read_split(run.directory.split)["val"]:
                        by_image.setdefault(image, {}).setdefault(model.name, {})[seed] = run
        common = {
            image: found
            for image, found in by_image.items()
            if all(set(found.get(name, ())) == of_model for name, of_model in seeds.items())
        }
        if not common:
            raise SegregError(
                "these models have no validation image in common", hint="their runs split the data alike?"
            )
        dataset = build.build_dataset(recipe)
        if dataset.task != first.task:
            raise SegregError(f"the classes of {recipe.dataset.part.name} have changed since the bench")
        there = {sample.id for sample in dataset.samples}
        if gone := [image for image in common if image not in there]:
            raise SegregError(
                f"{len(gone)} of {len(common)} images are gone from {recipe.dataset.part.name}: {listed(gone, most=5)}"
            )
        samples = [sample for sample in dataset.samples if sample.id in common]
        return cls(dataset, samples, [common[sample.id] for sample in samples], left_out)

    @property
    def groups(self) -> list[int] | None:
        """Return the group of each image; None where each is one by itself."""
        return group_numbers(self.samples)

    def by_runs(self) -> Iterator[tuple[int, Mapping[str, Run], list[Sample]]]:
        """Return for each seed the images that the same runs have not seen, with these runs by the model's name."""
        found: dict[tuple[int, tuple[str, ...]], tuple[Mapping[str, Run], list[Sample]]] = {}
        for sample, scorers in zip(self.samples, self.scorers, strict=True):
            for seed in sorted({seed for runs in scorers.values() for seed in runs}):
                own = {name: of_seed[seed] for name, of_seed in scorers.items() if seed in of_seed}
                key = seed, tuple(str(run.directory.path) for run in own.values())
                found.setdefault(key, (own, []))[1].append(sample)
        for (seed, _), (runs, samples) in found.items():
            yield seed, runs, samples


@dataclass
class Collected:
    """A candidate's scores so far: a scorer for each seed.

    Attributes:
        metric: full name of the score.
        metrics: returns the metric that has it, new for each seed.
        run: whose classes and threshold hold.
        scorers: by the seed.
    """

    metric: str
    metrics: Callable[[], MetricCollection]
    run: Run
    threshold: float
    scorers: dict[int, ImageScorer] = field(default_factory=dict)

    def add(self, seed: int, identity: str, logits: Tensor, target: Tensor) -> None:
        """Score an image, logits `[K, H, W]`."""
        if seed not in self.scorers:
            self.scorers[seed] = ImageScorer(
                self.metrics(), task=self.run.task, threshold=self.threshold, device=logits.device
            )
        self.scorers[seed].add([identity], logits[None], target[None])

    def measure(self, samples: Sequence[Sample], groups: Sequence[int] | None) -> Measure:
        """Return the score of the images, or of their groups; without a name where single images don't add up to it."""
        seeds = [self._scored(self.scorers[seed]) for seed in sorted(self.scorers)]
        ids = [sample.id for sample in samples]
        return measure_of(seeds, ids, self.metrics(), names=[self.metric], groups=groups)

    def _scored(self, scorer: ImageScorer) -> Scored:
        arrays = {name: block.array() for name, block in scorer.sums.items()}
        sums = {name: each for name, each in arrays.items() if each is not None}
        return Scored.of_rows({self.metric: math.nan}, scorer.rows, scorer.counts.array(), sums, runs=(self.run,))


def collected(metric: str, run: Run, threshold: float) -> Collected:
    """Return what collects a candidate's scores, by the metric of a run's recipe that has this score."""
    choices = tuple(choice for choice in run.recipe.metrics if choice.part.name == metric.partition(".")[0])
    evaluate = dataclasses.replace(run.recipe.evaluate, threshold=threshold)
    recipe = dataclasses.replace(run.recipe, metrics=choices, evaluate=evaluate)
    return Collected(metric, lambda: build.build_metrics(recipe, run.task), run, threshold)


def score_candidates(
    images: ValImages, metric: str, *, device: str, progress: Progress
) -> tuple[dict[Models, Collected], dict[Models, str]]:
    """Predict the images with every model, and return the scores of each and of each pair.

    A pair's probabilities are the mean of both models', as `segreg predict` makes it of two runs.

    Returns:
        the scores, and why a pair has none: its models are not predicted with in one way.
    """
    found: dict[Models, Collected] = {}
    left_out: dict[Models, str] = {}
    total = sum(len(samples) * len(runs) for _, runs, samples in images.by_runs())
    with progress.watch("predicting", total, "images") as advance:
        for seed, runs, samples in images.by_runs():
            predictors = {name: _predictor(run, device) for name, run in runs.items()}
            for pair in itertools.combinations(predictors, 2):
                try:
                    common_threshold([predictors[name] for name in pair], None)
                    common_config([predictors[name] for name in pair])
                except SegregError as error:
                    left_out[pair] = error.problems[0].message
            for sample in samples:
                target, probabilities = _target(images.dataset, sample, next(iter(runs.values()))), {}
                for name, predictor in predictors.items():
                    logits, probabilities[name] = _maps([predictor], images.dataset, sample)
                    of_model = found.setdefault((name,), collected(metric, runs[name], predictor.threshold))
                    of_model.add(seed, sample.id, logits, target)
                    advance(1, note=name)
                for pair in itertools.combinations(predictors, 2):
                    if pair not in left_out:
                        one, other = (probabilities[name] for name in pair)
                        first = predictors[pair[0]]
                        logits = first.task.logits_of(((one + other) / 2)[None], threshold=first.threshold)[0]
                        of_pair = found.setdefault(pair, collected(metric, runs[pair[0]], first.threshold))
                        of_pair.add(seed, sample.id, logits, target)
    return found, left_out


def score_cleaned(
    chosen: Models, cleanings: Sequence[Cleaning], images: ValImages, metric: str, *, device: str, progress: Progress
) -> list[Collected]:
    """Predict the images with one candidate, and return the scores of its labels with each cleaning."""
    found: list[Collected] = []
    total = sum(len(samples) for _, _, samples in images.by_runs())
    with progress.watch("cleaning", total, "images") as advance:
        for seed, runs, samples in images.by_runs():
            if not all(name in runs for name in chosen):
                continue
            predictors = [_predictor(runs[name], device) for name in chosen]
            task, threshold = predictors[0].task, predictors[0].threshold
            found = found or [collected(metric, runs[chosen[0]], threshold) for _ in cleanings]
            for sample in samples:
                logits, _ = _maps(predictors, images.dataset, sample)
                labels = task.labels(logits[None], threshold=threshold)[0].numpy().astype(np.uint8)
                target = _target(images.dataset, sample, runs[chosen[0]])
                for cleaning, scores in zip(cleanings, found, strict=True):
                    cleaned = torch.from_numpy(clean(labels, task, cleaning) if cleaning else labels).long()
                    certain = task.logits_of(task.one_hot(cleaned[None])[0], threshold=threshold)[0]
                    scores.add(seed, sample.id, certain, target)
                advance(1)
    return found


def _predictor(run: Run, device: str) -> Predictor:
    """Return a run's best network, which is let go with it."""
    return Run(run.directory).predictor("best", device=device, precision="recipe")


def _target(dataset: Dataset, sample: Sample, run: Run) -> Tensor:
    return torch.from_numpy(original_mask(dataset, sample, run.recipe.input))


def _maps(predictors: Sequence[Predictor], dataset: Dataset, sample: Sample) -> tuple[Tensor, Tensor]:
    """Return logits and probabilities, float32 `[K, H, W]`, at an image's own size, as `segreg predict` has them."""
    config = common_config(predictors)
    image = prepare_image(predictors, dataset.read_image(sample), sample.image, config)
    ((_, rows),) = predict(predictors, [image], config)
    strips = list(rows)
    return (
        torch.cat([strip.logits for strip in strips], dim=-2),
        torch.cat([torch.from_numpy(strip.probabilities) for strip in strips], dim=-2),
    )
